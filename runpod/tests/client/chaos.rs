//! Many jobs at an endpoint that misbehaves in every way at once: what the client calls certain is certain.

use std::sync::Arc;
use std::time::Duration;

use runpod::emulator::{Behaviour, Emulator, Meter, Orders, Settings};
use runpod::{Client, ClientLimits, RunError};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::stage::{CANARY, Relay, client, request, settings};

const JOBS: usize = 1500;
const AT_ONCE: usize = 32;

/// What became of asking for a job.
enum Asked {
    Taken,
    Refused,
    Unknown,
}

async fn ask(client: &Client, relay: &Relay, name: &str) -> Asked {
    let mut request = request(name);
    request.input["_claim"] = json!({"url": relay.url("/claim"), "nonce": name});
    match client.run(&request).await {
        Ok(_) => Asked::Taken,
        Err(error) => {
            assert!(!format!("{error} {error:?}").contains(CANARY), "{error:?}");
            match error {
                RunError::Unknown { .. } => Asked::Unknown,
                error => {
                    assert!(error.is_certain());
                    Asked::Refused
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_certainly_refused_never_runs_and_what_claims_never_runs_twice() {
    let seed = rand::random();
    println!("seed {seed}");
    let settings = Settings { speed: 1000.0, workers_max: 8, run_calls_max: u32::MAX, seed, ..settings() };
    let emulator = Emulator::start(settings).await.unwrap();
    emulator.behave(Orders::by_chance(0.6, &Behaviour::ALL));
    let relay = Relay::start().await;
    let call_time_max = Duration::from_secs(1);
    let client = client(&emulator.base(), ClientLimits { call_time_max, ..ClientLimits::default() });
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut asking = JoinSet::new();
    for number in 0..JOBS {
        let (client, relay, places) = (client.clone(), relay.clone(), Arc::clone(&places));
        asking.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let name = format!("job-{number}");
            (ask(&client, &relay, &name).await, name)
        });
    }
    let asked = asking.join_all().await;
    emulator.behave(Orders::by_chance(0.0, &[]));
    emulator.settled().await;
    judge(&asked, &emulator.meter());
}

fn judge(asked: &[(Asked, String)], meter: &Meter) {
    let (mut taken, mut refused, mut unknown) = (0_u64, 0_u64, 0_u64);
    for (asked, name) in asked {
        match asked {
            Asked::Taken => taken += 1,
            Asked::Refused => {
                refused += 1;
                assert_eq!(meter.runs_by_ref.get(name), None, "{name} was certainly refused");
            }
            Asked::Unknown => unknown += 1,
        }
    }
    println!("taken {taken}, refused {refused}, unknown {unknown}, by the endpoint {}", meter.jobs_taken);
    assert!(taken > 0 && refused > 0 && unknown > 0);
    assert!((taken..=taken + unknown).contains(&meter.jobs_taken));
    assert_eq!(meter.doubled(), Vec::<&str>::new());
    assert!(meter.claims_refused > 0, "deliveries were doubled, and claims prevented their runs");
}
