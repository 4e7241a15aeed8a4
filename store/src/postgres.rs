//! Postgres: several relays on one queue, which tell each other what changes.

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use queue::JobId;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::postgres::PgListener;
use sqlx::{AnyPool, ConnectOptions, Connection, Executor, Row};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::announce::Announcer;
use crate::limits::{
    CHANGES_KEPT, CONNECTION_WAIT, CONNECTIONS, LAST_NOTICE_WAIT, LISTEN_AGAIN, Limits, NOTICE_IDS_MAX, TESTED_FOR,
    TRANSACTION_TRIES,
};
use crate::sql::{Database, Dialect, Fault, Operation, Session, Writer, migrate, uncommitted};
use crate::sqlite::Durability;
use crate::store::StoreError;

/// Where relays tell each other: `sender id id …`, or `sender *` if it is more than can be told.
const CHANNEL: &str = "manyhands_jobs";

/// Connects to a server, and makes the tables if there are none.
pub(crate) async fn open(url: &str, durability: Durability, limits: Limits) -> Result<Database, StoreError> {
    sqlx::any::install_default_drivers();
    let options = AnyConnectOptions::from_str(url).map_err(|error| unreached(&error))?.disable_statement_logging();
    let synchronous = match durability {
        Durability::Full => "SET synchronous_commit = 'on'",
        #[cfg(feature = "testing")]
        Durability::None => "SET synchronous_commit = 'off'",
    };
    let pool = AnyPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(CONNECTION_WAIT)
        .test_before_acquire(false)
        .before_acquire(|connection, metadata| {
            Box::pin(async move {
                // A message more for each call would be too much; one that was used a moment ago is as good as tested.
                if metadata.idle_for > TESTED_FOR {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(move |connection, _| {
            Box::pin(async move {
                connection.execute(synchronous).await?;
                // Statements see what was committed before they began; rows are locked where that is not enough.
                connection.execute("SET default_transaction_isolation = 'read committed'").await?;
                Ok(())
            })
        });
    let pool = pool.connect_with(options).await.map_err(|error| unreached(&error))?;
    let mut connection = pool.acquire().await.map_err(|error| unreached(&error))?;
    if durability == Durability::Full {
        let fsync = connection.fetch_one("SELECT current_setting('fsync')").await.map_err(|error| unreached(&error))?;
        if fsync.try_get::<&str, _>(0).map_err(|error| unreached(&error))? != "on" {
            let error = "this Postgres runs with fsync = off and would lose accepted jobs; set fsync = on";
            return Err(StoreError::Database(error.to_owned()));
        }
    }
    migrate(&mut connection, Dialect::Postgres).await.map_err(Fault::into_answer)?;
    drop(connection);
    let listener = connect_listener(url).await.map_err(|error| unreached(&error))?;
    let (announcer, notices) = Announcer::among_others();
    let announcer = Arc::new(announcer);
    let name = format!("{:016x}", rand::random::<u64>());
    let writer = PostgresWriter {
        pool: pool.clone(),
        limits,
        announcer: announcer.clone(),
        notify: Mutex::new(tokio::spawn(notify(pool.clone(), name.clone(), announcer.clone(), notices))),
        listen: tokio::spawn(listen(listener, url.to_owned(), pool.clone(), name, announcer.clone())),
    };
    Ok(Database::new(Dialect::Postgres, limits, pool, Writer::Postgres(writer), announcer))
}

/// Writes over a pool of connections, and keeps others told.
#[derive(Debug)]
pub(crate) struct PostgresWriter {
    pool: AnyPool,
    limits: Limits,
    announcer: Arc<Announcer>,
    notify: Mutex<JoinHandle<()>>,
    listen: JoinHandle<()>,
}

impl Drop for PostgresWriter {
    fn drop(&mut self) {
        self.listen.abort();
        self.notify.get_mut().unwrap_or_else(PoisonError::into_inner).abort();
    }
}

impl PostgresWriter {
    /// Runs a call to its end, even if who asked goes away meanwhile.
    pub(crate) async fn call<T: Send + 'static>(&self, operation: impl Operation<T>) -> Result<T, StoreError> {
        let (pool, limits, announcer) = (self.pool.clone(), self.limits, self.announcer.clone());
        let call = tokio::spawn(async move {
            let (value, changed) = transact(&pool, limits, operation).await?;
            announcer.announce(changed);
            Ok(value)
        });
        call.await.map_err(|error| StoreError::Database(format!("a call broke off: {error}")))?
    }

    /// Ends the tasks, when the others know the last changes; the pool is closed by who has it.
    pub(crate) async fn close(&self) {
        self.listen.abort();
        self.announcer.hush();
        let idle = tokio::spawn(async {});
        let notify = std::mem::replace(&mut *self.notify.lock().unwrap_or_else(PoisonError::into_inner), idle);
        let abort = notify.abort_handle();
        if tokio::time::timeout(LAST_NOTICE_WAIT, notify).await.is_err() {
            abort.abort();
        }
    }
}

/// Runs an operation in a transaction of its own, again if Postgres gave it up.
async fn transact<T>(
    pool: &AnyPool,
    limits: Limits,
    operation: impl Operation<T>,
) -> Result<(T, Vec<JobId>), StoreError> {
    for _ in 1..TRANSACTION_TRIES {
        match try_transact(pool, limits, &operation).await {
            Err(Fault::Again(reason)) => tracing::debug!(reason, "a transaction is tried again"),
            Err(Fault::Answer(error)) => return Err(error),
            Ok(done) => return Ok(done),
        }
    }
    try_transact(pool, limits, &operation).await.map_err(Fault::into_answer)
}

async fn try_transact<T>(
    pool: &AnyPool,
    limits: Limits,
    operation: &impl Operation<T>,
) -> Result<(T, Vec<JobId>), Fault> {
    let mut transaction = pool.begin().await?;
    let mut session = Session::new(&mut transaction, Dialect::Postgres, limits);
    let value = operation(&mut session).await?;
    let changed = session.changed;
    transaction.commit().await.map_err(uncommitted)?;
    Ok((value, changed))
}

/// Tells other relays what has changed here. Outside the transactions that changed it: a notice within one would make
/// Postgres commit one at a time.
async fn notify(pool: AnyPool, name: String, announcer: Arc<Announcer>, mut notices: mpsc::Receiver<Arc<JobId>>) {
    let mut batch = Vec::with_capacity(NOTICE_IDS_MAX);
    while notices.recv_many(&mut batch, NOTICE_IDS_MAX).await > 0 {
        let mut text = name.clone();
        if announcer.catch_up() {
            text.push_str(" *");
            batch.clear();
        }
        batch.sort();
        batch.dedup();
        for id in batch.drain(..) {
            text.push(' ');
            text.push_str(id.as_str());
        }
        let query = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(text);
        if let Err(error) = query.execute(&pool).await {
            tracing::warn!(%error, "other relays could not be told what changed");
            announcer.fall_behind();
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }
}

/// Hears what other relays changed, and after an interruption announces everything that may have changed during it.
async fn listen(mut listener: PgListener, url: String, pool: AnyPool, name: String, announcer: Arc<Announcer>) {
    loop {
        match listener.try_recv().await {
            Ok(Some(notice)) => {
                let mut words = notice.payload().split(' ');
                if words.next() == Some(name.as_str()) {
                    continue;
                }
                for word in words {
                    match JobId::new(word) {
                        Ok(id) => announcer.relay(Arc::new(id)),
                        Err(_) => announce_all(&pool, &announcer).await,
                    }
                }
            }
            // Connected anew.
            Ok(None) => announce_all(&pool, &announcer).await,
            Err(error) => {
                tracing::warn!(%error, "changes of other relays are not heard; trying again");
                listener = loop {
                    tokio::time::sleep(LISTEN_AGAIN).await;
                    if let Ok(listener) = connect_listener(&url).await {
                        break listener;
                    }
                };
                announce_all(&pool, &announcer).await;
            }
        }
    }
}

async fn connect_listener(url: &str) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect(url).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// Announces what may have changed unheard: every unfinished job, and the newest finished ones. Where there are more than a
/// listener can be behind, it loads anew.
async fn announce_all(pool: &AnyPool, announcer: &Announcer) {
    let query =
        "(SELECT id FROM jobs WHERE status = 0 LIMIT $1) UNION ALL (SELECT id FROM jobs WHERE status = 1 LIMIT $1)
        UNION ALL (SELECT id FROM jobs WHERE status >= 2 ORDER BY finished DESC LIMIT $1)";
    let max = i64::try_from(CHANGES_KEPT).unwrap_or(i64::MAX);
    match sqlx::query(query).bind(max).fetch_all(pool).await {
        Ok(rows) => {
            let ids = rows.iter().filter_map(|row| JobId::new(row.try_get::<&str, _>(0).ok()?).ok());
            ids.for_each(|id| announcer.relay(Arc::new(id)));
        }
        Err(error) => tracing::warn!(%error, "what other relays changed could not be read"),
    }
}

fn unreached(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Database(format!(
        "Postgres cannot be used: {error}; check that it runs, that the address is postgres://USER:PASSWORD@HOST/DATABASE and \
         that this database exists"
    ))
}
