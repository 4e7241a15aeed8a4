//! `cargo xtask screenshots`: how the page looks, in a room that has just painted, narrow to wide, light and dark.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::browser::{Browser, Scheme};
use crate::build::{Programs, root};
use crate::processes::{LOOPBACK, Room};
use crate::web::{self, Quality};

/// A phone, a laptop and a large screen, in CSS pixels.
const SIZES: [(u32, u32); 3] = [(390, 844), (1280, 800), (2560, 1440)];

/// Loading the engine and painting, on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Options of `cargo xtask screenshots`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Folder for the pictures; docs if not given.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Takes them.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let out = arguments.out.clone().unwrap_or_else(|| root().join("docs"));
    std::fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let programs = Programs::build()?;
    let page = web::build(&programs, Quality::Dev, None)?;
    let folder = tempfile::tempdir()?;
    let join = [&["--threads", "1"], LOOPBACK.as_slice()].concat();
    let room = Room::open_with_page(&programs, folder.path(), &page, 2, &join)?;
    let Some(browser) = Browser::launch(&[])? else {
        return Ok(ExitCode::FAILURE);
    };
    let tab = browser.tab(&room.link.replacen('#', "?engine=cpu&lend=1&name=ada#", 1))?;
    tab.wait("window.manyhands?.state()")?;
    tab.wait_within("document.querySelector('[data-testid=engine]').dataset.state === 'ready'", PATIENCE)?;
    tab.wait("document.querySelectorAll('[data-testid=peer][data-lends=true]').length === 3")?;
    let fields = [("prompt", "mountains at sunset with a lake"), ("size", "384x128"), ("steps", "8"), ("seed", "7")];
    for (name, text) in fields {
        tab.fill(&format!("[data-testid={name}]"), text)?;
    }
    tab.click("[data-testid=paint]")?;
    tab.wait_within("!document.querySelector('[data-testid=picture]').hidden", PATIENCE)?;
    for (width, height) in SIZES {
        for (scheme, word) in [(Scheme::Light, "light"), (Scheme::Dark, "dark")] {
            tab.viewport(width, height, 1.0)?;
            tab.prefer(scheme, true)?;
            tab.eval("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => resolve(1))))")?;
            let file = out.join(format!("page-{width}-{word}.png"));
            tab.screenshot(&file, false)?;
            println!("{}", file.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}
