//! The store's trait over either database: which operation is read, which is written, and how.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use queue::{
    Ask, Attempt, AttemptKey, Budgets, Change, Day, Endpoint, Entry, HoldAsk, Job, JobId, LeaseError, MicroUsd, Model,
    NewJob, Outcome, Owner, Progress, RoomName, Source, Spending, Step, Stepped, UnixMs, UserName,
};
use sqlx::{Any, AnyPool, Transaction};
use tokio::sync::broadcast;

use super::fault::Fault;
use super::session::{Dialect, Operation, Session};
use crate::announce::Announcer;
use crate::limits::{Limits, SWEEP_MAX, TRANSACTION_TRIES};
use crate::postgres::PostgresWriter;
use crate::sqlite::{SqliteWriter, closed};
use crate::store::{Beat, Claimed, Held, JobStore, Offer, Report, StoreError, Submitted, Taken, Totals, is_nonce};

/// How changes are made durable.
#[derive(Debug)]
pub(crate) enum Writer {
    /// By one task.
    Sqlite(Mutex<SqliteWriter>),
    /// Over many connections.
    Postgres(PostgresWriter),
}

/// A queue in a database.
#[derive(Debug)]
pub(crate) struct Database {
    dialect: Dialect,
    limits: Limits,
    readers: AnyPool,
    writer: Writer,
    announcer: Arc<Announcer>,
}

impl Database {
    pub(crate) fn new(
        dialect: Dialect,
        limits: Limits,
        readers: AnyPool,
        writer: Writer,
        announcer: Arc<Announcer>,
    ) -> Self {
        Self { dialect, limits, readers, writer, announcer }
    }

    /// Runs an operation in a transaction, and answers when it is durable.
    pub(crate) async fn write<T: Send + 'static>(&self, operation: impl Operation<T>) -> Result<T, StoreError> {
        match &self.writer {
            Writer::Sqlite(writer) => {
                let answer = writer.lock().unwrap_or_else(PoisonError::into_inner).call(operation)?;
                answer.await.map_err(|_| closed())?
            }
            Writer::Postgres(writer) => writer.call(operation).await,
        }
    }

    /// Begins to read: everything as it is at one moment.
    async fn begin_reading(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        let begin = match self.dialect {
            Dialect::Sqlite => "BEGIN",
            Dialect::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        self.readers.begin_with(begin).await
    }
}

/// Looks again where a connection had broken.
macro_rules! again {
    ($look:expr) => {{
        let mut tries = 1;
        loop {
            match $look.await {
                Err(Fault::Again(reason)) if tries < TRANSACTION_TRIES => tracing::debug!(reason, "looking again"),
                looked => break looked.map_err(Fault::into_answer),
            }
            tries += 1;
        }
    }};
}

/// Runs a method of [`Session`] that is one query and changes nothing.
macro_rules! look {
    ($database:ident, |$session:ident| $call:expr) => {
        again!(async {
            let mut connection = $database.readers.acquire().await?;
            let mut $session = Session::new(&mut connection, $database.dialect, $database.limits);
            $call.await
        })
    };
}

/// Runs a method of [`Session`] that is several queries about one moment and changes nothing.
macro_rules! read {
    ($database:ident, |$session:ident| $call:expr) => {
        again!(async {
            let mut transaction = $database.begin_reading().await?;
            let mut $session = Session::new(&mut transaction, $database.dialect, $database.limits);
            let value = $call.await?;
            transaction.rollback().await?;
            Ok(value)
        })
    };
}

/// Runs a method of [`Session`] that changes something: its arguments are kept, so that it can run anywhere and again.
macro_rules! write {
    ($database:ident, |$session:ident $(, $name:ident)*| $call:expr) => {{
        $(let $name = $name.to_owned();)*
        $database.write(operation(move |$session| {
            $(let $name = $name.clone();)*
            async move { $call.await }.boxed()
        })).await
    }};
}

/// Says what the closures of `write!` are, which inference does not find out by the trait's name.
fn operation<T, F>(operation: F) -> F
where
    F: for<'a, 'c> Fn(&'a mut Session<'c>) -> BoxFuture<'a, Result<T, Fault>> + Send + Sync + 'static,
{
    operation
}

#[async_trait]
impl JobStore for Database {
    async fn submit(&self, id: JobId, order: NewJob, now: UnixMs) -> Result<Submitted, StoreError> {
        write!(self, |session, id, order, now| session.submit(&id, &order, now))
    }

    async fn submit_all(&self, orders: Vec<(JobId, NewJob)>, now: UnixMs) -> Result<Vec<Submitted>, StoreError> {
        write!(self, |session, orders, now| session.submit_all(&orders, now))
    }

    async fn job(&self, id: &JobId) -> Result<Option<Job>, StoreError> {
        look!(self, |session| session.job(id))
    }

    async fn list(&self, room: Option<&RoomName>, count_max: usize) -> Result<Vec<Job>, StoreError> {
        read!(self, |session| session.list(room, count_max))
    }

    async fn position(&self, id: &JobId) -> Result<Option<u64>, StoreError> {
        read!(self, |session| session.position(id))
    }

    async fn waiting(&self, count_max: usize) -> Result<Vec<Job>, StoreError> {
        look!(self, |session| session.waiting(count_max))
    }

    async fn take(&self, offer: &Offer, now: UnixMs) -> Result<Option<Taken>, StoreError> {
        write!(self, |session, offer, now| session.take(&offer, now))
    }

    async fn beat(&self, id: &JobId, fence: u64, progress: Option<Progress>, now: UnixMs) -> Result<Beat, StoreError> {
        write!(self, |session, id, fence, progress, now| session.beat(&id, fence, progress, now))
    }

    async fn finish(
        &self,
        id: &JobId,
        fence: u64,
        outcome: Outcome,
        saving: MicroUsd,
        now: UnixMs,
    ) -> Result<Option<Result<Job, LeaseError>>, StoreError> {
        write!(self, |session, id, fence, outcome, saving, now| session.finish(&id, fence, outcome, saving, now))
    }

    async fn cancel(&self, id: &JobId, now: UnixMs) -> Result<Option<Job>, StoreError> {
        write!(self, |session, id, now| session.cancel(&id, now))
    }

    async fn refuse(&self, id: &JobId, reason: &str, now: UnixMs) -> Result<Change, StoreError> {
        write!(self, |session, id, reason, now| session.refuse(&id, &reason, now))
    }

    async fn retry(&self, id: &JobId) -> Result<Option<Change>, StoreError> {
        write!(self, |session, id| session.retry(&id))
    }

    async fn fall_back(
        &self,
        id: &JobId,
        to: Ask,
        model: Option<Model>,
        input: String,
        expected: Duration,
    ) -> Result<bool, StoreError> {
        write!(self, |session, id, to, model, input, expected| session.fall_back(
            &id,
            &to,
            model.as_ref(),
            &input,
            expected
        ))
    }

    async fn explain(&self, id: &JobId, route: &str) -> Result<(), StoreError> {
        write!(self, |session, id, route| session.explain(&id, &route))
    }

    async fn purge(&self, room: &RoomName, now: UnixMs) -> Result<u64, StoreError> {
        let mut purged = 0;
        // Ends even if more is submitted all the time.
        for _ in 0..=self.limits.unfinished_per_room_max / SWEEP_MAX {
            let some = write!(self, |session, room, now| session.purge_some(&room, now))?;
            purged += some;
            if some < SWEEP_MAX as u64 {
                break;
            }
        }
        Ok(purged)
    }

    async fn expire(&self, now: UnixMs) -> Result<Vec<Job>, StoreError> {
        write!(self, |session, now| session.expire(now))
    }

    async fn hand_back(&self, owner: &Owner, now: UnixMs) -> Result<u64, StoreError> {
        write!(self, |session, owner, now| session.hand_back(&owner, now))
    }

    async fn push_chunk(&self, id: &JobId, fence: u64, chunk: String) -> Result<Beat, StoreError> {
        write!(self, |session, id, fence, chunk| session.push_chunk(&id, fence, &chunk))
    }

    async fn drain_chunks(&self, id: &JobId) -> Result<Vec<String>, StoreError> {
        write!(self, |session, id| session.drain_chunks(&id))
    }

    async fn forget(&self, before: UnixMs) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        loop {
            let some = write!(self, |session, before| session.forget_old(before))?;
            forgotten += some;
            if some < SWEEP_MAX as u64 {
                break;
            }
        }
        loop {
            let some = write!(self, |session| session.forget_surplus())?;
            forgotten += some;
            if some < SWEEP_MAX as u64 {
                return Ok(forgotten);
            }
        }
    }

    async fn hold(
        &self,
        id: &JobId,
        ask: HoldAsk,
        budgets: &Budgets,
        nonce: [u8; 16],
        now: UnixMs,
    ) -> Result<Held, StoreError> {
        write!(self, |session, id, ask, budgets, nonce, now| session.hold(&id, ask, &budgets, nonce, now))
    }

    async fn step(&self, key: &AttemptKey, step: Step, now: UnixMs) -> Result<Option<(Stepped, Attempt)>, StoreError> {
        write!(self, |session, key, step, now| session.step(&key, step, now))
    }

    async fn settle(&self, key: &AttemptKey, outcome: Outcome, now: UnixMs) -> Result<Option<Job>, StoreError> {
        write!(self, |session, key, outcome, now| session.settle(&key, outcome, now))
    }

    async fn claim(&self, nonce: &str, remote: Option<String>, now: UnixMs) -> Result<Claimed, StoreError> {
        if !is_nonce(nonce) {
            return Ok(Claimed::Refused);
        }
        write!(self, |session, nonce, remote, now| session.claim(&nonce, remote, now))
    }

    async fn attempt(&self, key: &AttemptKey) -> Result<Option<Attempt>, StoreError> {
        look!(self, |session| session.attempt(key))
    }

    async fn attempt_by_nonce(&self, nonce: &str) -> Result<Option<Attempt>, StoreError> {
        if !is_nonce(nonce) {
            return Ok(None);
        }
        look!(self, |session| session.attempt_by_nonce(nonce))
    }

    async fn adopt(&self, driver: &Owner, now: UnixMs) -> Result<Vec<Attempt>, StoreError> {
        write!(self, |session, driver, now| session.adopt(&driver, now))
    }

    async fn spending(&self, room: &RoomName, user: &UserName, day: Day) -> Result<Spending, StoreError> {
        look!(self, |session| session.spending(room, user, day))
    }

    async fn ledger(&self, after: u64, count_max: usize) -> Result<Vec<(u64, Entry)>, StoreError> {
        look!(self, |session| session.ledger(after, count_max))
    }

    async fn report(&self, room: Option<&RoomName>) -> Result<Report, StoreError> {
        read!(self, |session| session.report(room))
    }

    async fn totals(&self, room: Option<&RoomName>) -> Result<Totals, StoreError> {
        read!(self, |session| session.totals(room))
    }

    async fn measured(&self, ask: &Ask, source: Source) -> Result<Option<Duration>, StoreError> {
        look!(self, |session| session.measured(ask, source))
    }

    async fn breaker(&self, endpoint: &Endpoint) -> Result<Option<String>, StoreError> {
        look!(self, |session| session.breaker(endpoint))
    }

    async fn set_breaker(&self, endpoint: &Endpoint, state: String) -> Result<(), StoreError> {
        write!(self, |session, endpoint, state| session.set_breaker(&endpoint, &state))
    }

    async fn tell(&self, relay: &Owner, text: String, now: UnixMs) -> Result<(), StoreError> {
        write!(self, |session, relay, text, now| session.tell(&relay, &text, now))
    }

    async fn told(&self, relay: &Owner, since: UnixMs) -> Result<Vec<String>, StoreError> {
        look!(self, |session| session.told(relay, since))
    }

    fn changes(&self) -> broadcast::Receiver<Arc<JobId>> {
        self.announcer.listen()
    }

    async fn close(&self) {
        match &self.writer {
            Writer::Sqlite(writer) => {
                let task = writer.lock().unwrap_or_else(PoisonError::into_inner).close();
                // Readers first: the last connection to close tidies the file.
                self.readers.close().await;
                if let Some(task) = task
                    && let Err(error) = task.await
                {
                    tracing::error!(%error, "the queue's writer broke off");
                }
            }
            Writer::Postgres(writer) => {
                writer.close().await;
                self.readers.close().await;
            }
        }
    }
}
