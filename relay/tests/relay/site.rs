//! A browser fetches the page: only what is on the list, compressed, checked by tag, in parts, under strict headers.

use std::net::SocketAddr;
use std::path::Path;

use relay::{Relay, RelayError, Settings, SiteError};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::place::Place;

const HASH: [&str; 3] = [
    "1111111111111111111111111111111111111111111111111111111111111111",
    "2222222222222222222222222222222222222222222222222222222222222222",
    "3333333333333333333333333333333333333333333333333333333333333333",
];

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }
}

/// One request on a connection of its own; `request` is a method, a path and more header lines.
async fn ask(address: SocketAddr, method: &str, path: &str, lines: &[&str]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    let end = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(response[..end].to_vec()).unwrap();
    let mut head = head.lines();
    let status = head.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = head.map(|line| line.split_once(": ").unwrap()).map(|(name, value)| (name.into(), value.into()));
    Answer { status, headers: headers.collect(), body: response[end + 4..].to_vec() }
}

fn list(folder: &Path, files: &[(&str, &[u8], &str)]) {
    for (path, body, _) in files {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, body).unwrap();
    }
    let entry = |(path, body, hash): &(&str, &[u8], &str)| json!({"path": path, "bytes": body.len(), "sha256": hash});
    let document = json!({"version": HASH[2], "files": files.iter().map(entry).collect::<Vec<_>>()});
    std::fs::write(folder.join("files.json"), document.to_string()).unwrap();
}

/// A page of two files, one of them with a compressed twin, and a file that is not on the list.
fn page(folder: &Path) {
    std::fs::write(folder.join("secret.txt"), "not yours").unwrap();
    list(folder, &[("index.html", b"<!doctype html>", HASH[0]), ("page/page_bg.wasm", b"0123456789", HASH[1])]);
    std::fs::write(folder.join("page/page_bg.wasm.br"), "squeezed").unwrap();
}

async fn place(folder: &Path) -> Place {
    Place::open(Settings { web: Some(folder.to_owned()), ..Settings::loopback() }).await
}

#[tokio::test]
async fn the_page_comes_with_its_types_and_strict_headers() {
    let folder = tempfile::tempdir().unwrap();
    page(folder.path());
    let place = place(folder.path()).await;
    let index = ask(place.http, "GET", "/", &[]).await;
    assert_eq!((index.status, index.body.as_slice()), (200, b"<!doctype html>".as_slice()));
    assert_eq!(index.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(index.header("content-length"), Some("15"));
    assert_eq!(index.header("cache-control"), Some("no-cache"));
    assert_eq!(ask(place.http, "GET", "/index.html", &[]).await.body, index.body);
    let wasm = ask(place.http, "GET", "/page/page_bg.wasm", &[]).await;
    assert_eq!((wasm.header("content-type"), wasm.header("content-encoding")), (Some("application/wasm"), None));
    let listed = ask(place.http, "GET", "/files.json", &[]).await;
    assert_eq!(listed.body, std::fs::read(folder.path().join("files.json")).unwrap());
    let missing = ask(place.http, "GET", "/missing", &[]).await;
    for answer in [&index, &wasm, &listed, &missing] {
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.contains("script-src 'self' 'wasm-unsafe-eval';") && !policy.contains("unsafe-inline"),
            "{policy}"
        );
        assert!(policy.contains("require-trusted-types-for 'script'; trusted-types default"), "{policy}");
        assert_eq!(answer.header("cross-origin-opener-policy"), Some("same-origin"));
        assert_eq!(answer.header("cross-origin-embedder-policy"), Some("credentialless"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    place.close().await;
}

#[tokio::test]
async fn nothing_but_the_list_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("web");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(folder.path().join("outside.txt"), "not yours").unwrap();
    page(&inside);
    let place = place(&inside).await;
    let tricks =
        ["/secret.txt", "/../outside.txt", "/%2e%2e/outside.txt", "/page/..%2f..%2foutside.txt", "//etc/passwd"];
    let more = ["/page", "/page/", "/page/page_bg.wasm.br", "/index.html/", "/Index.html", "/page%2fpage_bg.wasm"];
    for path in tricks.iter().chain(&more) {
        let answer = ask(place.http, "GET", path, &[]).await;
        assert_eq!(answer.status, 404, "{path}: {}", String::from_utf8_lossy(&answer.body));
    }
    assert_eq!(ask(place.http, "POST", "/", &["Content-Length: 0"]).await.status, 405);
    // The API goes before the page.
    assert_eq!(ask(place.http, "GET", "/api/health", &[]).await.header("content-type"), Some("application/json"));
    assert!(ask(place.http, "GET", "/api", &[]).await.body.starts_with(b"This is a Manyhands relay"));
    place.close().await;
}

#[tokio::test]
async fn a_browser_that_takes_brotli_gets_the_compressed_twin() {
    let folder = tempfile::tempdir().unwrap();
    page(folder.path());
    let place = place(folder.path()).await;
    let accept = "Accept-Encoding: gzip, deflate, br, zstd";
    let squeezed = ask(place.http, "GET", "/page/page_bg.wasm", &[accept]).await;
    assert_eq!((squeezed.header("content-encoding"), squeezed.body.as_slice()), (Some("br"), b"squeezed".as_slice()));
    assert_eq!(squeezed.header("content-type"), Some("application/wasm"));
    assert_eq!(squeezed.header("vary"), Some("accept-encoding"));
    let plain = ask(place.http, "GET", "/page/page_bg.wasm", &[]).await;
    assert_eq!(plain.body, b"0123456789");
    assert_ne!(plain.header("etag"), squeezed.header("etag"));
    let without_twin = ask(place.http, "GET", "/", &[accept]).await;
    assert_eq!((without_twin.status, without_twin.header("content-encoding")), (200, None));
    let head = ask(place.http, "HEAD", "/page/page_bg.wasm", &[accept]).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("8"), 0));
    place.close().await;
}

#[tokio::test]
async fn what_a_browser_already_has_is_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    page(folder.path());
    let place = place(folder.path()).await;
    let path = "/page/page_bg.wasm";
    let tag = ask(place.http, "GET", path, &[]).await.header("etag").unwrap().to_owned();
    let again = ask(place.http, "GET", path, &[&format!("If-None-Match: {tag}")]).await;
    assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(tag.as_str())));
    assert!(again.header("cross-origin-embedder-policy").is_some());
    assert_eq!(ask(place.http, "GET", path, &["If-None-Match: \"other\""]).await.status, 200);
    // An address that names the content may be kept for ever; one that names other content may not.
    for (query, is_for_ever) in [(&HASH[1][..16], true), (&HASH[0][..16], false), (&HASH[1][..8], false), ("", false)] {
        let answer = ask(place.http, "GET", &format!("{path}?v={query}"), &[]).await;
        assert_eq!(answer.header("cache-control").unwrap().contains("immutable"), is_for_ever, "{query}");
    }
    place.close().await;
}

#[tokio::test]
async fn a_download_that_broke_off_can_go_on() {
    let folder = tempfile::tempdir().unwrap();
    page(folder.path());
    let place = place(folder.path()).await;
    let path = "/page/page_bg.wasm";
    let rest = ask(place.http, "GET", path, &["Range: bytes=4-", "Accept-Encoding: br"]).await;
    assert_eq!((rest.status, rest.body.as_slice()), (206, b"456789".as_slice()));
    assert_eq!(rest.header("content-range"), Some("bytes 4-9/10"));
    assert_eq!(rest.header("content-encoding"), None);
    let beyond = ask(place.http, "GET", path, &["Range: bytes=10-"]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */10")));
    let changed = ask(place.http, "GET", path, &["Range: bytes=4-", "If-Range: \"other\""]).await;
    assert_eq!((changed.status, changed.body.len()), (200, 10));
    let same = format!("If-Range: \"{}\"", HASH[1]);
    assert_eq!(ask(place.http, "GET", path, &["Range: bytes=4-", &same]).await.status, 206);
    place.close().await;
}

#[tokio::test]
async fn a_folder_that_is_replaced_is_served_anew() {
    let folder = tempfile::tempdir().unwrap();
    let web = folder.path().join("web");
    std::fs::create_dir(&web).unwrap();
    page(&web);
    let place = place(&web).await;
    assert_eq!(ask(place.http, "GET", "/", &[]).await.body, b"<!doctype html>");
    let next = folder.path().join("next");
    std::fs::create_dir(&next).unwrap();
    list(&next, &[("index.html", b"<!doctype html><title>new</title>", HASH[1])]);
    std::fs::rename(&web, folder.path().join("old")).unwrap();
    std::fs::rename(&next, &web).unwrap();
    let anew = ask(place.http, "GET", "/", &[]).await;
    assert_eq!(anew.body, b"<!doctype html><title>new</title>");
    assert_eq!(anew.header("etag"), Some(format!("\"{}\"", HASH[1]).as_str()));
    assert_eq!(ask(place.http, "GET", "/page/page_bg.wasm", &[]).await.status, 404);
    place.close().await;
}

#[tokio::test]
async fn a_folder_that_is_no_page_is_refused_at_the_start() {
    let refusal = async |folder: &Path| {
        let settings = Settings { web: Some(folder.to_owned()), ..Settings::loopback() };
        match Relay::bind(settings).await {
            Err(RelayError::Web { reason, .. }) => reason,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("a relay started with a page that is none"),
        }
    };
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(refusal(folder.path()).await, SiteError::Unreadable { .. }));
    std::fs::write(folder.path().join("files.json"), "[]").unwrap();
    assert!(matches!(refusal(folder.path()).await, SiteError::Malformed { .. }));
    page(folder.path());
    std::fs::write(folder.path().join("index.html"), "longer than listed").unwrap();
    assert!(matches!(refusal(folder.path()).await, SiteError::Changed { listed: 15, .. }));
    std::fs::remove_file(folder.path().join("index.html")).unwrap();
    assert!(matches!(refusal(folder.path()).await, SiteError::Unreadable { .. }));
    list(folder.path(), &[]);
    let escape = json!({"version": HASH[0], "files": [{"path": "../x", "bytes": 0, "sha256": HASH[0]}]});
    std::fs::write(folder.path().join("files.json"), escape.to_string()).unwrap();
    assert!(matches!(refusal(folder.path()).await, SiteError::Malformed { .. }));
}

#[tokio::test]
async fn pages_of_other_servers_may_ask_where_the_relay_is() {
    let place = Place::open(Settings::loopback()).await;
    let addresses = ask(place.http, "GET", "/addrs", &["Origin: https://pages.example"]).await;
    assert_eq!(addresses.header("access-control-allow-origin"), Some("*"));
    assert_eq!(addresses.header("cache-control"), Some("no-store"));
    // Without a page the relay says in words what it is.
    assert!(ask(place.http, "GET", "/", &[]).await.body.starts_with(b"This is a Manyhands relay"));
    place.close().await;
}
