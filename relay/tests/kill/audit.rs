//! What became of every job, and whether the books are right, as the relay's API tells.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use queue::{Budgets, MicroUsd};
use serde_json::Value;
use tokio::time::{interval, timeout};

use crate::program::{Tokens, client};

/// How jobs ended.
#[derive(Debug, Default)]
pub struct Ends {
    pub completed: usize,
    pub failed: usize,
    pub lost: usize,
}

/// What the ledger says in all.
#[derive(Debug, Default)]
pub struct Books {
    pub attempts: usize,
    pub charged: MicroUsd,
    pub held: MicroUsd,
}

/// Waits until every job has ended, or `patience` does; a job that is unknown or does not end is lost.
pub async fn ends(address: SocketAddr, tokens: &Tokens, jobs: &[String], patience: Duration) -> Ends {
    let mut left: BTreeSet<&String> = jobs.iter().collect();
    let mut ends = Ends::default();
    let client = client();
    let waiting = async {
        let mut ticks = interval(Duration::from_millis(250));
        while !left.is_empty() {
            ticks.tick().await;
            for id in left.clone() {
                let url = format!("http://{address}/api/jobs/{id}");
                let Ok(answer) = client.get(url).bearer_auth(&tokens.member).send().await else { continue };
                let status = answer.status().as_u16();
                let job: Value = answer.json().await.unwrap();
                match (status, job["status"].as_str()) {
                    (200, Some("completed")) => ends.completed += 1,
                    (200, Some("failed")) => {
                        println!("{id} failed: {}", job["error"]);
                        ends.failed += 1;
                    }
                    (200, Some(_)) => continue,
                    (404, _) => ends.lost += 1,
                    other => panic!("{other:?}: {job}"),
                }
                left.remove(id);
            }
        }
    };
    let is_over = timeout(patience, waiting).await.is_err();
    if is_over {
        println!("{} jobs have not ended: {:?}", left.len(), left.iter().take(5).collect::<Vec<_>>());
        ends.lost += left.len();
    }
    ends
}

/// Goes through the ledger entry by entry once nothing is held any more: no budget is passed, nothing is charged twice or more
/// than was held.
pub async fn books(address: SocketAddr, operator: &str, budgets: &Budgets, patience: Duration) -> Books {
    let client = client();
    let page = async |after: u64| -> Value {
        let url = format!("http://{address}/api/ledger?after={after}");
        client.get(url).bearer_auth(operator).send().await.unwrap().json().await.unwrap()
    };
    let settled = async {
        let mut ticks = interval(Duration::from_millis(250));
        loop {
            ticks.tick().await;
            if page(0).await["report"]["held_usd"].as_f64() == Some(0.0) {
                return;
            }
        }
    };
    if timeout(patience, settled).await.is_err() {
        println!("something stays held");
    }
    let (mut books, mut after) = (Books::default(), 0);
    let mut open: BTreeMap<String, u64> = BTreeMap::new();
    let mut held: BTreeMap<String, u64> = BTreeMap::new();
    let mut charged = BTreeSet::new();
    let mut spent = 0;
    loop {
        let page = page(after).await;
        let entries = page["entries"].as_array().unwrap();
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            assert_eq!(entry["number"].as_u64(), Some(after + 1), "the ledger has a gap");
            after += 1;
            let amount = entry["amount"].as_u64().unwrap();
            let attempt = entry["attempt"].to_string();
            match entry["kind"].as_str().unwrap() {
                "hold" => {
                    assert!(held.insert(attempt.clone(), amount).is_none(), "{entry}");
                    open.insert(attempt, amount);
                    spent += amount;
                }
                "release" => {
                    assert_eq!(open.remove(&attempt), Some(amount), "{entry}");
                    spent -= amount;
                }
                "charge" => {
                    assert!(amount <= held[&attempt] && charged.insert(attempt), "{entry}");
                    spent += amount;
                    books.charged = books.charged.plus(MicroUsd(amount));
                }
                other => panic!("{other}"),
            }
            assert!(spent <= budgets.total.0, "entry {after} passes the budget");
        }
    }
    books.attempts = held.len();
    books.held = MicroUsd(open.values().sum());
    books
}
