//! What leaves a client: each request once, to where it was told, whatever the other end does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use runpod::{ClientLimits, RunError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::stage::{CANARY, client, request};

/// A server that answers each request so, or closes the connection without an answer.
struct Server {
    base: String,
    posts: Arc<AtomicUsize>,
}

impl Server {
    async fn start(answer: fn(&str, &str) -> Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v2/emu", listener.local_addr().unwrap());
        let posts = Arc::new(AtomicUsize::new(0));
        let (counted, own) = (Arc::clone(&posts), base.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&counted), own.clone(), answer));
            }
        });
        Self { base, posts }
    }

    fn posts(&self) -> usize {
        self.posts.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: TcpStream,
    posts: Arc<AtomicUsize>,
    base: String,
    answer: fn(&str, &str) -> Option<String>,
) -> Option<()> {
    loop {
        let head = head(&mut stream).await?;
        if head.starts_with("POST") {
            posts.fetch_add(1, Ordering::SeqCst);
        }
        stream.write_all(answer(&head, &base)?.as_bytes()).await.ok()?;
    }
}

/// Reads a request; its body is of no interest, but must be taken.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some(head)
}

fn whole(status: &str, headers: &str, body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()))
}

#[tokio::test]
async fn a_request_on_a_connection_that_closes_is_not_sent_again() {
    let server = Server::start(|head, _| if head.starts_with("GET") { whole("200 OK", "", "{}") } else { None }).await;
    let client = client(&server.base, ClientLimits::default());
    // So that the request goes over a connection that was good before.
    client.health().await.unwrap();
    let error = client.run(&request("one")).await.unwrap_err();
    assert!(matches!(error, RunError::Unknown { .. }), "{error:?}");
    assert_eq!(server.posts(), 1);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let answer = |_: &str, base: &str| whole("307 Temporary Redirect", &format!("location: {base}/run\r\n"), "");
    let server = Server::start(answer).await;
    let client = client(&server.base, ClientLimits::default());
    let error = client.run(&request("one")).await.unwrap_err();
    assert!(matches!(error, RunError::Unknown { .. }), "{error:?}");
    assert!(client.health().await.is_err());
    assert_eq!(server.posts(), 1);
}

#[tokio::test]
async fn an_endless_refusal_is_read_to_its_beginning_only() {
    // It promises a gigabyte and sends a kilobyte, then nothing.
    let answer = |_: &str, _: &str| {
        Some(format!("HTTP/1.1 400 Bad Request\r\ncontent-length: 1000000000\r\n\r\n{}", "no ".repeat(3000)))
    };
    let server = Server::start(answer).await;
    let error = client(&server.base, ClientLimits::default()).run(&request("one")).await.unwrap_err();
    let RunError::Refused { status: 400, reason } = error else { panic!("{error:?}") };
    assert!(reason.starts_with("no no") && reason.len() <= 512, "{reason}");
}

#[tokio::test]
async fn what_is_no_http_is_unknown_and_told_without_key_or_address() {
    let server = Server::start(|head, _| Some(format!("!{head}\r\n\r\n"))).await;
    let error = client(&server.base, ClientLimits::default()).run(&request("one")).await.unwrap_err();
    assert!(matches!(error, RunError::Unknown { .. }), "{error:?}");
    let text = format!("{error} {error:?}");
    assert!(!text.contains(CANARY) && !text.contains("/v2/"), "{text}");
    assert_eq!(server.posts(), 1);
}
