//! The page as people get it: built once, served by a relay, in rooms with workers of its own.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;
use xtask::browser::{Browser, Tab};
use xtask::processes;
use xtask::web::{self, Quality};

use crate::programs::{Process, new_room, programs};

/// The folder of the page: the one that `cargo xtask test` has just built, else built here.
pub fn page() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| match std::env::var_os(web::BUILT) {
        Some(folder) => PathBuf::from(folder),
        None => web::build(programs(), Quality::Dev, None).expect("the page builds"),
    })
}

/// A browser with these flags; `None`, with a printed reason, where none is installed.
pub fn browser(flags: &[&str]) -> Option<Browser> {
    Browser::launch(flags).expect("an installed browser starts")
}

/// A relay process that serves a page.
pub struct Site {
    /// Where it is, without a slash at the end.
    pub url: String,
    /// The relay.
    pub relay: Process,
    data: TempDir,
    page: PathBuf,
}

impl Site {
    /// The page of this checkout.
    pub fn open() -> Self {
        Self::of(page())
    }

    /// The page of this checkout at a relay with these settings, which are written as its file has them.
    pub fn with_settings(settings: &str) -> Self {
        Self::start(page(), "127.0.0.1:0", Some(settings))
    }

    /// Any folder that has a list.
    pub fn of(page: &Path) -> Self {
        Self::start(page, "127.0.0.1:0", None)
    }

    /// Kills the relay, and starts one at the same address that remembers nothing.
    pub fn replace(self, settings: &str) -> Self {
        let Self { url, relay, page, .. } = self;
        drop(relay);
        Self::start(&page, url.trim_start_matches("http://"), Some(settings))
    }

    fn start(page: &Path, http: &str, settings: Option<&str>) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder can be made");
        let file = settings.map(|settings| {
            let file = data.path().join("relay.toml");
            std::fs::write(&file, settings).expect("a temporary file can be written");
            file
        });
        let started = processes::relay_with(programs(), data.path(), page, http, file.as_deref());
        let (relay, url) = started.expect("a relay with a page starts");
        Self { url, relay, data, page: page.to_owned() }
    }

    /// The folder that the relay keeps its data in.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// The link of a new room; it is also the address that a browser opens.
    pub fn room(&self) -> String {
        new_room(&self.url)
    }

    /// Numbers that the relay tells about itself.
    pub fn stats(&self, tab: &Tab) -> serde_json::Value {
        let asked = format!("fetch('{}/api/stats').then((answer) => answer.json())", self.url);
        tab.eval(&asked).expect("the relay tells its numbers")
    }
}
