//! A relay's queue and an emulated endpoint on loopback, both in time that goes faster.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use queue::{
    Budgets, Deadlines, Endpoint, HoldAsk, Job, JobId, MicroUsd, Mode, NewJob, Owner, Price, QueueName, RoomName,
    Status, Submission, UnixMs, UserName,
};
use runpod::emulator::{Emulator, Orders, Settings};
use runpod::{Client, ClientLimits, Dialect, Key};
use service::access::{Grant, Right};
use service::cloud::{Cloud, EndpointRules, Rules};
use service::rates::{Allowance, RateSettings};
use service::results::Results;
use service::{App, Clock};
use store::{Held, JobStore};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

/// Midnight of some day: no test reaches the next one.
const START: UnixMs = UnixMs(20_833 * 24 * 60 * 60 * 1000);

/// The endpoint's key, which nothing may repeat.
pub const KEY: &str = "canary-key-of-the-endpoint";

/// What every job asks for, which no log may hold.
pub const PROMPT: &str = "canary words of a prompt";

/// What one attempt may cost at most: 185 s at 190 millionths.
pub const WORST: MicroUsd = MicroUsd(185 * 190);

/// What the relay calls itself to others.
const DRIVER: &str = "relay:test";

/// How long a test may take in real time.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// What a test wants to differ.
pub struct Wish {
    pub speed: f64,
    pub budgets: Budgets,
    pub in_flight_max: usize,
    pub workers_max: usize,
    pub claims: bool,
    pub seed: u64,
    /// How long the router waits for workers at its start.
    pub await_workers: Duration,
    /// Whether the queue is kept in a database's file; the model in memory is slow with many jobs.
    pub is_in_file: bool,
}

impl Default for Wish {
    fn default() -> Self {
        let plenty = MicroUsd(1_000_000_000);
        let budgets = Budgets { total: plenty, day: plenty, user_day: plenty, room_day: plenty };
        Self {
            speed: 100.0,
            budgets,
            in_flight_max: 4,
            workers_max: 4,
            claims: true,
            seed: 1,
            await_workers: Duration::ZERO,
            is_in_file: false,
        }
    }
}

/// Everything that lasts beyond a relay: its database, its address, the endpoint.
pub struct Stage {
    pub store: Arc<dyn JobStore>,
    pub emulator: Emulator,
    pub clock: Clock,
    pub app: App,
    pub address: SocketAddr,
    pub http: reqwest::Client,
    wish: Wish,
    server: JoinHandle<()>,
    driving: Option<(watch::Sender<bool>, JoinHandle<()>)>,
    folder: TempDir,
}

impl Stage {
    /// A relay that drives.
    pub async fn set(wish: Wish) -> Self {
        let mut stage = Self::set_still(wish).await;
        stage.drive();
        stage
    }

    /// A relay that answers but does not drive.
    pub async fn set_still(wish: Wish) -> Self {
        let settings = Settings {
            key: KEY.to_owned(),
            speed: wish.speed,
            workers_max: wish.workers_max,
            run_calls_max: u32::MAX,
            calls_max: u32::MAX,
            seed: wish.seed,
            ..Settings::default()
        };
        let emulator = Emulator::start(settings).await.unwrap();
        let clock = Clock::Fast { start: START, begun: Instant::now(), speed: wish.speed };
        let folder = tempfile::tempdir().unwrap();
        let file = format!("sqlite:{}", folder.path().join("queue.sqlite").display());
        let store = store::open(if wish.is_in_file { &file } else { "memory:" }).await.unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let results = Results::open(&Default::default(), None, [9; 32], &format!("http://{address}")).unwrap();
        let results = Arc::new(results);
        let app = app(&wish, &emulator, &clock, &store, address, &results, &folder);
        let router = service::router(app.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { store, emulator, clock, app, address, http, wish, server, driving: None, folder }
    }

    /// Starts router and driver.
    pub fn drive(&mut self) {
        let (order, ordered) = watch::channel(false);
        self.driving = Some((order, service::cloud::spawn(self.app.clone(), ordered)));
    }

    /// Another relay on the same queue, that routes and drives as well until what it gives is dropped.
    pub fn beside(&self) -> (App, watch::Sender<bool>) {
        let mut app = self.app.clone();
        app.workers = Arc::default();
        app.cloud = Arc::new(Cloud::new(app.cloud.rules().clone(), Owner::new("relay:other").unwrap()).unwrap());
        let (order, ordered) = watch::channel(false);
        drop(service::cloud::spawn(app.clone(), ordered));
        (app, order)
    }

    /// The relay's driver dies at this very moment, as in a crash, and a new relay with the same database takes its place.
    pub async fn crash(&mut self) {
        if let Some((_order, driving)) = self.driving.take() {
            driving.abort();
            let _ = driving.await;
        }
        // What it knew is lost: only the database is left.
        let results = Arc::clone(&self.app.results);
        self.app = app(&self.wish, &self.emulator, &self.clock, &self.store, self.address, &results, &self.folder);
        self.server.abort();
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let router = service::router(self.app.clone());
        self.server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    }

    /// Stops as a relay does that is told to.
    pub async fn stop(&mut self) {
        let (order, driving) = self.driving.take().unwrap();
        order.send_replace(true);
        timeout(PATIENCE, driving).await.expect("it stops in time").unwrap();
    }

    pub fn behave(&self, orders: Orders) {
        self.emulator.behave(orders);
    }

    /// Submits a picture that only the cloud may paint.
    pub async fn submit(&self, room: &str, user: &str) -> JobId {
        self.submit_as(room, user, Mode::Cloud, true).await
    }

    pub async fn submit_as(&self, room: &str, user: &str, mode: Mode, may_spend: bool) -> JobId {
        let order = NewJob { may_spend, ..self.order(room, user, mode) };
        self.submit_order(order, self.clock.now()).await
    }

    /// The same for a submitter whose time for it is over already.
    pub async fn submit_overdue(&self, room: &str, user: &str) -> JobId {
        let deadlines = Deadlines { ttl: Some(Duration::from_secs(1)), execution: None };
        let order = NewJob { deadlines, may_spend: true, ..self.order(room, user, Mode::Cloud) };
        self.submit_order(order, UnixMs(self.clock.now().0 - 1_000)).await
    }

    /// Holds the money for a job, as a relay does before it asks.
    pub async fn hold(&self, id: &JobId) {
        let rules = self.app.cloud.rules();
        let EndpointRules { name, price, ttl, claims, .. } = rules.endpoints[0].clone();
        let driver = Owner::new(DRIVER).unwrap();
        let ask = HoldAsk { endpoint: name, price, ttl, claims, driver };
        let held = self.store.hold(id, ask, &rules.budgets, rand::random(), self.clock.now()).await.unwrap();
        assert!(matches!(held, Held::Taken(..)), "{held:?}");
    }

    fn order(&self, room: &str, user: &str, mode: Mode) -> NewJob {
        let submission = serde_json::json!({ "type": "demo_fast", "prompt": PROMPT });
        let submission = Submission { mode, ..serde_json::from_value(submission).unwrap() };
        let checked = self.app.catalogue.check(&submission, 7).unwrap();
        let (room, user) = (RoomName::new(room).unwrap(), UserName::new(user).unwrap());
        checked.jobs(&room, &user).remove(0)
    }

    async fn submit_order(&self, order: NewJob, at: UnixMs) -> JobId {
        let id = JobId::from_random(rand::random());
        self.store.submit(id, order, at).await.unwrap().job.id
    }

    pub async fn job(&self, id: &JobId) -> Job {
        self.store.job(id).await.unwrap().unwrap()
    }

    /// Waits until a job has ended.
    pub async fn ended(&self, id: &JobId) -> Job {
        self.until(async || Some(self.job(id).await).filter(|job| job.status().is_final())).await
    }

    /// Waits until something is so, looking often.
    pub async fn until<R>(&self, look: impl AsyncFn() -> Option<R>) -> R {
        let looking = async {
            let mut ticks = interval(Duration::from_millis(5));
            loop {
                ticks.tick().await;
                if let Some(found) = look().await {
                    return found;
                }
            }
        };
        match timeout(PATIENCE, looking).await {
            Ok(found) => found,
            Err(_) => panic!("it is never so; jobs: {:#?}", self.store.list(None, 5).await),
        }
    }

    /// Waits until a job has ended, and says how, in how many attempts.
    pub async fn end_of(&self, id: &JobId) -> (Status, u32) {
        let job = self.ended(id).await;
        (job.status(), job.attempts)
    }

    pub fn operator(&self) -> String {
        let grant = Grant {
            room: None,
            user: UserName::new("operator").unwrap(),
            rights: [Right::Operate].into(),
            until: self.clock.now().after(Duration::from_secs(1_000_000)),
        };
        self.app.mint.grant(&grant).unwrap()
    }

    pub async fn get(&self, path: &str) -> serde_json::Value {
        let url = format!("http://{}{path}", self.address);
        let response = self.http.get(url).bearer_auth(self.operator()).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &serde_json::Value) -> (u16, serde_json::Value) {
        let url = format!("http://{}{path}", self.address);
        let response = self.http.post(url).bearer_auth(self.operator()).json(body).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn app(
    wish: &Wish,
    emulator: &Emulator,
    clock: &Clock,
    store: &Arc<dyn JobStore>,
    address: SocketAddr,
    results: &Arc<Results>,
    folder: &TempDir,
) -> App {
    let limits = ClientLimits {
        // A call of real time is long in the stage's own.
        call_time_max: Duration::from_millis(400),
        reply_bytes_max: 1024 * 1024,
        ..ClientLimits::default()
    };
    let endpoint = EndpointRules {
        name: Endpoint::new("gpu").unwrap(),
        client: Client::new(&emulator.base(), Key::new(KEY).unwrap(), limits).unwrap(),
        queues: vec![QueueName::new("demo").unwrap()],
        models: Vec::new(),
        dialect: Dialect::Manyhands,
        workflow: None,
        defaults: Default::default(),
        price: Price {
            per_second: MicroUsd(190),
            cold_start_max: Duration::from_secs(60),
            execution_max: Duration::from_secs(120),
            idle: Duration::from_secs(5),
        },
        ttl: Duration::from_secs(300),
        claims: wish.claims,
        in_flight_max: wish.in_flight_max,
    };
    let rules = Rules {
        budgets: wish.budgets,
        public_url: Some(format!("http://{address}")),
        await_workers: wish.await_workers,
        endpoints: vec![endpoint],
        ..Rules::default()
    };
    let much = Allowance { per_second: 1.0e6, burst: 1_000_000 };
    let rates = RateSettings { reads: much, submits: much, tokens: much, uploads: much, work: much };
    let key = folder.path().join("token.key");
    std::fs::write(&key, "a".repeat(51) + "q").unwrap();
    let settings = service::Settings { rates, token_key_file: Some(key), ..service::Settings::default() };
    let url = rules.public_url.clone().unwrap();
    let mut app = App::new(Arc::clone(store), settings, None, &url, clock.clone(), Default::default()).unwrap();
    app.results = Arc::clone(results);
    app.cloud = Arc::new(Cloud::new(rules, Owner::new(DRIVER).unwrap()).unwrap());
    app
}
