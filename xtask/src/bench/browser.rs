//! `cargo xtask bench --browser`: what the page weighs, and how long a person waits for the first picture.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::browser::{Browser, Visitor};
use crate::build::Programs;
use crate::processes::relay_with_page;
use crate::web::{self, Quality, folder};

/// A person would have left long before; a machine without a GPU and with other work is given the time.
const PICTURE_TIME_MAX: Duration = Duration::from_secs(600);

/// Measures the sections whose name contains `only`.
pub fn measure(programs: &Programs, only: Option<&str>) -> Result<()> {
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let page = web::build(programs, Quality::Release, None)?;
    if wanted("size") {
        for line in folder::sizes(&page)?.lines() {
            println!("size {line}");
        }
    }
    if wanted("picture") {
        pictures(programs, &page)?;
    }
    Ok(())
}

/// From opening the page to the finished picture, alone: for somebody who was never here, and for who comes again.
fn pictures(programs: &Programs, page: &Path) -> Result<()> {
    let Some(browser) = Browser::launch(&[])? else { return Ok(()) };
    println!("picture browser {}", browser.version()?);
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
