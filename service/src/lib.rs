//! The queue's HTTP API, its RunPod facade, its results, and the driver of overflow.
//!
//! `relay` mounts [`router`] beside its own routes. Nothing here knows libp2p, so it builds and tests by itself.

pub mod access;
mod error;
mod guard;
pub mod limits;
mod routes;
mod state;

pub use self::error::ApiError;
pub use self::guard::{Caller, Need, ROOM_HEADER};
pub use self::routes::{Route, router, routes};
pub use self::state::{App, Clock};
