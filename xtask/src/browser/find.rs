//! Which browser is here, and how to get one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Programs that are Chromium, by their names in PATH.
const NAMES: [&str; 5] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];

/// Where it lies on systems that keep it out of PATH.
const PLACES: [&str; 2] = [
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

/// Package managers, and what each is told.
const MANAGERS: [&[&[&str]]; 4] = [
    &[&["apt-get", "update"], &["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]],
    &[&["dnf", "install", "--assumeyes", "chromium"]],
    &[&["apk", "add", "chromium"]],
    &[&["pacman", "--sync", "--refresh", "--noconfirm", "chromium"]],
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
    let Some(manager) = MANAGERS.iter().find(|commands| in_path(Path::new(commands[0][0])).is_some()) else {
        return false;
    };
    eprintln!("== installing Chromium");
    // Whoever is not root may be allowed to become it, if that needs no password.
    let prefix: &[&str] = if super::is_root() { &[] } else { &["sudo", "--non-interactive"] };
    for command in *manager {
        let words = [prefix, command].concat();
        let status = Command::new(words[0]).args(&words[1..]).stdout(Stdio::null()).status();
        if !status.is_ok_and(|status| status.success()) {
            return false;
        }
    }
    find().is_some()
}

/// The path of a program, looked up in PATH unless it is a path already.
fn in_path(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file())
}
