//! The browser driver against a page of its own: it sees, types, waits, cuts off, and hears what goes wrong.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

use xtask::browser::{Browser, Kind, Modifiers, Scheme};

const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>a page</title>
<style>body { background: white } @media (prefers-color-scheme: dark) { body { background: black } }</style>
<input id="name"><button id="go">Go</button><p id="said"></p><script src="page.js"></script>"#;

const SCRIPT: &str = r#"
document.querySelector('#go').addEventListener('click', (event) => {
    document.querySelector('#said').textContent = document.querySelector('#name').value + ' ' + event.isTrusted;
});
addEventListener('keydown', (event) => { if (event.key === 'Enter' && event.ctrlKey) document.title = 'painted'; });
window.worker = new Worker('worker.js');
worker.onmessage = (event) => { window.heard = event.data; };
console.log('loaded', 1, { a: 2 });
"#;

const WORKER: &str = r#"
console.warn('from the worker');
onmessage = async () => {
    try { postMessage((await fetch('page.js')).status); } catch (error) { postMessage(String(error)); }
};
setTimeout(() => { throw new Error('the worker fails'); }, 0);
"#;

/// Serves the page on a free port for as long as the test runs; its address.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let Some(first) = lines.next() else { continue };
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let (kind, body) = match first.split(' ').nth(1).unwrap_or_default() {
                "/" => ("text/html", PAGE),
                "/page.js" => ("text/javascript", SCRIPT),
                "/worker.js" => ("text/javascript", WORKER),
                "/strict" => ("text/html", "<!doctype html><script>window.ran = true</script><p>strict"),
                _ => ("text/plain", ""),
            };
            let policy = if first.contains("/strict") { "Content-Security-Policy: default-src 'self'\r\n" } else { "" };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{policy}", body.len());
            // A browser that has gone away needs no answer.
            let _ = write!(stream, "{head}Connection: close\r\n\r\n{body}");
        }
    });
    format!("http://{address}/")
}

#[test]
fn a_page_is_seen_used_and_heard() {
    let Some(browser) = Browser::launch(&[]).unwrap() else { return };
    assert!(browser.version().unwrap().contains('/'));
    let tab = browser.tab(&serve()).unwrap();
    tab.wait("document.title === 'a page'").unwrap();
    assert_eq!(tab.eval("Promise.resolve([1, 'two'])").unwrap(), serde_json::json!([1, "two"]));

    tab.fill("#name", "Grüße 🎨").unwrap();
    tab.fill("#name", "again").unwrap();
    tab.click("#go").unwrap();
    tab.wait("document.querySelector('#said').textContent === 'again true'").unwrap();
    tab.fill("#name", "").unwrap();
    assert_eq!(tab.eval("document.querySelector('#name').value").unwrap(), "");
    tab.press("Enter", Modifiers { control: true, ..Modifiers::default() }).unwrap();
    tab.wait("document.title === 'painted'").unwrap();

    tab.eval("setTimeout(() => { throw new Error('the page fails') }, 0), 0").unwrap();
    let said = |text: &str| tab.testimony().iter().any(|line| line.text.contains(text));
    tab.wait("new Promise((resolve) => { worker.postMessage(1); setTimeout(() => resolve(window.heard), 50); })")
        .unwrap();
    assert_eq!(tab.eval("heard").unwrap(), 200);
    assert!(said("loaded 1 Object") && said("from the worker"), "{:?}", tab.testimony());
    let uncaught: Vec<_> = tab.uncaught().into_iter().map(|line| line.text).collect();
    for text in ["the page fails", "the worker fails"] {
        assert!(uncaught.iter().any(|line| line.contains(text)), "{text}: {uncaught:?}");
    }
    assert!(tab.violations().is_empty());

    let error = tab.eval("(() => { throw new Error('told') })()").unwrap_err().to_string();
    assert!(error.contains("told"), "{error}");
    let error = tab.wait_within("false", Duration::from_millis(100)).unwrap_err().to_string();
    assert!(error.contains("false") && error.contains("loaded 1"), "{error}");
}

#[test]
fn the_network_can_be_cut_and_the_page_reloaded() {
    let Some(browser) = Browser::launch(&[]).unwrap() else { return };
    let tab = browser.tab(&serve()).unwrap();
    let fetched = "fetch('page.js', { cache: 'no-store' }).then((answer) => answer.status, () => 0)";
    let by_worker =
        "new Promise((resolve) => { worker.onmessage = (event) => resolve(event.data); worker.postMessage(1); })";
    tab.wait("window.worker").unwrap();
    assert_eq!(tab.eval(fetched).unwrap(), 200);
    tab.offline(true).unwrap();
    assert_eq!(tab.eval("navigator.onLine").unwrap(), false);
    assert_eq!(tab.eval(fetched).unwrap(), 0);
    assert!(tab.eval(by_worker).unwrap().is_string(), "a worker is cut off too");
    tab.offline(false).unwrap();
    tab.eval("window.mark = 1").unwrap();
    tab.before_every_page("window.early = typeof document.title").unwrap();
    tab.reload().unwrap();
    tab.wait("window.mark === undefined && window.worker && window.early === 'string'").unwrap();
    assert_eq!(tab.eval(by_worker).unwrap(), 200);
}

#[test]
fn what_the_policy_forbids_is_reported_and_does_not_run() {
    let Some(browser) = Browser::launch(&[]).unwrap() else { return };
    let tab = browser.tab(&format!("{}strict", serve())).unwrap();
    tab.wait("document.querySelector('p')").unwrap();
    assert_eq!(tab.eval("typeof window.ran").unwrap(), "undefined");
    let violations = tab.violations();
    assert!(violations.iter().any(|line| line.text.starts_with("script-src")), "{:?}", tab.testimony());
    assert!(tab.testimony().iter().all(|line| line.kind != Kind::Crashed));
}

#[test]
fn two_visitors_share_nothing_and_two_tabs_of_one_share_storage() {
    let Some(browser) = Browser::launch(&[]).unwrap() else { return };
    let url = serve();
    let visitor = browser.visitor().unwrap();
    let (first, second) = (visitor.tab(&url).unwrap(), visitor.tab(&url).unwrap());
    let other = browser.tab(&url).unwrap();
    for tab in [&first, &second, &other] {
        tab.wait("document.title === 'a page'").unwrap();
    }
    first.eval("localStorage.setItem('who', 'me')").unwrap();
    second.wait("localStorage.getItem('who') === 'me'").unwrap();
    assert!(other.eval("localStorage.getItem('who')").unwrap().is_null());
    let error = browser.tab("http://127.0.0.1:1/").err().unwrap().to_string();
    assert!(error.contains("127.0.0.1:1"), "{error}");
    first.close();
    assert!(second.eval("1").is_ok());
    visitor.leave().unwrap();
    assert!(second.eval("1").is_err());
}

#[test]
fn pictures_show_the_size_and_the_colours_asked_for() {
    let Some(browser) = Browser::launch(&[]).unwrap() else { return };
    let tab = browser.tab(&serve()).unwrap();
    tab.wait("document.title === 'a page'").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ground = "getComputedStyle(document.body).backgroundColor";
    for (scheme, colour) in [(Scheme::Light, "rgb(255, 255, 255)"), (Scheme::Dark, "rgb(0, 0, 0)")] {
        tab.viewport(390, 300, 2.0).unwrap();
        tab.prefer(scheme, true).unwrap();
        assert_eq!(tab.eval(ground).unwrap(), colour);
        assert_eq!(tab.eval("matchMedia('(prefers-reduced-motion: reduce)').matches").unwrap(), true);
        let file = folder.path().join("shot.png");
        tab.screenshot(&file, false).unwrap();
        let png = std::fs::read(&file).unwrap();
        // Width and height stand at the beginning of every PNG.
        let side = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
        assert_eq!((side(16), side(20)), (780, 600));
    }
    assert!(tab.heap_bytes().unwrap() > 10_000);
    if cfg!(target_os = "linux") {
        assert!(browser.resident_kib().unwrap() > 10_000);
    }
}
