//! SQLite: one writer, which makes many calls durable with one write to the disk, and a few readers.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, ConnectOptions, Connection, Executor, Row};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::announce::Announcer;
use crate::limits::{BATCH_MAX, CALLS_WAITING_MAX, CONNECTION_WAIT, FILE_WAIT, Limits, READERS};
use crate::sql::{Database, Dialect, Fault, Operation, Session, Writer, migrate};
use crate::store::StoreError;

/// Whether what was answered survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It does.
    Full,
    /// It does not: for tests of what is answered.
    #[cfg(feature = "testing")]
    None,
}

/// Opens a file, or makes it.
pub(crate) async fn open(path: &Path, durability: Durability, limits: Limits) -> Result<Database, StoreError> {
    let path = std::path::absolute(path).map_err(|error| unopened(path, &error))?;
    let lock = lock(&path)?;
    sqlx::any::install_default_drivers();
    let options = options(&path, "rwc")?;
    let mut connection = options.connect().await.map_err(|error| unopened(&path, &error))?;
    prepare(&mut connection, durability).await.map_err(|error| unopened(&path, &error))?;
    migrate(&mut connection, Dialect::Sqlite).await.map_err(Fault::into_answer)?;
    let readers = readers(&path, options).await?;
    let announcer = Arc::new(Announcer::alone());
    let (sender, calls) = mpsc::channel(CALLS_WAITING_MAX);
    let task = Task { connection, limits, announcer: announcer.clone(), _lock: lock };
    let writer = SqliteWriter { calls: Some(sender), task: Some(tokio::spawn(task.run(calls))) };
    Ok(Database::new(Dialect::Sqlite, limits, readers, Writer::Sqlite(writer.into()), announcer))
}

/// Opens a file that is there, also one that a relay has, and only to read: whatever would change it is answered with an error.
pub(crate) async fn open_to_read(path: &Path, limits: Limits) -> Result<Database, StoreError> {
    let path = std::path::absolute(path).map_err(|error| unopened(path, &error))?;
    if !path.is_file() {
        return Err(StoreError::Database(format!("{} is not there; a relay makes it when it starts", path.display())));
    }
    sqlx::any::install_default_drivers();
    let readers = readers(&path, options(&path, "rw")?).await?;
    let writer = SqliteWriter { calls: None, task: None };
    let announcer = Arc::new(Announcer::alone());
    Ok(Database::new(Dialect::Sqlite, limits, readers, Writer::Sqlite(writer.into()), announcer))
}

fn options(path: &Path, mode: &str) -> Result<AnyConnectOptions, StoreError> {
    let options = AnyConnectOptions::from_str(&url(path, mode)).map_err(|error| unopened(path, &error))?;
    Ok(options.disable_statement_logging())
}

/// Connections that change nothing.
async fn readers(path: &Path, options: AnyConnectOptions) -> Result<AnyPool, StoreError> {
    let readers = AnyPoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(CONNECTION_WAIT)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute("PRAGMA query_only = ON").await?;
                Ok(())
            })
        });
    readers.connect_with(options).await.map_err(|error| unopened(path, &error))
}

/// The writer as its callers have it.
#[derive(Debug)]
pub(crate) struct SqliteWriter {
    calls: Option<mpsc::Sender<Box<dyn Call>>>,
    task: Option<JoinHandle<()>>,
}

impl SqliteWriter {
    /// Hands a call over; its answer comes when it is durable.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        operation: impl Operation<T>,
    ) -> Result<oneshot::Receiver<Result<T, StoreError>>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let calls = self.calls.as_ref().ok_or_else(closed)?;
        match calls.try_send(Box::new(Waiting { operation, value: None, reply })) {
            Ok(()) => Ok(answer),
            Err(mpsc::error::TrySendError::Full(_)) => Err(StoreError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(closed()),
        }
    }

    /// Takes no more calls; what is given ends when the last is answered and the file closed.
    pub(crate) fn close(&mut self) -> Option<JoinHandle<()>> {
        self.calls = None;
        self.task.take()
    }
}

/// What a call to a closed store is told.
pub(crate) fn closed() -> StoreError {
    StoreError::Database("it is closed".to_owned())
}

/// A call that waits for the writer.
#[async_trait]
trait Call: Send + std::fmt::Debug {
    /// Runs it; says whether it may stay.
    async fn run(&mut self, session: &mut Session<'_>) -> bool;

    /// Answers, with `error` if its transaction failed.
    fn answer(self: Box<Self>, error: Option<&StoreError>);
}

struct Waiting<T, F> {
    operation: F,
    value: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> std::fmt::Debug for Waiting<T, F> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Waiting")
    }
}

#[async_trait]
impl<T: Send + 'static, F: Operation<T>> Call for Waiting<T, F> {
    async fn run(&mut self, session: &mut Session<'_>) -> bool {
        let value = (self.operation)(session).await.map_err(Fault::into_answer);
        let is_good = value.is_ok();
        self.value = Some(value);
        is_good
    }

    fn answer(self: Box<Self>, error: Option<&StoreError>) {
        let value = match (error, self.value) {
            (None, Some(value)) => value,
            (Some(error), _) => Err(error.clone()),
            (None, None) => Err(closed()),
        };
        // Who asked may be gone.
        let _ = self.reply.send(value);
    }
}

/// The writer.
struct Task {
    connection: AnyConnection,
    limits: Limits,
    announcer: Arc<Announcer>,
    /// Held as long as the file is written to.
    _lock: Lock,
}

impl Task {
    async fn run(mut self, mut calls: mpsc::Receiver<Box<dyn Call>>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        // While one batch is written to the disk, the next one gathers.
        while calls.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let outcome = self.commit(&mut batch).await;
            if let Err(error) = &outcome {
                tracing::error!(%error, calls = batch.len(), "the queue could not be written");
                // Fails where SQLite has rolled back already.
                let _ = self.connection.execute("ROLLBACK").await;
            }
            for call in batch.drain(..) {
                call.answer(outcome.as_ref().err());
            }
        }
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "the queue was not closed cleanly");
        }
    }

    /// Runs the calls in one transaction, each so that its failure undoes nothing of the others.
    async fn commit(&mut self, batch: &mut [Box<dyn Call>]) -> Result<(), StoreError> {
        let failed = |error: sqlx::Error| Fault::from(error).into_answer();
        self.connection.execute("BEGIN IMMEDIATE").await.map_err(failed)?;
        let mut changed = Vec::new();
        for call in batch {
            self.connection.execute("SAVEPOINT call").await.map_err(failed)?;
            let mut session = Session::new(&mut self.connection, Dialect::Sqlite, self.limits);
            if call.run(&mut session).await {
                changed.append(&mut session.changed);
            } else {
                // Fails if SQLite gave up the whole transaction, which the others must be told.
                self.connection.execute("ROLLBACK TO call").await.map_err(failed)?;
            }
            self.connection.execute("RELEASE call").await.map_err(failed)?;
        }
        self.connection.execute("COMMIT").await.map_err(failed)?;
        self.announcer.announce(changed);
        Ok(())
    }
}

/// That this process alone uses a file.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing it is not enough where a process is being started: until that runs its own program it has the file as well.
        let _ = self.0.unlock();
    }
}

/// Makes sure that no other process uses the file: two relays would each believe that they alone lease its jobs.
fn lock(path: &Path) -> Result<Lock, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(&name);
    let file = file.map_err(|error| unopened(path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(StoreError::Database(format!(
            "{} is in use by another relay; stop that one, give this one a file of its own, or use Postgres, which several may share",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(unopened(path, &error)),
    }
}

/// Sets what is not kept in the file, and the journal, which is.
async fn prepare(connection: &mut AnyConnection, durability: Durability) -> Result<(), sqlx::Error> {
    let synchronous = match durability {
        Durability::Full => "PRAGMA synchronous = FULL",
        #[cfg(feature = "testing")]
        Durability::None => "PRAGMA synchronous = OFF",
    };
    let wait = format!("PRAGMA busy_timeout = {}", FILE_WAIT.as_millis());
    connection.execute(sqlx::AssertSqlSafe(wait)).await?;
    connection.execute("PRAGMA foreign_keys = ON").await?;
    let journal: String = connection.fetch_one("PRAGMA journal_mode = WAL").await?.try_get(0)?;
    if journal != "wal" {
        return Err(sqlx::Error::Protocol(format!("its journal is {journal} and cannot be a write-ahead log")));
    }
    connection.execute(synchronous).await?;
    Ok(())
}

/// The address of a file, whatever characters its path has.
fn url(path: &Path, mode: &str) -> String {
    let mut url = "sqlite://".to_owned();
    for byte in path.to_string_lossy().bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url + "?mode=" + mode
}

fn unopened(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Database(format!(
        "{} cannot be opened: {error}; its folder must exist, be on a local disk and be writable",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_characters_is_one_address() {
        assert_eq!(url(Path::new("/a b/ü?#%.db"), "rwc"), "sqlite:///a%20b/%C3%BC%3F%23%25.db?mode=rwc");
    }
}
