//! What a participant begins with, what it is told, and what it tells.

use std::time::Duration;

use protocol::{Capabilities, PeerId, Policy, Presence};

use super::TaskKey;
use crate::job::{Order, Painted};
use crate::lane::{Ability, LaneMaker};

/// How a participant begins.
pub struct Setup {
    /// The room's network; `None` paints alone, until [`Command::Enter`].
    pub network: Option<(net::Handle, net::Events)>,
    /// This participant's peer id where its network comes later; `None` takes the network's, or a word.
    pub me: Option<PeerId>,
    /// The name shown to the room; cut to its limit.
    pub name: String,
    /// Starts the engine; `None` lends nothing, not even to this participant's own jobs.
    pub engine: Option<LaneMaker<TaskKey>>,
    /// Whether to lend to the room from the start.
    pub lend: bool,
    /// How long an own job waits without any worker before this participant computes it itself, or gives up if it must
    /// not.
    pub patience: Duration,
    /// How far the room's workers are believed.
    pub policy: Policy,
}

/// What a participant is told.
pub enum Command {
    /// Paint; one order at a time, so one that still runs is given up.
    Paint(Box<Order>),
    /// Lend this device to its own job: to the one that runs, or else to the next.
    LendToSelf,
    /// Begin or end lending to the room. Who lends also computes for its own jobs.
    Lend(bool),
    /// Take no work from the room for a while, or again; the engine stays loaded.
    Pause(bool),
    /// Tell the room that this device works slower than it could, as a hidden page does, or does so no longer.
    Throttle(bool),
    /// Show another name to the room.
    Rename(String),
    /// The room's network, for a participant that began without.
    Enter(net::Handle, net::Events),
    /// Give the job up.
    Cancel,
    /// Leave the room and end.
    Stop,
}

/// What a participant tells.
#[derive(Debug)]
pub enum Notice {
    /// This participant can be dialled here; the address ends in its peer id.
    Listening(String),
    /// A member of the room can be talked to.
    Joined(PeerId, net::Path),
    /// What is sent to a member takes another path.
    Moved(PeerId, net::Path),
    /// A member is gone.
    Left(PeerId),
    /// A member lends its processor; the texts in its capabilities are untrusted.
    Offered(PeerId, Capabilities),
    /// A member lends nothing any more.
    Withdrew(PeerId),
    /// A member broke the rules and was dropped.
    Dropped(PeerId, String),
    /// A member gave a wrong answer to this participant's job, proved by others, and is not asked again.
    Condemned(PeerId, String),
    /// Part of the job is painted again from this stage on: a member caught in a wrong answer took part in it.
    RolledBack {
        /// The stage, counted from zero.
        stage: u32,
    },
    /// What a member says it does; the name is untrusted text.
    Present(PeerId, Presence),
    /// The relay can be reached.
    RelayConnected,
    /// The relay cannot be reached; members already met stay.
    RelayLost,
    /// An order was planned and begins.
    Planned(coordinator::Plan),
    /// A picture of the order begins anew, painted otherwise: nobody has the memory for its units. The plan follows.
    Smaller(String),
    /// An accepted unit, and the order's progress in [`protocol::Work::cost`].
    Unit {
        /// Who computed it.
        by: PeerId,
        /// Units accepted so far.
        units: u64,
        /// Cost done.
        done: u64,
        /// Cost in all.
        total: u64,
        /// What the job is doing.
        stage: sampler::Stage,
    },
    /// A look at the latent, after every step of an order that says how.
    Preview {
        /// Cells across, one pixel each.
        width: u32,
        /// Cells down.
        height: u32,
        /// RGBA rows.
        rgba: Vec<u8>,
    },
    /// The painting as a stage of an order that asks for it began: enough to go on from there.
    Snapshot(Box<sampler::Snapshot>),
    /// This device computes for its own job.
    LocalBegan,
    /// The picture, or one of the order's.
    Painted(Box<Painted>),
    /// The job failed, in words.
    Failed(String),
    /// The job was given up.
    Cancelled,
    /// The engine is loaded and tested.
    EngineReady(Ability),
    /// The engine is lost.
    EngineFailed {
        /// Why, in words.
        reason: String,
        /// It will not come again.
        is_final: bool,
    },
    /// The engine began a unit for this peer.
    Computing(PeerId, &'static str),
    /// The engine ended a unit; units delivered so far.
    Computed(u64),
    /// A unit computed here was delivered to this peer.
    Delivered(PeerId),
}
