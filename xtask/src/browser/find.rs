//! Which browser is here, and how to get one.

use std::path::{Path, PathBuf};

use crate::packages::{self, in_path};

/// Programs that are Chromium, by their names in PATH.
const NAMES: [&str; 5] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];

/// Where it lies on systems that keep it out of PATH.
const PLACES: [&str; 2] = [
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

/// The browser named by the variable CHROMIUM, else the first of those known that is installed.
pub fn find() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CHROMIUM").filter(|named| !named.is_empty()) {
        return in_path(Path::new(&named));
    }
    NAMES.iter().chain(&PLACES).find_map(|name| in_path(Path::new(name)))
}

/// Has the system's package manager install Chromium if there is none; returns whether there is one then.
pub fn install() -> bool {
    if find().is_some() {
        return true;
    }
    eprintln!("== installing Chromium");
    packages::install(&["chromium"]) && find().is_some()
}
