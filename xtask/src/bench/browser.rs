//! `cargo xtask bench --browser`: what the page weighs, how long a person waits for the first picture, how fast each path
//! is, and what a step costs in a page's engine.

mod onnx;
mod paths;
mod step;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::load;
use crate::browser::{Browser, Visitor};
use crate::build::Programs;
use crate::processes::relay_with_page;
use crate::web::{self, Quality, folder};

/// A person would have left long before; a machine without a GPU and with other work is given the time.
const PICTURE_TIME_MAX: Duration = Duration::from_secs(600);

/// What the parts of the page may weigh as they travel, in megabytes.
const GOALS_MB: [(&str, f64); 2] = [("page", 1.2), ("engine", 4.0)];

/// Measures the sections whose name contains `only`: size, picture, path, unet.
pub fn measure(programs: &Programs, only: Option<&str>) -> Result<()> {
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let page = web::build(programs, Quality::Release, None)?;
    if wanted("size") {
        sizes(&page)?;
    }
    if !["picture", "path", "unet"].into_iter().any(wanted) {
        return Ok(());
    }
    let Some(browser) = Browser::launch(&[])? else { return Ok(()) };
    println!("browser {}", browser.version()?);
    if wanted("picture") {
        println!("picture load {}", load());
        pictures(programs, &browser, &page)?;
    }
    if wanted("path") {
        println!("path load {}", load());
        paths::measure(programs, &browser, &page)?;
    }
    if wanted("unet") {
        println!("unet load {}", load());
        step::measure(programs, &browser, &page)?;
    }
    Ok(())
}

fn sizes(page: &Path) -> Result<()> {
    for part in folder::parts(page)? {
        let goal = GOALS_MB.iter().find(|(name, _)| *name == part.name);
        let goal = goal.map_or_else(String::new, |(_, goal)| format!(" (goal {goal})"));
        println!("size {} MB {:.3}", part.name, part.bytes as f64 / 1e6);
        println!("size {} brotli_MB {:.3}{goal}", part.name, part.brotli_bytes as f64 / 1e6);
    }
    Ok(())
}

/// From opening the page to the finished picture, alone: for somebody who was never here, and for who comes again.
fn pictures(programs: &Programs, browser: &Browser, page: &Path) -> Result<()> {
    let data = tempfile::tempdir()?;
    let (_relay, url) = relay_with_page(programs, data.path(), page)?;
    let visitor = browser.visitor()?;
    for visit in ["cold", "warm"] {
        let seconds = first_picture(&visitor, &url)?;
        println!("picture {visit} first_picture_s {seconds:.2}");
    }
    Ok(())
}

fn first_picture(visitor: &Visitor, url: &str) -> Result<f64> {
    let began = Instant::now();
    let tab = visitor.tab(&format!("{url}/?engine=cpu"))?;
    tab.wait("document.querySelector('[data-testid=status]').dataset.activity === 'idle'").context("the page")?;
    tab.fill("[data-testid=prompt]", "mountains at sunset with a lake").context("writing the prompt")?;
    tab.fill("[data-testid=seed]", "7").context("writing the seed")?;
    tab.click("[data-testid=paint]").context("asking for the picture")?;
    tab.wait_within("document.querySelector('[data-testid=picture]').dataset.sha256", PICTURE_TIME_MAX)?;
    let seconds = began.elapsed().as_secs_f64();
    // The next visit finds what this one keeps in the background.
    tab.wait("navigator.serviceWorker.ready.then(() => true)")?;
    Ok(seconds)
}
