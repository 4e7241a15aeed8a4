//! A real Chromium without a window, driven over the DevTools protocol by tests and measurements.
//!
//! Commands and answers go through two pipes, so there is no port to find and nothing but us can drive it; it ends when
//! its pipe closes. What a tab and its workers say on the console, throw, or do against their content policy is kept.

mod find;
mod memory;
mod pipe;
mod tab;
mod witness;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use find::{find, install};
pub use pipe::TabClosed;
pub use tab::{Modifiers, Scheme, Tab};
pub use witness::{Kind, Line};

use pipe::Pipe;

use crate::packages;

/// An answer is waited for so long; a loaded machine computes a picture within it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A GPU on the CPU, for tests of the WebGPU path where there is no other.
pub const SOFTWARE_GPU: [&str; 6] = [
    "--enable-unsafe-webgpu",
    "--enable-features=Vulkan,WebGPU",
    "--use-webgpu-adapter=swiftshader",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-gpu-sandbox",
];

/// It keeps quiet, saves nothing outside its folder, and treats tabs behind others as if they were seen.
const ALWAYS: [&str; 12] = [
    "--headless=new",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
];

/// A running browser; killed when dropped.
pub struct Browser {
    pipe: Arc<Pipe>,
    child: Child,
    _profile: TempDir,
}

/// A profile of its own: tabs of one context share storage, tabs of two share nothing.
#[derive(Clone)]
pub struct Visitor {
    pipe: Arc<Pipe>,
    context: String,
}

impl Browser {
    /// Starts the browser that [`find`] finds, with more flags; `None`, with a printed reason, where there is none.
    pub fn launch(flags: &[&str]) -> Result<Option<Self>> {
        if cfg!(not(unix)) {
            eprintln!("SKIPPED: the browser is driven over pipes that only Unix passes on");
            return Ok(None);
        }
        match find() {
            Some(program) => Self::start(&program, flags).map(Some),
            None => {
                eprintln!(
                    "SKIPPED: no Chromium is installed (chromium or google-chrome in PATH, or CHROMIUM=/its/path)"
                );
                Ok(None)
            }
        }
    }

    fn start(program: &Path, flags: &[&str]) -> Result<Self> {
        let profile = tempfile::Builder::new().prefix("manyhands-browser-").tempdir()?;
        // Chromium reads commands from descriptor 3 and writes answers to descriptor 4; the shell puts our pipes there.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1"]).arg(program).args(ALWAYS);
        // Chromium's sandbox refuses to run for root.
        if packages::is_root() {
            command.arg("--no-sandbox");
        }
        command.arg(format!("--user-data-dir={}", profile.path().display())).args(flags).arg("about:blank");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let commands = child.stdin.take().expect("standard input is piped");
        let answers = child.stdout.take().expect("standard output is piped");
        let browser = Self { pipe: Pipe::open(commands, answers), child, _profile: profile };
        browser.version().with_context(|| format!("{} does not answer", program.display()))?;
        Ok(browser)
    }

    /// What it calls itself, with its version.
    pub fn version(&self) -> Result<String> {
        let version = self.pipe.call(None, "Browser.getVersion", json!({}))?;
        Ok(version["product"].as_str().unwrap_or_default().to_owned())
    }

    /// Somebody who was never here before.
    pub fn visitor(&self) -> Result<Visitor> {
        let made = self.pipe.call(None, "Target.createBrowserContext", json!({}))?;
        let context = made["browserContextId"].as_str().context("a browser context has an id")?.to_owned();
        Ok(Visitor { pipe: Arc::clone(&self.pipe), context })
    }

    /// A tab of a visitor of its own.
    pub fn tab(&self, url: &str) -> Result<Tab> {
        self.visitor()?.tab(url)
    }

    /// Resident memory in KiB of the browser and all its processes; `None` where /proc does not tell.
    pub fn resident_kib(&self) -> Option<u64> {
        memory::resident_kib(self.child.id())
    }
}

impl Visitor {
    /// Opens a tab and goes to `url`; returns without waiting for the page.
    pub fn tab(&self, url: &str) -> Result<Tab> {
        Tab::open(Arc::clone(&self.pipe), &self.context, url)
    }

    /// Forgets everything: closes the visitor's tabs and removes what they stored.
    pub fn leave(self) -> Result<()> {
        self.pipe.call(None, "Target.disposeBrowserContext", json!({ "browserContextId": self.context }))?;
        Ok(())
    }

    /// Lets pages of `origin` do what they would have to ask for, such as `notifications` or `durableStorage`.
    pub fn permit(&self, origin: &str, permissions: &[&str]) -> Result<Value> {
        let parameters = json!({ "browserContextId": self.context, "origin": origin, "permissions": permissions });
        self.pipe.call(None, "Browser.grantPermissions", parameters)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends with its pipe as well; what matters is that it has ended before its folder is removed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
