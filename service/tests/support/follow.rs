//! Reads event streams and sockets as browsers do.

use std::time::Duration;

use futures::StreamExt;
use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A stream of server-sent events.
pub struct Events {
    response: futures::stream::BoxStream<'static, reqwest::Result<axum::body::Bytes>>,
    read: String,
}

/// One event.
#[derive(Debug)]
pub struct Event {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its data.
    pub data: Value,
}

impl Events {
    /// Opens a stream.
    pub async fn open(request: RequestBuilder) -> (Self, reqwest::header::HeaderMap) {
        let response: Response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        (Self { response: response.bytes_stream().boxed(), read: String::new() }, headers)
    }

    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        timeout(PATIENCE, self.read()).await.expect("an event, or the end of the stream")
    }

    async fn read(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.read.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.read = rest;
                let field = |name: &str| {
                    let lines = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    lines.collect::<Vec<_>>().join("\n")
                };
                let data = field("data");
                if data.is_empty() {
                    continue; // A comment that keeps the connection alive.
                }
                let data = serde_json::from_str(&data).unwrap();
                return Some(Event { id: field("id"), name: field("event"), data });
            }
            let bytes = self.response.next().await?.unwrap();
            self.read.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }
}

/// A WebSocket, as far as a listener needs one.
pub struct Socket {
    stream: TcpStream,
}

impl Socket {
    /// Opens one; the first line of the answer if that is no socket.
    pub async fn open(address: std::net::SocketAddr, path: &str, headers: &str) -> Result<Self, String> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
        }
        let first = String::from_utf8(head).unwrap().lines().next().unwrap().to_owned();
        if first.contains(" 101 ") { Ok(Self { stream }) } else { Err(first) }
    }

    /// The next text; `None` when the other end closes.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            let (kind, body) = timeout(PATIENCE, self.frame()).await.unwrap()?;
            match kind {
                1 => return Some(serde_json::from_slice(&body).unwrap()),
                8 => return None,
                _ => {}
            }
        }
    }

    /// One frame of a server: never masked, never in pieces here.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.stream.read_u8().await.ok()?;
        let length = match self.stream.read_u8().await.ok()? {
            126 => u64::from(self.stream.read_u16().await.ok()?),
            127 => self.stream.read_u64().await.ok()?,
            short => u64::from(short),
        };
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut body).await.ok()?;
        Some((first & 0x0f, body))
    }
}
