//! Everything the page shows, as plain data.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::form::{Field, Form};
use super::jobs::{Origin, Queue};
use super::settings::Settings;
use crate::queue::PictureKind;
use crate::words::{EngineState, LinkState, Peer, Recipe, Share};

/// What the page shows. Only [`super::update`] changes it; only the view reads it.
#[derive(Clone, Debug, Serialize)]
pub struct State {
    /// How it joins rooms.
    pub settings: Settings,
    /// The room's link; `None` while painting alone.
    pub room: Option<String>,
    /// What is wrong with a link that was opened or entered.
    pub room_error: Option<String>,
    /// Counts the sessions begun, so that news of an earlier one is told apart.
    pub generation: u32,
    /// How the session stands.
    pub session: SessionState,
    /// How the room stands.
    pub link: Link,
    /// What this device computes with.
    pub engine: Engine,
    /// Everyone here, this page first.
    pub peers: Vec<Peer>,
    /// The form.
    pub form: Form,
    /// The field that the error is about.
    pub field_at_fault: Option<Field>,
    /// The relay's queue, and the person's jobs in it.
    pub queue: Queue,
    /// The picture being painted.
    pub painting: Option<Painting>,
    /// Pictures to be painted after it.
    pub waiting: VecDeque<Recipe>,
    /// Pictures of the present wish, finished ones included.
    pub batch: u32,
    /// Pictures given up whose end the session has not told yet.
    pub given_up: VecDeque<Recipe>,
    /// Which of the recent pictures is shown large.
    pub shown: Option<String>,
    /// Recent pictures, newest first.
    pub history: Vec<Picture>,
    /// Why there is no picture.
    pub error: Option<String>,
    /// A picture that a reload ended.
    pub gone: Option<Underway>,
    /// What the person should read once.
    pub remarks: VecDeque<Remark>,
    /// Remarks made so far.
    pub remarks_made: u32,
    /// Whether the page is hidden.
    pub hidden: bool,
    /// Whether the session was told to pause.
    pub paused: bool,
    /// What was copied last, to say so.
    pub copied: Option<Copied>,
}

/// How the session stands with the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    /// Being made.
    Joining,
    /// It takes wishes.
    Open,
    /// It could not be made; the next wish to paint tries again.
    Refused,
}

/// How the room stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The state.
    pub state: LinkState,
    /// In words.
    pub text: String,
}

/// What this device computes with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Engine {
    /// The state.
    pub state: EngineState,
    /// In words.
    pub text: String,
    /// Bytes done and bytes in all while loading.
    pub progress: Option<(u64, u64)>,
}

/// A picture that is being painted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Painting {
    /// What is painted; its seed is always given.
    pub recipe: Recipe,
    /// Whether the session has planned it.
    pub is_planned: bool,
    /// From 0 to 1.
    pub fraction: f32,
    /// Seconds still to go, once they can be told.
    pub eta_s: Option<f32>,
    /// Units accepted.
    pub units: u32,
    /// Units in all, once planned.
    pub units_in_all: u32,
    /// The step being computed, from 1.
    pub step: Option<u32>,
    /// In words.
    pub doing: String,
    /// The plan in one sentence.
    pub sentence: String,
    /// The plan in several lines.
    pub explanation: String,
    /// The newest look at it.
    #[serde(skip)]
    pub preview: Option<Preview>,
    /// Looks so far; the view draws when it changes.
    pub previews: u32,
    /// Which picture of how many, from 1.
    pub number: (u32, u32),
}

/// One pixel per latent cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// RGBA rows, `width * height * 4` bytes.
    pub rgba: Vec<u8>,
}

/// A finished picture; its bytes lie with the browser under the same id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Picture {
    /// SHA-256 of its pixels, or of its file if it went through a queue, hexadecimal: the same picture painted twice is one.
    pub id: String,
    /// SHA-256 of the final latent, hexadecimal; empty if it went through a queue.
    pub latent_sha256: String,
    /// The recipe, with its seed.
    pub recipe: Recipe,
    /// The plan in one sentence.
    pub sentence: String,
    /// The plan in several lines.
    pub explanation: String,
    /// Who did how much.
    pub workers: Vec<Share>,
    /// Units granted again.
    pub retries: u64,
    /// Wall time.
    pub took_ms: u64,
    /// When it was finished, in milliseconds since 1970.
    pub when_ms: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// What kind of file that is.
    #[serde(default)]
    pub file: PictureKind,
    /// Where it came from, if it went through a queue.
    #[serde(default)]
    pub origin: Option<Origin>,
}

/// A picture under way, as the tab remembers it over a reload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Underway {
    /// Its recipe, with its seed.
    pub recipe: Recipe,
    /// Pictures that were to follow it.
    pub more: u32,
}

/// Something to read once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// Which one.
    pub id: u32,
    /// In words.
    pub text: String,
}

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Copied {
    /// The room's link.
    Link,
    /// The shown picture's recipe.
    Recipe,
}

/// What the page is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Activity {
    /// Waiting for the session.
    Starting,
    /// Nothing.
    Idle,
    /// A picture was asked for and is being planned.
    Planning,
    /// A picture is being painted.
    Painting,
}

impl State {
    /// A page before it knows anything.
    pub fn new() -> Self {
        Self {
            settings: Settings::default(),
            room: None,
            room_error: None,
            generation: 0,
            session: SessionState::Joining,
            link: Link { state: LinkState::Connecting, text: "Starting.".into() },
            engine: Engine {
                state: EngineState::Off,
                text: "Not started; it starts when it is needed.".into(),
                progress: None,
            },
            peers: Vec::new(),
            form: Form::default(),
            field_at_fault: None,
            queue: Queue::default(),
            painting: None,
            waiting: VecDeque::new(),
            batch: 0,
            given_up: VecDeque::new(),
            shown: None,
            history: Vec::new(),
            error: None,
            gone: None,
            remarks: VecDeque::new(),
            remarks_made: 0,
            hidden: false,
            paused: false,
            copied: None,
        }
    }

    /// What the page is doing.
    pub fn activity(&self) -> Activity {
        match (&self.painting, self.session) {
            (Some(Painting { is_planned: true, .. }), _) => Activity::Painting,
            (Some(_), _) => Activity::Planning,
            (None, SessionState::Joining) => Activity::Starting,
            (None, SessionState::Open | SessionState::Refused) => Activity::Idle,
        }
    }

    /// The picture shown large, if it is a finished one.
    pub fn picture(&self) -> Option<&Picture> {
        let shown = self.shown.as_ref()?;
        self.history.iter().find(|picture| picture.id == *shown)
    }

    /// Whether this device is lent to the room.
    pub fn lends(&self) -> bool {
        self.settings.lends(self.room.is_some())
    }

    /// The seed of the picture shown or painted last.
    pub fn last_seed(&self) -> Option<u64> {
        self.picture().or(self.history.first()).and_then(|picture| picture.recipe.seed)
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}
