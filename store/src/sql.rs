//! The queue in a database: one text of every operation for SQLite and Postgres.

mod codes;
mod database;
#[cfg(feature = "testing")]
mod erase;
mod fault;
mod jobs;
mod leases;
mod migrations;
mod money;
mod numbers;
mod session;
mod sweeps;

pub(crate) use self::database::{Database, Writer};
pub(crate) use self::fault::{Fault, uncommitted};
pub(crate) use self::migrations::migrate;
pub(crate) use self::session::{Dialect, Operation, Session};
