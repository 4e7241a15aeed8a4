//! Fifty jobs a second, each submitted until it is acknowledged, and not once more than that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use crate::program::client;

/// 50 a second.
const EVERY: Duration = Duration::from_millis(20);

/// How soon a submission that failed is tried again.
const AGAIN_EVERY: Duration = Duration::from_millis(50);

/// Submits until it is told to stop.
pub struct Load {
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
    acknowledged: Arc<Mutex<Vec<String>>>,
}

impl Load {
    pub fn begin(address: SocketAddr, token: String) -> Self {
        let stop = watch::Sender::new(false);
        let acknowledged = Arc::<Mutex<Vec<String>>>::default();
        let running = tokio::spawn(run(address, token, stop.subscribe(), Arc::clone(&acknowledged)));
        Self { stop, running, acknowledged }
    }

    /// Stops, once every submission that was begun is acknowledged; the ids of all jobs.
    pub async fn end(self) -> Vec<String> {
        self.stop.send_replace(true);
        self.running.await.unwrap();
        std::mem::take(&mut *self.acknowledged.lock().await)
    }
}

async fn run(
    address: SocketAddr,
    token: String,
    mut stop: watch::Receiver<bool>,
    acknowledged: Arc<Mutex<Vec<String>>>,
) {
    let client = client();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut submissions = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            _ = stop.wait_for(|is_over| *is_over) => break,
            _ = ticks.tick() => {
                number += 1;
                let (client, token, acknowledged) = (client.clone(), token.clone(), Arc::clone(&acknowledged));
                submissions.spawn(async move {
                    let id = submit(&client, address, &token, number).await;
                    acknowledged.lock().await.push(id);
                });
            }
            Some(submitted) = submissions.join_next() => submitted.unwrap(),
        }
    }
    while let Some(submitted) = submissions.join_next().await {
        submitted.unwrap();
    }
}

/// Asks for one job, under one key, until the relay says that it has it.
async fn submit(client: &reqwest::Client, address: SocketAddr, token: &str, number: u64) -> String {
    let url = format!("http://{address}/api/queue/room");
    let body = json!({
        "type": "demo_fast", "prompt": "a boat", "seed": number, "mode": "cloud",
        "idempotency_key": format!("load-{number}"),
    });
    let mut ticks = interval(AGAIN_EVERY);
    loop {
        ticks.tick().await;
        let Ok(answer) = client.post(&url).bearer_auth(token).json(&body).send().await else { continue };
        if !answer.status().is_success() {
            assert!(!answer.status().is_client_error() || answer.status() == 429, "{answer:?}");
            // A full room is asked again once a second: thousands that ask at once would be all that the relay hears.
            for _ in 0..20 {
                ticks.tick().await;
            }
            continue;
        }
        // An answer that breaks off in the middle is none.
        let Ok(answer) = answer.json::<Value>().await else { continue };
        return answer["jobs"][0]["id"].as_str().unwrap().to_owned();
    }
}
