//! A real browser and a relay's web server agree: types, policy, isolation, compression, caching, another site's import.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use serde_json::json;
use tests::site::{Site, browser};
use xtask::web::folder::{sha256, write_list};

const INDEX: &str = r#"<!doctype html><meta charset="utf-8"><title>smoke</title><link rel="stylesheet" href="style.css">
<p>smoke</p><script>window.inline = true</script><script type="module" src="boot.js"></script>"#;

const BOOT: &str = r#"
self.trustedTypes?.createPolicy('default', { createScriptURL: (text) => text });
const { instance } = await WebAssembly.instantiateStreaming(fetch('page/page_bg.wasm'));
const worker = new Worker(new URL('engine/worker.js', import.meta.url), { type: 'module' });
const isolated = new Promise((resolve) => { worker.onmessage = (event) => resolve(event.data); });
window.smoke = { answer: instance.exports.answer(), page: crossOriginIsolated, worker: await isolated };
"#;

/// A module that exports `answer`, which is 42.
const WASM: &[u8] =
    b"\0asm\x01\0\0\0\x01\x05\x01\x60\0\x01\x7f\x03\x02\x01\0\x07\x0a\x01\x06answer\0\0\x0a\x06\x01\x04\0\x41\x2a\x0b";

fn site(folder: &Path) -> Site {
    std::fs::create_dir_all(folder.join("page")).unwrap();
    std::fs::create_dir_all(folder.join("engine")).unwrap();
    std::fs::write(folder.join("index.html"), INDEX).unwrap();
    std::fs::write(folder.join("style.css"), "p { color: rgb(1, 2, 3) }").unwrap();
    std::fs::write(folder.join("boot.js"), BOOT).unwrap();
    std::fs::write(folder.join("manyhands.js"), "export const answer = 42;").unwrap();
    std::fs::write(folder.join("page/page_bg.wasm"), WASM).unwrap();
    std::fs::write(folder.join("engine/worker.js"), "postMessage(crossOriginIsolated);").unwrap();
    write_list(folder).unwrap();
    Site::of(folder)
}

#[test]
fn a_browser_runs_the_page_under_its_strict_headers() {
    let Some(browser) = browser(&[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let site = site(folder.path());
    let tab = browser.tab(&site.url).unwrap();
    tab.wait("window.smoke").unwrap();
    // Streaming compilation needs the right type; both contexts may share memory, and thereby have threads.
    assert_eq!(tab.eval("smoke").unwrap(), json!({ "answer": 42, "page": true, "worker": true }));
    assert_eq!(tab.eval("getComputedStyle(document.querySelector('p')).color").unwrap(), "rgb(1, 2, 3)");
    // What a script inside the page would do, did not happen, and was noticed.
    assert_eq!(tab.eval("typeof window.inline").unwrap(), "undefined");
    assert_eq!(tab.violations().len(), 1, "{:?}", tab.testimony());
    assert!(tab.uncaught().is_empty(), "{:?}", tab.testimony());
    let markup = "(() => { try { document.body.innerHTML = '<b>bold</b>'; } catch (error) { return error.name; } })()";
    assert_eq!(tab.eval(markup).unwrap(), "TypeError", "text becomes markup nowhere");
    let list = std::fs::read(folder.path().join("boot.js")).unwrap();
    let version = &sha256(&list)[..16];
    let cached = format!("fetch('boot.js?v={version}').then((answer) => answer.headers.get('cache-control'))");
    assert!(tab.eval(&cached).unwrap().as_str().unwrap().contains("immutable"));
    let room = site.room();
    assert!(room.starts_with(&format!("{}/#", site.url)), "{room}");
    assert_eq!(site.stats(&tab)["circuits"], 0);
}

#[test]
fn another_site_may_import_the_api_and_ask_where_the_relay_is() {
    let Some(browser) = browser(&[]) else { return };
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (relay, other) = (site(here.path()), site(there.path()));
    let tab = browser.tab(&other.url).unwrap();
    tab.wait("window.smoke").unwrap();
    let addresses = tab.eval(&format!("fetch('{}/addrs').then((answer) => answer.json())", relay.url)).unwrap();
    assert!(addresses["peer"].as_str().unwrap().starts_with("12D3Koo"), "{addresses}");
    // A page whose own policy allows it, as most pages' does: here the policy is ours, so the module comes as text.
    let text = tab.eval(&format!("fetch('{}/manyhands.js').then((answer) => answer.text())", relay.url)).unwrap();
    assert_eq!(text, "export const answer = 42;");
}
