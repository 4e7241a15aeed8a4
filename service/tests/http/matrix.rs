//! Every route against every kind of caller, generated from the table: nobody gets further than the route's need says.

use std::time::Duration;

use queue::{RoomName, StoredFile};
use reqwest::StatusCode;
use service::access::Right;
use service::{Line, Need, ROOM_HEADER, routes};
use tokio::time::timeout;

use crate::support::{MEMBER, ROOM, TestService, USER, unlimited};

/// Whoever calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    NoToken,
    Rubbish,
    Expired,
    OtherRoom,
    OtherUser,
    LacksTheRight,
    JustTheRight,
    Operator,
}

const CALLERS: [Caller; 8] = [
    Caller::NoToken,
    Caller::Rubbish,
    Caller::Expired,
    Caller::OtherRoom,
    Caller::OtherUser,
    Caller::LacksTheRight,
    Caller::JustTheRight,
    Caller::Operator,
];

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The handler answers, whatever it says.
    Passes,
    /// 401.
    WhoAreYou,
    /// 403.
    NotAllowed,
    /// 404, as for a job that is not there.
    NoSuchJob,
    /// 401 or 403 by the handler: the secret that it checks is missing.
    NoSecret,
}

/// What is specified.
fn fate(need: Need, caller: Caller) -> Fate {
    use Caller::{Expired, JustTheRight, LacksTheRight, NoToken, Operator, OtherRoom, OtherUser, Rubbish};
    match (need, caller) {
        (Need::Nothing, _) => Fate::Passes,
        (Need::Signed, _) => Fate::NoSecret,
        (_, NoToken | Rubbish | Expired) => Fate::WhoAreYou,
        (_, Operator) => Fate::Passes,
        (Need::Room(_), OtherRoom | LacksTheRight) => Fate::NotAllowed,
        // The room is the token's own, so that there is no other one.
        (Need::TokenRoom(_), LacksTheRight) => Fate::NotAllowed,
        (Need::TokenRoom(_), OtherRoom | OtherUser | JustTheRight) => Fate::Passes,
        (Need::Room(_), OtherUser | JustTheRight) => Fate::Passes,
        (Need::Job(_), OtherRoom | OtherUser | LacksTheRight) => Fate::NoSuchJob,
        (Need::Job(_), JustTheRight) => Fate::Passes,
        (Need::Worker, OtherRoom | LacksTheRight) => Fate::NoSuchJob,
        (Need::Worker, OtherUser | JustTheRight) => Fate::Passes,
        (Need::Operator, OtherRoom | OtherUser | LacksTheRight | JustTheRight) => Fate::NotAllowed,
    }
}

fn right(need: Need) -> Option<Right> {
    match need {
        Need::Room(right) | Need::Job(right) | Need::TokenRoom(right) => Some(right),
        Need::Worker => Some(Right::Work),
        Need::Operator => Some(Right::Operate),
        Need::Nothing | Need::Signed => None,
    }
}

/// The token that a caller brings.
fn token(service: &TestService, need: Need, caller: Caller) -> Option<String> {
    let everything = [MEMBER, &[Right::Spend]].concat();
    let (needed, all) = (right(need), Right::ALL);
    let is_needed = |one: &Right| Some(*one) == needed;
    let but = |right: &Right| *right != Right::Operate && !is_needed(right);
    Some(match caller {
        Caller::NoToken => return None,
        Caller::Rubbish => "rubbish".to_owned(),
        Caller::Expired => service.token_for(Some(ROOM), USER, &everything, Duration::from_secs(1)),
        Caller::OtherRoom => service.token(Some("elsewhere"), USER, &everything),
        Caller::OtherUser => service.token(Some(ROOM), "eve", &everything),
        Caller::LacksTheRight => {
            service.token(Some(ROOM), USER, &all.into_iter().filter(|right| but(right)).collect::<Vec<_>>())
        }
        // Of one room: the right to operate in it is not the right to operate.
        Caller::JustTheRight => service.token(Some(ROOM), USER, &all.into_iter().filter(is_needed).collect::<Vec<_>>()),
        Caller::Operator => service.operator(),
    })
}

/// The path with names in place of braces.
async fn path(service: &TestService, line: &Line) -> String {
    let mut path = line.path.replace("{room}", ROOM);
    if path.contains("{id}") {
        path = path.replace("{id}", &service.submit("a matrix").await);
    }
    let names = [("{bucket}", "uploads"), ("{user}", USER), ("{file}", "a.png"), ("{worker}", "w1"), ("{token}", "t")];
    for (brace, name) in names {
        path = path.replace(brace, name);
    }
    assert!(!path.contains('{'), "the matrix does not know what to put into {path}");
    path
}

/// What became of a call, and the answer in words.
async fn call(service: &TestService, line: &Line, caller: Caller) -> (Fate, String) {
    let path = path(service, line).await;
    let token = token(service, line.need, caller);
    let mut request = service.request(line.method, &path, token.as_deref());
    if line.method != "GET" {
        request = request.body("{}");
    }
    if let (Need::TokenRoom(_), Caller::Operator) = (line.need, caller) {
        request = request.header(ROOM_HEADER, ROOM);
    }
    // Who is let in may have to wait; who is not is told at once.
    let Ok(response) = timeout(Duration::from_millis(1500), request.send()).await else {
        assert!(line.waits, "{} {} does not say that it waits", line.method, line.path);
        return (Fate::Passes, "waits".to_owned());
    };
    let response = response.unwrap();
    let status = response.status();
    if status.is_success() {
        return (Fate::Passes, status.to_string()); // It may be an event stream, which has no end.
    }
    let text = response.text().await.unwrap();
    let fate = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if line.need == Need::Signed => Fate::NoSecret,
        StatusCode::UNAUTHORIZED => Fate::WhoAreYou,
        StatusCode::FORBIDDEN => Fate::NotAllowed,
        StatusCode::NOT_FOUND if text.contains("there is no such webhook") => Fate::NoSecret,
        StatusCode::NOT_FOUND if text.contains("there is no such job") => Fate::NoSuchJob,
        _ => Fate::Passes,
    };
    (fate, format!("{status} {text}"))
}

#[tokio::test]
async fn nobody_gets_further_than_a_routes_need_says() {
    let mut settings = unlimited();
    settings.rooms_may_spend = false;
    let service = TestService::with(settings).await;
    // The token of whoever comes too late is over by now; the others' are not.
    service.advance(Duration::from_secs(60));
    let mut wrong = Vec::new();
    let mut calls = 0;
    for route in routes() {
        for caller in CALLERS {
            let (fate_seen, words) = call(&service, &route, caller).await;
            let expected = fate(route.need, caller);
            // A proof that cannot even be read is refused as wrong before it is checked.
            let is_unread = expected == Fate::NoSecret && words.starts_with("400");
            if fate_seen != expected && !is_unread {
                wrong.push(format!("{} {} {caller:?}: {fate_seen:?} ({words})", route.method, route.path));
            }
            calls += 1;
        }
    }
    assert_eq!(calls, routes().len() * CALLERS.len());
    assert!(wrong.is_empty(), "{} of {calls} are not as specified:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn a_path_that_is_no_route_is_no_way_in() {
    let service = TestService::start().await;
    let operator = service.operator();
    for path in ["/api/queue", "/api/queue/", "/api/jobs/", "/api/jobs/a/b", "/api//health", "/api/queue/a/b"] {
        assert_eq!(service.get(path, &operator).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for path in ["/api/queue/..%2f", "/api/queue/a%20b", "/api/queue/%ff"] {
        assert_eq!(service.get(path, &operator).await.status, StatusCode::BAD_REQUEST, "{path}");
    }
    let patched = service.send(service.request("PATCH", &format!("/api/queue/{ROOM}"), Some(&operator))).await;
    assert_eq!(patched.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[test]
fn names_in_the_matrix_are_names() {
    assert!(RoomName::new(ROOM).is_ok());
    assert!(StoredFile::parse(&format!("uploads/{USER}/a.png")).is_some());
}
