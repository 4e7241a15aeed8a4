//! A painting between two stages, and its bytes: all that another painter needs to go on to the same pixels.
//!
//! | bytes | what |
//! |--:|---|
//! | 8 | [`MAGIC`] |
//! | 4 | [`VERSION`], little-endian |
//! | 4 | length of the header, little-endian |
//! | | header: CBOR of the job and the lengths of what follows |
//! | | conditioning, latent, history: f32, little-endian |
//! | 32 | SHA-256 of all before |

use protocol::frame::{decode_cbor, encode_cbor};
use protocol::limits::{HEADER_BYTES_MAX, HISTORY_TENSORS_MAX, SNAPSHOT_BYTES_MAX};
use protocol::{Hash, JobSpec, PlanKind, tensor};
use serde::{Deserialize, Serialize};

/// What a snapshot's bytes begin with.
const MAGIC: [u8; 8] = *b"mhpaint\0";

/// Raised whenever the bytes or their meaning change; no other version is read.
const VERSION: u32 = 1;

/// Bytes before the header.
const PREFIX_BYTES: usize = MAGIC.len() + 8;

/// Bytes of the hash at the end.
const HASH_BYTES: usize = 32;

/// A painting between two stages. Outputs of a stage that was not complete are not in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub(super) spec: JobSpec,
    pub(super) kind: PlanKind,
    pub(super) steps_done: u32,
    pub(super) conditioning: Option<Vec<u8>>,
    pub(super) latent: Vec<f32>,
    pub(super) history: Option<Vec<f32>>,
}

/// Why bytes are not a snapshot that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Something else.
    #[error("it is not a painting's checkpoint")]
    Foreign,
    /// Written by a program that writes them otherwise.
    #[error("the checkpoint is of version {0}, and this program reads version {VERSION}")]
    Version(u32),
    /// Cut off, changed, or over a limit.
    #[error("the checkpoint is damaged")]
    Damaged,
}

/// The header, with the lengths of what follows it.
#[derive(Serialize, Deserialize)]
struct Header {
    spec: JobSpec,
    kind: PlanKind,
    steps_done: u32,
    /// Bytes; `None` before the prompt is read.
    conditioning: Option<u64>,
    latent_values: u64,
    /// Tensors of as many values as the latent.
    history: u32,
}

impl Snapshot {
    /// What the job asks for.
    pub fn spec(&self) -> &JobSpec {
        &self.spec
    }

    /// How the job was cut when it was taken; it may go on cut otherwise.
    pub fn kind(&self) -> PlanKind {
        self.kind
    }

    /// Steps that are taken; `None` before the prompt is read.
    pub fn steps_done(&self) -> Option<u32> {
        self.conditioning.as_ref().map(|_| self.steps_done)
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let header = Header {
            spec: self.spec.clone(),
            kind: self.kind,
            steps_done: self.steps_done,
            conditioning: self.conditioning.as_ref().map(|bytes| bytes.len() as u64),
            latent_values: self.latent.len() as u64,
            history: u32::from(self.history.is_some()),
        };
        let header = encode_cbor(&header).expect("a job and some lengths are plain data");
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((header.len() as u32).to_le_bytes());
        bytes.extend(header);
        bytes.extend(self.conditioning.as_deref().unwrap_or_default());
        bytes.extend(tensor::to_bytes(&self.latent));
        bytes.extend(tensor::to_bytes(self.history.as_deref().unwrap_or_default()));
        let hash = Hash::of(&bytes);
        bytes.extend(hash.as_bytes());
        bytes
    }

    /// Reads what [`Snapshot::encode`] wrote. That the job is sound, and its tensors of the model's shape, is checked by
    /// whoever goes on with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (magic, rest) = bytes.split_first_chunk().ok_or(SnapshotError::Foreign)?;
        if *magic != MAGIC {
            return Err(SnapshotError::Foreign);
        }
        let (version, rest) = rest.split_first_chunk().ok_or(SnapshotError::Damaged)?;
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        read(bytes, rest).ok_or(SnapshotError::Damaged)
    }
}

/// Reads `rest`, which follows the version in `whole`; `None` if anything in it is not as it was written.
fn read(whole: &[u8], rest: &[u8]) -> Option<Snapshot> {
    if whole.len() > SNAPSHOT_BYTES_MAX {
        return None;
    }
    let (content, hash) = whole.split_at_checked(whole.len().checked_sub(HASH_BYTES)?)?;
    if Hash::of(content).as_bytes() != hash {
        return None;
    }
    let length = u32::from_le_bytes(*rest.first_chunk()?) as usize;
    let (header, mut tensors) = content.get(PREFIX_BYTES..)?.split_at_checked(length)?;
    if header.len() > HEADER_BYTES_MAX {
        return None;
    }
    let Header { spec, kind, steps_done, conditioning, latent_values, history } = decode_cbor(header).ok()?;
    if history as usize > HISTORY_TENSORS_MAX {
        return None;
    }
    let conditioning = match conditioning {
        Some(length) => Some(take(&mut tensors, length)?.to_vec()),
        None => None,
    };
    let latent = take_values(&mut tensors, latent_values)?;
    let history = if history == 0 { None } else { Some(take_values(&mut tensors, latent_values)?) };
    tensors.is_empty().then_some(Snapshot { spec, kind, steps_done, conditioning, latent, history })
}

/// Takes as many bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(taken)
}

fn take_values(bytes: &mut &[u8], count: u64) -> Option<Vec<f32>> {
    let taken = take(bytes, count.checked_mul(4)?)?;
    tensor::from_bytes(taken, usize::try_from(count).ok()?).ok()
}
