//! What holds of a relay that is killed again and again, alone or beside another one.

use std::time::Duration;

use queue::MicroUsd;
use store::testing::{Postgres, Sync};
use tokio::sync::Mutex;

use crate::program::{Program, Shared};
use crate::{Findings, endpoint, killed};

/// How soon the relay must be ready again, 99 times of 100.
const READY_P99: Duration = Duration::from_secs(2);

/// One test at a time: each loads the machine.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_nothing_is_paid_twice() {
    let _alone = ALONE.lock().await;
    let emulator = endpoint().await;
    let findings = killed(&emulator, Program::new(&emulator, false, None), None).await;
    check(&findings);
    assert!(findings.ready_p99 <= READY_P99, "{findings:?}");
}

/// The one that stays must not do what the other is doing.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_relays_on_a_postgres_queue_may_die_as_often_as_it_likes() {
    let _alone = ALONE.lock().await;
    let postgres = match Postgres::start(Sync::On).await {
        Ok(postgres) => postgres,
        Err(reason) => return println!("SKIPPED two relays on one queue because {reason}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let shared = Shared { database: postgres.url().to_owned(), key: folder.path().join("queue.key") };
    let emulator = endpoint().await;
    let [dies, stays] = [(); 2].map(|()| Program::new(&emulator, false, Some(&shared)));
    check(&killed(&emulator, dies, Some(stays)).await);
}

fn check(findings: &Findings) {
    assert_eq!(findings.lost, 0, "{findings:?}");
    assert_eq!(findings.doubled, Vec::<String>::new());
    assert_eq!(findings.twice, 0, "attempts ran twice");
    assert_eq!(findings.held, MicroUsd(0), "every hold was released");
}
