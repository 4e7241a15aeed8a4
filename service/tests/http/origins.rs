//! Every route against every kind of page and every name of the relay, generated from the table.

use reqwest::StatusCode;
use service::{Settings, routes};

use crate::support::{TestService, unlimited};

const PAGE: &str = "https://page.example";
const RELAY: &str = "https://relay.example";

async fn service() -> TestService {
    let settings = Settings {
        cors_origins: vec![PAGE.to_owned()],
        public_url: Some(RELAY.to_owned()),
        hosts: vec!["other.example".to_owned()],
        ..unlimited()
    };
    TestService::with(settings).await
}

/// A route's path with something in place of every brace.
fn path(template: &str) -> String {
    template.split('/').map(|part| if part.starts_with('{') { "a.png" } else { part }).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn only_pages_and_names_that_are_written_down_are_answered() {
    let service = service().await;
    let own = service.base.clone();
    // Pages: whether they are let in, and whether they may read the answer.
    let pages = [
        (None, true, false),
        (Some(own.as_str()), true, false),
        (Some(RELAY), true, false),
        (Some(PAGE), true, true),
        (Some("https://page.example.evil"), false, false),
        (Some("http://page.example"), false, false),
        (Some("https://evil.example"), false, false),
        (Some("null"), false, false),
    ];
    let address = service.address.to_string();
    let names = [
        (address.as_str(), true),
        ("localhost:8080", true),
        ("relay.example", true),
        ("other.example", true),
        ("evil.example", false),
        ("127.0.0.1.evil.example", false),
    ];
    let mut wrong = Vec::new();
    for route in routes() {
        for (page, is_let_in, may_read) in pages {
            for (name, is_ours) in names {
                // The page that the relay serves itself is called as the relay is.
                let is_let_in = is_let_in && (page != Some(own.as_str()) || name == address);
                let mut request = service.request(route.method, &path(route.path), None).header("host", name);
                if let Some(page) = page {
                    request = request.header("origin", page);
                }
                let response = request.send().await.unwrap();
                let status = response.status();
                let allowed = response.headers().get("access-control-allow-origin");
                let allowed = allowed.map(|value| value.to_str().unwrap().to_owned());
                let expected = (may_read && page.is_some()).then_some(PAGE);
                let has_no_cookie = response.headers().get("set-cookie").is_none()
                    && response.headers().get("access-control-allow-credentials").is_none();
                let code = match status {
                    StatusCode::MISDIRECTED_REQUEST | StatusCode::FORBIDDEN => response.text().await.unwrap(),
                    _ => String::new(),
                };
                let is_right = match (is_ours, is_let_in) {
                    (false, _) => code.contains("unknown_host"),
                    (true, false) => code.contains("foreign_origin"),
                    (true, true) => !code.contains("unknown_host") && !code.contains("foreign_origin"),
                };
                if !is_right || allowed.as_deref() != expected || !has_no_cookie {
                    wrong.push(format!("{} {} {page:?} {name}: {status} {allowed:?}", route.method, route.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_browser_may_ask_what_a_page_may_ask() {
    let service = service().await;
    for route in routes() {
        let ask = |page: &'static str| {
            let request = service.request("OPTIONS", &path(route.path), None);
            let request = request.header("origin", page).header("access-control-request-method", route.method);
            service.send(request.header("access-control-request-headers", "authorization"))
        };
        let answer = ask(PAGE).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", route.path);
        assert_eq!(answer.header("access-control-allow-origin"), PAGE);
        assert!(answer.header("access-control-allow-methods").contains(route.method));
        assert!(answer.header("access-control-allow-headers").contains("authorization"));
        assert_eq!(answer.header("vary"), "origin");
        let refused = ask("https://evil.example").await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", route.path);
        assert_eq!(refused.header("access-control-allow-origin"), "");
        assert_eq!(refused.header("access-control-allow-methods"), "");
    }
}
