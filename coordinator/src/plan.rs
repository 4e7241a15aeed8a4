//! Decides into which units a job is cut, and says beforehand what that costs and promises.
//!
//! The layout decides the pixels and never depends on who is there; the plan's kind only decides how large the pieces are
//! that travel.

mod explain;

use std::collections::BTreeMap;

use protocol::limits::{HISTORY_TENSORS_MAX, STAGE_UNITS_MAX};
use protocol::unit::UnitError;
use protocol::{Branches, Hash, JobSpec, ModelShape, PeerId, PlanChoice, PlanKind, SpecError, Steps, Work};

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

impl Cut {
    /// Most tiles of a step.
    fn tiles_max(&self) -> usize {
        self.tiles.iter().copied().max().unwrap_or(0)
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
    /// The stages, in order.
    pub stages: Vec<StagePlan>,
    /// The workers that lend the job's model at this moment; more may join, and any may leave.
    pub workers: Vec<PeerId>,
    /// How many numeric classes these workers are of: bits are the same only within one.
    pub numeric_classes: usize,
    /// Why this kind.
    pub reason: &'static str,
    /// What was not chosen, and why.
    pub rejected: Vec<Rejected>,
    cut: Cut,
}

/// One stage, or several alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagePlan {
    /// What its units do.
    pub kind: StageKind,
    /// How many stages of this kind follow each other.
    pub times: usize,
    /// Units of each, at most [`STAGE_UNITS_MAX`].
    pub units: usize,
    /// Bytes of tensors to and from workers for one unit, without the conditioning.
    pub unit_bytes: usize,
    /// Cost of one unit, as [`Work::cost`] counts it.
    pub unit_cost: u64,
}

/// What the units of a stage do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageKind {
    /// Prompt to conditioning.
    Encode,
    /// One denoising step.
    Denoise,
    /// Several denoising steps.
    Run,
    /// Latent to pixels.
    Decode,
    /// All of it in one unit.
    Paint,
}

/// A kind that was considered and not chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The kind.
    pub kind: PlanKind,
    /// Why not.
    pub why: &'static str,
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
}

/// Plans a job of `shape`'s model over the workers in `roster`. Pure: the same arguments give the same plan.
pub fn plan(
    spec: &JobSpec,
    shape: &ModelShape,
    choice: PlanChoice,
    cut: Cut,
    roster: &Roster,
) -> Result<Plan, PlanError> {
    spec.check(shape)?;
    let fits = |is_tiled: bool, tiles: usize| if is_tiled { tiles > 0 } else { tiles == 1 };
    let is_tiled = !spec.layout.tiles.is_whole();
    let steps_fit = cut.tiles.len() == spec.steps as usize && cut.tiles.iter().all(|&tiles| fits(is_tiled, tiles));
    if !steps_fit || !fits(spec.layout.decode_tiles.is_some(), cut.decode_tiles) {
        return Err(PlanError::Cut);
    }
    // Whether branches are split depends on the room; whether a job is possible must not.
    let branches: usize = if spec.guided() { 2 } else { 1 };
    let units = branches.saturating_mul(cut.tiles_max()).max(cut.decode_tiles);
    if units > STAGE_UNITS_MAX {
        return Err(PlanError::TooManyUnits { units });
    }
    let workers: Vec<PeerId> = roster.lenders_of(spec.model).map(|(peer, _)| peer.clone()).collect();
    let mut classes: Vec<&str> =
        roster.lenders_of(spec.model).map(|(_, lender)| lender.capabilities().numeric_class.as_str()).collect();
    classes.sort_unstable();
    classes.dedup();
    let Choice { kind, reason, rejected } = choose(spec, choice, workers.len());
    let is_tiled = is_tiled || spec.layout.decode_tiles.is_some();
    Ok(Plan {
        kind,
        exactness: Exactness::Identical,
        untiled: if is_tiled { Exactness::PlanDifferent } else { Exactness::Identical },
        stages: stages(kind, spec, shape, &cut)?,
        numeric_classes: classes.len(),
        workers,
        reason,
        rejected,
        cut,
    })
}

struct Choice {
    kind: PlanKind,
    reason: &'static str,
    rejected: Vec<Rejected>,
}

fn choose(spec: &JobSpec, choice: PlanChoice, workers: usize) -> Choice {
    let (is_tiled, is_guided) = (!spec.layout.tiles.is_whole(), spec.guided());
    let chosen = |kind, reason, rejected| Choice { kind, reason, rejected };
    let not = |kind, why| vec![Rejected { kind, why }];
    match choice {
        PlanChoice::Whole => chosen(PlanKind::Whole, "the whole picture on one worker was asked for", Vec::new()),
        PlanChoice::Cfg if !is_guided => chosen(
            PlanKind::Tiles,
            "without guidance there is only one branch",
            not(PlanKind::Cfg, "there are no two guidance branches to split"),
        ),
        PlanChoice::Cfg if !is_tiled => {
            chosen(PlanKind::Cfg, "the two guidance branches were asked to be split", Vec::new())
        }
        PlanChoice::Tiles | PlanChoice::Shifted if is_tiled && is_guided => {
            chosen(PlanKind::CfgTiles, "tiles were asked for, and each tile has two guidance branches", Vec::new())
        }
        PlanChoice::Tiles | PlanChoice::Shifted if is_tiled => chosen(
            PlanKind::Tiles,
            "tiles were asked for",
            not(PlanKind::CfgTiles, "without guidance there is only one branch"),
        ),
        PlanChoice::Auto | PlanChoice::Tiles | PlanChoice::Shifted | PlanChoice::Cfg => {
            let mut automatic = choose_by_layout(is_tiled, is_guided, workers);
            if matches!(choice, PlanChoice::Tiles | PlanChoice::Shifted) && automatic.kind != PlanKind::Tiles {
                automatic.rejected.push(Rejected { kind: PlanKind::Tiles, why: "the layout has no tiles" });
            }
            if choice == PlanChoice::Cfg {
                let why = "the layout has tiles, so no unit covers the whole canvas";
                automatic.rejected.push(Rejected { kind: PlanKind::Cfg, why });
            }
            automatic
        }
    }
}

fn choose_by_layout(is_tiled: bool, is_guided: bool, workers: usize) -> Choice {
    let several = workers >= 2;
    let why_no_branches = if is_guided {
        "with fewer than two workers, splitting the branches only costs messages"
    } else {
        "without guidance there is only one branch"
    };
    let not = |kind, why| vec![Rejected { kind, why }];
    match (is_tiled, is_guided && several) {
        (true, true) => Choice {
            kind: PlanKind::CfgTiles,
            reason: "several workers share the tiles and their guidance branches",
            rejected: not(PlanKind::Tiles, "units of one branch share out more evenly"),
        },
        (true, false) => Choice {
            kind: PlanKind::Tiles,
            reason: "the layout has tiles, which workers share",
            rejected: not(PlanKind::CfgTiles, why_no_branches),
        },
        (false, true) => Choice {
            kind: PlanKind::Cfg,
            reason: "two workers compute one guidance branch each",
            rejected: not(PlanKind::Whole, "it would leave all workers but one idle"),
        },
        (false, false) => Choice {
            kind: PlanKind::Tiles,
            reason: "there is nothing to share out, and this way progress shows and a worker that leaves takes one step along",
            rejected: vec![
                Rejected { kind: PlanKind::Cfg, why: why_no_branches },
                Rejected {
                    kind: PlanKind::Whole,
                    why: "nothing would show until the end, and all of it could be lost",
                },
            ],
        },
    }
}

fn stages(kind: PlanKind, spec: &JobSpec, shape: &ModelShape, cut: &Cut) -> Result<Vec<StagePlan>, UnitError> {
    let (rows, columns) = spec.size.cells(shape);
    let region = |side: Option<u32>| side.map_or((rows, columns), |side| (rows.min(side), columns.min(side)));
    let stage = |kind: StageKind, times: usize, units: usize, work: &Work| {
        work.check(shape)?;
        let unit_bytes = 4 * (work.input_values(shape) + work.output_values(shape));
        Ok(StagePlan { kind, times, units, unit_bytes, unit_cost: work.cost(shape) })
    };
    let (branches, split) = match kind {
        PlanKind::Whole => {
            return Ok(vec![stage(StageKind::Paint, 1, 1, &Work::Paint { spec: Box::new(spec.clone()) })?]);
        }
        PlanKind::Cfg | PlanKind::CfgTiles => (Branches::Prompt, 2),
        PlanKind::Tiles | PlanKind::Runs { .. } => (if spec.guided() { Branches::Both } else { Branches::Prompt }, 1),
    };
    let negative = spec.guided().then(|| spec.negative.clone());
    let conditioning_rows = 1 + u32::from(spec.guided());
    let encode = Work::Encode { prompt: spec.prompt.clone(), negative };
    let (tile_rows, tile_columns) = region(spec.layout.tiles.side());
    let denoise = Work::Denoise {
        conditioning: Hash::from_bytes([0; 32]),
        conditioning_rows,
        branches,
        timestep: 0.0,
        rows: tile_rows,
        columns: tile_columns,
    };
    let (tile_rows, tile_columns) = region(spec.layout.decode_tiles.map(|tiling| tiling.tile));
    let decode = Work::Decode { rows: tile_rows, columns: tile_columns };
    let mut stages = vec![stage(StageKind::Encode, 1, 1, &encode)?];
    match kind {
        PlanKind::Runs { steps: each } => {
            let run = |count: u32| Work::Run {
                conditioning: Hash::from_bytes([0; 32]),
                guidance: spec.guidance,
                wire: spec.layout.wire,
                steps: Steps { first: spec.steps - count, count, in_all: spec.steps },
                history: HISTORY_TENSORS_MAX as u32,
                rows,
                columns,
            };
            let each = each.clamp(1, spec.steps);
            stages.push(stage(StageKind::Run, (spec.steps / each) as usize, 1, &run(each))?);
            if !spec.steps.is_multiple_of(each) {
                stages.push(stage(StageKind::Run, 1, 1, &run(spec.steps % each))?);
            }
        }
        PlanKind::Whole | PlanKind::Cfg | PlanKind::Tiles | PlanKind::CfgTiles => {
            // Steps of equally many tiles are alike.
            let mut alike = BTreeMap::<usize, usize>::new();
            cut.tiles.iter().for_each(|tiles| *alike.entry(*tiles).or_default() += 1);
            for (tiles, times) in alike {
                stages.push(stage(StageKind::Denoise, times, split * tiles, &denoise)?);
            }
        }
    }
    stages.push(stage(StageKind::Decode, 1, cut.decode_tiles, &decode)?);
    Ok(stages)
}
