//! The emulated endpoint itself: what is asked and what time brings, as one pure state machine.

mod job;
mod pool;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use self::job::Job;
pub(crate) use self::job::Submission;
use self::pool::{Run, Worker};
use crate::contract::Status;
use crate::emulator::behaviour::{Behaviour, Orders, Script};
use crate::emulator::meter::Meter;
use crate::emulator::settings::{Settings, Workers};

/// How late a late webhook is.
const LATE_BY: Duration = Duration::from_secs(60);

/// Between two tries of a webhook, and how often it is tried.
const HOOK_PAUSE: Duration = Duration::from_secs(10);
const HOOK_TRIES: u32 = 3;

/// A call is counted with those of the same 10 s.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// What is to be done outside, whose end the platform is told.
#[derive(Debug)]
pub(crate) enum Deed {
    /// Ask whether this run may begin: [`Platform::claimed`].
    Claim { run: u64, url: String, nonce: String, id: String },
    /// Paint, and put where the input says: [`Platform::delivered`].
    Work { run: u64, input: Value },
    /// Post to a webhook: [`Platform::told`].
    Tell { hook: u64, url: String, body: Value },
}

/// What time brings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Expired(String),
    Forgotten(String),
    Started(String),
    IdleOver(String),
    Worked(u64),
    Overrun(u64),
    Unheard(u64),
    Hook(u64),
}

/// A webhook to be posted.
struct Hook {
    url: String,
    body: Value,
    tries: u32,
}

/// A job that waits for a worker.
struct Waiting {
    id: String,
    /// Whether it is given once more, whatever became of it.
    is_double: bool,
}

/// The endpoint. Every method first lets everything happen that is due before `now`.
pub(crate) struct Platform {
    settings: Settings,
    script: Script,
    rng: StdRng,
    jobs: BTreeMap<String, Job>,
    queue: VecDeque<Waiting>,
    workers: BTreeMap<String, Worker>,
    runs: BTreeMap<u64, Run>,
    /// Ids of jobs that a real worker is to stop.
    stops: BTreeMap<String, Vec<String>>,
    timers: BTreeSet<(Duration, Timer)>,
    hooks: BTreeMap<u64, Hook>,
    deeds: Vec<Deed>,
    meter: Meter,
    rates: BTreeMap<&'static str, (u64, u32)>,
    completed: u64,
    failed: u64,
    retried: u64,
    numbers: u64,
}

impl Platform {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            script: Script::new(settings.seed),
            rng: StdRng::seed_from_u64(settings.seed),
            settings,
            jobs: BTreeMap::new(),
            queue: VecDeque::new(),
            workers: BTreeMap::new(),
            runs: BTreeMap::new(),
            stops: BTreeMap::new(),
            timers: BTreeSet::new(),
            hooks: BTreeMap::new(),
            deeds: Vec::new(),
            meter: Meter::default(),
            rates: BTreeMap::new(),
            completed: 0,
            failed: 0,
            retried: 0,
            numbers: 0,
        }
    }

    pub(crate) fn obey(&mut self, orders: Orders) {
        self.script.obey(orders);
    }

    /// How the next call misbehaves.
    pub(crate) fn draw(&mut self, is_run: bool) -> BTreeSet<Behaviour> {
        if is_run { self.script.of_run() } else { self.script.of_call() }
    }

    /// Counts a call; `false` if it is one too many.
    pub(crate) fn admit(&mut self, operation: &'static str, calls_max: u32, now: Duration) -> bool {
        let window = now.as_secs() / RATE_WINDOW.as_secs();
        let rate = self.rates.entry(operation).or_default();
        if rate.0 != window {
            *rate = (window, 0);
        }
        rate.1 += 1;
        rate.1 <= calls_max
    }

    /// Takes a job; gives its id.
    pub(crate) fn submit(&mut self, submission: Submission, behaviours: BTreeSet<Behaviour>, now: Duration) -> String {
        self.catch_up(now);
        let prefix = if submission.is_sync { "sync-" } else { "" };
        let id = format!("{prefix}{:08x}-{:016x}-e1", self.rng.random::<u32>(), self.rng.random::<u64>());
        let job = Job::new(submission, behaviours, now);
        self.meter.jobs_taken += 1;
        self.timers.insert((job.expires, Timer::Expired(id.clone())));
        if job.does(Behaviour::ForgedWebhook)
            && let Some(url) = &job.webhook
        {
            let body = json!({"id": id, "status": "COMPLETED", "output": {"images": ["forged"]}, "executionTime": 1});
            let url = url.clone();
            self.hook(url, body, now);
        }
        self.queue.push_back(Waiting { id: id.clone(), is_double: false });
        if job.does(Behaviour::DoubleDelivery) {
            self.queue.push_back(Waiting { id: id.clone(), is_double: true });
        }
        self.jobs.insert(id.clone(), job);
        self.assign(now);
        id
    }

    /// What `/status` says; `None` for a job it does not know.
    pub(crate) fn status(&mut self, id: &str, now: Duration) -> Option<Value> {
        self.catch_up(now);
        let job = self.jobs.get(id).filter(|job| !job.does(Behaviour::Vanish))?;
        Some(job.said(id))
    }

    /// What `/stream` says.
    pub(crate) fn stream(&mut self, id: &str, now: Duration) -> Option<Value> {
        self.catch_up(now);
        let job = self.jobs.get_mut(id).filter(|job| !job.does(Behaviour::Vanish))?;
        let chunks: Vec<Value> = job.chunks.drain(..).map(|chunk| json!({"output": chunk})).collect();
        Some(json!({"status": job.said(id)["status"], "stream": chunks}))
    }

    /// How a job misbehaves.
    pub(crate) fn behaviours(&self, id: &str) -> BTreeSet<Behaviour> {
        self.jobs.get(id).map(|job| job.behaviours.clone()).unwrap_or_default()
    }

    pub(crate) fn is_final(&self, id: &str) -> bool {
        self.jobs.get(id).is_none_or(|job| job.status.is_final())
    }

    /// Whether it waits for a worker or has one.
    pub(crate) fn is_running(&self, id: &str) -> bool {
        self.queue.iter().any(|waiting| waiting.id == id) || self.runs.values().any(|run| run.id == id)
    }

    /// Whether nothing waits for a worker or has one.
    pub(crate) fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.runs.is_empty()
    }

    /// Calls a job off; one that has ended stays as it is.
    pub(crate) fn cancel(&mut self, id: &str, now: Duration) -> Option<Value> {
        self.catch_up(now);
        if !self.is_final(id) {
            self.queue.retain(|waiting| waiting.id != id);
            self.stop_runs(id, now);
            self.end(id, Status::Cancelled, now);
            self.assign(now);
        }
        let job = self.jobs.get(id)?;
        Some(json!({"id": id, "status": job.status.as_str()}))
    }

    /// Runs a job once more that failed; `None` for an unknown one, an error for another.
    pub(crate) fn retry(&mut self, id: &str, now: Duration) -> Option<Result<Value, &'static str>> {
        self.catch_up(now);
        let job = self.jobs.get_mut(id)?;
        if !matches!(job.status, Status::Failed | Status::TimedOut) {
            return Some(Err("only failed or timed-out jobs can be retried"));
        }
        job.again(now);
        self.timers.insert((job.expires, Timer::Expired(id.to_owned())));
        self.retried += 1;
        self.queue.push_back(Waiting { id: id.to_owned(), is_double: false });
        self.assign(now);
        Some(Ok(json!({"id": id, "status": Status::InQueue.as_str()})))
    }

    /// Calls off all that wait; says how many.
    pub(crate) fn purge(&mut self, now: Duration) -> usize {
        self.catch_up(now);
        let waiting: BTreeSet<String> = self.queue.drain(..).map(|waiting| waiting.id).collect();
        let waiting: Vec<String> = waiting.into_iter().filter(|id| !self.is_final(id)).collect();
        let purged: Vec<&String> = waiting.iter().filter(|id| !self.runs.values().any(|run| run.id == **id)).collect();
        for id in &purged {
            self.end(id, Status::Cancelled, now);
        }
        purged.len()
    }

    pub(crate) fn health(&mut self, now: Duration) -> Value {
        self.catch_up(now);
        let in_queue = self.jobs.values().filter(|job| job.status == Status::InQueue).count();
        let in_progress = self.jobs.values().filter(|job| job.status == Status::InProgress).count();
        let (initializing, idle, running) = self.counts();
        let jobs = json!({"completed": self.completed, "failed": self.failed, "inProgress": in_progress,
            "inQueue": in_queue, "retried": self.retried});
        let workers = json!({"idle": idle, "running": running, "initializing": initializing, "ready": 0,
            "throttled": 0, "unhealthy": 0});
        json!({"jobs": jobs, "workers": workers})
    }

    /// Lets happen what is due; gives what is to be done, and when to come again.
    pub(crate) fn advance(&mut self, now: Duration) -> (Vec<Deed>, Duration) {
        self.catch_up(now);
        let next = self.timers.first().map_or(Duration::MAX, |(at, _)| *at);
        (std::mem::take(&mut self.deeds), next)
    }

    /// How the post to a webhook ended.
    pub(crate) fn told(&mut self, number: u64, is_taken: bool, now: Duration) {
        self.catch_up(now);
        let Some(hook) = self.hooks.get_mut(&number) else { return };
        hook.tries += 1;
        self.meter.webhooks_taken += u64::from(is_taken);
        if is_taken || hook.tries >= HOOK_TRIES {
            self.hooks.remove(&number);
        } else {
            self.timers.insert((now + HOOK_PAUSE, Timer::Hook(number)));
        }
    }

    fn catch_up(&mut self, now: Duration) {
        while let Some((at, _)) = self.timers.first()
            && *at <= now
        {
            let (at, timer) = self.timers.pop_first().expect("it was there");
            self.fire(timer, at);
            self.assign(at);
        }
    }

    fn fire(&mut self, timer: Timer, at: Duration) {
        match timer {
            // Timers are not taken back: what has changed since is looked at here.
            Timer::Expired(id) if self.jobs.get(&id).is_some_and(|job| job.expires == at) => self.drop_job(&id, at),
            Timer::Forgotten(id) if self.jobs.get(&id).is_some_and(|job| job.forget == Some(at)) => {
                self.drop_job(&id, at);
            }
            Timer::Hook(number) => {
                if let Some(hook) = self.hooks.get(&number) {
                    self.meter.webhooks_sent += 1;
                    self.deeds.push(Deed::Tell { hook: number, url: hook.url.clone(), body: hook.body.clone() });
                }
            }
            Timer::Started(worker) => self.started(&worker, at),
            Timer::IdleOver(worker) => self.idle_over(&worker, at),
            Timer::Worked(run) => self.worked(run, at),
            Timer::Overrun(run) => self.overrun(run, at),
            Timer::Unheard(run) => self.unheard(run, at),
            Timer::Expired(_) | Timer::Forgotten(_) => {}
        }
    }

    /// The job's time is over: it is gone, running or not.
    fn drop_job(&mut self, id: &str, now: Duration) {
        self.queue.retain(|waiting| waiting.id != id);
        self.stop_runs(id, now);
        self.jobs.remove(id);
    }

    fn end(&mut self, id: &str, status: Status, now: Duration) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.end(status, now);
        match status {
            Status::Completed => self.completed += 1,
            Status::Failed | Status::TimedOut => self.failed += 1,
            Status::Cancelled | Status::InQueue | Status::InProgress => {}
        }
        let kept = if job.is_sync { self.settings.sync_result_time } else { self.settings.result_time };
        job.forget = Some(now + kept);
        self.timers.insert((now + kept, Timer::Forgotten(id.to_owned())));
        let Some(url) = job.webhook.clone() else { return };
        let (body, is_late) = (job.said(id), job.does(Behaviour::LateWebhook));
        let times: &[Duration] = if is_late { &[LATE_BY, LATE_BY, LATE_BY] } else { &[Duration::ZERO] };
        for later in times {
            self.hook(url.clone(), body.clone(), now + *later);
        }
    }

    fn hook(&mut self, url: String, body: Value, at: Duration) {
        let number = self.number();
        self.hooks.insert(number, Hook { url, body, tries: 0 });
        self.timers.insert((at, Timer::Hook(number)));
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn is_simulated(&self) -> bool {
        match self.settings.workers {
            Workers::Simulated => true,
            Workers::External => false,
        }
    }
}
