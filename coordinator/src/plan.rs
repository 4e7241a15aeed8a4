//! Decides into which units a job is cut, and says beforehand what that costs and promises.
//!
//! The layout decides the pixels and never depends on who is there; the plan's kind only decides how large the pieces are
//! that travel. Of the kinds that a job may be cut by, the planner takes the one that is expected to finish first, and the
//! fastest worker alone unless sharing wins by a tenth.

mod choice;
mod estimate;
mod explain;
mod peers;
mod stages;

use protocol::limits::STAGE_UNITS_MAX;
use protocol::unit::UnitError;
use protocol::{Instant, JobSpec, ModelId, ModelShape, PeerId, PlanChoice, PlanKind, SpecError};

pub use peers::{Pace, Peer, Steady};
pub use stages::{StageKind, StagePlan, UpscaleTiles};

use crate::exactness::Exactness;
use crate::roster::Roster;

/// Into how many tiles the job's layout cuts the canvas; one where it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Tiles of each denoising step.
    pub tiles: Vec<usize>,
    /// Tiles of the decoder.
    pub decode_tiles: usize,
}

/// What is to be planned.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The job; several pictures differ from it in their seeds alone.
    pub spec: &'a JobSpec,
    /// Its model's shape.
    pub shape: &'a ModelShape,
    /// What the person asked for about splitting.
    pub choice: PlanChoice,
    /// How its layout cuts the canvas.
    pub cut: &'a Cut,
    /// Pictures to be painted.
    pub images: u32,
    /// Steps that are taken already; `None` if the prompt is not read either.
    pub steps_done: Option<u32>,
    /// How many times as wide and high the picture shall be made in the end; 1 for no more than it is painted.
    pub upscale: u32,
    /// Whether the requester may come to lend itself the model, if nobody else does.
    pub may_do_it_itself: bool,
}

impl<'a> Task<'a> {
    /// One picture from its beginning, planned over whoever lends.
    pub fn new(spec: &'a JobSpec, shape: &'a ModelShape, choice: PlanChoice, cut: &'a Cut) -> Self {
        Self { spec, shape, choice, cut, images: 1, steps_done: None, upscale: 1, may_do_it_itself: false }
    }
}

/// How a job will be painted.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Into which units it is cut.
    pub kind: PlanKind,
    /// How close the picture is to that of the same plan on one machine.
    pub exactness: Exactness,
    /// How close the picture is to that of the same job painted and decoded without tiles.
    pub untiled: Exactness,
    /// The stages that are left, in order.
    pub stages: Vec<StagePlan>,
    /// Pictures to be painted.
    pub images: u32,
    /// The workers that are expected to get units, in the order of ids; more may join, and any may leave.
    pub workers: Vec<PeerId>,
    /// Those who lend the job's model and would not make it faster.
    pub left_out: Vec<PeerId>,
    /// How many numeric classes the workers are of: bits are the same only within one.
    pub numeric_classes: usize,
    /// Seconds until the last picture is there, if anybody is there to paint it.
    pub eta_s: Option<f64>,
    /// Whether all workers' speeds were measured; otherwise the time is a guess.
    pub is_measured: bool,
    /// Why this kind.
    pub reason: String,
    /// What was not chosen, and why.
    pub rejected: Vec<Rejected>,
    cut: Cut,
}

/// A kind that was considered and not chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// The kind.
    pub kind: PlanKind,
    /// When it would be done, in seconds, if anybody is there and it is possible.
    pub eta_s: Option<f64>,
    /// Why not.
    pub why: String,
}

/// Why a job cannot be planned.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The job itself is unsound.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The cut does not belong to the job's layout.
    #[error("the number of tiles does not fit the job's layout")]
    Cut,
    /// More units in one stage than [`STAGE_UNITS_MAX`], if each guidance branch of a tile is one.
    #[error(
        "{units} units are more than the {STAGE_UNITS_MAX} that one step may have; use larger tiles or less overlap"
    )]
    TooManyUnits {
        /// Units of the stage.
        units: usize,
    },
    /// A unit is larger than workers accept.
    #[error("a unit of this plan would be refused ({0}); ask for a smaller picture or for tiles")]
    Unit(#[from] UnitError),
    /// Others lend, but none of them this model.
    #[error("nobody here lends model {model}; {lenders} of this room lend others; join one with this model")]
    ModelMissing {
        /// The job's model.
        model: ModelId,
        /// Who lends others.
        lenders: usize,
    },
    /// There is no model that enlarges pictures.
    #[error("nobody here lends a model that makes pictures {factor} times as large ({tiles} tiles of this one)")]
    UpscalerMissing {
        /// How many times as wide and high.
        factor: u32,
        /// Tiles that it would be cut into.
        tiles: usize,
    },
}

/// Plans a job over the workers in `roster`. Pure: the same arguments give the same plan.
pub fn plan(task: &Task<'_>, roster: &Roster, now: Instant) -> Result<Plan, PlanError> {
    let lenders = roster.lenders().count();
    let peers = peers::lenders(roster, task.spec, task.shape, &stages::any_step(task.spec, task.shape), now);
    if peers.is_empty() && lenders > 0 && !task.may_do_it_itself {
        return Err(PlanError::ModelMissing { model: task.spec.model, lenders });
    }
    plan_over(task, &peers)
}

/// Plans a job over these peers, who lend its model.
pub fn plan_over(task: &Task<'_>, peers: &[Peer<'_>]) -> Result<Plan, PlanError> {
    check(task)?;
    let choice::Choice { kind, stages, eta_s, reason, rejected } = choice::choose(task, peers)?;
    let is_used = |peer: &&Peer<'_>| stages.iter().any(|stage| stage.peers.contains(&peer.id));
    let (used, left_out): (Vec<_>, Vec<_>) = peers.iter().partition(is_used);
    let mut classes: Vec<&str> = used.iter().map(|peer| peer.class).collect();
    classes.sort_unstable();
    classes.dedup();
    let layout = task.spec.layout;
    let is_tiled = !layout.tiles.is_whole() || layout.decode_tiles.is_some();
    let ids = |peers: Vec<&Peer<'_>>| peers.into_iter().map(|peer| peer.id.clone()).collect();
    Ok(Plan {
        kind,
        exactness: Exactness::Identical,
        untiled: if is_tiled { Exactness::PlanDifferent } else { Exactness::Identical },
        stages,
        images: task.images,
        numeric_classes: classes.len(),
        eta_s: eta_s.filter(|seconds| seconds.is_finite()),
        is_measured: used.iter().all(|peer| peer.pace.is_measured()),
        workers: ids(used),
        left_out: ids(left_out),
        reason,
        rejected,
        cut: task.cut.clone(),
    })
}

/// Whether a job is possible must not depend on who is there: that is checked before anybody is looked at.
fn check(task: &Task<'_>) -> Result<(), PlanError> {
    let Task { spec, shape, cut, .. } = task;
    spec.check(shape)?;
    let fits = |is_tiled: bool, tiles: usize| if is_tiled { tiles > 0 } else { tiles == 1 };
    let is_tiled = !spec.layout.tiles.is_whole();
    let steps_fit = cut.tiles.len() == spec.steps as usize && cut.tiles.iter().all(|&tiles| fits(is_tiled, tiles));
    let is_within = task.steps_done.is_none_or(|done| done <= spec.steps);
    if !steps_fit || !is_within || !fits(spec.layout.decode_tiles.is_some(), cut.decode_tiles) {
        return Err(PlanError::Cut);
    }
    let branches: usize = if spec.guided() { 2 } else { 1 };
    let units = branches.saturating_mul(cut.tiles_max()).max(cut.decode_tiles);
    if units > STAGE_UNITS_MAX {
        return Err(PlanError::TooManyUnits { units });
    }
    if task.upscale > 1 {
        let UpscaleTiles { tiles, .. } = UpscaleTiles::of(spec.size, task.upscale);
        return Err(PlanError::UpscalerMissing { factor: task.upscale, tiles });
    }
    Ok(())
}
