//! A requester's driver: what `node::participant` does around the machine in earnest, and the only file that knows the
//! machine's words.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::{Instant, JobId, JobSpec, PeerId, ToRequester, ToWorker, UnitId};

use crate::plan::{Plan, Task, plan};
use crate::requester::{Requester, RequesterOutput};
use crate::roster::Roster;
use crate::sim::audit::{Audit, Broken, Truth};
use crate::sim::clock::Clock;
use crate::sim::setup::{Asker, Order};
use crate::sim::toy::{Painting, SHAPE, model};
use crate::trust::Standing;

/// A requester, its jobs and what is checked of them.
pub struct Desk {
    /// Its name.
    pub name: PeerId,
    /// Its clock.
    pub clock: Clock,
    /// The machine, while its process runs.
    machine: Option<Requester>,
    /// How often the process has been started.
    starts: u64,
    seed: u64,
    truth: Arc<Truth>,
    checkpoint_every: u32,
    /// What is kept over crashes.
    jobs: BTreeMap<JobId, Job>,
    audit: Audit,
    /// What the books before this one said.
    wrong_accepted: u64,
    /// What the driver has to carry.
    mail: Vec<(PeerId, ToWorker, Arc<[u8]>)>,
    /// What there is to tell.
    news: Vec<News>,
}

/// What the network knows of the way to a worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Path {
    /// There and back.
    pub round_trip: Duration,
    /// Its bandwidth.
    pub bytes_per_second: f64,
}

/// Something that a driver would tell people.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// A unit was accepted.
    Accepted(UnitId, PeerId),
    /// A stage is whole.
    Stage(JobId, u32),
    /// A job goes back to this stage.
    RolledBack(JobId, u32),
    /// A job has ended.
    Ended(JobId, End),
    /// A worker is not asked for a while.
    Paused(PeerId, String),
    /// An offer is not accepted.
    Dropped(PeerId, String),
    /// A worker is found to lie.
    Condemned(PeerId, String),
}

/// How a job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a picture.
    Painted,
    /// With reasons.
    Failed,
    /// Its requester gave it up.
    GivenUp,
}

struct Job {
    spec: JobSpec,
    plan: Plan,
    painting: Painting,
    /// The picture as it was kept last over crashes, at a boundary between stages.
    checkpoint: Painting,
    /// The beginnings of all stages, to come back to from a wrong answer.
    earlier: Vec<Painting>,
    end: Option<End>,
}

impl Desk {
    /// A requester whose process does not run yet.
    pub fn new(name: PeerId, asker: &Asker, truth: Arc<Truth>, seed: u64) -> Self {
        Self {
            name,
            clock: asker.clock,
            machine: None,
            starts: 0,
            seed,
            audit: Audit::new(truth.clone()),
            truth,
            checkpoint_every: asker.checkpoint_every,
            jobs: BTreeMap::new(),
            wrong_accepted: 0,
            mail: Vec::new(),
            news: Vec::new(),
        }
    }

    /// Starts the process: a new machine, and the jobs that had not ended from their checkpoints.
    pub fn start(&mut self, now: Instant) -> Result<(), Broken> {
        let local = self.clock.at(now);
        self.starts += 1;
        let mut machine = Requester::new(self.truth.policy, self.seed ^ self.starts);
        self.wrong_accepted += self.audit.wrong_accepted();
        self.audit = Audit::new(self.truth.clone());
        for (id, job) in self.jobs.iter_mut().filter(|(_, job)| job.end.is_none()) {
            job.painting = job.checkpoint.clone();
            job.earlier.retain(|earlier| earlier.stage() < job.painting.stage());
            machine.begin_job(*id, job.spec.model, local);
            begin_stage(&mut machine, &mut self.audit, *id, &job.painting, local);
        }
        self.machine = Some(machine);
        self.drain(now)
    }

    /// Ends the process without a word.
    pub fn crash(&mut self) {
        self.machine = None;
        self.mail.clear();
    }

    /// Whether the process runs.
    pub fn runs(&self) -> bool {
        self.machine.is_some()
    }

    /// Takes a job, unless it cannot be planned with those who are there.
    pub fn submit(&mut self, id: JobId, order: &Order, now: Instant) -> Result<bool, Broken> {
        let local = self.clock.at(now);
        let Some(machine) = &mut self.machine else { return Ok(false) };
        let cut = Painting::cut(&order.spec);
        let task = Task::new(&order.spec, &SHAPE, order.choice, &cut);
        let Ok(plan) = plan(&task, machine.roster(), local) else { return Ok(false) };
        let painting = Painting::new(id, order.spec.clone(), plan.kind);
        machine.begin_job(id, model(), local);
        begin_stage(machine, &mut self.audit, id, &painting, local);
        let (spec, checkpoint) = (order.spec.clone(), painting.clone());
        self.jobs.insert(id, Job { spec, plan, painting, checkpoint, earlier: Vec::new(), end: None });
        self.drain(now)?;
        Ok(true)
    }

    /// The person who asked for a job wants it no longer.
    pub fn give_up(&mut self, id: JobId, now: Instant) -> Result<(), Broken> {
        let local = self.clock.at(now);
        let runs = self.jobs.get(&id).is_some_and(|job| job.end.is_none());
        let Some(machine) = self.machine.as_mut().filter(|_| runs) else { return Ok(()) };
        machine.cancel(id, local);
        self.end(id, End::GivenUp)?;
        self.drain(now)
    }

    /// A worker is connected.
    pub fn join(&mut self, peer: &PeerId, standing: Standing, path: Option<Path>, now: Instant) -> Result<(), Broken> {
        let local = self.clock.at(now);
        let Some(machine) = &mut self.machine else { return Ok(()) };
        self.audit.joined(peer);
        machine.handle_joined(peer.clone(), standing, local);
        if let Some(Path { round_trip, bytes_per_second }) = path {
            machine.handle_path(peer, round_trip, bytes_per_second);
        }
        self.drain(now)
    }

    /// A worker's connection is gone.
    pub fn leave(&mut self, peer: &PeerId, now: Instant) -> Result<(), Broken> {
        let local = self.clock.at(now);
        let Some(machine) = &mut self.machine else { return Ok(()) };
        self.audit.left(peer);
        machine.handle_left(peer, local);
        self.drain(now)
    }

    /// A worker says something.
    pub fn hear(&mut self, from: &PeerId, message: ToRequester, body: &[u8], now: Instant) -> Result<(), Broken> {
        let local = self.clock.at(now);
        let Some(machine) = &mut self.machine else { return Ok(()) };
        self.audit.hears(from, &message, body);
        machine.handle(from, message, body.to_vec(), local);
        self.drain(now)
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Instant) -> Result<(), Broken> {
        let local = self.clock.at(now);
        let Some(machine) = &mut self.machine else { return Ok(()) };
        machine.handle_timeout(local);
        self.drain(now)
    }

    /// When to wake it, in true time.
    pub fn due(&self) -> Option<Instant> {
        self.machine.as_ref()?.poll_timeout().map(|due| self.clock.when(due))
    }

    /// What it wants to be carried.
    pub fn take_mail(&mut self) -> Vec<(PeerId, ToWorker, Arc<[u8]>)> {
        std::mem::take(&mut self.mail)
    }

    /// What it wants to be told.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// How a job that it was given has ended, if it has.
    pub fn end_of(&self, id: JobId) -> Option<End> {
        self.jobs.get(&id)?.end
    }

    /// The finished picture of a job.
    pub fn picture(&self, id: JobId) -> Option<Vec<u8>> {
        self.jobs.get(&id)?.painting.picture()
    }

    /// The plan of a job.
    pub fn plan(&self, id: JobId) -> Option<&Plan> {
        Some(&self.jobs.get(&id)?.plan)
    }

    /// Whom it knows.
    pub fn roster(&self) -> Option<&Roster> {
        self.machine.as_ref().map(Requester::roster)
    }

    /// Checks that its memory is within the caps.
    pub fn check_bounds(&self) -> Result<(), Broken> {
        self.machine.as_ref().map_or(Ok(()), |machine| self.audit.bounds(machine.roster()))
    }

    /// Wrong bodies that it accepted where that may happen.
    pub fn wrong_accepted(&self) -> u64 {
        self.wrong_accepted + self.audit.wrong_accepted()
    }

    fn drain(&mut self, now: Instant) -> Result<(), Broken> {
        let local = self.clock.at(now);
        while let Some(output) = self.machine.as_mut().and_then(Requester::poll_output) {
            match output {
                RequesterOutput::Send { to, message, body } => {
                    self.audit.says(&to, &message)?;
                    self.mail.push((to, message, body));
                }
                RequesterOutput::Delivered { job, unit, by, body, .. } => self.accept(job, unit, by, &body, local)?,
                RequesterOutput::StageDone { job } => self.advance(job, local)?,
                RequesterOutput::JobFailed { job, reasons, .. } => {
                    let machine = self.machine.as_ref().expect("only a running machine has outputs");
                    self.audit.fails(&reasons, machine.roster())?;
                    self.end(job, End::Failed)?;
                }
                RequesterOutput::WorkerPaused { peer, reason } => self.news.push(News::Paused(peer, reason)),
                RequesterOutput::WorkerCondemned { peer, evidence } => {
                    self.audit.condemns(&peer);
                    self.news.push(News::Condemned(peer, evidence));
                }
                RequesterOutput::Tainted { job, stage } => self.roll_back(job, stage, local)?,
                RequesterOutput::WorkerDropped { peer, reason } => self.news.push(News::Dropped(peer, reason)),
            }
        }
        Ok(())
    }

    fn accept(&mut self, id: JobId, unit: UnitId, by: PeerId, body: &[u8], local: Instant) -> Result<(), Broken> {
        let job = self.jobs.get_mut(&id).ok_or(Broken::new("I2", "a unit of no job is delivered"))?;
        if job.end.is_some() {
            return Err(Broken::new("I2", format!("{unit:?} is delivered after its job has ended")));
        }
        self.audit.accepts(id, unit, &by, body)?;
        // The driver's own check, beyond the machine's: no network gives one value everywhere.
        if body.chunks(4).all(|value| value == &body[..4]) {
            self.audit.rejects(id, unit);
            let machine = self.machine.as_mut().expect("only a running machine has outputs");
            machine.reject(id, unit, "one value everywhere", local);
            return Ok(());
        }
        job.painting.accept(unit, body).map_err(|reason| Broken::new("I3", format!("{unit:?} by {by}: {reason}")))?;
        self.news.push(News::Accepted(unit, by));
        Ok(())
    }

    fn advance(&mut self, id: JobId, local: Instant) -> Result<(), Broken> {
        let job = self.jobs.get_mut(&id).ok_or(Broken::new("I2", "a stage of no job is done"))?;
        if job.end.is_some() {
            return Err(Broken::new("I2", "a stage is done after its job has ended"));
        }
        if job.painting.accepted() != job.painting.units().len() {
            return Err(Broken::new("I3", format!("stage {} is done without all its units", job.painting.stage())));
        }
        let machine = self.machine.as_mut().expect("only a running machine has outputs");
        self.news.push(News::Stage(id, job.painting.stage()));
        job.earlier.push(job.painting.beginning());
        job.painting.advance();
        if job.painting.picture().is_some() {
            machine.cancel(id, local);
            return self.end(id, End::Painted);
        }
        if job.painting.stage().is_multiple_of(self.checkpoint_every) {
            job.checkpoint = job.painting.clone();
        }
        begin_stage(machine, &mut self.audit, id, &job.painting, local);
        Ok(())
    }

    /// A wrong answer had counted in a stage: the job goes back to before it.
    fn roll_back(&mut self, id: JobId, stage: u32, local: Instant) -> Result<(), Broken> {
        let job = self.jobs.get_mut(&id).ok_or(Broken::new("I2", "no job is tainted"))?;
        if job.end.is_some() || job.painting.stage() < stage {
            return Err(Broken::new("I2", format!("a job is tainted in stage {stage}, to which it has not come")));
        }
        job.earlier.push(job.painting.beginning());
        job.earlier.retain(|earlier| earlier.stage() <= stage);
        job.painting = job.earlier.pop().expect("the first stage's beginning is always kept");
        if job.checkpoint.stage() > job.painting.stage() {
            job.checkpoint = job.painting.clone();
        }
        self.news.push(News::RolledBack(id, stage));
        let machine = self.machine.as_mut().expect("only a running machine has outputs");
        begin_stage(machine, &mut self.audit, id, &job.painting, local);
        Ok(())
    }

    fn end(&mut self, id: JobId, end: End) -> Result<(), Broken> {
        let job = self.jobs.get_mut(&id).ok_or(Broken::new("I2", "no job ends"))?;
        self.audit.end_job(id);
        if let Some(before) = job.end.replace(end) {
            return Err(Broken::new("I2", format!("a job ends twice: {before:?}, then {end:?}")));
        }
        self.news.push(News::Ended(id, end));
        Ok(())
    }
}

fn begin_stage(machine: &mut Requester, audit: &mut Audit, id: JobId, painting: &Painting, local: Instant) {
    let units = painting.units();
    audit.begin_stage(id, &units, painting.conditioning());
    machine.begin_stage(id, units, painting.conditioning(), &SHAPE, local);
}
