//! Which of the possible kinds is taken: the earliest finish, and the fastest worker alone unless sharing wins clearly.

use protocol::unit::UnitError;
use protocol::{PlanChoice, PlanKind};

use super::estimate::{self, Load};
use super::explain::{duration, name};
use super::peers::Peer;
use super::stages::{StageKind, StagePlan, stages};
use super::{Rejected, Task};

/// Sharing must finish within this part of the fastest worker's time: estimates err, and every further worker is one more
/// that can leave.
const SHARING_WINS: f64 = 0.9;

/// Smaller pieces may take this much longer than the fewest: they show progress, leave checkpoints, and lose less when a
/// worker leaves.
const SMALLER_PIECES: f64 = 1.1;

/// The kind that is taken.
pub struct Choice {
    pub kind: PlanKind,
    pub stages: Vec<StagePlan>,
    pub eta_s: Option<f64>,
    pub reason: String,
    pub rejected: Vec<Rejected>,
}

/// A kind, and when it would be done.
struct Candidate {
    kind: PlanKind,
    stages: Vec<StagePlan>,
    seconds: f64,
    /// Whether it is planned for the fastest worker alone, although others could take part.
    is_solo: bool,
}

impl Candidate {
    /// Whether several workers would compute at one time.
    fn is_shared(&self) -> bool {
        self.stages.iter().any(|stage| stage.peers.len() > 1)
    }

    /// Units that follow each other: how finely the work is cut.
    fn pieces(&self) -> usize {
        self.stages.iter().map(|stage| stage.times).sum()
    }

    /// Units in all.
    fn units(&self) -> usize {
        self.stages.iter().map(|stage| stage.times * stage.units).sum()
    }
}

/// Chooses among what the task's layout and the person's wish leave.
pub fn choose(task: &Task<'_>, peers: &[Peer<'_>]) -> Result<Choice, UnitError> {
    let mut rejected = Vec::new();
    let kinds = kinds(task, &mut rejected);
    let mut candidates = Vec::new();
    let (fastest, fastest_alone) = fastest_alone(task, peers)?;
    for kind in kinds {
        let candidate = candidate(kind, task, peers)?;
        if let Some(fastest) = fastest.filter(|_| candidate.is_shared()) {
            candidates.push(Candidate { is_solo: true, ..self::candidate(kind, task, &peers[fastest..=fastest])? });
        }
        candidates.push(candidate);
    }
    let (taken, reason) = take(task, &candidates, fastest_alone, peers.len());
    let Candidate { kind, stages, seconds, .. } = candidates.swap_remove(taken);
    candidates.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let others = candidates.into_iter().filter(|other| is_worth_telling(other, kind));
    rejected.extend(others.map(|other| reject(&other, seconds, fastest_alone, peers.is_empty())));
    let eta_s = (!peers.is_empty()).then_some(seconds);
    Ok(Choice { kind, stages, eta_s, reason, rejected })
}

/// The kinds that paint the task's layout and were not asked away.
fn kinds(task: &Task<'_>, rejected: &mut Vec<Rejected>) -> Vec<PlanKind> {
    let (is_tiled, is_guided) = (!task.spec.layout.tiles.is_whole(), task.spec.guided());
    let mut not = |kind, why: &str| rejected.push(Rejected { kind, eta_s: None, why: why.into() });
    let can_begin = task.steps_done.is_none();
    let left = task.spec.steps - task.steps_done.unwrap_or(0);
    let all_in_one = PlanKind::Runs { steps: task.spec.steps };
    let split: &[PlanKind] = match (is_tiled, is_guided) {
        (true, true) => &[PlanKind::Tiles, PlanKind::CfgTiles],
        (false, true) => &[PlanKind::Tiles, PlanKind::Cfg],
        (_, false) => &[PlanKind::Tiles],
    };
    match task.choice {
        PlanChoice::Whole if can_begin => return vec![PlanKind::Whole],
        PlanChoice::Whole if !is_tiled && left > 0 => return vec![all_in_one],
        PlanChoice::Cfg if is_tiled => not(PlanKind::Cfg, "the layout has tiles, so no unit covers the whole canvas"),
        PlanChoice::Cfg if !is_guided => not(PlanKind::Cfg, "there are no two guidance branches to split"),
        PlanChoice::Cfg => return vec![PlanKind::Cfg],
        PlanChoice::Tiles | PlanChoice::Shifted if is_tiled => return split.to_vec(),
        PlanChoice::Tiles | PlanChoice::Shifted => {
            not(PlanKind::CfgTiles, "the picture is no larger than one tile");
        }
        PlanChoice::Auto | PlanChoice::Whole => {}
    }
    let mut kinds = split.to_vec();
    if can_begin {
        kinds.push(PlanKind::Whole);
    }
    if !is_tiled && left > 1 {
        let lengths = std::iter::successors(Some(2), |steps: &u32| steps.checked_mul(2));
        kinds.extend(lengths.take_while(|steps| *steps < left).map(|steps| PlanKind::Runs { steps }));
        kinds.push(all_in_one);
    }
    kinds
}

/// When the job would be done under a kind, and who would do what.
fn candidate(kind: PlanKind, task: &Task<'_>, peers: &[Peer<'_>]) -> Result<Candidate, UnitError> {
    let mut stages = stages(kind, task)?;
    let mut seconds = 0.0;
    let mut conditioning = conditioning_bytes(task);
    for stage in &mut stages {
        let images = task.images.max(1) as usize;
        let (work, parts) = (&stage.work, stage.parts.as_slice());
        let load = Load { work, parts, units: stage.units * images, bytes: stage.unit_bytes };
        let share = estimate::share(&load, peers);
        stage.seconds = share.seconds;
        stage.peers = share.peers.iter().map(|index| peers[*index].id.clone()).collect();
        seconds += stage.times as f64 * share.seconds;
        if matches!(stage.kind, StageKind::Denoise | StageKind::Run) {
            // Before their first step, those who take it are sent the conditioning.
            let extra = |index: &usize| peers[*index].pace.way(conditioning) - peers[*index].pace.way(0);
            seconds += share.peers.iter().map(extra).fold(0.0, f64::max);
            conditioning = 0;
        }
    }
    Ok(Candidate { kind, stages, seconds, is_solo: false })
}

/// Who would be done first with nobody's help and in as few pieces as possible, and after how many seconds.
fn fastest_alone(task: &Task<'_>, peers: &[Peer<'_>]) -> Result<(Option<usize>, f64), UnitError> {
    let is_tiled = !task.spec.layout.tiles.is_whole();
    let kind = match task.steps_done {
        None => PlanKind::Whole,
        Some(done) if is_tiled || done == task.spec.steps => PlanKind::Tiles,
        Some(_) => PlanKind::Runs { steps: task.spec.steps },
    };
    let (mut fastest, mut least) = (None, f64::INFINITY);
    for (index, peer) in peers.iter().enumerate() {
        let seconds = candidate(kind, task, std::slice::from_ref(peer))?.seconds;
        if seconds < least {
            (fastest, least) = (Some(index), seconds);
        }
    }
    Ok((fastest, least))
}

/// The candidate that is taken, and why.
fn take(task: &Task<'_>, candidates: &[Candidate], fastest_alone: f64, peers: usize) -> (usize, String) {
    let earliest = |wanted: &dyn Fn(&Candidate) -> bool| {
        let fitting = candidates.iter().enumerate().filter(|(_, candidate)| wanted(candidate));
        fitting.min_by(|(_, a), (_, b)| a.seconds.total_cmp(&b.seconds)).map(|(index, _)| index)
    };
    let finest = |wanted: &dyn Fn(&Candidate) -> bool| {
        let fitting = candidates.iter().enumerate().filter(|(_, candidate)| wanted(candidate));
        // Of equally many stages, the fewer units.
        fitting.max_by_key(|(_, one)| (one.pieces(), std::cmp::Reverse(one.units()))).map(|(index, _)| index)
    };
    let kind = candidates[0].kind;
    if candidates.iter().all(|candidate| candidate.kind == kind) {
        let taken = earliest(&|candidate| !candidate.is_solo).expect("there is always a kind");
        return (taken, format!("{} was asked for", name(kind)));
    }
    if peers == 0 {
        let taken = finest(&|_| true).expect("there is always a kind");
        return (taken, "nobody is there yet, and this way whoever comes can take part in the next step".into());
    }
    let is_each_to_one = peers > 1 && task.images as usize >= peers;
    if let Some(whole) = candidates.iter().position(|candidate| candidate.kind == PlanKind::Whole && is_each_to_one)
        && candidates.iter().all(|other| candidates[whole].seconds <= SMALLER_PIECES * other.seconds)
    {
        return (whole, "with no fewer pictures than workers, a whole one for each costs the fewest messages".into());
    }
    // One after the other, also if each phase is another worker's.
    let is_alone = |candidate: &Candidate| !candidate.is_shared();
    if let Some(shared) = earliest(&Candidate::is_shared)
        && (candidates[shared].seconds <= SHARING_WINS * fastest_alone || !candidates.iter().any(is_alone))
    {
        let reason = format!(
            "sharing is expected to take {}, and the fastest worker alone {}",
            duration(candidates[shared].seconds),
            duration(fastest_alone)
        );
        return (shared, reason);
    }
    let taken = finest(&|candidate| is_alone(candidate) && candidate.seconds <= fastest_alone * SMALLER_PIECES)
        .or_else(|| earliest(&is_alone))
        .expect("there is a kind for one worker, or sharing was taken");
    let sharing = if peers == 1 { "there is nobody to share with" } else { "sharing would not win a tenth" };
    let why = match candidates[taken].kind {
        PlanKind::Whole => "and smaller pieces would cost too many messages",
        PlanKind::Runs { .. } => "and this way progress shows without a message for every step",
        PlanKind::Cfg | PlanKind::Tiles | PlanKind::CfgTiles => {
            "and this way progress shows and a worker that leaves takes one step along"
        }
    };
    (taken, format!("{sharing}, {why}"))
}

/// Of the lengths of runs only the longest is told, unless one was taken.
fn is_worth_telling(other: &Candidate, taken: PlanKind) -> bool {
    if other.is_solo {
        return false;
    }
    match (other.kind, taken) {
        (PlanKind::Runs { .. }, PlanKind::Runs { .. }) => false,
        (PlanKind::Runs { .. }, _) => other.pieces() <= 3,
        (PlanKind::Whole | PlanKind::Cfg | PlanKind::Tiles | PlanKind::CfgTiles, _) => true,
    }
}

fn reject(other: &Candidate, taken_s: f64, fastest_alone: f64, is_empty: bool) -> Rejected {
    let eta_s = (!is_empty && other.seconds.is_finite()).then_some(other.seconds);
    let why = match eta_s {
        None if is_empty => "nobody is there to be asked how fast they are",
        None => "nobody here has the memory for its units",
        Some(seconds) if seconds > 1.005 * taken_s => "it would take longer",
        Some(seconds) if other.is_shared() && seconds > SHARING_WINS * fastest_alone => {
            "it wins less than a tenth over the fastest worker alone"
        }
        Some(_) => match other.kind {
            PlanKind::Whole => "nothing would show until the end, and all of it could be lost",
            PlanKind::Runs { .. } => "less would show, and more could be lost",
            PlanKind::Cfg | PlanKind::CfgTiles if !other.is_shared() => "one worker would do all of them anyway",
            PlanKind::Cfg | PlanKind::Tiles | PlanKind::CfgTiles => "it would not be faster",
        },
    };
    Rejected { kind: other.kind, eta_s, why: why.into() }
}

/// Bytes of the conditioning.
fn conditioning_bytes(task: &Task<'_>) -> usize {
    let rows = 1 + usize::from(task.spec.guided());
    4 * rows * task.shape.tokens as usize * task.shape.embedding_width as usize
}
