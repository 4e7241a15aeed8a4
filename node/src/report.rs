//! The report of a painting: what was asked, who did what, how long it took, and hashes of what came out.

use std::collections::BTreeMap;
use std::time::Duration;

use coordinator::Plan;
use protocol::{JobSpec, PeerId};
use serde::Serialize;

/// What `paint --report` writes.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the program.
    pub version: &'static str,
    /// What was asked.
    pub job: Job,
    /// How it was split.
    pub plan: PlanReport,
    /// Who delivered what, by peer id.
    pub workers: Vec<WorkerReport>,
    /// Who gave wrong answers, proved by others; nothing of theirs is in the picture.
    pub condemned: Vec<CondemnedReport>,
    /// Units granted again after a worker left, stalled, refused or delivered rubbish.
    pub retries: u64,
    /// Milliseconds by stage.
    pub wall_ms: WallTimes,
    /// Where the painting went on, if it was resumed.
    pub resumed: Option<Resumed>,
    /// What keeping it came to, if it was kept.
    pub kept: Option<Kept>,
    /// SHA-256 of the final latent: f32 little-endian, `[channels, rows, columns]`.
    pub latent_sha256: String,
    /// SHA-256 of the pixels: RGB8 rows.
    pub pixels_sha256: String,
}

/// A painting that another process had begun.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Resumed {
    /// Steps that were kept.
    pub steps_kept: u32,
    /// Steps that had been taken since and were taken again.
    pub steps_again: u32,
}

/// What keeping a painting in checkpoints came to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Kept {
    /// Steps between two checkpoints, as last decided.
    pub every_steps: u32,
    /// Checkpoints written.
    pub written: u32,
    /// Milliseconds that the last one took to write.
    pub cost_ms: f64,
}

/// The job as asked, with the model's name beside its id.
#[derive(Clone, Debug, Serialize)]
pub struct Job {
    /// The model's folder name.
    pub model: String,
    /// The model's id: a hash over its files.
    pub model_id: String,
    /// The prompt.
    pub prompt: String,
    /// The negative prompt.
    pub negative: String,
    /// `WIDTHxHEIGHT`.
    pub size: String,
    /// Denoising steps.
    pub steps: u32,
    /// Guidance scale.
    pub guidance: f32,
    /// The seed.
    pub seed: u64,
}

/// The plan as it was explained.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// Into which units the job was cut.
    pub kind: protocol::PlanKind,
    /// Units in all.
    pub units: usize,
    /// Seconds that it was expected to take, if anybody was there.
    pub eta_s: Option<f64>,
    /// The label against the same plan on one machine.
    pub exactness: String,
    /// In words, as it was shown before painting.
    pub explanation: String,
}

/// One worker's share.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WorkerReport {
    /// Its peer id.
    pub peer: String,
    /// The name it gave itself; untrusted.
    pub name: String,
    /// Whether it is the painting process itself.
    pub local: bool,
    /// How it was reached: "direct (quic)", "relayed", or "local".
    pub path: String,
    /// Units accepted from it.
    pub units: u64,
    /// Bytes received from it over libp2p, frames included.
    pub bytes_in: u64,
    /// Bytes sent to it over libp2p, frames included.
    pub bytes_out: u64,
    /// Milliseconds its processor says it spent.
    pub compute_ms: u64,
    /// Units that it failed: refused, kept too long, or delivered as what cannot be an answer.
    pub failures: u64,
    /// How it failed last; partly untrusted text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// A worker that gave a wrong answer.
#[derive(Clone, Debug, Serialize)]
pub struct CondemnedReport {
    /// Its peer id.
    pub peer: String,
    /// Which answer.
    pub evidence: String,
}

/// Milliseconds of wall time by stage.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct WallTimes {
    /// From start until the job was submitted: model, network, waiting for workers.
    pub prepare: u64,
    /// Text to conditioning.
    pub encode: u64,
    /// All denoising steps.
    pub denoise: u64,
    /// Latent to pixels.
    pub decode: u64,
    /// The one stage of a whole-picture unit.
    pub whole: u64,
    /// From submission to the finished picture.
    pub paint: u64,
}

impl Job {
    /// The job of `spec` on the model called `model`.
    pub fn new(spec: &JobSpec, model: &str) -> Self {
        Self {
            model: model.to_owned(),
            model_id: spec.model.to_string(),
            prompt: spec.prompt.clone(),
            negative: spec.negative.clone(),
            size: spec.size.to_string(),
            steps: spec.steps,
            guidance: spec.guidance,
            seed: spec.seed,
        }
    }
}

impl PlanReport {
    /// The plan as shown.
    pub fn new(plan: &Plan) -> Self {
        Self {
            kind: plan.kind,
            units: plan.units(),
            eta_s: plan.eta_s,
            exactness: plan.exactness.to_string(),
            explanation: plan.explain(),
        }
    }
}

/// Counts as they grow while a job is painted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    workers: BTreeMap<PeerId, WorkerReport>,
    times: WallTimes,
}

impl Tally {
    /// The entry of `peer`.
    pub fn worker(&mut self, peer: &PeerId) -> &mut WorkerReport {
        let new = || WorkerReport { peer: peer.to_string(), ..WorkerReport::default() };
        self.workers.entry(peer.clone()).or_insert_with(new)
    }

    /// Adds the wall time of a stage that ended.
    pub fn stage_ended(&mut self, stage: sampler::Stage, took: Duration) {
        let slot = match stage {
            sampler::Stage::Encode => &mut self.times.encode,
            sampler::Stage::Denoise { .. } | sampler::Stage::Run { .. } => &mut self.times.denoise,
            sampler::Stage::Decode => &mut self.times.decode,
            sampler::Stage::Whole => &mut self.times.whole,
            sampler::Stage::Done => return,
        };
        // Kept in microseconds until the end: a step of a small model is shorter than a millisecond's rounding.
        *slot += took.as_micros() as u64;
    }

    /// The workers that were there, and the times in milliseconds; `prepare` is left for who knows it.
    pub fn finish(self, paint: Duration) -> (Vec<WorkerReport>, WallTimes) {
        let ms = |micros: u64| (micros + 500) / 1000;
        let times = WallTimes {
            prepare: 0,
            encode: ms(self.times.encode),
            denoise: ms(self.times.denoise),
            decode: ms(self.times.decode),
            whole: ms(self.times.whole),
            paint: paint.as_millis() as u64,
        };
        (self.workers.into_values().collect(), times)
    }
}
