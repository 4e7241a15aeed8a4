//! The queue's HTTP API, its RunPod facade, its results, and the driver of overflow.
//!
//! `relay` mounts [`router`] beside its own routes. Nothing here knows libp2p, so it builds and tests by itself.

pub mod access;
pub mod api;
mod body;
pub mod cloud;
mod compat;
mod cors;
pub mod delivery;
mod error;
pub mod facade;
mod guard;
pub mod limits;
mod metrics;
mod observed;
pub mod rates;
pub mod results;
mod routes;
pub mod settings;
mod state;
pub mod submit;
mod upkeep;
pub mod view;
mod waiting;
pub mod workers;

pub use self::error::ApiError;
pub use self::guard::{Caller, Need, OwnJob, OwnRoom, ROOM_HEADER};
pub use self::metrics::{Delivery, Metrics};
pub use self::routes::{Line, Route, router, routes};
pub use self::settings::{Settings, SettingsError};
pub use self::state::{App, Clock, mint, open_catalogue, open_store, open_store_to_read};
pub use self::upkeep::spawn;
pub use self::waiting::Closing;
