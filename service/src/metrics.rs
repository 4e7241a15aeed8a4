//! Numbers for Prometheus. Labels are few and bounded: never a room, a user or a job.

use std::time::Duration;

use axum::http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use queue::{Job, Source, Status};
use store::Totals;

/// Seconds of waits and pictures: a warm draft to a long clip.
const JOB_SECONDS: [f64; 12] = [0.1, 0.3, 1.0, 3.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 1280.0];

/// Seconds of a call of the store: memory to a disk that is full.
const STORE_SECONDS: [f64; 10] = [0.0002, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStatus {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSource {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfEnd {
    status: &'static str,
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDelivery {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRequest {
    method: &'static str,
    route: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOperation {
    operation: &'static str,
}

type Times<L> = Family<L, Histogram, fn() -> Histogram>;

/// How a delivery went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It ended the lease with a result.
    Completed,
    /// It ended the lease without one.
    Failed,
    /// The holder stopped.
    HandedBack,
    /// It came under a lease that has ended.
    Late,
}

impl Delivery {
    fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::HandedBack => "handed_back",
            Self::Late => "late",
        }
    }
}

/// Every family of the queue.
#[derive(Debug)]
pub struct Metrics {
    submitted: Counter,
    present: Family<OfStatus, Gauge>,
    depth: Gauge,
    ended: Family<OfEnd, Counter>,
    waits: Times<OfSource>,
    durations: Times<OfSource>,
    deliveries: Family<OfDelivery, Counter>,
    requests: Family<OfRequest, Counter>,
    store: Times<OfOperation>,
    streams: Gauge,
}

impl Metrics {
    /// Puts the families into the registry that the relay shares with libp2p.
    pub fn register(registry: &mut Registry) -> Self {
        let jobs = || Histogram::new(JOB_SECONDS);
        let metrics = Self {
            submitted: Counter::default(),
            present: Family::default(),
            depth: Gauge::default(),
            ended: Family::default(),
            waits: Times::new_with_constructor(jobs),
            durations: Times::new_with_constructor(jobs),
            deliveries: Family::default(),
            requests: Family::default(),
            store: Times::new_with_constructor(|| Histogram::new(STORE_SECONDS)),
            streams: Gauge::default(),
        };
        let own = registry.sub_registry_with_prefix("manyhands");
        own.register("jobs_submitted", "Jobs that were queued", metrics.submitted.clone());
        own.register("jobs", "Jobs that the queue knows, by status", metrics.present.clone());
        own.register("queue_depth", "Jobs that wait", metrics.depth.clone());
        own.register("jobs_ended", "Jobs that ended, by status and who did them", metrics.ended.clone());
        own.register_with_unit("job_wait", "From submission to a lease", Unit::Seconds, metrics.waits.clone());
        own.register_with_unit("job_duration", "From a lease to its result", Unit::Seconds, metrics.durations.clone());
        own.register("deliveries", "What workers delivered, by outcome", metrics.deliveries.clone());
        own.register("http_requests", "Requests, by route and status class", metrics.requests.clone());
        own.register_with_unit("store_call", "Calls of the queue's database", Unit::Seconds, metrics.store.clone());
        own.register("event_streams", "Event streams and sockets that are open", metrics.streams.clone());
        metrics
    }

    /// A new job was queued.
    pub fn submitted(&self) {
        self.submitted.inc();
    }

    /// A job was given to somebody.
    pub fn taken(&self, job: &Job) {
        if let Some(lease) = job.present_lease() {
            let label = OfSource { source: source_name(Some(lease.source)) };
            self.waits.get_or_create(&label).observe(lease.since.since(job.created).as_secs_f64());
        }
    }

    /// A job has ended.
    pub fn ended(&self, job: &Job) {
        let source = source_name(job.source);
        self.ended.get_or_create(&OfEnd { status: status_name(job.status()), source }).inc();
        if let (Status::Completed, Some(from), Some(to)) = (job.status(), job.started, job.finished) {
            self.durations.get_or_create(&OfSource { source }).observe(to.since(from).as_secs_f64());
        }
    }

    /// So many jobs ended without ever having been done.
    pub fn ended_waiting(&self, status: Status, count: u64) {
        self.ended.get_or_create(&OfEnd { status: status_name(status), source: source_name(None) }).inc_by(count);
    }

    /// A worker delivered.
    pub fn delivered(&self, delivery: Delivery) {
        self.deliveries.get_or_create(&OfDelivery { outcome: delivery.name() }).inc();
    }

    /// A request was answered. `route` is the template of a path, not the path.
    pub fn answered(&self, method: &'static str, route: &'static str, status: StatusCode) {
        let class = match status.as_u16() {
            ..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            500.. => "5xx",
        };
        self.requests.get_or_create(&OfRequest { method, route, status: class }).inc();
    }

    /// A call of the store took so long.
    pub fn stored(&self, operation: &'static str, time: Duration) {
        self.store.get_or_create(&OfOperation { operation }).observe(time.as_secs_f64());
    }

    /// What is to be counted when somebody looks.
    pub fn look(&self, totals: &Totals, streams: usize) {
        let counts = [
            (Status::Queued, totals.queued),
            (Status::Processing, totals.processing),
            (Status::Completed, totals.completed),
            (Status::Failed, totals.failed),
            (Status::Cancelled, totals.cancelled),
        ];
        for (status, count) in counts {
            self.present.get_or_create(&OfStatus { status: status_name(status) }).set(signed(count));
        }
        self.depth.set(signed(totals.queued));
        self.streams.set(i64::try_from(streams).unwrap_or(i64::MAX));
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn status_name(status: Status) -> &'static str {
    match status {
        Status::Queued => "queued",
        Status::Processing => "processing",
        Status::Completed => "completed",
        Status::Failed => "failed",
        Status::Cancelled => "cancelled",
    }
}

fn source_name(source: Option<Source>) -> &'static str {
    match source {
        Some(Source::Local) => "local",
        Some(Source::Peer) => "peer",
        Some(Source::Cloud) => "cloud",
        None => "nobody",
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use queue::{JobId, MicroUsd, Mode, NewJob, Outcome, Output, Owner, Quality, RoomName, UnixMs, UserName};

    use super::*;

    fn job() -> Job {
        let order = NewJob {
            room: RoomName::new("room").unwrap(),
            user: UserName::new("ada").unwrap(),
            key: None,
            ask: None,
            model: None,
            input: "{}".to_owned(),
            mode: Mode::Auto,
            quality: Quality::Final,
            priority: 0,
            expected: Duration::from_secs(1),
            webhook: None,
            may_spend: false,
            deadlines: Default::default(),
        };
        Job::new(JobId::from_random([0; 16]), order, UnixMs(1_000))
    }

    #[test]
    fn every_family_is_in_the_text_with_its_unit() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.submitted();
        metrics.ended_waiting(Status::Cancelled, 2);
        metrics.delivered(Delivery::Late);
        metrics.answered("GET", "/api/jobs/{id}", StatusCode::NOT_FOUND);
        metrics.stored("take", Duration::from_millis(2));
        metrics.look(&Totals { queued: 3, ..Totals::default() }, 1);
        let mut job = job();
        job.lease(Owner::new("w").unwrap(), Source::Peer, UnixMs(2_000)).unwrap();
        metrics.taken(&job);
        let outcome = Outcome::Completed { output: Output::default(), cost: MicroUsd::default() };
        job.finish(1, outcome, UnixMs(6_000)).unwrap();
        metrics.ended(&job);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "manyhands_jobs_submitted_total 1",
            "manyhands_jobs{status=\"queued\"} 3",
            "manyhands_queue_depth 3",
            "manyhands_jobs_ended_total{status=\"cancelled\",source=\"nobody\"} 2",
            "manyhands_deliveries_total{outcome=\"late\"} 1",
            "manyhands_http_requests_total{method=\"GET\",route=\"/api/jobs/{id}\",status=\"4xx\"} 1",
            "manyhands_store_call_seconds_bucket{le=\"0.003\",operation=\"take\"} 1",
            "manyhands_event_streams 1",
            "manyhands_jobs_ended_total{status=\"completed\",source=\"peer\"} 1",
            "manyhands_job_wait_seconds_sum{source=\"peer\"} 1.0",
            "manyhands_job_duration_seconds_sum{source=\"peer\"} 4.0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
