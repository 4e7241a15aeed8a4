//! What a session in a page is told and what it tells: plain data, for the page and for the JavaScript API alike.

pub mod probe;

use serde::{Deserialize, Serialize};

/// How to join a room.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Options {
    /// The name shown to the room; one is made up if empty.
    pub name: String,
    /// Lend this device from the start.
    pub lend: bool,
    /// Which processor computes.
    pub engine: EngineChoice,
    /// Most memory, in MiB, that the engine may take; `None` for a quarter of the device's.
    pub memory_mib: Option<u32>,
    /// STUN and TURN servers, none by default: `stun:host:port`, or `turn:host:port` with credentials in [`IceServer`].
    pub ice_servers: Vec<IceServer>,
    /// Reach members only through the relay.
    pub relayed_only: bool,
    /// Where the engine and the models are served; the folder of the page's own script if empty.
    pub base: String,
    /// Folder name of the model below `base`/models.
    pub model: String,
}

/// Which processor computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// The GPU if there is a real one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU, even a software adapter; for tests and measurements.
    Gpu,
}

/// A server that helps two browsers to find a path to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IceServer {
    /// `stun:…` or `turn:…` URLs.
    pub urls: Vec<String>,
    /// User name at a TURN server.
    pub username: String,
    /// Password there.
    pub credential: String,
}

/// What a session is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Wish {
    /// Paint; a picture that is still being painted is given up.
    Paint(Recipe),
    /// Give the picture up.
    Cancel,
    /// Begin or end lending this device to the room.
    Lend(bool),
    /// Stop computing for others without leaving the engine, as a hidden page does; or go on.
    Pause(bool),
    /// Show another name to the room.
    Rename(String),
    /// Take at most so many MiB for the engine from its next start on.
    Pledge(u32),
    /// Leave the room and free everything.
    Leave,
}

/// What to paint, as a person gives it; checked before anything is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Recipe {
    /// What to paint.
    pub prompt: String,
    /// What to keep away from.
    pub negative: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Denoising steps.
    pub steps: u32,
    /// How strongly to follow the prompt.
    pub guidance: f32,
    /// Seed of the noise; random if not given. A decimal string in JSON, because JavaScript's numbers end at 2^53.
    #[serde(with = "seed_text")]
    pub seed: Option<u64>,
}

/// What a session tells. Names, reasons and devices come from others and are text, never markup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum News {
    /// How the session stands with the room; a sentence for people goes with it.
    Status {
        /// The state.
        state: LinkState,
        /// In words: what is missing, and what still works.
        text: String,
    },
    /// What this device computes with.
    Engine {
        /// The state.
        state: EngineState,
        /// In words.
        text: String,
        /// Bytes done and bytes in all of what is being loaded.
        progress: Option<(u64, u64)>,
    },
    /// Everyone in the room, this session first. Sent whenever something about them changes, at most four times a second.
    Peers {
        /// The members.
        peers: Vec<Peer>,
    },
    /// A job was planned and begins.
    Planned {
        /// The plan in one sentence.
        sentence: String,
        /// The whole explanation, several lines.
        explanation: String,
        /// The checked recipe, with its seed.
        recipe: Recipe,
        /// Units in all.
        units: u32,
    },
    /// A unit was accepted.
    Progress {
        /// From 0 to 1.
        fraction: f32,
        /// Seconds still to go, once they can be told.
        eta_s: Option<f32>,
        /// Units accepted so far.
        units: u32,
        /// The step being computed, from 1, while denoising.
        step: Option<u32>,
        /// What is being done, in words.
        doing: String,
    },
    /// A cheap look at the latent: one pixel per latent cell.
    Preview {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
        /// RGBA rows.
        rgba: Vec<u8>,
    },
    /// The picture.
    Painted {
        /// A PNG with its recipe inside.
        png: Vec<u8>,
        /// SHA-256 of its RGB pixels, hexadecimal.
        pixels_sha256: String,
        /// SHA-256 of the final latent, hexadecimal.
        latent_sha256: String,
        /// The recipe, with its seed.
        recipe: Recipe,
        /// Who did how much.
        workers: Vec<Share>,
        /// Units granted again after a worker left, stalled, refused or delivered rubbish.
        retries: u64,
        /// Wall time from the wish to the picture.
        took_ms: u64,
    },
    /// There will be no picture; in words.
    Failed {
        /// Why, and what to do.
        text: String,
    },
    /// The picture was given up.
    Cancelled,
    /// Something the person should read once: a member was dropped, storage is full.
    Remark {
        /// In words.
        text: String,
    },
}

/// How a session stands with its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// Looking for the relay.
    Connecting,
    /// The relay is connected.
    Connected,
    /// The relay is out of reach; members already met stay.
    Lost,
    /// Painting without a room: there is no relay or no network.
    Alone,
    /// The session has ended.
    Left,
}

/// How this device's engine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineState {
    /// Not started: nothing has asked for it.
    Off,
    /// Being fetched, loaded and tested.
    Loading,
    /// Tested and able to compute.
    Ready,
    /// Computing nothing for others for now.
    Paused,
    /// It cannot be used here; the text says why and what still works.
    Failed,
}

/// A member of the room.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Its peer id.
    pub id: String,
    /// The name it gave itself.
    pub name: String,
    /// Whether it is this session.
    pub is_me: bool,
    /// How it is reached: `direct (webrtc)`, `direct (webtransport)`, `relayed`, ...; `this device` for this session.
    pub path: String,
    /// What it lends, in words; empty if nothing.
    pub device: String,
    /// What it is doing, in words.
    pub doing: String,
    /// Units it has delivered to this session.
    pub units_given: u64,
    /// Units this session has delivered to it.
    pub units_taken: u64,
}

/// One worker's share of a picture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// Its peer id.
    pub peer: String,
    /// The name it gave itself.
    pub name: String,
    /// How it was reached.
    pub path: String,
    /// Units accepted from it.
    pub units: u64,
    /// Milliseconds its processor says it spent.
    pub compute_ms: u64,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            prompt: String::new(),
            negative: String::new(),
            width: 256,
            height: 128,
            steps: 8,
            guidance: 3.0,
            seed: None,
        }
    }
}

/// A seed as a decimal string, or nothing.
mod seed_text {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub fn serialize<S: Serializer>(seed: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match seed {
            Some(seed) => serializer.serialize_str(&seed.to_string()),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Seed {
            Number(u64),
            Text(String),
        }
        match Option::<Seed>::deserialize(deserializer)? {
            None => Ok(None),
            Some(Seed::Number(seed)) => Ok(Some(seed)),
            Some(Seed::Text(text)) if text.trim().is_empty() => Ok(None),
            Some(Seed::Text(text)) => text
                .trim()
                .parse()
                .map(Some)
                .map_err(|_| D::Error::custom("a seed is a whole number from 0 to 18446744073709551615")),
        }
    }
}
