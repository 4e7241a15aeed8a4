//! Where a page asks its relay's queue: one room's, with a token that its link earns.

use std::time::Duration;

use protocol::{QueueKey, RoomLink};
use tokio::sync::Mutex;
use web_sys::Url;

use super::answers::Grant;
use super::{Answer, Offer, Request, Trouble, answers, picture_kind, submission};
use crate::fetch::{self, Call, Reply};

/// Answers are some kilobytes of JSON.
const JSON_BYTES_MAX: usize = 512 * 1024;

/// A picture's file: what a relay takes from a worker at most.
const PICTURE_BYTES_MAX: usize = 20 * 1024 * 1024;

/// Longest wait for words.
const JSON_TIME_MAX: Duration = Duration::from_secs(20);

/// Longest wait for a picture.
const PICTURE_TIME_MAX: Duration = Duration::from_secs(120);

/// One room's desk at its relay's queue.
pub struct Desk {
    relay: String,
    /// Its address without the scheme: what proofs are made for.
    host: String,
    room: String,
    key: QueueKey,
    /// Held while a new one is asked for, so that requests made together ask once.
    held: Mutex<Option<Grant>>,
}

impl Desk {
    /// The desk of a link's room; `None` if it names no relay.
    pub fn of(link: &RoomLink) -> Option<Self> {
        let relay = link.relay.clone()?;
        let host = relay.split_once("://")?.1.to_owned();
        let key = link.secret.queue_key();
        Some(Self { relay, host, room: key.room_name(), key, held: Mutex::new(None) })
    }

    /// Asks, and reads what is answered.
    pub async fn ask(&self, request: &Request) -> Result<Answer, Trouble> {
        let room = &self.room;
        match request {
            Request::Offers => self.offers().await.map(Answer::Offers),
            Request::Line => {
                let bytes = self.call("GET", &format!("/api/queue/{room}"), None).await?;
                answers::line(&bytes).map(Answer::Line)
            }
            Request::Submit { key, kind, recipe, .. } => {
                let order = submission(key, kind, recipe).to_string();
                let bytes = self.call("POST", &format!("/api/queue/{room}"), Some(&order)).await?;
                answers::submitted(&bytes).map(|view| Answer::Job(Box::new(view)))
            }
            Request::Look { id, .. } => {
                let bytes = self.call("GET", &job(id)?, None).await?;
                answers::job(&bytes).map(|view| Answer::Job(Box::new(view)))
            }
            Request::Cancel { id, .. } => self.call("DELETE", &job(id)?, None).await.map(|_| Answer::Heard),
            Request::Fetch { url, .. } => self.fetch(url).await.map(Answer::Picture),
        }
    }

    /// What can be asked for: of a relay that keeps a queue, also which of the room's workers are there for it.
    async fn offers(&self) -> Result<Vec<Offer>, Trouble> {
        let url = format!("{}/api/job-types", self.relay);
        let reply = send(Call { method: "GET", url: &url, token: None, json: None }).await?;
        let offers = answers::offers(&accepted(reply)?, false)?;
        if offers.is_empty() {
            return Ok(offers);
        }
        let may_spend = self.grant(None).await?.may_spend;
        answers::offers(&self.call("GET", &format!("/api/job-types/{}", self.room), None).await?, may_spend)
    }

    /// A request with the room's token; one that has run out is replaced once.
    async fn call(&self, method: &'static str, path: &str, json: Option<&str>) -> Result<Vec<u8>, Trouble> {
        let url = format!("{}{path}", self.relay);
        let Grant { token, .. } = self.grant(None).await?;
        let reply = send(Call { method, url: &url, token: Some(&token), json }).await?;
        if reply.status != 401 {
            return accepted(reply);
        }
        let Grant { token, .. } = self.grant(Some(&token)).await?;
        accepted(send(Call { method, url: &url, token: Some(&token), json }).await?)
    }

    /// The token and what it allows, which is asked for unless one is held that is not `spent`.
    async fn grant(&self, spent: Option<&str>) -> Result<Grant, Trouble> {
        let mut held = self.held.lock().await;
        if let Some(grant) = held.as_ref().filter(|grant| spent != Some(&grant.token)) {
            return Ok(grant.clone());
        }
        let proof = self.key.prove(&self.host, js_sys::Date::now() as u64);
        let proof = serde_json::to_string(&proof).expect("a proof is plain data");
        let url = format!("{}/api/token/{}", self.relay, self.room);
        let call = Call { method: "POST", url: &url, token: None, json: Some(&proof) };
        let grant = answers::grant(&accepted(send(call).await?)?)?;
        *held = Some(grant.clone());
        Ok(grant)
    }

    /// A file at an address that carries its own permission: no token goes there, whoever's host it is.
    async fn fetch(&self, address: &str) -> Result<Vec<u8>, Trouble> {
        let strange = || Trouble::Malformed("the picture's address is no web address".into());
        let url = Url::new_with_base(address, &format!("{}/", self.relay)).map_err(|_| strange())?;
        if !["http:", "https:"].contains(&url.protocol().as_str()) {
            return Err(strange());
        }
        let call = Call { method: "GET", url: &url.href(), token: None, json: None };
        let reply = fetch::send(call, PICTURE_BYTES_MAX, PICTURE_TIME_MAX).await.map_err(Trouble::Unreachable)?;
        let bytes = accepted(reply)?;
        if picture_kind(&bytes).is_none() {
            return Err(Trouble::Malformed("its file is no picture that is shown here".into()));
        }
        Ok(bytes)
    }
}

async fn send(call: Call<'_>) -> Result<Reply, Trouble> {
    fetch::send(call, JSON_BYTES_MAX, JSON_TIME_MAX).await.map_err(Trouble::Unreachable)
}

fn accepted(reply: Reply) -> Result<Vec<u8>, Trouble> {
    if (200..300).contains(&reply.status) {
        return Ok(reply.bytes);
    }
    let text = answers::error(&reply.bytes);
    Err(Trouble::Refused { status: reply.status, text, retry_after_s: reply.retry_after_s })
}

/// A job's path. Its id came from the relay, and is no way out of it.
fn job(id: &str) -> Result<String, Trouble> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    let is_name = !id.is_empty() && id.bytes().all(is_plain) && !id.bytes().all(|byte| byte == b'.');
    is_name.then(|| format!("/api/jobs/{id}")).ok_or_else(|| Trouble::Malformed("a job's id is no name".into()))
}
