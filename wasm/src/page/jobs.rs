//! The person's jobs in the relay's queue, and what the page knows of that queue.

use serde::{Deserialize, Serialize};

use super::form::Form;
use crate::queue::{Line, Offer, Source, View};
use crate::words::Recipe;

/// Jobs of one person on the page at once: a screenful, and more belongs to a script.
pub const JOBS_MAX: usize = 16;

/// What the page knows of the queue of the relay of the room it is in.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Queue {
    /// What the relay calls the room; empty in none, or where no relay is.
    pub room: String,
    /// What can be asked for; empty if the relay keeps no queue.
    pub offers: Vec<Offer>,
    /// How much there is to do.
    pub line: Option<Line>,
    /// Whether that is asked for again and again.
    pub is_watching: bool,
    /// The person's jobs, newest first.
    pub jobs: Vec<QueueJob>,
    /// Jobs asked for since the page opened.
    pub asked: u32,
    /// Failures in a row to learn what can be asked for.
    pub failures: u32,
}

/// What is remembered of a job over a reload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The page's name for it, with which it can be asked for again and is no second job.
    pub key: String,
    /// The relay's, once it has it.
    pub id: Option<String>,
    /// Its type.
    pub kind: String,
    /// What people call the type.
    pub label: String,
    /// What is to be painted.
    pub recipe: Recipe,
    /// The picture that came of it, once it was shown.
    pub picture: Option<String>,
}

/// A job of the person.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QueueJob {
    /// What is remembered of it.
    pub kept: Kept,
    /// Where it stands with this page.
    pub stage: Stage,
    /// What the relay told last.
    pub view: Option<View>,
    /// What is wrong, in words; empty if nothing.
    pub trouble: String,
    /// Failures in a row.
    pub failures: u32,
    /// Looks so far.
    pub looks: u32,
    /// Requests so far; only the answer to the last one counts.
    pub turn: u32,
}

/// Where a job stands with this page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It is being handed to the relay.
    Handing,
    /// The relay has it, and is asked how it stands.
    Watching,
    /// It is being called off.
    Cancelling,
    /// It is done, and its picture on the way.
    Fetching,
    /// Its picture is here.
    Shown,
    /// It was called off.
    Cancelled,
    /// There is no picture.
    Failed,
    /// The relay does not know it.
    Lost,
}

/// Where a picture came from that went through a queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The job type.
    pub kind: String,
    /// What people call it.
    pub label: String,
    /// Who painted it.
    pub source: Option<Source>,
    /// What kind of worker.
    pub worker: String,
    /// What the cloud charged, in US dollars.
    pub cost_usd: f64,
}

impl Queue {
    /// The offer that the form chooses; `None` if it chooses the room's quick way, or nothing is offered.
    pub fn chosen(&self, form: &Form) -> Option<&Offer> {
        if form.is_high { self.offer(&form.kind) } else { None }
    }

    /// The offer of this type, or the best one: one that somebody can do now, and of these one that is more than fast.
    pub fn offer(&self, kind: &str) -> Option<&Offer> {
        let named = self.offers.iter().find(|offer| offer.kind == kind);
        named.or_else(|| self.offers.iter().rev().max_by_key(|offer| (offer.is_ready, offer.is_high)))
    }

    /// A job by the page's name for it.
    pub fn job(&mut self, key: &str) -> Option<&mut QueueJob> {
        self.jobs.iter_mut().find(|job| job.kept.key == key)
    }

    /// Jobs that are not at their end.
    pub fn open(&self) -> impl DoubleEndedIterator<Item = &QueueJob> {
        self.jobs.iter().filter(|job| !job.stage.is_final())
    }

    /// What is remembered over a reload.
    pub fn kept(&self) -> Vec<Kept> {
        let lasting = |job: &&QueueJob| !job.stage.is_final() || job.stage == Stage::Shown;
        self.jobs.iter().filter(lasting).map(|job| job.kept.clone()).collect()
    }

    /// Makes room by forgetting what is at its end, the oldest first.
    pub fn tidy(&mut self) {
        while self.jobs.len() > JOBS_MAX {
            let Some(index) = self.jobs.iter().rposition(|job| job.stage.is_final()) else { return };
            self.jobs.remove(index);
        }
    }
}

impl QueueJob {
    /// One that the relay is about to be asked for, or about.
    pub fn new(kept: Kept) -> Self {
        let stage = if kept.id.is_some() { Stage::Watching } else { Stage::Handing };
        Self { kept, stage, view: None, trouble: String::new(), failures: 0, looks: 0, turn: 0 }
    }
}

impl Stage {
    /// Whether nothing more happens.
    pub fn is_final(self) -> bool {
        match self {
            Self::Handing | Self::Watching | Self::Cancelling | Self::Fetching => false,
            Self::Shown | Self::Cancelled | Self::Failed | Self::Lost => true,
        }
    }

    /// Whether it can be called off.
    pub fn can_cancel(self) -> bool {
        match self {
            Self::Handing | Self::Watching => true,
            Self::Cancelling | Self::Fetching | Self::Shown | Self::Cancelled | Self::Failed | Self::Lost => false,
        }
    }

    /// Whether asking for the same again makes sense.
    pub fn can_repeat(self) -> bool {
        matches!(self, Self::Failed | Self::Lost)
    }

    /// As scripts read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handing => "handing",
            Self::Watching => "watching",
            Self::Cancelling => "cancelling",
            Self::Fetching => "fetching",
            Self::Shown => "shown",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }
}
