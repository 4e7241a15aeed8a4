//! Where a worker of a queue paints: a participant for each model, alone or in a room.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use compute::ModelFolder;
use protocol::{JobRequest, PeerId, PlanChoice, Policy, RoomLink, Size};
use queue::Task;
use sampler::Stage;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::input::{Refusal, Request};
use super::limits::SETTLE;
use super::reporter::Progress;
use crate::job::{Order, Painted};
use crate::meeting::{self, Means};
use crate::participant::{Command, Notice, Participant, Setup};
use crate::{lane, models};

/// Denoising steps of an input that names none, as `manyhands paint` has it.
const STEPS: u32 = 8;

/// Guidance scale of an input that names none, as `manyhands paint` has it.
const GUIDANCE: f32 = 3.0;

/// A room that helps to paint.
pub struct Helpers {
    /// Its link.
    pub link: RoomLink,
    /// How this machine takes part in its network.
    pub means: Means,
    /// How long the first job waits for somebody who lends, and any job for a worker while there is none.
    pub wait: Duration,
    /// Whether this machine computes too.
    pub is_local: bool,
}

/// What a job has painted, checked.
pub struct Commission {
    easel: usize,
    order: Order,
}

/// A place for each model to paint with.
pub struct Studio {
    /// The first is for jobs that name no model.
    easels: Vec<Easel>,
}

struct Easel {
    folder: Arc<ModelFolder>,
    commands: mpsc::Sender<Command>,
    notices: mpsc::Receiver<Notice>,
    running: JoinHandle<()>,
    /// Members of the room that lend this model.
    lenders: BTreeSet<PeerId>,
    /// How long the next job waits for the first of them.
    wait: Option<Duration>,
    is_local: bool,
    /// Pictures of the present order that neither came nor failed.
    left: u32,
}

impl Studio {
    /// A place for each of these models, which computes with so many threads, or with a room.
    pub async fn open(folders: Vec<ModelFolder>, threads: usize, helpers: Option<&Helpers>) -> Result<Self, String> {
        let mut easels = Vec::new();
        for folder in folders {
            easels.push(Easel::open(Arc::new(folder), threads, helpers).await?);
        }
        Ok(Self { easels })
    }

    /// Loads the first model, so that the first job does not wait for it, and a damaged one is found before any job.
    pub async fn warm(&mut self) -> Result<(), String> {
        match self.easels.first_mut() {
            Some(easel) if easel.is_local => easel.lend_to_self().await,
            Some(_) | None => Ok(()),
        }
    }

    /// Paints. May be dropped at any time, [`Self::give_up`] is due then.
    pub async fn paint(&mut self, commission: Commission, told: impl Fn(Progress)) -> Result<Vec<Painted>, String> {
        self.easels[commission.easel].paint(commission.order, told).await
    }

    /// Gives up what is being painted, if anything is.
    pub async fn give_up(&mut self) {
        for easel in &mut self.easels {
            easel.give_up().await;
        }
    }

    /// Frees what the models hold; they are loaded again when they are needed.
    pub async fn free(&mut self) {
        for easel in &self.easels {
            // An easel whose participant is gone holds nothing.
            let _ = easel.commands.send(Command::Lend(false)).await;
        }
    }

    /// Leaves the room.
    pub async fn close(self) {
        for easel in self.easels {
            let _ = easel.commands.send(Command::Stop).await;
            let _ = easel.running.await;
        }
    }

    /// What a request comes to, if it can be painted here.
    pub fn commission(&self, request: &Request) -> Result<Commission, Refusal> {
        let names = || self.easels.iter().map(|easel| easel.folder.name()).collect::<Vec<_>>().join(", ");
        let place = match &request.model {
            None => Some(0),
            Some(name) => self.easels.iter().position(|easel| easel.folder.name() == name),
        };
        let easel = place.filter(|&place| place < self.easels.len()).ok_or_else(|| {
            let wished = request.model.as_deref().unwrap_or_default();
            Refusal(format!("this worker does not have the model {wished}; it has {}", names()))
        })?;
        let folder = &self.easels[easel].folder;
        let lacks = match request.task {
            Task::Txt2img => None,
            Task::Img2img => Some(("img2img", "it has no encoder to read a first picture with")),
            Task::Upscale => Some(("upscale", "it has no network that makes pictures larger")),
            Task::Video => Some(("video", "it paints single pictures")),
        };
        if let Some((task, lack)) = lacks {
            return Err(Refusal(format!("this worker cannot do {task} with the model {}: {lack}", folder.name())));
        }
        let (shape, plan) = (folder.shape(), PlanChoice::Auto);
        let side = shape.native_cells * shape.factor;
        let wished = JobRequest {
            prompt: request.prompt.clone(),
            negative: request.negative.clone(),
            size: Size { width: request.width.unwrap_or(side), height: request.height.unwrap_or(side) },
            steps: request.steps.unwrap_or(STEPS),
            guidance: request.guidance.unwrap_or(GUIDANCE),
            seed: request.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
            plan,
        };
        let spec = models::check(folder, wished).map_err(Refusal)?;
        let mut order = Order::new(spec, shape, folder.scheduler().clone(), plan);
        order.images = request.images;
        Ok(Commission { easel, order })
    }

    /// The name of the model a commission is painted with.
    pub fn model_of(&self, commission: &Commission) -> &str {
        self.easels[commission.easel].folder.name()
    }
}

impl Commission {
    /// How far it is before anything is done.
    pub fn beginning(&self) -> Progress {
        Progress { permille: 0, step: 0, of: self.order.spec.steps }
    }

    /// The seed of its first picture.
    pub fn seed(&self) -> u64 {
        self.order.spec.seed
    }

    /// Its pictures.
    pub fn images(&self) -> u32 {
        self.order.images
    }
}

impl Easel {
    async fn open(folder: Arc<ModelFolder>, threads: usize, helpers: Option<&Helpers>) -> Result<Self, String> {
        let network = match helpers {
            Some(Helpers { link, means, .. }) => {
                let config = meeting::configure(link, means).await?;
                Some(net::start(config).await.map_err(|error| error.to_string())?)
            }
            None => None,
        };
        let is_local = helpers.is_none_or(|helpers| helpers.is_local);
        let threads_told = u32::try_from(threads).unwrap_or(u32::MAX);
        let setup = Setup {
            network,
            me: None,
            name: "server".into(),
            engine: is_local.then(|| lane::start(models::engine(folder.clone(), threads), threads_told)),
            lend: false,
            patience: helpers.map_or(Duration::ZERO, |helpers| helpers.wait),
            policy: helpers.map_or_else(Policy::default, |helpers| helpers.link.policy),
        };
        let (participant, commands, notices) = Participant::new(setup);
        let running = tokio::spawn(participant.run());
        let wait = helpers.map(|helpers| helpers.wait);
        Ok(Self { folder, commands, notices, running, lenders: BTreeSet::new(), wait, is_local, left: 0 })
    }

    async fn paint(&mut self, order: Order, told: impl Fn(Progress)) -> Result<Vec<Painted>, String> {
        while let Ok(notice) = self.notices.try_recv() {
            self.note(&notice);
        }
        if let Some(wait) = self.wait.take() {
            self.wait_for_lenders(wait).await?;
        }
        if self.is_local
            && let Err(reason) = self.lend_to_self().await
            && self.lenders.is_empty()
        {
            return Err(reason);
        }
        let (first, mut progress) = (order.spec.seed, Progress { of: order.spec.steps, ..Progress::default() });
        let images = order.images;
        self.command(Command::Paint(Box::new(order))).await?;
        self.left = images;
        let mut pictures = Vec::new();
        while self.left > 0 {
            match self.next().await? {
                Notice::Unit { done, total, stage, .. } => {
                    progress = further(progress, done, total, stage);
                    told(progress);
                }
                Notice::Painted(painted) => pictures.push(*painted),
                Notice::Failed(reason) => return Err(reason),
                Notice::Cancelled => return Err("it was called off on this machine".into()),
                _ => {}
            }
        }
        pictures.sort_by_key(|painted| painted.spec.seed.wrapping_sub(first));
        Ok(pictures)
    }

    async fn give_up(&mut self) {
        if self.left > 0 && self.command(Command::Cancel).await.is_ok() {
            // What comes of the order is told in any case, and must not be taken for the next one's.
            while self.left > 0 && self.next().await.is_ok() {}
        }
        self.left = 0;
    }

    /// Has this machine compute too; returns when its model is loaded.
    async fn lend_to_self(&mut self) -> Result<(), String> {
        self.command(Command::LendToSelf).await?;
        loop {
            match self.next().await? {
                Notice::LocalBegan => return Ok(()),
                Notice::EngineFailed { reason, .. } => return Err(reason),
                _ => {}
            }
        }
    }

    /// Waits until somebody lends, or the time is over.
    async fn wait_for_lenders(&mut self, wait: Duration) -> Result<(), String> {
        let mut until = Instant::now() + wait;
        let mut is_settling = false;
        loop {
            if !self.lenders.is_empty() && !is_settling {
                is_settling = true;
                until = Instant::now() + SETTLE;
            }
            tokio::select! {
                notice = self.next() => drop(notice?),
                () = tokio::time::sleep_until(until) => return Ok(()),
            }
        }
    }

    async fn command(&self, command: Command) -> Result<(), String> {
        self.commands.send(command).await.map_err(|_| ENDED.to_owned())
    }

    async fn next(&mut self) -> Result<Notice, String> {
        let notice = self.notices.recv().await.ok_or(ENDED)?;
        self.note(&notice);
        Ok(notice)
    }

    /// Keeps count of who lends and what is left of an order.
    fn note(&mut self, notice: &Notice) {
        match notice {
            Notice::Offered(peer, capabilities) => {
                if capabilities.models.contains(&self.folder.id()) {
                    self.lenders.insert(peer.clone());
                } else {
                    self.lenders.remove(peer);
                }
            }
            Notice::Left(peer) | Notice::Withdrew(peer) | Notice::Dropped(peer, _) => _ = self.lenders.remove(peer),
            Notice::Painted(_) => self.left = self.left.saturating_sub(1),
            Notice::Failed(_) | Notice::Cancelled => self.left = 0,
            Notice::Listening(_)
            | Notice::Joined(..)
            | Notice::Moved(..)
            | Notice::Condemned(..)
            | Notice::RolledBack { .. }
            | Notice::Present(..)
            | Notice::RelayConnected
            | Notice::RelayLost
            | Notice::Planned(_)
            | Notice::Smaller(_)
            | Notice::Unit { .. }
            | Notice::Preview { .. }
            | Notice::Snapshot(_)
            | Notice::LocalBegan
            | Notice::EngineReady(_)
            | Notice::EngineFailed { .. }
            | Notice::Computing(..)
            | Notice::Computed(_)
            | Notice::Delivered(_) => {}
        }
    }
}

const ENDED: &str = "the node ended; start the worker again";

/// Progress never goes back, also where a job does.
fn further(before: Progress, done: u64, total: u64, stage: Stage) -> Progress {
    let permille = (done.saturating_mul(1000) / total.max(1)).min(1000);
    let (step, of) = match stage {
        Stage::Denoise { step, steps } => (step + 1, steps),
        Stage::Run { first, count, steps } => (first + count, steps),
        Stage::Decode | Stage::Done => (before.of, before.of),
        Stage::Encode | Stage::Whole => (0, before.of),
    };
    Progress {
        permille: before.permille.max(u16::try_from(permille).unwrap_or(1000)),
        step: before.step.max(step),
        of: before.of.max(of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_never_goes_back() {
        let mut progress = Progress { permille: 0, step: 0, of: 4 };
        let stages = [
            (1, Stage::Encode, 0),
            (3, Stage::Denoise { step: 0, steps: 4 }, 1),
            (5, Stage::Denoise { step: 1, steps: 4 }, 2),
            (4, Stage::Denoise { step: 0, steps: 4 }, 2),
            (10, Stage::Decode, 4),
        ];
        for (done, stage, step) in stages {
            let next = further(progress, done, 10, stage);
            assert!(next.permille >= progress.permille);
            assert_eq!((next.step, next.of), (step, 4));
            progress = next;
        }
        assert_eq!(progress.permille, 1000);
        assert_eq!(further(progress, 5, 0, Stage::Whole), progress, "nothing in all is no division");
    }
}
