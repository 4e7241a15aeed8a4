//! Keeps the queue: in SQLite for one relay, in Postgres for several, in memory as their model.
//!
//! Every method is one transaction: it loads records of `queue`, applies their own transitions and saves them. When it
//! returns, what it said is durable.

mod announce;
pub mod limits;
mod memory;
mod open;
mod postgres;
mod sql;
mod sqlite;
mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use self::memory::Memory;
pub use self::open::{open, open_to_read};
pub use self::store::{Beat, Claimed, Held, JobStore, Offer, Report, StoreError, Submitted, Taken, Totals};
