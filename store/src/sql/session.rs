//! A connection within a transaction: loads and saves records.

use futures::future::BoxFuture;
use queue::{Attempt, AttemptKey, AttemptState, Job, JobId, JobState};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row};

use super::codes;
use super::fault::Fault;
use crate::limits::Limits;

/// What the two databases write differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// One writer at a time: nothing to lock.
    Sqlite,
    /// Many at once: rows are locked before they are changed.
    Postgres,
}

impl Dialect {
    /// Waits for whoever changes the rows.
    pub(super) fn for_update(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE",
        }
    }

    /// Leaves rows out that somebody is changing.
    pub(super) fn skip_locked(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE SKIP LOCKED",
        }
    }

    /// The function that finds a text in another.
    pub(super) fn find(self) -> &'static str {
        match self {
            Self::Sqlite => "instr",
            Self::Postgres => "strpos",
        }
    }
}

/// What only one transaction of Postgres does at a time, until it ends. Taken after rows are locked, the purse before.
#[derive(Clone, Copy, Debug)]
pub(super) enum Gate {
    /// Asking the budgets and holding.
    Purse,
    /// Appending to the ledger, so that its numbers have no gap and become visible in their order.
    Ledger,
}

impl Gate {
    /// "manyhand" in ASCII, and a number.
    fn key(self) -> i64 {
        let base = i64::from_be_bytes(*b"manyhand");
        match self {
            Self::Purse => base + 1,
            Self::Ledger => base + 2,
        }
    }
}

/// One operation: it may be run again if the database gave it up.
pub(crate) trait Operation<T>:
    for<'a, 'c> Fn(&'a mut Session<'c>) -> BoxFuture<'a, Result<T, Fault>> + Send + Sync + 'static
{
}

impl<T, F> Operation<T> for F where
    F: for<'a, 'c> Fn(&'a mut Session<'c>) -> BoxFuture<'a, Result<T, Fault>> + Send + Sync + 'static
{
}

/// A query with its arguments.
pub(super) type Asked<'q> = Query<'q, Any, AnyArguments>;

/// A query of a text that is put together from constants alone.
pub(super) fn ask<'q>(text: String) -> Asked<'q> {
    sqlx::query(AssertSqlSafe(text))
}

/// A connection, and what was changed over it.
#[derive(Debug)]
pub(crate) struct Session<'c> {
    pub(crate) connection: &'c mut AnyConnection,
    pub(crate) dialect: Dialect,
    pub(crate) limits: Limits,
    /// Jobs that were changed, to be announced after the commit.
    pub(crate) changed: Vec<JobId>,
}

impl<'c> Session<'c> {
    pub(crate) fn new(connection: &'c mut AnyConnection, dialect: Dialect, limits: Limits) -> Self {
        Self { connection, dialect, limits, changed: Vec::new() }
    }

    /// Runs a statement; says how many rows it touched.
    pub(super) async fn run(&mut self, query: Asked<'_>) -> Result<u64, Fault> {
        Ok(query.execute(&mut *self.connection).await?.rows_affected())
    }

    pub(super) async fn rows(&mut self, query: Asked<'_>) -> Result<Vec<AnyRow>, Fault> {
        Ok(query.fetch_all(&mut *self.connection).await?)
    }

    /// The row of a query that gives one always.
    pub(super) async fn row(&mut self, query: Asked<'_>) -> Result<AnyRow, Fault> {
        Ok(query.fetch_one(&mut *self.connection).await?)
    }

    /// The first column of the only row: a count.
    pub(super) async fn count(&mut self, query: Asked<'_>) -> Result<u64, Fault> {
        Ok(codes::count(self.row(query).await?.try_get(0)?))
    }

    /// The record in the first column, if there is a row.
    pub(super) async fn record<T: DeserializeOwned>(&mut self, query: Asked<'_>) -> Result<Option<T>, Fault> {
        let row = query.fetch_optional(&mut *self.connection).await?;
        row.map(|row| decode(&row, 0)).transpose()
    }

    /// The records in the first column.
    pub(super) async fn records<T: DeserializeOwned>(&mut self, query: Asked<'_>) -> Result<Vec<T>, Fault> {
        self.rows(query).await?.iter().map(|row| decode(row, 0)).collect()
    }

    /// Waits until no other transaction is past the gate.
    pub(super) async fn enter(&mut self, gate: Gate) -> Result<(), Fault> {
        if self.dialect == Dialect::Postgres {
            self.run(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(gate.key())).await?;
        }
        Ok(())
    }

    /// A job, to look at.
    pub(super) async fn job(&mut self, id: &JobId) -> Result<Option<Job>, Fault> {
        self.record(sqlx::query("SELECT body FROM jobs WHERE id = $1").bind(id.as_str())).await
    }

    /// A job, to change.
    pub(super) async fn own_job(&mut self, id: &JobId) -> Result<Option<Job>, Fault> {
        let lock = self.dialect.for_update();
        self.record(ask(format!("SELECT body FROM jobs WHERE id = $1{lock}")).bind(id.as_str())).await
    }

    /// Saves a job, and announces it if its version is another than `before`.
    pub(super) async fn save_job(&mut self, job: &Job, before: u64) -> Result<(), Fault> {
        let lease = job.present_lease();
        let is_completed = matches!(job.state, JobState::Completed(_));
        let took = job.finished.zip(job.started).filter(|_| is_completed);
        let query = sqlx::query(
            "UPDATE jobs SET ask = $2, model = $3, status = $4, source = $5, finished = $6, took_ms = $7,
                lease_owner = $8, lease_until = $9, body = $10, head = $11
            WHERE id = $1",
        );
        let query = (query.bind(job.id.as_str()))
            .bind(job.order.ask.as_ref().map(|ask| ask.as_str().to_owned()))
            .bind(job.order.model.as_ref().map(|model| model.as_str().to_owned()))
            .bind(codes::status(job.status()))
            .bind(job.source.map(codes::source))
            .bind(job.finished.map(codes::time))
            .bind(
                took.map(|(finished, started)| i64::try_from(finished.since(started).as_millis()).unwrap_or(i64::MAX)),
            )
            .bind(lease.map(|lease| lease.owner.as_str().to_owned()))
            .bind(lease.and_then(|lease| lease.until).map(codes::time))
            .bind(encode(job)?)
            .bind(encode(&job.head())?);
        self.run(query).await?;
        if job.version != before {
            self.changed.push(job.id.clone());
        }
        Ok(())
    }

    /// An attempt, to look at.
    pub(super) async fn attempt(&mut self, key: &AttemptKey) -> Result<Option<Attempt>, Fault> {
        self.attempt_where(key, "").await
    }

    /// An attempt, to change; its job is owned before it wherever both are.
    pub(super) async fn own_attempt(&mut self, key: &AttemptKey) -> Result<Option<Attempt>, Fault> {
        self.attempt_where(key, self.dialect.for_update()).await
    }

    /// Saves an attempt that is there.
    pub(super) async fn save_attempt(&mut self, attempt: &Attempt) -> Result<(), Fault> {
        let query =
            sqlx::query("UPDATE attempts SET is_settled = $3, counted = $4, body = $5 WHERE job = $1 AND number = $2");
        let query = (query.bind(attempt.key.job.as_str()))
            .bind(i64::from(attempt.key.number))
            .bind(i64::from(attempt.state == AttemptState::Settled))
            .bind(codes::amount(attempt.counted()))
            .bind(encode(attempt)?);
        self.run(query).await?;
        Ok(())
    }

    async fn attempt_where(&mut self, key: &AttemptKey, lock: &str) -> Result<Option<Attempt>, Fault> {
        let query = ask(format!("SELECT body FROM attempts WHERE job = $1 AND number = $2{lock}"));
        self.record(query.bind(key.job.as_str()).bind(i64::from(key.number))).await
    }
}

/// A record as its column.
pub(super) fn encode(record: &impl Serialize) -> Result<String, Fault> {
    Ok(serde_json::to_string(record)?)
}

/// A record from its column.
pub(super) fn decode<T: DeserializeOwned>(row: &AnyRow, column: usize) -> Result<T, Fault> {
    Ok(serde_json::from_str(row.try_get::<&str, _>(column)?)?)
}
