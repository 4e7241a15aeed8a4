//! The relay's queue as a page sees it: what can be asked for there, requests and their answers, as plain data.
//!
//! What reads answers and paces requests is pure and tested natively; what fetches is in `desk`.

pub mod answers;
#[cfg(target_arch = "wasm32")]
mod desk;
pub mod pace;

use protocol::RoomLink;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::words::Recipe;

#[cfg(target_arch = "wasm32")]
pub use desk::Desk;

/// A job type that can be chosen in the form.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Offer {
    /// What a submission calls it.
    pub kind: String,
    /// What people call it.
    pub label: String,
    /// More work than the fast ones.
    pub is_high: bool,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Denoising steps.
    pub steps: u32,
    /// Guidance scale.
    pub guidance: f32,
    /// How long one takes, as the type says.
    pub expected_s: f32,
    /// Bytes of a prompt that are read.
    pub prompt_bytes_max: usize,
    /// Whether somebody is there who could do one, and may for this room.
    pub is_ready: bool,
    /// Whether rented machines do it for this room.
    pub cloud: Cloud,
    /// What else there is to know, in words; empty if nothing.
    pub note: String,
}

/// What rented machines do for a room's jobs of one type. They cost the relay's operator money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cloud {
    /// Nothing: the operator has rented none for it.
    Absent,
    /// Nothing: the operator does not let the room spend.
    Barred,
    /// They do jobs that helpers would do too late.
    Open,
}

/// How much there is to do in the room's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Jobs that wait.
    pub waiting: u32,
    /// Jobs that somebody works on.
    pub processing: u32,
}

/// A job as the relay tells of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct View {
    /// What the relay calls it.
    pub id: String,
    /// The type that is done.
    pub kind: String,
    /// Where it stands.
    pub status: Status,
    /// Its place among those that wait, from 1.
    pub position: Option<u32>,
    /// Seconds until it is done, as far as the relay can tell.
    pub eta_s: Option<f32>,
    /// What kind of worker has it.
    pub worker: String,
    /// Who does it, or did.
    pub source: Option<Source>,
    /// From 0 to 1.
    pub fraction: f32,
    /// What the cloud charged, in US dollars.
    pub cost_usd: f64,
    /// Why it goes where it goes.
    pub route: String,
    /// The addresses of its pictures.
    pub files: Vec<String>,
    /// Why there is no picture.
    pub error: String,
    /// How long its worker needed.
    pub took_ms: Option<u64>,
    /// The type that was asked for, if another one was done.
    pub fallback_of: String,
}

#[cfg(test)]
impl View {
    /// Job j1, of which nothing more is told.
    pub fn bare(kind: &str, status: Status) -> Self {
        Self {
            id: "j1".into(),
            kind: kind.into(),
            status,
            position: None,
            eta_s: None,
            worker: String::new(),
            source: None,
            fraction: 0.0,
            cost_usd: 0.0,
            route: String::new(),
            files: Vec::new(),
            error: String::new(),
            took_ms: None,
            fallback_of: String::new(),
        }
    }
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Waits for somebody to take it.
    Queued,
    /// Somebody works on it.
    Processing,
    /// There is a picture.
    Completed,
    /// There will be no picture.
    Failed,
    /// It was called off.
    Cancelled,
}

/// Who does a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The relay's own machine.
    Local,
    /// A member of the room.
    Peer,
    /// A rented machine, for money.
    Cloud,
}

/// What the page asks of the relay. `key` is the page's own name for a job; `turn` tells a late answer from the present one.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// What can be asked for.
    Offers,
    /// How much there is to do.
    Line,
    /// Take a job.
    Submit {
        /// Which.
        key: String,
        /// When.
        turn: u32,
        /// Its type.
        kind: String,
        /// What to paint.
        recipe: Recipe,
    },
    /// How a job stands.
    Look {
        /// Which.
        key: String,
        /// When.
        turn: u32,
        /// What the relay calls it.
        id: String,
    },
    /// Call a job off.
    Cancel {
        /// Which.
        key: String,
        /// When.
        turn: u32,
        /// What the relay calls it.
        id: String,
    },
    /// A job's picture.
    Fetch {
        /// Which.
        key: String,
        /// When.
        turn: u32,
        /// Its address.
        url: String,
    },
}

/// What the relay answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// What can be asked for.
    Offers(Vec<Offer>),
    /// How much there is to do.
    Line(Line),
    /// A job.
    Job(Box<View>),
    /// It was heard.
    Heard,
    /// A picture's file.
    Picture(Vec<u8>),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The relay cannot be reached.
    Unreachable(String),
    /// It answered that it will not.
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its sentence.
        text: String,
        /// When asking again makes sense.
        retry_after_s: Option<u64>,
    },
    /// It answered something else.
    Malformed(String),
}

impl Trouble {
    /// Whether the same request may be answered later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused { status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            Self::Malformed(_) => false,
        }
    }

    /// Whether the relay says that there is no such thing.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Refused { status: 404 | 410, .. })
    }

    /// What is wrong and what to do, in a sentence.
    pub fn told(&self) -> String {
        match self {
            Self::Unreachable(why) => format!("The relay does not answer ({why})."),
            Self::Malformed(why) => {
                format!("The relay's answer cannot be understood ({why}); relay and page may be of different versions.")
            }
            Self::Refused { status, text, .. } => {
                let said = if text.is_empty() { format!("HTTP status {status}") } else { text.clone() };
                let said = crate::session::order::sentence(&said);
                match status {
                    401 | 403 => format!(
                        "The relay does not let this room use its queue: {said} Check this device's clock and the room's link, or ask the relay's operator."
                    ),
                    429 => format!("The relay takes no more just now: {said}"),
                    500.. => format!("The relay's queue has trouble: {said}"),
                    _ => said,
                }
            }
        }
    }
}

/// The name in queues of a link's room, where its link names a relay.
pub fn room_name(link: &RoomLink) -> Option<String> {
    link.relay.as_ref().map(|_| link.secret.queue_key().room_name())
}

/// What is posted to have a job taken. The key makes asking again harmless.
pub fn submission(key: &str, kind: &str, recipe: &Recipe) -> serde_json::Value {
    let mut order = json!({ "type": kind, "prompt": recipe.prompt, "idempotency_key": key });
    if !recipe.negative.is_empty() {
        order["negative_prompt"] = recipe.negative.as_str().into();
    }
    if let Some(seed) = recipe.seed {
        order["seed"] = seed.into();
    }
    order
}

/// The kind of picture that these bytes are; `None` for anything else.
pub fn picture_kind(bytes: &[u8]) -> Option<PictureKind> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(PictureKind::Png),
        [0xff, 0xd8, 0xff, ..] => Some(PictureKind::Jpeg),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(PictureKind::Webp),
        _ => None,
    }
}

/// Kinds of picture files that browsers show and workers deliver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PictureKind {
    /// As this page makes them.
    #[default]
    Png,
    /// A photograph's.
    Jpeg,
    /// WebP.
    Webp,
}

impl PictureKind {
    /// Its MIME type.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }

    /// How its files' names end.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_posted_is_a_submission_of_the_queue() {
        let recipe =
            Recipe { prompt: "a lake".into(), negative: "fog".into(), seed: Some(u64::MAX), ..Recipe::default() };
        let text = submission("ab-1", "demo_high", &recipe).to_string();
        let read: ::queue::Submission = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (read.ask.as_str(), read.prompt.as_str(), read.negative_prompt.as_str()),
            ("demo_high", "a lake", "fog")
        );
        assert_eq!((read.seed, read.images), (Some(u64::MAX), 1));
        assert_eq!(read.idempotency_key.unwrap().as_str(), "ab-1");
        let bare = submission("ab-1", "demo_high", &Recipe { seed: None, ..Recipe::default() });
        assert!(bare.get("seed").is_none() && bare.get("negative_prompt").is_none());
    }

    #[test]
    fn a_room_without_a_relay_has_no_queue() {
        let link = |text: &str| RoomLink::parse(text).unwrap();
        assert_eq!(room_name(&link("manyhands:#aaaaaaaaaaaaaaaaaaaaaaaaaa")), None);
        let name = room_name(&link("http://relay.example/#aaaaaaaaaaaaaaaaaaaaaaaaaa")).unwrap();
        assert!(::queue::RoomName::new(name).is_ok());
    }

    #[test]
    fn only_pictures_are_pictures() {
        let png = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', 0];
        assert_eq!(picture_kind(&png), Some(PictureKind::Png));
        assert_eq!(picture_kind(&[0xff, 0xd8, 0xff, 0xe0]), Some(PictureKind::Jpeg));
        assert_eq!(picture_kind(b"RIFF\0\0\0\0WEBPVP8 "), Some(PictureKind::Webp));
        for bytes in [b"<svg/>".as_slice(), b"", b"\x89PNG", b"RIFF\0\0\0\0WAVE", b"<!doctype html>"] {
            assert_eq!(picture_kind(bytes), None);
        }
    }

    #[test]
    fn troubles_that_pass_are_told_from_those_that_stay() {
        let refused = |status| Trouble::Refused { status, text: "no".into(), retry_after_s: None };
        for status in [429, 500, 503] {
            assert!(refused(status).is_passing(), "{status}");
        }
        for status in [400, 401, 403, 404, 409] {
            assert!(!refused(status).is_passing(), "{status}");
        }
        assert!(refused(404).is_absence() && !refused(400).is_absence());
        assert!(Trouble::Unreachable("offline".into()).is_passing());
        assert!(refused(401).told().contains("clock"));
        assert_eq!(refused(400).told(), "No.");
    }
}
