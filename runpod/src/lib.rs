//! RunPod's serverless contract: client, worker inputs and outputs, and an emulator for tests.
//!
//! The contract is read from the vendor's pages and SDKs: what it promises is relied upon, what it leaves open is read
//! leniently, and whatever an endpoint sends is bounded ([`limits`]) and never trusted with the key ([`Key`]).

mod adapters;
mod client;
mod contract;
#[cfg(feature = "emulator")]
pub mod emulator;
mod key;
pub mod limits;
mod pace;
#[cfg(all(feature = "emulator", unix))]
pub mod sdk;

pub use self::adapters::{
    Asked, Dialect, Extras, InitImage, InputError, Mime, OutputError, Painted, Picture, Workflow, WorkflowError,
    from_input, read_output, read_seed, to_input, to_output,
};
pub use self::client::{BaseError, CallError, Client, ClientLimits, RunError, WaitError};
pub use self::contract::{
    Complaint, End, Failure, FailureKind, Health, JobCounts, JobStatus, Policy, RemoteId, RemoteIdError, RunRequest,
    Status, Streamed, Unreadable, WorkerCounts,
};
pub use self::key::{Key, KeyError};
pub use self::pace::{backoff, poll_pause};
