//! Workers of the emulated endpoint, what they run, and what they cost.

use std::time::Duration;

use queue::MicroUsd;
use serde_json::{Value, json};

use crate::contract::Status;
use crate::emulator::behaviour::Behaviour;
use crate::emulator::meter::Meter;
use crate::emulator::platform::{Deed, Platform, Timer, Waiting};

/// A real worker that is not heard of for so long has died: three of its pings.
const UNHEARD_MAX: Duration = Duration::from_secs(30);

/// A simulated worker.
pub(crate) struct Worker {
    started: Duration,
    state: WorkerState,
    /// Whether a job was ever given to it.
    is_used: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WorkerState {
    Starting,
    Idle { until: Duration },
    Busy,
}

/// A worker at work on a job.
pub(crate) struct Run {
    pub(crate) id: String,
    worker: String,
    since: Duration,
    /// When a real worker was heard of.
    heard: Duration,
}

impl Platform {
    /// Whether a run that wants to begin may.
    pub(crate) fn claimed(&mut self, number: u64, answer: Result<(), String>, now: Duration) {
        self.catch_up(now);
        match answer {
            Ok(()) => self.begin(number, now),
            Err(reason) => {
                let Some(id) = self.release(number, now) else { return };
                self.meter.claims_refused += 1;
                // Whoever was refused because another has begun changes nothing of the other's job.
                if !self.is_running(&id) {
                    self.conclude(&id, Err(json!(reason)), now);
                }
            }
        }
        self.assign(now);
    }

    /// What a simulated worker made.
    pub(crate) fn delivered(&mut self, number: u64, result: Result<(Value, u64), String>, now: Duration) {
        self.catch_up(now);
        let Some(id) = self.release(number, now) else { return };
        let result = result.map(|(output, put)| {
            self.meter.pictures_put += put;
            output
        });
        self.conclude(&id, result.map_err(Value::String), now);
        self.assign(now);
    }

    /// Gives a real worker up to `count_max` jobs.
    pub(crate) fn take(&mut self, worker: &str, count_max: usize, now: Duration) -> Vec<Value> {
        self.catch_up(now);
        let mut taken = Vec::new();
        while taken.len() < count_max && !self.is_simulated() {
            let Some(Waiting { id, .. }) = self.queue.pop_front() else { break };
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            job.begin(worker, now);
            taken.push(json!({"id": id, "input": job.input, "webhook": job.webhook}));
            let number = self.number();
            *self.meter.given.entry(id.clone()).or_default() += 1;
            self.timers.insert((now + UNHEARD_MAX, Timer::Unheard(number)));
            self.runs.insert(number, Run { id, worker: worker.to_owned(), since: now, heard: now });
            self.begin(number, now);
        }
        taken
    }

    /// A real worker is heard of.
    pub(crate) fn ping(&mut self, worker: &str, now: Duration) {
        self.catch_up(now);
        for (number, run) in self.runs.iter_mut().filter(|(_, run)| run.worker == worker) {
            run.heard = now;
            self.timers.insert((now + UNHEARD_MAX, Timer::Unheard(*number)));
        }
    }

    /// What a real worker says of a job, at its end or on the way.
    pub(crate) fn done(&mut self, worker: &str, id: &str, body: &Value, now: Duration) {
        self.catch_up(now);
        let said = |name: &str| body.get(name).filter(|value| !value.is_null()).cloned();
        if body.get("status").and_then(Value::as_str) == Some("IN_PROGRESS") {
            // It may come after the end, and is nothing then.
            if let Some(job) = self.jobs.get_mut(id).filter(|job| !job.status.is_final()) {
                job.output = said("output");
            }
            return;
        }
        let is_this = |run: &Run| run.id == id && run.worker == worker;
        let number = self.runs.iter().find(|(_, run)| is_this(run)).map(|(number, _)| *number);
        // Who is not known to have it has lost it to another, or says it twice.
        let Some(number) = number else { return };
        self.release(number, now);
        if let Some(job) = self.jobs.get_mut(id).filter(|job| !job.status.is_final()) {
            job.output = None;
        }
        let result = match said("error") {
            Some(error) => Err(error),
            None => Ok(said("output").unwrap_or(Value::Null)),
        };
        self.conclude(id, result, now);
        self.assign(now);
    }

    /// One item of what a real worker's job yields.
    pub(crate) fn push(&mut self, worker: &str, id: &str, item: Value, now: Duration) {
        self.catch_up(now);
        let has_it = self.runs.values().any(|run| run.id == id && run.worker == worker);
        if has_it && let Some(job) = self.jobs.get_mut(id) {
            job.chunks.push_back(item);
        }
    }

    /// Jobs that a real worker is to stop, told once.
    pub(crate) fn stops(&mut self, worker: &str) -> Option<Vec<String>> {
        self.stops.remove(worker)
    }

    /// Workers that start, idle, run.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        if !self.is_simulated() {
            return (0, 0, self.runs.len());
        }
        let count = |fits: fn(WorkerState) -> bool| self.workers.values().filter(|worker| fits(worker.state)).count();
        let starting = count(|state| state == WorkerState::Starting);
        let busy = count(|state| state == WorkerState::Busy);
        (starting, self.workers.len() - starting - busy, busy)
    }

    /// The meter as of `now`: workers that have not stopped are charged until then.
    pub(crate) fn meter(&mut self, now: Duration) -> Meter {
        self.catch_up(now);
        let mut meter = self.meter.clone();
        let price = self.settings.price_per_second;
        let since = self.workers.values().map(|worker| worker.started);
        let external = self.runs.values().filter(|_| !self.is_simulated()).map(|run| run.since);
        for since in since.chain(external) {
            meter.worker_seconds += charge(&mut meter.micro_usd, since, now, price);
        }
        meter
    }

    /// Starts workers and gives them jobs, as many as there are.
    pub(super) fn assign(&mut self, now: Duration) {
        if !self.is_simulated() {
            return;
        }
        while let Some(worker) = self.idle_worker()
            && let Some(waiting) = self.queue.pop_front()
        {
            self.give(worker, waiting, now);
        }
        let free = self.workers.len() - self.counts().2;
        let room = self.settings.workers_max.saturating_sub(self.workers.len());
        let is_low = |waiting: &&Waiting| self.jobs.get(&waiting.id).is_some_and(|job| job.is_low);
        let wanted = self.queue.iter().filter(|waiting| !is_low(waiting)).take(free + room).count();
        for _ in free..wanted {
            let name = format!("sim-{}", self.number());
            self.meter.workers_started += 1;
            self.timers.insert((now + self.settings.cold_start, Timer::Started(name.clone())));
            self.workers.insert(name, Worker { started: now, state: WorkerState::Starting, is_used: false });
        }
    }

    pub(super) fn started(&mut self, name: &str, now: Duration) {
        self.idle(name, now);
    }

    pub(super) fn idle_over(&mut self, name: &str, now: Duration) {
        let is_over = |worker: &Worker| worker.state == WorkerState::Idle { until: now };
        if self.workers.get(name).is_some_and(is_over) {
            self.stop_worker(name, now);
        }
    }

    /// A simulated worker has done its work, or dies of it.
    pub(super) fn worked(&mut self, number: u64, now: Duration) {
        let Some(run) = self.runs.get(&number) else { return };
        let (id, worker) = (run.id.clone(), run.worker.clone());
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.does(Behaviour::Stuck) {
            self.release(number, now);
        } else if job.does(Behaviour::WorkerDies) && job.deaths == 0 {
            self.die(number, &id, now);
            self.stop_worker(&worker, now);
        } else {
            self.deeds.push(Deed::Work { run: number, input: job.input.clone() });
        }
    }

    pub(super) fn overrun(&mut self, number: u64, now: Duration) {
        let Some(run) = self.runs.get(&number) else { return };
        let id = run.id.clone();
        self.halt(number, now);
        if !self.is_final(&id) {
            self.stop_runs(&id, now);
            self.end(&id, Status::TimedOut, now);
        }
    }

    pub(super) fn unheard(&mut self, number: u64, now: Duration) {
        let Some(run) = self.runs.get(&number).filter(|run| run.heard + UNHEARD_MAX == now) else { return };
        let id = run.id.clone();
        self.die(number, &id, now);
    }

    /// Stops whoever runs this job, and tells real workers.
    pub(super) fn stop_runs(&mut self, id: &str, now: Duration) {
        let numbers: Vec<u64> = self.runs.iter().filter(|(_, run)| run.id == id).map(|(number, _)| *number).collect();
        for number in numbers {
            self.halt(number, now);
        }
    }

    fn give(&mut self, worker: String, waiting: Waiting, now: Duration) {
        let Waiting { id, is_double } = waiting;
        let Some(job) = self.jobs.get_mut(&id).filter(|job| is_double || !job.status.is_final()) else { return };
        job.begin(&worker, now);
        let text = |name: &str| job.input.pointer(name).and_then(Value::as_str).map(str::to_owned);
        let claim = text("/_claim/url").zip(text("/_claim/nonce"));
        if let Some(worker) = self.workers.get_mut(&worker) {
            if !worker.is_used {
                // It was started for a job that another worker took: this one did not wait for all of it.
                let told = worker.started.max(now.saturating_sub(job.waited()));
                charge(&mut self.meter.untold, worker.started, told, self.settings.price_per_second);
            }
            (worker.state, worker.is_used) = (WorkerState::Busy, true);
        }
        *self.meter.given.entry(id.clone()).or_default() += 1;
        let run = self.number();
        self.runs.insert(run, Run { id: id.clone(), worker, since: now, heard: now });
        match claim {
            Some((url, nonce)) => self.deeds.push(Deed::Claim { run, url, nonce, id }),
            None => self.begin(run, now),
        }
    }

    /// The work begins: this is what a graphics card is paid for.
    fn begin(&mut self, number: u64, now: Duration) {
        let Some(run) = self.runs.get(&number) else { return };
        let Some(job) = self.jobs.get_mut(&run.id) else { return };
        let meter = &mut self.meter;
        *meter.runs.entry(run.id.clone()).or_default() += 1;
        let text = |name: &str| job.input.pointer(name).and_then(Value::as_str).map(str::to_owned);
        if let Some(name) = text("/_client_ref") {
            *meter.runs_by_ref.entry(name).or_default() += 1;
        }
        if let Some(nonce) = text("/_claim/nonce") {
            *meter.runs_by_nonce.entry(nonce).or_default() += 1;
        }
        self.timers.insert((now + job.execution_max, Timer::Overrun(number)));
        if !self.workers.contains_key(&run.worker) {
            return;
        }
        if let Some(Value::Array(items)) = job.input.get("_stream") {
            job.chunks.extend(items.iter().cloned());
        }
        let dies = job.does(Behaviour::WorkerDies) && job.deaths == 0;
        let time = if dies { self.settings.execution / 2 } else { self.settings.execution };
        if !job.does(Behaviour::Overrun) {
            self.timers.insert((now + time, Timer::Worked(number)));
        }
    }

    /// The job's end, unless it has ended.
    fn conclude(&mut self, id: &str, result: Result<Value, Value>, now: Duration) {
        let Some(job) = self.jobs.get_mut(id).filter(|job| !job.status.is_final()) else { return };
        // Workers quote what they were asked.
        let prompt = job.input.get("prompt").and_then(Value::as_str).unwrap_or_default();
        let traceback =
            format!("Traceback (most recent call last):\n  File \"/app/handler.py\", line 1\npaint({prompt:?})\n");
        let raised = json!({"error_type": "<class 'RuntimeError'>", "error_message": "CUDA error: out of memory",
            "error_traceback": traceback,
            "hostname": "emulator", "worker_id": job.worker, "runpod_version": "1.12.0"});
        let result = match result {
            Ok(_) if job.does(Behaviour::Fail) => Err(json!(format!("the model could not be loaded: {prompt}"))),
            Ok(_) if job.does(Behaviour::FailRaised) => Err(json!(raised.to_string())),
            Ok(_) if job.does(Behaviour::NoOutput) => Ok(Value::Null),
            result => result,
        };
        let status = match result {
            Ok(output) => {
                job.output = Some(output).filter(|output| !output.is_null());
                Status::Completed
            }
            Err(error) => {
                job.error = Some(error);
                Status::Failed
            }
        };
        self.end(id, status, now);
    }

    /// A worker died in the middle: the endpoint itself has the job run again, a few times.
    fn die(&mut self, number: u64, id: &str, now: Duration) {
        self.release(number, now);
        let Some(job) = self.jobs.get_mut(id).filter(|job| !job.status.is_final()) else { return };
        job.deaths += 1;
        if job.deaths > self.settings.retries_max {
            self.conclude(id, Err(json!("job failed after its worker died several times")), now);
            return;
        }
        job.status = Status::InQueue;
        self.retried += 1;
        self.queue.push_front(Waiting { id: id.to_owned(), is_double: false });
    }

    /// Ends a run; gives its job's id.
    fn release(&mut self, number: u64, now: Duration) -> Option<String> {
        let run = self.runs.remove(&number)?;
        if self.workers.contains_key(&run.worker) {
            self.idle(&run.worker, now);
        } else {
            let price = self.settings.price_per_second;
            self.meter.worker_seconds += charge(&mut self.meter.micro_usd, run.since, now, price);
        }
        Some(run.id)
    }

    /// Ends a run that its worker does not know to be over.
    fn halt(&mut self, number: u64, now: Duration) {
        let worker = self.runs.get(&number).map(|run| run.worker.clone());
        if let Some((id, worker)) = self.release(number, now).zip(worker)
            && !self.is_simulated()
        {
            self.stops.entry(worker).or_default().push(id);
        }
    }

    fn idle(&mut self, name: &str, now: Duration) {
        let until = now + self.settings.idle;
        if let Some(worker) = self.workers.get_mut(name) {
            worker.state = WorkerState::Idle { until };
            self.timers.insert((until, Timer::IdleOver(name.to_owned())));
        }
    }

    fn stop_worker(&mut self, name: &str, now: Duration) {
        if let Some(worker) = self.workers.remove(name) {
            let price = self.settings.price_per_second;
            self.meter.worker_seconds += charge(&mut self.meter.micro_usd, worker.started, now, price);
            if !worker.is_used {
                charge(&mut self.meter.untold, worker.started, now, price);
            }
        }
    }

    fn idle_worker(&self) -> Option<String> {
        let is_idle = |worker: &Worker| matches!(worker.state, WorkerState::Idle { .. });
        self.workers.iter().find(|(_, worker)| is_idle(worker)).map(|(name, _)| name.clone())
    }
}

/// Adds what every begun second of this time costs; how many they are.
fn charge(amount: &mut MicroUsd, since: Duration, now: Duration, price: MicroUsd) -> u64 {
    let ms = now.saturating_sub(since).as_millis();
    let seconds = u64::try_from(ms.div_ceil(1000)).unwrap_or(u64::MAX);
    *amount = amount.plus(MicroUsd(seconds.saturating_mul(price.0)));
    seconds
}
