//! A store and the one in memory, given the same calls.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use queue::{
    Ask, AttemptKey, AttemptState, Endpoint, HoldAsk, IdempotencyKey, Job, JobId, MicroUsd, Mode, Model, NewJob, Nonce,
    Outcome, Output, Owner, Price, Progress, Quality, RoomName, Source, Status, Step, UnixMs, UserName,
};
use store::limits::Limits;
use store::{Held, JobStore, Memory, Offer, Submitted, Taken};

use super::calls::{AttemptPick, Call, End, Fence, JobPick, Move, Setup};

/// Both stores, and what has happened to them.
pub struct Pair {
    pub memory: Memory,
    pub store: Arc<dyn JobStore>,
    pub setup: Setup,
    pub now: UnixMs,
    /// Every job that was ever submitted, and every attempt with its nonce.
    pub jobs: Vec<JobId>,
    pub attempts: Vec<(AttemptKey, [u8; 16])>,
    /// The newest fence seen of each job.
    fences: BTreeMap<JobId, u64>,
    /// Jobs that have streamed.
    streaming: BTreeSet<JobId>,
    count: u8,
    /// Which answers there were, and how often.
    pub answers: BTreeMap<String, u64>,
}

/// Makes a call of both stores and compares the answers.
macro_rules! both {
    ($pair:ident, $method:ident($($argument:expr),*)) => {{
        let expected = $pair.memory.$method($($argument),*).await;
        let found = $pair.store.$method($($argument),*).await;
        same(stringify!($method), &expected, &found)?;
        $pair.note(stringify!($method), &expected);
        expected
    }};
}

impl Pair {
    pub fn new(setup: Setup, store: Arc<dyn JobStore>, limits: Limits) -> Self {
        Self {
            memory: Memory::new(limits),
            store,
            setup,
            now: UnixMs(1_790_000_000_000),
            jobs: Vec::new(),
            attempts: Vec::new(),
            fences: BTreeMap::new(),
            streaming: BTreeSet::new(),
            count: 0,
            answers: BTreeMap::new(),
        }
    }

    /// Makes a call, compares the answers, and checks what must hold after every call.
    pub async fn make(&mut self, call: &Call) -> Result<(), String> {
        // Steps of nothing say little.
        let first = Call::Hold { job: 1, rate: 1, claims: true, driver: 0, is_nonce_used: false };
        let call = match call {
            Call::Step { .. } | Call::Settle { .. } | Call::Claim { .. } if self.attempts.is_empty() => &first,
            call => call,
        };
        match call {
            Call::Wait { seconds } => self.now = self.now.after(Duration::from_secs(u64::from(*seconds))),
            Call::Look { .. } => self.look(call).await?,
            Call::Hold { .. } | Call::Step { .. } | Call::Settle { .. } | Call::Claim { .. } | Call::Adopt { .. } => {
                self.pay(call).await?;
                self.check_budgets().await?;
            }
            Call::Submit { .. }
            | Call::Take { .. }
            | Call::Beat { .. }
            | Call::Finish { .. }
            | Call::Cancel { .. }
            | Call::Refuse { .. }
            | Call::Retry { .. }
            | Call::FallBack { .. }
            | Call::Explain { .. }
            | Call::Purge { .. }
            | Call::Expire
            | Call::HandBack { .. }
            | Call::Push { .. }
            | Call::Drain { .. }
            | Call::Forget { .. }
            | Call::SetBreaker { .. }
            | Call::Tell { .. } => self.change(call).await?,
        }
        Ok(())
    }

    /// A call that changes jobs.
    async fn change(&mut self, call: &Call) -> Result<(), String> {
        let now = self.now;
        match call.clone() {
            Call::Submit { again, images, .. } => {
                let id = match again {
                    Some(pick) if !self.jobs.is_empty() => self.job(pick),
                    Some(_) | None => self.new_id(),
                };
                let order = order(call);
                if images > 1 {
                    return self.submit_all(id, &order, images).await;
                }
                if let Ok(Submitted { job, .. }) = both!(self, submit(id.clone(), order.clone(), now))
                    && !self.jobs.contains(&job.id)
                {
                    self.jobs.push(job.id);
                }
            }
            Call::Take { room, worker, source, models } => {
                let models = models.map(|models| models.into_iter().map(model).collect());
                let offer = Offer { room: room.map(crate::pair::room), owner: owner(worker), source, models };
                if let Ok(Some(taken)) = both!(self, take(&offer, now)) {
                    self.see_fence(&taken)?;
                }
            }
            Call::Beat { job, fence, permille } => {
                let (id, fence) = self.lease(job, fence).await;
                let progress = permille.map(|permille| Progress { permille, note: Some("\"half\"".to_owned()) });
                let _ = both!(self, beat(&id, fence, progress.clone(), now));
            }
            Call::Finish { job, fence, end, saving } => {
                let (id, fence) = self.lease(job, fence).await;
                let (outcome, saving) = (outcome(end), MicroUsd(saving));
                let _ = both!(self, finish(&id, fence, outcome.clone(), saving, now));
            }
            Call::Cancel { job } => {
                let id = self.pick(job, |job| !job.status().is_final()).await;
                let _ = both!(self, cancel(&id, now));
            }
            Call::Refuse { job } => {
                let id = self.pick(job, waits).await;
                let _ = both!(self, refuse(&id, "it is too large", now));
            }
            Call::Retry { job } => {
                let id = self.pick(job, |job| job.status() == Status::Failed).await;
                let _ = both!(self, retry(&id));
            }
            Call::FallBack { job, ask, model } => {
                let (to, model) = (crate::pair::ask(ask), model.map(crate::pair::model));
                let id = self.pick(job, waits).await;
                let (input, expected) = ("{\"less\":\"\\u0000ü\"}".to_owned(), Duration::from_millis(2500));
                let _ = both!(self, fall_back(&id, to.clone(), model.clone(), input.clone(), expected));
            }
            Call::Explain { job, route } => {
                let text = format!("because of {route}");
                let id = self.pick(job, waits).await;
                let _ = both!(self, explain(&id, &text));
            }
            Call::Purge { room } => drop(both!(self, purge(&crate::pair::room(room), now))),
            Call::Expire => drop(both!(self, expire(now))),
            Call::HandBack { worker } => drop(both!(self, hand_back(&owner(worker), now))),
            Call::Push { job, fence } => {
                let (id, fence) = self.lease(job, fence).await;
                self.count = self.count.wrapping_add(1);
                let chunk = format!("{{\"n\":{},\"text\":\"\0\"}}", self.count);
                let _ = both!(self, push_chunk(&id, fence, chunk.clone()));
                self.streaming.insert(id);
            }
            Call::Drain { job } => {
                let id = self.pick(job, |job| job.status() == Status::Processing).await;
                let _ = both!(self, drain_chunks(&id));
            }
            Call::Forget { seconds } => {
                let before = UnixMs(now.0 - u64::from(seconds) * 1000);
                let _ = both!(self, forget(before));
                let mut kept = BTreeMap::new();
                for (id, fence) in std::mem::take(&mut self.fences) {
                    // An id that is used again begins anew.
                    if self.memory.job(&id).await.is_ok_and(|job| job.is_some()) {
                        kept.insert(id, fence);
                    }
                }
                self.fences = kept;
            }
            Call::SetBreaker { endpoint, state } => {
                let (endpoint, state) = (crate::pair::endpoint(endpoint), format!("{{\"failures\":{state}}}"));
                let _ = both!(self, set_breaker(&endpoint, state.clone()));
            }
            Call::Tell { relay, text } => {
                let (relay, text) = (owner(relay), format!("heard of {text}\0"));
                let _ = both!(self, tell(&relay, text.clone(), now));
            }
            other => unreachable!("{other:?} is made elsewhere"),
        }
        Ok(())
    }

    /// Submits so many jobs of one order, each under a key of its own.
    async fn submit_all(&mut self, first: JobId, order: &NewJob, images: u8) -> Result<(), String> {
        let mut orders = vec![(first, order.clone())];
        for image in 1..images {
            let key = order.key.as_ref().map(|key| IdempotencyKey::new(format!("{key}-{image}")).unwrap());
            orders.push((self.new_id(), NewJob { key, ..order.clone() }));
        }
        for Submitted { job, .. } in both!(self, submit_all(orders.clone(), self.now)).unwrap_or_default() {
            if !self.jobs.contains(&job.id) {
                self.jobs.push(job.id);
            }
        }
        Ok(())
    }

    /// A call about money.
    async fn pay(&mut self, call: &Call) -> Result<(), String> {
        let now = self.now;
        match call.clone() {
            Call::Hold { job, rate, claims, driver, is_nonce_used } => {
                let used = self.attempts.first().filter(|_| is_nonce_used).map(|(_, nonce)| *nonce);
                let nonce = used.unwrap_or_else(|| {
                    self.count = self.count.wrapping_add(1);
                    [self.count; 16]
                });
                let ask = hold_ask(rate, claims, driver);
                let id = self.pick(job, waits).await;
                let budgets = self.setup.budgets;
                if let Ok(Held::Taken(taken, attempt)) = both!(self, hold(&id, ask.clone(), &budgets, nonce, now)) {
                    self.see_fence(&taken)?;
                    self.attempts.push((attempt.key.clone(), nonce));
                }
            }
            Call::Step { attempt, step } => {
                let (key, nonce) = self.attempt(attempt).await;
                let state = self.memory.attempt(&key).await.unwrap().map(|attempt| attempt.state);
                let step = self.step(step, state, nonce);
                let _ = both!(self, step(&key, step.clone(), now));
            }
            Call::Settle { attempt, end } => {
                let (key, _) = self.attempt(attempt).await;
                let outcome = outcome(end);
                let _ = both!(self, settle(&key, outcome.clone(), now));
            }
            Call::Claim { attempt, is_right } => {
                let nonce = self.attempt(attempt).await.1;
                let nonce = if is_right { Nonce::from_random(nonce).as_str().to_owned() } else { "gu\0ess".to_owned() };
                let _ = both!(self, claim(&nonce, Some("remote".to_owned()), now));
            }
            Call::Adopt { driver } => drop(both!(self, adopt(&owner(driver), now))),
            other => unreachable!("{other:?} is made elsewhere"),
        }
        Ok(())
    }

    /// A call that only looks.
    async fn look(&mut self, call: &Call) -> Result<(), String> {
        let Call::Look { at, job, attempt, room, user, count_max } = call.clone() else {
            unreachable!("{call:?} is made elsewhere")
        };
        let (id, room_name) = (self.job(job), room.map(crate::pair::room));
        let room = room_name.as_ref();
        let (key, nonce) = self.attempt(attempt).await;
        match at % 14 {
            0 => drop(both!(self, job(&id))),
            1 => drop(both!(self, list(room, count_max))),
            2 => drop(both!(self, position(&id))),
            3 => drop(both!(self, waiting(count_max))),
            4 => drop(both!(self, attempt(&key))),
            5 => drop(both!(self, attempt_by_nonce(Nonce::from_random(nonce).as_str()))),
            6 => drop(both!(self, spending(&crate::pair::room(0), &crate::pair::user(user), self.now.day()))),
            7 => drop(both!(self, ledger(u64::from(job % 4), count_max))),
            8 => drop(both!(self, report(room))),
            9 => drop(both!(self, totals(room))),
            10 => drop(both!(self, measured(&ask(user), Source::Peer))),
            11 => drop(both!(self, measured(&ask(user), Source::Cloud))),
            12 => drop(both!(self, told(&owner(user), UnixMs(self.now.0 - 1000 * u64::from(job))))),
            _ => drop(both!(self, breaker(&endpoint(user)))),
        }
        Ok(())
    }

    /// Compares everything that can be seen, and checks that the books are in order.
    pub async fn compare_all(&mut self) -> Result<(), String> {
        for room in [None, Some(room(0)), Some(room(1))] {
            let room = room.as_ref();
            for job in both!(self, list(room, 1000)).unwrap() {
                // What a list does not tell is compared as well.
                let _ = both!(self, job(&job.id));
            }
            let _ = both!(self, totals(room));
            let _ = both!(self, report(room));
        }
        let _ = both!(self, waiting(1000));
        for id in &self.jobs.clone() {
            if self.memory.job(id).await.unwrap().is_some_and(|job| waits(&job)) {
                let _ = both!(self, position(id));
            }
        }
        for id in std::mem::take(&mut self.streaming) {
            let _ = both!(self, drain_chunks(&id));
        }
        for (key, _) in &self.attempts.clone() {
            let _ = both!(self, attempt(key));
        }
        for source in [Source::Local, Source::Peer, Source::Cloud] {
            let _ = both!(self, measured(&ask(0), source));
        }
        let _ = both!(self, ledger(0, 1000));
        let _ = both!(self, told(&owner(0), UnixMs(0)));
        self.check_books().await
    }

    /// A fence is higher than every one before it.
    fn see_fence(&mut self, taken: &Taken) -> Result<(), String> {
        let fence = taken.lease.fence;
        match self.fences.insert(taken.job.id.clone(), fence) {
            Some(before) if before >= fence => Err(format!("fence {fence} after {before}")),
            Some(_) | None => Ok(()),
        }
    }

    /// Counts an answer by its first words.
    fn note(&mut self, method: &str, answer: &impl Debug) {
        let text = format!("{answer:?}");
        let words = text.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty());
        let words: Vec<_> = words.take(3).filter(|word| word.starts_with(char::is_uppercase)).collect();
        *self.answers.entry(format!("{method} {}", words.join(" "))).or_default() += 1;
    }

    fn new_id(&mut self) -> JobId {
        self.count = self.count.wrapping_add(1);
        // In an order of their own.
        JobId::from_random([self.count.wrapping_mul(151); 16])
    }

    /// A job that a call has been made for, mostly; sometimes any, or none.
    async fn pick(&self, pick: JobPick, is_wanted: impl Fn(&Job) -> bool) -> JobId {
        let mut wanted = Vec::new();
        for id in &self.jobs {
            if self.memory.job(id).await.unwrap().is_some_and(|job| is_wanted(&job)) {
                wanted.push(id);
            }
        }
        if wanted.is_empty() || pick.is_multiple_of(8) {
            return self.job(pick / 8);
        }
        wanted[usize::from(pick) % wanted.len()].clone()
    }

    /// Any job, or none.
    fn job(&self, pick: JobPick) -> JobId {
        let index = usize::from(pick) % (self.jobs.len() + 1);
        self.jobs.get(index).cloned().unwrap_or_else(|| JobId::new("nobody").unwrap())
    }

    /// An attempt that is not settled, mostly; sometimes any, or none.
    async fn attempt(&self, pick: AttemptPick) -> (AttemptKey, [u8; 16]) {
        let mut unsettled = Vec::new();
        for (key, nonce) in &self.attempts {
            if self.memory.attempt(key).await.unwrap().unwrap().state != AttemptState::Settled {
                unsettled.push((key, nonce));
            }
        }
        if unsettled.is_empty() || pick.is_multiple_of(8) {
            let unknown = || (AttemptKey { job: JobId::new("nobody").unwrap(), number: 1 }, [0; 16]);
            let index = usize::from(pick / 8) % (self.attempts.len() + 1);
            return self.attempts.get(index).cloned().unwrap_or_else(unknown);
        }
        let (key, nonce) = unsettled[usize::from(pick) % unsettled.len()];
        (key.clone(), *nonce)
    }

    async fn lease(&self, pick: JobPick, fence: Fence) -> (JobId, u64) {
        let id = self.pick(pick, |job| job.status() == Status::Processing).await;
        let newest = self.memory.job(&id).await.unwrap().map_or(0, |job| job.fence);
        let fence = match fence {
            Fence::Newest => newest,
            Fence::Older => newest.saturating_sub(1),
            Fence::Newer => newest + 1,
        };
        (id, fence)
    }

    fn step(&self, step: Move, state: Option<AttemptState>, nonce: [u8; 16]) -> Step {
        let (long, text) = (Duration::from_secs(1), "the cloud said no".to_owned());
        let claim = |nonce: String| Step::Claim { nonce, remote: None };
        match step {
            Move::Next => match state {
                Some(AttemptState::Held) | None => Step::Intend,
                Some(AttemptState::Intent | AttemptState::Unknown) => Step::Submit { remote: "remote".to_owned() },
                Some(AttemptState::Submitted) => claim(Nonce::from_random(nonce).as_str().to_owned()),
                Some(_) => Step::Finish { cold_start: long, execution: long },
            },
            Move::Intend => Step::Intend,
            Move::Submit => Step::Submit { remote: "remote".to_owned() },
            Move::LoseReply => Step::LoseReply,
            Move::Reject => Step::Reject { reason: text },
            Move::Claim { is_right: true } => claim(Nonce::from_random(nonce).as_str().to_owned()),
            Move::Claim { is_right: false } => claim("guess".to_owned()),
            Move::Finish { seconds } => {
                Step::Finish { cold_start: long, execution: Duration::from_secs(u64::from(seconds)) }
            }
            Move::Fail { seconds } => {
                let execution = seconds.map(|seconds| Duration::from_secs(u64::from(seconds)));
                Step::Fail { reason: text, execution }
            }
            Move::Expire { is_gone } => Step::Expire { is_gone },
            Move::Settle => Step::Settle,
        }
    }
}

/// Whether both answered the same.
pub fn same<T: Debug>(what: &str, expected: &T, found: &T) -> Result<(), String> {
    let (expected, found) = (format!("{expected:#?}"), format!("{found:#?}"));
    if expected == found { Ok(()) } else { Err(format!("{what}: memory says\n{expected}\nthe database says\n{found}")) }
}

fn waits(job: &Job) -> bool {
    job.status() == Status::Queued
}

fn order(call: &Call) -> NewJob {
    let Call::Submit { room, user, key, model, mode, priority, .. } = call.clone() else {
        unreachable!("{call:?} submits nothing")
    };
    NewJob {
        room: crate::pair::room(room),
        user: crate::pair::user(user),
        key: key.map(|key| IdempotencyKey::new(format!("key-{key}")).unwrap()),
        ask: (priority < 2).then(|| ask(0)),
        model: model.map(crate::pair::model),
        input: "{\"prompt\":\"ein Garten, 'grün'\\u0000\"}".to_owned(),
        mode: mode as Mode,
        quality: Quality::Final,
        priority,
        expected: Duration::from_millis(1500),
        webhook: None,
        deadlines: queue::Deadlines::default(),
        may_spend: false,
    }
}

fn outcome(end: End) -> Outcome {
    let cost = MicroUsd(1_000_000); // Not to be believed.
    let failed = |is_final| Outcome::Failed { reason: "out of memory".to_owned(), is_final, cost };
    match end {
        End::Completed => {
            let output = Output { json: Some("{}".to_owned()), files: vec!["bucket/user/file".to_owned()] };
            Outcome::Completed { output, cost }
        }
        End::Failed => failed(false),
        End::FailedForGood => failed(true),
        End::HandedBack => Outcome::HandedBack,
    }
}

fn hold_ask(rate: u64, claims: bool, driver: u8) -> HoldAsk {
    let price = Price {
        per_second: MicroUsd(rate),
        cold_start_max: Duration::from_secs(2),
        execution_max: Duration::from_secs(5),
        idle: Duration::from_secs(1),
    };
    HoldAsk { endpoint: endpoint(0), price, ttl: Duration::from_secs(30), claims, driver: owner(driver) }
}

pub fn room(number: u8) -> RoomName {
    RoomName::new(format!("room-{number}")).unwrap()
}

pub fn user(number: u8) -> UserName {
    UserName::new(format!("user-{number}")).unwrap()
}

fn model(number: u8) -> Model {
    // One is the beginning of another.
    Model::new("model_".to_owned() + &"x".repeat(usize::from(number))).unwrap()
}

fn ask(number: u8) -> Ask {
    Ask::new(format!("ask-{number}")).unwrap()
}

fn owner(number: u8) -> Owner {
    Owner::new(format!("worker-{number}")).unwrap()
}

fn endpoint(number: u8) -> Endpoint {
    Endpoint::new(format!("gpu-{number}")).unwrap()
}
