//! Has every waiting job go where `queue::route` says: looks when something changes, and now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use queue::{
    Ask, CloudBar, CloudOffer, Day, Engine, Fallback, Job, JobId, JobType, Local, Model, Order, Overdue, Peers,
    Placement, Processor, QueueName, RoomName, Route, RunPod, Source, Spending, UnixMs, UserName, Workers,
};
use store::StoreError;
use tokio::sync::{broadcast, mpsc, watch};
use tracing::{debug, error, info};

use super::desk::Desk;
use super::driver::Begin;
use super::limits::{EXPLAINED_AT_ONCE, FACTS_TIME, MEET_EVERY, ROUTE_EVERY, ROUTE_REST, ROUTE_REST_MAX, ROUTED_MAX};
use super::rules::RAW_QUEUE;
use crate::limits::WORKER_SEEN_TIME;
use crate::state::App;
use crate::workers::Seen;

/// Routes until `shutdown` says true.
pub(crate) async fn run(app: App, begun: mpsc::Sender<Begin>, mut shutdown: watch::Receiver<bool>) {
    let mut changes = app.store.changes();
    let mut router = Router::new(app, begun);
    loop {
        let start = router.app.clock.now();
        if let Err(failure) = router.round().await {
            error!(%failure, "jobs cannot be routed");
        }
        // A long queue is looked at less often: a third of the time at most goes into looking.
        let rest = (router.app.clock.now().since(start) * 2).clamp(ROUTE_REST, ROUTE_REST_MAX);
        tokio::select! {
            () = super::stopped(&mut shutdown) => return,
            () = changed(&router.app, &mut changes, rest) => (),
        }
    }
}

/// Completes when something has changed, after a rest; or after a while.
async fn changed(app: &App, changes: &mut broadcast::Receiver<Arc<JobId>>, rest: Duration) {
    app.clock.sleep(rest).await;
    tokio::select! {
        () = app.clock.sleep(ROUTE_EVERY) => (),
        // A receiver that lags has missed something, which is a change.
        _ = changes.recv() => (),
    }
    // One round sees all that has changed until now.
    while !matches!(
        changes.try_recv(),
        Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed)
    ) {}
}

/// What is remembered from round to round; what is lost at a restart only makes the first round say everything again.
struct Router {
    app: App,
    begun: mpsc::Sender<Begin>,
    /// When it began to listen for workers.
    start: UnixMs,
    /// When relays told each other of their workers last.
    met: Option<UnixMs>,
    /// What was said of a job last, and where it was to go.
    told: BTreeMap<JobId, (String, Option<Source>)>,
    /// What is to be said at the end of the round.
    untold: Vec<(JobId, String)>,
    measured: BTreeMap<(Ask, Source), (UnixMs, Option<Duration>)>,
}

/// What is true of a whole round.
struct Round {
    now: UnixMs,
    is_off: bool,
    /// Why an endpoint may not be asked, in the order of the desks.
    breakers: Vec<Option<String>>,
    spending: BTreeMap<(RoomName, UserName), Spending>,
    workers: BTreeMap<RoomName, Vec<Seen>>,
    /// Work of jobs that go before, by room.
    ahead: BTreeMap<RoomName, Duration>,
}

impl Router {
    fn new(app: App, begun: mpsc::Sender<Begin>) -> Self {
        let (told, untold, measured) = Default::default();
        Self { start: app.clock.now(), app, begun, met: None, told, untold, measured }
    }

    async fn round(&mut self) -> Result<(), StoreError> {
        self.meet().await?;
        let waiting = self.app.store.waiting(ROUTED_MAX).await?;
        let ids: BTreeSet<&JobId> = waiting.iter().map(|job| &job.id).collect();
        self.told.retain(|id, _| ids.contains(id));
        if waiting.is_empty() {
            return Ok(());
        }
        let mut round = self.survey(&waiting).await?;
        for job in waiting {
            // Somebody is just holding money for it.
            if !self.app.cloud.driven.has(&job.id) {
                self.route(job, &mut round).await?;
            }
        }
        self.tell().await
    }

    /// Hears from the other relays on this queue which workers are there, and tells them of this one's.
    async fn meet(&mut self) -> Result<(), StoreError> {
        let (app, now) = (&self.app, self.app.clock.now());
        if self.met.is_some_and(|met| now.since(met) < MEET_EVERY) {
            return Ok(());
        }
        let since = UnixMs(now.0.saturating_sub(u64::try_from(WORKER_SEEN_TIME.as_millis()).unwrap_or(u64::MAX)));
        app.workers.hear(&app.store.told(&app.cloud.driver, since).await?, now);
        if let Some(text) = app.workers.tell(now) {
            app.store.tell(&app.cloud.driver, text, now).await?;
        }
        self.met = Some(now);
        Ok(())
    }

    /// Writes down all that is new at once, which costs a database little more than one of it.
    async fn tell(&mut self) -> Result<(), StoreError> {
        let store = &*self.app.store;
        for some in std::mem::take(&mut self.untold).chunks(EXPLAINED_AT_ONCE) {
            let told: Vec<_> = some.iter().map(|(id, text)| store.explain(id, text)).collect();
            try_join_all(told).await?;
        }
        Ok(())
    }

    async fn survey(&self, waiting: &[Job]) -> Result<Round, StoreError> {
        let (app, now) = (&self.app, self.app.clock.now());
        let is_off = app.cloud.is_off(&*app.store).await?;
        let may_spend = !is_off && waiting.iter().any(|job| job.order.may_spend);
        let mut breakers = Vec::new();
        for desk in &app.cloud.desks {
            let reason = desk.breaker(&*app.store).await?.reason(now);
            if may_spend && reason.is_none() {
                // Nobody waits for a slow endpoint: until it has answered, what was heard last is believed.
                let desk = Arc::clone(desk);
                tokio::spawn(async move { desk.check_up(now).await });
            }
            breakers.push(reason);
        }
        let (spending, workers, ahead) = Default::default();
        Ok(Round { now, is_off, breakers, spending, workers, ahead })
    }

    async fn route(&mut self, job: Job, round: &mut Round) -> Result<(), StoreError> {
        let app = self.app.clone();
        if job.overdue(round.now) == Some(Overdue::Gone) {
            info!(job = %job.id, "a job is called off: its submitter's time for it is over");
            app.store.cancel(&job.id, round.now).await?;
            return Ok(());
        }
        let job_type = job.order.ask.as_ref().and_then(|ask| app.catalogue.find(ask));
        let workers = round.workers.entry(job.order.room.clone());
        let workers = workers.or_insert_with(|| app.workers.of(&job.order.room, round.now)).clone();
        let local = Local(self.workers(&job, &workers, Source::Local, round).await?);
        let peers = Peers(self.workers(&job, &workers, Source::Peer, round).await?);
        let cloud = self.cloud(&job, job_type, round).await?;
        let placement = self.placement(&job, job_type, &workers, round);
        let decision = {
            let mut processors: Vec<&dyn Processor> = vec![&local, &peers];
            processors.extend(cloud.iter().map(|one| one as &dyn Processor));
            queue::route(&placement, &processors, app.cloud.rules.route)
        };
        self.note(&job.id, decision.explain(), decision.source());
        match decision.route {
            Route::Wait { .. } => {
                let ahead = round.ahead.entry(job.order.room.clone()).or_default();
                *ahead = ahead.saturating_add(job.order.expected);
            }
            Route::Overflow { endpoint } => self.begin(job, &endpoint, round).await,
            Route::FallBack { to } => self.fall_back(&job, &to).await?,
            Route::Refuse { reason } => {
                info!(job = %job.id, reason, "a job is refused");
                app.store.refuse(&job.id, &reason, round.now).await?;
            }
        }
        Ok(())
    }

    fn placement(&self, job: &Job, job_type: Option<&JobType>, workers: &[Seen], round: &Round) -> Placement {
        let expected = job.order.expected;
        let usual = (expected * queue::limits::OVERFLOW_AFTER_TIMES).max(queue::limits::OVERFLOW_AFTER_MIN);
        let target = self.app.cloud.rules.overflow_after;
        Placement {
            mode: job.order.mode,
            quality: job.order.quality,
            engine: job_type.map_or(Engine::Native, |job_type| job_type.engine),
            expected,
            waited: round.now.since(job.created),
            target: target.unwrap_or(job_type.map_or(usual, |job_type| job_type.overflow_after)),
            fallback: job_type.and_then(|job_type| self.fallback(job, job_type, workers, round)),
            is_early: round.now.since(self.start) < self.app.cloud.rules.await_workers,
            previous: self.told.get(&job.id).and_then(|(_, source)| *source),
        }
    }

    /// What a job of this type may become, if somebody can do that now.
    fn fallback(&self, job: &Job, job_type: &JobType, workers: &[Seen], round: &Round) -> Option<Ask> {
        let Fallback::To(to) = &job_type.fallback else { return None };
        let to = self.app.catalogue.find(to)?;
        let has_worker = to.engine == Engine::Native && workers.iter().any(|seen| has(seen, Some(&to.model)));
        let may_overflow = job.order.may_spend && !round.is_off;
        let has_cloud = || {
            let desks = self.app.cloud.desks.iter().zip(&round.breakers);
            desks.filter(|(_, bar)| bar.is_none()).any(|(desk, _)| desk.rules.serves(&to.queue, Some(&to.model)))
        };
        (has_worker || may_overflow && has_cloud()).then(|| to.id.clone())
    }

    async fn workers(
        &mut self,
        job: &Job,
        workers: &[Seen],
        source: Source,
        round: &Round,
    ) -> Result<Workers, StoreError> {
        let of_source = || workers.iter().filter(|seen| seen.source == source);
        let able: Vec<&Seen> = of_source().filter(|seen| has(seen, job.order.model.as_ref())).collect();
        let unable = of_source().count() - able.len();
        let measured = self.measured(job, source, round.now).await?;
        // A busy worker is in the middle of a job of this kind, as far as is known.
        let busy = u32::try_from(able.iter().filter(|seen| seen.is_busy).count()).unwrap_or(u32::MAX);
        let left = (measured.unwrap_or(job.order.expected) / 2).saturating_mul(busy);
        let ahead = round.ahead.get(&job.order.room).copied().unwrap_or_default().saturating_add(left);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(Workers { able: count(able.len()), unable: count(unable), ahead, measured })
    }

    /// Every endpoint that serves the job, or what is in its way.
    async fn cloud(
        &mut self,
        job: &Job,
        job_type: Option<&JobType>,
        round: &mut Round,
    ) -> Result<Vec<RunPod>, StoreError> {
        let app = self.app.clone();
        let queue = match job_type {
            Some(job_type) => job_type.queue.clone(),
            None => QueueName::new(RAW_QUEUE).expect("a constant name is a name"),
        };
        let serving = app.cloud.desks.iter().enumerate();
        let serving: Vec<(usize, &Arc<Desk>)> =
            serving.filter(|(_, desk)| desk.rules.serves(&queue, job.order.model.as_ref())).collect();
        let all = match () {
            () if serving.is_empty() => Some(CloudBar::NoEndpoint),
            () if !job.order.may_spend => Some(CloudBar::NoRight),
            () if job.attempts >= queue::limits::ATTEMPTS_MAX => Some(CloudBar::Attempts),
            () if round.is_off => Some(CloudBar::Switch),
            () => None,
        };
        if let Some(bar) = all {
            return Ok(vec![RunPod(Err(bar))]);
        }
        let measured = self.measured(job, Source::Cloud, round.now).await?;
        let spent = self.spent(job, round).await?;
        let offer = |(index, desk): (usize, &Arc<Desk>)| {
            if let Some(why) = &round.breakers[index] {
                return Err(CloudBar::Breaker(why.clone()));
            }
            if let Some(why) = desk.trouble() {
                return Err(CloudBar::Unwell(why.to_owned()));
            }
            app.cloud.rules.budgets.permit(desk.rules.price.worst(), &spent).map_err(CloudBar::Budget)?;
            // What was measured holds the start as well.
            let start = if measured.is_some() { Duration::ZERO } else { desk.start() };
            let expected = measured.unwrap_or(job.order.expected);
            Ok(CloudOffer { endpoint: desk.rules.name.clone(), start, expected, price: desk.rules.price })
        };
        Ok(serving.into_iter().map(|one| RunPod(offer(one))).collect())
    }

    async fn begin(&mut self, job: Job, endpoint: &queue::Endpoint, round: &mut Round) {
        let cloud = &self.app.cloud;
        let desk = Arc::clone(cloud.desk(endpoint).expect("an offer names a configured endpoint"));
        // Without a seat it waits for one of the endpoint's jobs to end.
        let Some(seat) = desk.seat() else { return };
        let Some(reins) = cloud.driven.take(&job.id) else { return };
        let hold = desk.rules.price.worst();
        if let Some(spent) = round.spending.get_mut(&(job.order.room.clone(), job.order.user.clone())) {
            // The store decides; this only keeps the rest of the round from asking in vain.
            for amount in [&mut spent.total, &mut spent.day, &mut spent.room_day, &mut spent.user_day] {
                *amount = amount.plus(hold);
            }
        }
        let route = self.told.get(&job.id).map(|(text, _)| text.clone()).unwrap_or_default();
        // Whoever begins says it before the job waits no more.
        self.untold.pop_if(|(id, _)| *id == job.id);
        // Fails only at a shutdown, when the job goes on waiting.
        let _ = self.begun.send(Begin { job, route, desk, seat, reins }).await;
    }

    async fn fall_back(&mut self, job: &Job, to: &Ask) -> Result<(), StoreError> {
        let app = &self.app;
        // What is looked at in a round has no input.
        let Some(job) = app.store.job(&job.id).await? else { return Ok(()) };
        let order: Option<Order> = serde_json::from_str(&job.order.input).ok();
        let from = job.order.ask.as_ref().expect("a job without a type falls back to none");
        let Some((ask, order, expected)) = order.and_then(|order| app.catalogue.fall_back(&order, from)) else {
            debug!(job = %job.id, %to, "its order cannot become one of this type");
            return Ok(());
        };
        let model: Option<Model> = Some(order.model.clone());
        let input = serde_json::to_string(&order).expect("an order is plain data");
        info!(job = %job.id, %from, %ask, "a job falls back");
        app.store.fall_back(&job.id, ask, model, input, expected).await?;
        self.told.remove(&job.id);
        Ok(())
    }

    fn note(&mut self, id: &JobId, text: String, source: Option<Source>) {
        let is_new = self.told.get(id).is_none_or(|(told, _)| *told != text);
        if is_new {
            debug!(job = %id, route = text, "routed");
            self.untold.push((id.clone(), text.clone()));
        }
        self.told.insert(id.clone(), (text, source));
    }

    async fn measured(&mut self, job: &Job, source: Source, now: UnixMs) -> Result<Option<Duration>, StoreError> {
        let Some(ask) = &job.order.ask else { return Ok(None) };
        let key = (ask.clone(), source);
        match self.measured.get(&key) {
            Some((at, measured)) if now.since(*at) < FACTS_TIME => return Ok(*measured),
            Some(_) | None => (),
        }
        let measured = self.app.store.measured(ask, source).await?;
        self.measured.insert(key, (now, measured));
        Ok(measured)
    }

    async fn spent(&self, job: &Job, round: &mut Round) -> Result<Spending, StoreError> {
        let key = (job.order.room.clone(), job.order.user.clone());
        if let Some(spent) = round.spending.get(&key) {
            return Ok(*spent);
        }
        let day: Day = round.now.day();
        let spent = self.app.store.spending(&key.0, &key.1, day).await?;
        round.spending.insert(key, spent);
        Ok(spent)
    }
}

/// Whether a worker can do jobs of this model; one that takes whatever there is can.
fn has(seen: &Seen, model: Option<&Model>) -> bool {
    match (&seen.models, model) {
        (None, _) | (_, None) => true,
        (Some(models), Some(model)) => models.contains(model),
    }
}
