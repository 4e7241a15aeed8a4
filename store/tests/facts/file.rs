//! What holds of a file: one relay, one version, what was answered, and a ledger that nobody changes.

use sqlx::{Connection, Executor, SqliteConnection};
use store::StoreError;

use super::{NOW, completed, folder, new_id, offer, order, submit};

#[tokio::test]
async fn a_file_is_opened_by_one_relay_at_a_time() {
    let (_folder, url) = folder();
    let first = store::open(&url).await.unwrap();
    let error = store::open(&url).await.err().unwrap().to_string();
    assert!(error.contains("in use by another relay"), "{error}");
    first.close().await;
    store::open(&url).await.unwrap().close().await;
}

#[tokio::test]
async fn a_file_that_a_relay_has_can_be_read_beside_it() {
    let (_folder, url) = folder();
    let error = store::open_to_read(&url).await.err().unwrap().to_string();
    assert!(error.contains("is not there"), "{error}");
    let relay = store::open(&url).await.unwrap();
    let beside = store::open_to_read(&url).await.unwrap();
    let id = submit(&*relay, "room").await;
    assert_eq!(beside.job(&id).await.unwrap(), relay.job(&id).await.unwrap());
    assert!(beside.submit(new_id(), order("room"), NOW).await.is_err(), "it changes nothing");
    beside.close().await;
    submit(&*relay, "room").await;
    relay.close().await;
}

#[tokio::test]
async fn what_was_answered_is_there_when_the_file_is_opened_again() {
    let (_folder, url) = folder();
    let store = store::open(&url).await.unwrap();
    let id = submit(&*store, "room").await;
    let taken = store.take(&offer("worker"), NOW).await.unwrap().unwrap();
    store.close().await;
    let error = store.submit(new_id(), order("room"), NOW).await.unwrap_err().to_string();
    assert!(error.contains("closed"), "{error}");
    let store = store::open(&url).await.unwrap();
    assert_eq!(store.job(&id).await.unwrap(), Some(taken.job));
    store.close().await;
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_and_left_alone() {
    let (folder, url) = folder();
    store::open(&url).await.unwrap().close().await;
    let path = format!("sqlite://{}", folder.path().join("queue.db").display());
    let mut connection = SqliteConnection::connect(&path).await.unwrap();
    connection.execute("UPDATE schema_version SET version = 99").await.unwrap();
    let error = store::open(&url).await.err().unwrap();
    assert!(matches!(&error, StoreError::Unreadable(text) if text.contains("version 99")), "{error}");
    let version: i64 =
        sqlx::query_scalar("SELECT version FROM schema_version").fetch_one(&mut connection).await.unwrap();
    assert_eq!(version, 99);
}

#[tokio::test]
async fn a_file_that_cannot_be_says_why() {
    let error = store::open("sqlite:/nowhere/at/all.db").await.err().unwrap().to_string();
    assert!(error.contains("/nowhere/at/all.db") && error.contains("folder must exist"), "{error}");
    let (folder, url) = folder();
    std::fs::write(folder.path().join("queue.db"), vec![7; 4096]).unwrap();
    let error = store::open(&url).await.err().unwrap().to_string();
    assert!(error.contains("not a database"), "{error}");
}

#[tokio::test]
async fn the_ledger_of_a_file_refuses_every_change() {
    let (folder, url) = folder();
    let store = store::open(&url).await.unwrap();
    let id = submit(&*store, "room").await;
    let taken = store.take(&offer("worker"), NOW).await.unwrap().unwrap();
    store.finish(&id, taken.lease.fence, completed(), queue::MicroUsd(5), NOW).await.unwrap();
    store.close().await;
    let path = format!("sqlite://{}", folder.path().join("queue.db").display());
    let mut connection = SqliteConnection::connect(&path).await.unwrap();
    for change in ["UPDATE ledger SET amount = 0", "DELETE FROM ledger"] {
        let error = connection.execute(change).await.unwrap_err().to_string();
        assert!(error.contains("written once"), "{error}");
    }
    let store = store::open(&url).await.unwrap();
    assert_eq!(store.ledger(0, 10).await.unwrap().len(), 1);
    store.close().await;
}

#[tokio::test]
async fn a_list_is_short_however_long_the_jobs_also_of_those_that_an_older_program_saved() {
    let (folder, url) = folder();
    let store = store::open(&url).await.unwrap();
    let long = || queue::NewJob { input: format!("{:?}", "x".repeat(100_000)), ..order("room") };
    let id = store.submit(new_id(), long(), NOW).await.unwrap().job.id;
    store.close().await;
    let path = format!("sqlite://{}", folder.path().join("queue.db").display());
    let mut connection = SqliteConnection::connect(&path).await.unwrap();
    let head: String = sqlx::query_scalar("SELECT head FROM jobs").fetch_one(&mut connection).await.unwrap();
    assert!(head.len() < 1000, "{head}");
    connection.execute("UPDATE jobs SET head = NULL").await.unwrap();
    connection.close().await.unwrap();
    let store = store::open(&url).await.unwrap();
    let whole = store.job(&id).await.unwrap().unwrap();
    assert_eq!(whole.order.input.len(), 100_002);
    assert_eq!(store.list(None, 10).await.unwrap(), [whole.head()]);
    assert_eq!(store.waiting(10).await.unwrap(), [whole.head()]);
    store.close().await;
}
