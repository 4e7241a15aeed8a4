//! What holds of several relays on one Postgres: they hear of each other's changes, and come back when the server does.

use std::time::Duration;

use queue::MicroUsd;
use sqlx::{Connection, Executor, PgConnection};
use store::limits::Limits;
use store::testing::{Postgres, Sync, Volatile};

use super::{NOW, completed, offer, submit};

/// Longer than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

async fn postgres(test: &str) -> Option<Postgres> {
    match Postgres::start(Sync::Off).await {
        Ok(postgres) => Some(postgres),
        Err(reason) => {
            println!("SKIPPED {test} because {reason}");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_hears_what_another_changes_also_after_its_connections_broke() {
    let Some(postgres) = postgres("a_relay_hears").await else { return };
    // So that nobody else on a shared server is cut off.
    let name = format!("cut_off_{:016x}", rand::random::<u64>());
    let url = format!("{}&application_name={name}", postgres.url());
    let one = Volatile::open(&url, Limits::default()).await.unwrap().store();
    let other = Volatile::open(&url, Limits::default()).await.unwrap().store();
    let mut heard = other.changes();
    let id = submit(&*one, "room").await;
    assert_eq!(*tokio::time::timeout(PATIENCE, heard.recv()).await.unwrap().unwrap(), id);
    let mut server = PgConnection::connect(postgres.url()).await.unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1";
    let cut = sqlx::query(cut).bind(&name).execute(&mut server).await.unwrap();
    assert!(cut.rows_affected() >= 4, "a caller and a listener of each");
    // Every connection of both has broken; neither a call nor a look fails.
    let second = submit(&*one, "room").await;
    assert!(other.job(&second).await.unwrap().is_some());
    loop {
        // First or last among those that are announced because they may have been missed.
        let id = tokio::time::timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
        if *id == second {
            break;
        }
    }
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn the_ledger_of_a_server_refuses_every_change() {
    let Some(postgres) = postgres("the_ledger_of_a_server").await else { return };
    let store = Volatile::open(postgres.url(), Limits::default()).await.unwrap().store();
    let id = submit(&*store, "room").await;
    let taken = store.take(&offer("worker"), NOW).await.unwrap().unwrap();
    store.finish(&id, taken.lease.fence, completed(), MicroUsd(5), NOW).await.unwrap().unwrap().unwrap();
    let mut server = PgConnection::connect(postgres.url()).await.unwrap();
    for change in ["UPDATE ledger SET amount = 0", "DELETE FROM ledger", "TRUNCATE ledger"] {
        let error = server.execute(change).await.unwrap_err().to_string();
        assert!(error.contains("written once"), "{error}");
    }
    assert_eq!(store.ledger(0, 10).await.unwrap().len(), 1);
    store.close().await;
}

#[tokio::test]
async fn a_server_that_would_lose_jobs_or_has_newer_tables_is_refused() {
    let Some(postgres) = postgres("a_server_that_would_lose_jobs").await else { return };
    let error = match store::open(postgres.url()).await {
        Ok(_) if std::env::var("MANYHANDS_TEST_POSTGRES").is_ok() => return, // Somebody's own server, which is durable.
        Ok(_) => panic!("a server without fsync was accepted"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("fsync = off"), "{error}");
    Volatile::open(postgres.url(), Limits::default()).await.unwrap().store().close().await;
    let mut server = PgConnection::connect(postgres.url()).await.unwrap();
    server.execute("UPDATE schema_version SET version = 99").await.unwrap();
    let error = Volatile::open(postgres.url(), Limits::default()).await.err().unwrap().to_string();
    assert!(error.contains("version 99"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_its_password() {
    let error = store::open("postgres://user:secret@127.0.0.1:1/queue").await.err().unwrap().to_string();
    assert!(error.contains("Postgres cannot be used") && !error.contains("secret"), "{error}");
}
