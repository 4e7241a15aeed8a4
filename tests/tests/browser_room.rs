//! Rooms with real browser tabs in them: they paint with natives and with each other, they close, they reload.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tests::page::{Page, Wish};
use tests::programs::{LOOPBACK, manyhands, worker};
use tests::site::{Site, browser};

const WISH: Wish = Wish { prompt: "mountains at sunset with a lake", size: "384x128", steps: 8, seed: 7 };

/// Differences of one level of 255 are rounding: engines of two classes agree to about 1e-5, and now and then a value
/// lies that close to where rounding turns.
const ROUNDED_SHARE_MAX: f64 = 0.02;

/// RGB rows of a PNG.
fn pixels(png: &[u8]) -> Vec<u8> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels
}

/// What this machine paints alone.
fn native_pixels(wish: Wish) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("native.png");
    let (steps, seed) = (wish.steps.to_string(), wish.seed.to_string());
    let painted = manyhands([
        "paint",
        wish.prompt,
        "--size",
        wish.size,
        "--steps",
        &steps,
        "--seed",
        &seed,
        "--out",
        out.to_str().unwrap(),
    ]);
    assert!(painted.status.success(), "{}", String::from_utf8_lossy(&painted.stderr));
    pixels(&std::fs::read(out).unwrap())
}

#[test]
fn a_tab_and_a_native_worker_paint_what_natives_paint() {
    let Some(browser) = browser(&[]) else { return };
    let site = Site::open();
    let link = site.room();
    let (native, native_peer) = worker(&link, &LOOPBACK);
    let page = Page::open(&browser, &link, "engine=cpu&lend=1&name=tab");
    page.wait_for_engine();
    assert_eq!(page.wait_for_peer("worker", "direct (webtransport)"), native_peer);
    page.paint(WISH);
    let (own, theirs) = (page.units_of(&page.me()), page.units_of(&native_peer));
    eprintln!("units: {own} by the tab, {theirs} by the native worker over WebTransport");
    assert!(own > 0 && theirs > 0, "{own} and {theirs} units");

    let (together, native_alone) = (page.pixels(), native_pixels(WISH));
    assert_eq!(together.len(), native_alone.len());
    let mut levels = BTreeMap::<u8, usize>::new();
    for (a, b) in together.iter().zip(&native_alone) {
        *levels.entry(a.abs_diff(*b)).or_default() += 1;
    }
    eprintln!("differences in levels of 255: {levels:?}");
    let rounded = *levels.get(&1).unwrap_or(&0) as f64 / together.len() as f64;
    assert!(levels.keys().all(|level| *level <= 1) && rounded <= ROUNDED_SHARE_MAX, "{levels:?}");

    // The same assignment again: all units to the tab, which is left alone, and so once more.
    drop(native);
    page.wait_for_peers(1, Duration::from_secs(20));
    let first = page.paint(WISH);
    assert_eq!(page.paint(WISH), first);
    page.assert_clean();
}

#[test]
fn two_tabs_that_a_relay_introduced_compute_for_each_other_without_it() {
    let Some(browser) = browser(&[]) else { return };
    let site = Site::open();
    let link = site.room();
    let lender = Page::open(&browser, &link, "engine=cpu&lend=1&name=lender");
    lender.wait_for_engine();
    let painter = Page::open(&browser, &link, "engine=cpu&lend=0&name=painter");
    let peer = painter.wait_for_peer("lender", "direct (webrtc)");
    paint_without_the_relay(&site, &painter, &peer);
    for page in [&painter, &lender] {
        page.assert_clean();
    }
}

#[test]
fn a_tab_and_a_native_worker_that_it_cannot_dial_are_introduced_and_need_the_relay_no_more() {
    let Some(browser) = browser(&[]) else { return };
    let site = Site::open();
    let link = site.room();
    // Pages have no QUIC, so none of its addresses is one for them.
    let (_native, native_peer) = worker(&link, &["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]);
    let painter = Page::open(&browser, &link, "engine=cpu&lend=0&name=painter");
    assert_eq!(painter.wait_for_peer("worker", "direct (webrtc)"), native_peer);
    paint_without_the_relay(&site, &painter, &native_peer);
    painter.assert_clean();
}

/// Paints with `peer`, who is reached over WebRTC and does all the units; no circuit is open, and no tensor passes the relay.
fn paint_without_the_relay(site: &Site, painter: &Page, peer: &str) {
    let no_circuits = format!(
        "fetch('{}/api/stats').then((answer) => answer.json()).then((stats) => stats.circuits === 0)",
        site.url
    );
    painter.tab.wait(&no_circuits).unwrap();
    let before = site.stats(&painter.tab);
    painter.paint(WISH);
    let after = site.stats(&painter.tab);
    assert_eq!(after["circuits"], 0, "no circuit was opened again");
    let moved = |name: &str| after[name].as_u64().unwrap() - before[name].as_u64().unwrap();
    let units = painter.units_of(peer);
    eprintln!(
        "{units} units over WebRTC; through the relay meanwhile: {} bytes in, {} out",
        moved("bytes_in"),
        moved("bytes_out")
    );
    assert!(units > 0, "all of them, in however many the picture was cut");
    let path = painter.tab.eval(&format!("document.querySelector('[data-peer=\"{peer}\"]').dataset.path")).unwrap();
    assert_eq!(path, "direct (webrtc)", "it was so to the end");
    // A unit's tensors are at least 16 KiB; keeping in touch with the relay takes less than one of them.
    assert!(moved("bytes_in") < 16 * 1024 && moved("bytes_out") < 16 * 1024, "{before} {after}");
}

#[test]
fn a_tab_that_closes_in_the_middle_of_a_job_costs_it_little_time() {
    let Some(browser) = browser(&[]) else { return };
    let site = Site::open();
    let link = site.room();
    let leaver = Page::open(&browser, &link, "engine=cpu&lend=1&name=leaver");
    let (_stayer, stayer_peer) = worker(&link, &LOOPBACK);
    leaver.wait_for_engine();
    let painter = Page::open(&browser, &link, "engine=cpu&lend=0&name=painter");
    let leaver_peer = painter.wait_for_peer("leaver", "direct (webrtc)");
    painter.wait_for_peer("worker", "direct (webtransport)");
    painter.forget_picture();
    painter.begin(Wish { steps: 40, ..WISH });
    painter.tab.wait(&format!("document.querySelector('[data-peer=\"{leaver_peer}\"]').dataset.units > 0")).unwrap();
    let closed = Instant::now();
    leaver.tab.close();
    painter.tab.wait(&format!("!document.querySelector('[data-peer=\"{leaver_peer}\"]')")).unwrap();
    let noticed = closed.elapsed();
    eprintln!("noticed, and its leases granted again, after {noticed:?}");
    assert!(noticed <= Duration::from_secs(5), "{noticed:?}");
    painter.wait_for_picture();
    assert!(painter.units_of(&stayer_peer) > 0);
    painter.assert_clean();
}

#[test]
fn a_requester_that_reloads_says_that_its_job_is_gone_and_leaves_a_clean_room() {
    let Some(browser) = browser(&[]) else { return };
    let site = Site::open();
    let link = site.room();
    let lender = Page::open(&browser, &link, "engine=cpu&lend=1&name=lender");
    lender.wait_for_engine();
    let painter = Page::open(&browser, &link, "engine=cpu&lend=0&name=painter");
    painter.wait_for_peer("lender", "direct (webrtc)");
    painter.begin(Wish { steps: 200, ..WISH });
    let old = painter.me();
    painter.tab.reload().unwrap();
    let gone = painter.tab.wait("(() => { const gone = document.querySelector('[data-testid=gone]'); return !gone?.hidden && gone.textContent; })()");
    eprintln!("after the reload: {:?}", gone.unwrap());
    lender.tab.wait(&format!("!document.querySelector('[data-peer=\"{old}\"]')")).unwrap();
    lender.wait_for_peers(2, Duration::from_secs(30));
    painter.wait_for_peer("lender", "direct (webrtc)");
    // The lender is free again: a small picture is done at once.
    painter.paint(Wish { size: "128x128", steps: 2, ..WISH });
    for page in [&painter, &lender] {
        page.assert_clean();
    }
}
