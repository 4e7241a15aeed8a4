//! The second visit needs nobody: with the relay dead the page opens and paints alone; a broken cache heals.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use tests::page::{Page, Wish};
use tests::site::{Site, browser};

const WISH: Wish = Wish { prompt: "a red circle on a blue background", size: "128x128", steps: 4, seed: 3 };

/// Waits until the service worker holds the whole page.
const KEPT: &str = "navigator.serviceWorker.ready.then(() => true)";

#[test]
fn a_second_visit_without_any_network_paints_the_same_picture() {
    let Some(browser) = browser(&[]) else { return };
    let mut site = Site::open();
    let link = site.room();
    let page = Page::open(&browser, &link, "engine=cpu");
    let first = page.paint(WISH);
    page.tab.wait(KEPT).unwrap();
    site.relay.kill().unwrap();
    page.tab.offline(true).unwrap();
    page.tab.reload().unwrap();
    page.tab.wait("window.manyhands?.state()").unwrap();
    let status = page.tab.wait("document.querySelector('[data-testid=status]').dataset.state !== 'connecting' && document.querySelector('[data-testid=status]').textContent").unwrap();
    eprintln!("without a network the page says: {status}");
    assert_eq!(page.paint(WISH), first);
    assert!(page.tab.uncaught().is_empty(), "{:?}", page.tab.testimony());
}

#[test]
fn a_broken_model_cache_is_noticed_and_fetched_again() {
    let Some(browser) = browser(&[]) else { return };
    let site = Site::open();
    let link = site.room();
    let page = Page::open(&browser, &link, "engine=cpu");
    let first = page.paint(WISH);
    // Every kept response of a model is cut and has one byte changed.
    let broken = page.tab.eval(
        "(async () => { let broken = 0; \
         for (const name of await caches.keys()) { const cache = await caches.open(name); \
           for (const request of await cache.keys()) { const answer = await cache.match(request); \
             const bytes = new Uint8Array(await answer.arrayBuffer()); \
             if (bytes.length < 100000 || request.url.includes('.wasm')) continue; \
             bytes[bytes.length >> 1] ^= 1; \
             await cache.put(request, new Response(bytes, { headers: answer.headers })); broken += 1; } } \
         return broken; })()",
    );
    let broken = broken.unwrap().as_u64().unwrap();
    assert!(broken >= 2, "{broken} kept files were broken");
    page.tab.reload().unwrap();
    page.tab.wait("window.manyhands?.state()").unwrap();
    assert_eq!(page.paint(WISH), first);
    page.assert_clean();
}
