//! Where a worker asks for jobs and tells of them: a relay's room, or RunPod by its environment.

use std::time::Duration;

use queue::{Model, Owner};

use super::limits::PING_EVERY;

/// The part of a path that a worker's questions for jobs have, and what stands there for jobs to stop.
const TAKE: &str = "/job-take/";
const STOP: &str = "/job-stop/";

/// Tells a relay that this worker reads the catalogue's orders, keeps its leases itself, and wants to know when a job is not
/// its own any more.
const DIALECT: &str = "dialect=manyhands";

/// What RunPod's addresses hold in place of names.
const POD: &str = "$RUNPOD_POD_ID";
const ID: &str = "$ID";

/// Who gives the jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// A relay's room.
    Relay,
    /// RunPod, which this worker runs on.
    RunPod,
}

/// The addresses of one worker's queue, and what opens them.
#[derive(Clone)]
pub struct Contract {
    /// Who gives the jobs.
    pub queue: Queue,
    /// What the worker calls itself.
    pub worker: String,
    /// How often it is to say that it lives.
    pub ping_every: Duration,
    authorization: Option<String>,
    take: String,
    done: String,
    stop: Option<String>,
    ping: Option<String>,
}

impl Contract {
    /// A relay's room at `address`, for example `https://relay.example/v2/ROOM`. The worker takes jobs of these models.
    pub fn relay(address: &str, token: Option<&str>, worker: &Owner, models: &[Model]) -> Result<Self, String> {
        let address = address.trim().trim_end_matches('/');
        let is_web = address.starts_with("https://") || address.starts_with("http://");
        if !is_web || address.contains(['?', '#', ' ']) || !address.contains("/v2/") {
            return Err(format!(
                "{address:?} is not a queue's address; give --queue https://RELAY/v2/ROOM, as the relay's operator tells it"
            ));
        }
        let models = models.iter().map(Model::as_str).collect::<Vec<_>>().join(",");
        Ok(Self {
            queue: Queue::Relay,
            worker: worker.to_string(),
            ping_every: PING_EVERY,
            authorization: token.map(|token| format!("Bearer {}", token.trim())),
            take: format!("{address}{TAKE}{worker}?{DIALECT}&models={models}"),
            done: format!("{address}/job-done/{worker}/{ID}?{DIALECT}"),
            stop: Some(format!("{address}{STOP}{worker}?{DIALECT}")),
            ping: Some(format!("{address}/ping/{worker}?{DIALECT}")),
        })
    }

    /// RunPod as its environment describes it; `None` where there is no such environment.
    pub fn runpod(variable: impl Fn(&str) -> Option<String>) -> Option<Result<Self, String>> {
        let take = variable("RUNPOD_WEBHOOK_GET_JOB")?;
        let missing =
            |name: &str| format!("RUNPOD_WEBHOOK_GET_JOB is set and {name} is not; set both, or give --queue");
        let Some(worker) = variable("RUNPOD_POD_ID") else { return Some(Err(missing("RUNPOD_POD_ID"))) };
        let Some(done) = variable("RUNPOD_WEBHOOK_POST_OUTPUT") else {
            return Some(Err(missing("RUNPOD_WEBHOOK_POST_OUTPUT")));
        };
        let ping_ms = variable("RUNPOD_PING_INTERVAL").and_then(|text| text.trim().parse().ok());
        let place = encoded(&worker);
        // In this one address the worker's name stands where the others have the job's.
        let take = take.replace(ID, &place);
        Some(Ok(Self {
            queue: Queue::RunPod,
            ping_every: ping_ms.map_or(PING_EVERY, Duration::from_millis).max(Duration::from_secs(1)),
            // The bare key, as RunPod's own workers send it.
            authorization: variable("RUNPOD_AI_API_KEY"),
            done: done.replace(POD, &place),
            stop: take.contains(TAKE).then(|| take.replace(TAKE, STOP)),
            ping: variable("RUNPOD_WEBHOOK_PING").map(|ping| ping.replace(POD, &place)),
            take,
            worker,
        }))
    }

    /// Where to ask for a job; whether one is under way tells a queue how busy this worker is.
    pub fn take(&self, is_busy: bool) -> String {
        with(&self.take, &[("job_in_progress", if is_busy { "1" } else { "0" })])
    }

    /// Where to tell of a job.
    pub fn done(&self, job: &str) -> String {
        with(&self.done.replace(ID, &encoded(job)), &[("isStream", "false")])
    }

    /// Where to ask which jobs to stop.
    pub fn stop(&self) -> Option<String> {
        self.stop.clone()
    }

    /// Where to say that this worker lives, and which job it has.
    pub fn ping(&self, job: Option<&str>) -> Option<String> {
        let job = job.map(|job| ("job_id", job));
        let version = ("runpod_version", concat!("manyhands-", env!("CARGO_PKG_VERSION")));
        let fields: Vec<_> = job.into_iter().chain([version]).collect();
        self.ping.as_ref().map(|ping| with(ping, &fields))
    }

    /// What opens the queue's doors; never shown.
    pub(super) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// The host of the queue, for people: paths and queries may hold what opens doors.
    pub fn host(&self) -> &str {
        let rest = self.take.split_once("://").map_or(self.take.as_str(), |(_, rest)| rest);
        let host = rest.split(['/', '?']).next().unwrap_or_default();
        host.rsplit_once('@').map_or(host, |(_, host)| host)
    }
}

/// An address with more fields in its query.
fn with(address: &str, fields: &[(&str, &str)]) -> String {
    let mut address = address.to_owned();
    for (name, value) in fields {
        let joint = match address.split_once('?') {
            None => "?",
            Some((_, "")) => "",
            Some((_, query)) if query.ends_with('&') => "",
            Some(_) => "&",
        };
        address = format!("{address}{joint}{name}={}", encoded(value));
    }
    address
}

/// A text as it can stand in a path or query.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The environment that RunPod's own worker was measured with.
    fn environment(name: &str) -> Option<String> {
        let value = match name {
            "RUNPOD_WEBHOOK_GET_JOB" => "http://h:1/v2/e/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT" => "http://h:1/v2/e/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING" => "http://h:1/v2/e/ping/$RUNPOD_POD_ID?gpu=none",
            "RUNPOD_AI_API_KEY" => "the-key",
            "RUNPOD_POD_ID" => "pod-7",
            "RUNPOD_PING_INTERVAL" => "4000",
            _ => return None,
        };
        Some(value.into())
    }

    #[test]
    fn the_environment_s_names_are_put_where_runpod_s_own_worker_puts_them() {
        let contract = Contract::runpod(environment).unwrap().unwrap();
        assert_eq!(contract.take(false), "http://h:1/v2/e/job-take/pod-7?gpu=none&job_in_progress=0");
        assert_eq!(contract.take(true), "http://h:1/v2/e/job-take/pod-7?gpu=none&job_in_progress=1");
        assert_eq!(contract.done("a-u1"), "http://h:1/v2/e/job-done/pod-7/a-u1?gpu=none&isStream=false");
        assert_eq!(contract.stop().unwrap(), "http://h:1/v2/e/job-stop/pod-7?gpu=none");
        let ping = contract.ping(Some("a-u1")).unwrap();
        assert!(
            ping.starts_with("http://h:1/v2/e/ping/pod-7?gpu=none&job_id=a-u1&runpod_version=manyhands-"),
            "{ping}"
        );
        assert_eq!(contract.authorization(), Some("the-key"), "bare");
        assert_eq!(contract.ping_every, Duration::from_secs(4));
        assert_eq!((contract.queue, contract.worker.as_str()), (Queue::RunPod, "pod-7"));
    }

    #[test]
    fn in_the_address_for_jobs_only_the_id_is_replaced() {
        let with_pod = |name: &str| match name {
            "RUNPOD_WEBHOOK_GET_JOB" => Some("http://h/job-take/$ID?pod=$RUNPOD_POD_ID".into()),
            other => environment(other),
        };
        let take = Contract::runpod(with_pod).unwrap().unwrap().take(false);
        assert_eq!(take, "http://h/job-take/pod-7?pod=$RUNPOD_POD_ID&job_in_progress=0");
    }

    #[test]
    fn an_environment_without_runpod_is_none_and_half_of_one_is_told() {
        assert!(Contract::runpod(|_| None).is_none());
        for missing in ["RUNPOD_POD_ID", "RUNPOD_WEBHOOK_POST_OUTPUT"] {
            let half = |name: &str| if name == missing { None } else { environment(name) };
            let reason = Contract::runpod(half).unwrap().err().unwrap();
            assert!(reason.contains(missing), "{reason}");
        }
    }

    #[test]
    fn a_room_s_addresses_carry_worker_models_and_token() {
        let (worker, model) = (Owner::new("w-1").unwrap(), |name: &str| Model::new(name).unwrap());
        let models = [model("demo"), model("sd15")];
        let contract = Contract::relay("https://r.example/v2/room/", Some(" T\n"), &worker, &models).unwrap();
        let room = "https://r.example/v2/room";
        let take = format!("{room}/job-take/w-1?dialect=manyhands&models=demo,sd15&job_in_progress=0");
        assert_eq!(contract.take(false), take);
        assert_eq!(contract.done("j"), format!("{room}/job-done/w-1/j?dialect=manyhands&isStream=false"));
        assert_eq!(contract.stop().unwrap(), format!("{room}/job-stop/w-1?dialect=manyhands"));
        let ping = contract.ping(None).unwrap();
        assert!(ping.starts_with(&format!("{room}/ping/w-1?dialect=manyhands&runpod_version=")), "{ping}");
        assert_eq!(contract.authorization(), Some("Bearer T"));
        assert_eq!(contract.host(), "r.example");
    }

    #[test]
    fn what_is_no_queue_is_refused_with_an_example() {
        let worker = Owner::new("w").unwrap();
        for address in ["", "relay.example/v2/room", "ftp://r/v2/x", "https://r/room", "https://r/v2/x?y"] {
            let reason = Contract::relay(address, None, &worker, &[]).err().unwrap();
            assert!(reason.contains("https://RELAY/v2/ROOM"), "{reason}");
        }
    }

    #[test]
    fn a_job_s_id_cannot_change_the_address() {
        let contract = Contract::runpod(environment).unwrap().unwrap();
        assert!(contract.done("../x?y#z").contains("/pod-7/..%2Fx%3Fy%23z?gpu=none"));
        assert!(contract.ping(Some("a&b")).unwrap().contains("job_id=a%26b"));
    }

    #[test]
    fn the_host_is_told_without_what_opens_doors() {
        let secret = |name: &str| match name {
            "RUNPOD_WEBHOOK_GET_JOB" => Some("https://user:word@h.example:8/job-take/$ID?key=x".into()),
            other => environment(other),
        };
        assert_eq!(Contract::runpod(secret).unwrap().unwrap().host(), "h.example:8");
    }
}
