//! Messages, named by direction. Control travels as CBOR; a message's tensor follows as its raw body.

use serde::{Deserialize, Serialize};

use crate::ids::{Hash, JobId, LeaseId, ModelId, PeerId};
use crate::limits::{DEVICE_BYTES_MAX, MODELS_MAX, NAME_BYTES_MAX, REASON_BYTES_MAX};
use crate::unit::Unit;

/// Anything one member of a room says to another on their stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// From a requester.
    ToWorker(ToWorker),
    /// From a worker.
    ToRequester(ToRequester),
}

/// What a requester says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Remember the body, a conditioning, under its hash.
    Store {
        /// SHA-256 of the body.
        blob: Hash,
    },
    /// Compute a unit whose input is the body. Boxed: a unit is much larger than the other messages.
    Assign {
        /// The grant.
        lease: LeaseId,
        /// The work.
        unit: Box<Unit>,
    },
    /// The lease is over; stop if it has not begun.
    Cancel {
        /// The grant.
        lease: LeaseId,
    },
    /// Is this lease alive? Answered at once, by `Heartbeat` or by `Refuse` with [`RefuseReason::UnknownLease`].
    Probe {
        /// The grant.
        lease: LeaseId,
    },
    /// The job is over; forget its leases.
    Release {
        /// The job.
        job: JobId,
    },
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToRequester {
    /// This peer lends its processor.
    Offer(Capabilities),
    /// The lease is alive: queued or computing.
    Heartbeat {
        /// The grant.
        lease: LeaseId,
    },
    /// The unit's output is the body.
    Deliver {
        /// The grant.
        lease: LeaseId,
        /// Time the processor spent on it.
        compute_ms: u32,
    },
    /// The unit will not be computed.
    Refuse {
        /// The grant.
        lease: LeaseId,
        /// Why.
        reason: RefuseReason,
    },
    /// This peer lends nothing any more; all its leases are over.
    Leave,
}

/// Why a worker refuses a lease.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RefuseReason {
    /// Its queue is full.
    Busy,
    /// It does not have the model.
    UnknownModel,
    /// It does not hold the conditioning that the unit names.
    UnknownBlob(Hash),
    /// It does not hold the lease that it is asked about: it was never told of it, or is done with it.
    UnknownLease,
    /// The unit needs more memory than it has. A smaller unit may do.
    OutOfMemory,
    /// The unit is outside its limits, or input and unit disagree.
    Invalid(String),
    /// The engine failed.
    Failed(String),
}

/// What a worker lends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// A name for people; untrusted text.
    pub name: String,
    /// Models it has loaded.
    pub models: Vec<ModelId>,
    /// Adapter, backend and build: results are equal bit for bit within a class.
    pub numeric_class: String,
    /// Threads it lends.
    pub threads: u32,
    /// What computes, for people; untrusted text, empty if it does not say.
    #[serde(default)]
    pub device: String,
    /// What it measured of itself, at most one for each model. A claim: it orders workers until they are measured by
    /// their deliveries.
    #[serde(default)]
    pub pilots: Vec<Pilot>,
    /// Whether its pilot unit gave the same bits twice.
    #[serde(default)]
    pub self_repeatable: bool,
    /// Whether it works slower than it could, as a page does that nobody looks at.
    #[serde(default)]
    pub throttled: bool,
}

/// What a worker measured with a unit of a model, before it lends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pilot {
    /// The model.
    pub model: ModelId,
    /// Nanoseconds for one of [`crate::Work::cost`], in denoising.
    pub nanoseconds_per_cost: u64,
}

impl Capabilities {
    /// What a worker of this name and class lends that says nothing more about itself.
    pub fn new(name: impl Into<String>, numeric_class: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            models: Vec::new(),
            numeric_class: numeric_class.into(),
            threads: 1,
            device: String::new(),
            pilots: Vec::new(),
            self_repeatable: true,
            throttled: false,
        }
    }

    /// Whether every part is within its limit.
    pub fn is_sound(&self) -> bool {
        self.name.len() <= NAME_BYTES_MAX
            && self.models.len() <= MODELS_MAX
            && self.numeric_class.len() <= NAME_BYTES_MAX
            && self.device.len() <= DEVICE_BYTES_MAX
            && self.pilots.len() <= MODELS_MAX
    }
}

impl RefuseReason {
    /// A `Failed` whose text is cut to the limit.
    pub fn failed(reason: &str) -> Self {
        Self::Failed(cut(reason).to_owned())
    }

    /// An `Invalid` whose text is cut to the limit.
    pub fn invalid(reason: &str) -> Self {
        Self::Invalid(cut(reason).to_owned())
    }
}

/// What a member tells the room by gossip, sealed with the room's key: who is here and what they do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Grows with every presence of a peer, so that an old one cannot be played again.
    pub sequence: u64,
    /// A name for people; untrusted text.
    pub name: String,
    /// What the peer is doing.
    pub activity: Activity,
    /// Peers that gave this one wrong answers, the latest last; a claim like all else, and at most [`crate::limits::CAUGHT_TOLD_MAX`] are
    /// told and shown.
    #[serde(default)]
    pub caught: Vec<PeerId>,
}

/// What a peer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// Nothing yet.
    Idle,
    /// Lending its processor; units delivered so far.
    Lending {
        /// Units delivered since it joined.
        units: u64,
    },
    /// Painting its own job.
    Painting,
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(REASON_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_at_a_character() {
        let long = "ü".repeat(REASON_BYTES_MAX);
        let RefuseReason::Failed(text) = RefuseReason::failed(&long) else { panic!("not a failure") };
        assert_eq!(text.len(), REASON_BYTES_MAX);
    }

    #[test]
    fn boastful_capabilities_are_not_sound() {
        let sound = Capabilities::new("ada", "cpu");
        assert!(sound.is_sound());
        assert!(!Capabilities { name: "x".repeat(NAME_BYTES_MAX + 1), ..sound.clone() }.is_sound());
        assert!(!Capabilities { device: "x".repeat(DEVICE_BYTES_MAX + 1), ..sound.clone() }.is_sound());
        let model = ModelId(Hash::of(b"model"));
        let pilot = Pilot { model, nanoseconds_per_cost: 1 };
        assert!(!Capabilities { pilots: vec![pilot; MODELS_MAX + 1], ..sound.clone() }.is_sound());
        assert!(!Capabilities { models: vec![model; MODELS_MAX + 1], ..sound }.is_sound());
    }
}
