//! When an answer counts: alone, confirmed by unrelated workers, or by an own device; and what becomes of wrong ones.
//!
//! Nothing of an answer leaves the requester before it counts, so no worker can wait for another's and copy it.

use std::collections::BTreeSet;

use protocol::{Hash, Instant, JobId, LeaseId, PeerId, Policy, Unit, UnitId, Work, tensor};

use super::job::{Done, Holder};
use super::{Requester, RequesterOutput};
use crate::mutants::{Mutant, is};
use crate::speed::{Shape, seconds};
use crate::trust::{Agreement, TrustDomain, compare};

/// Own devices check at least one unit in this many.
const AUDIT_EVERY_MAX: u32 = 100;

/// Answers of second workers that came first are remembered for comparison while the losers' may still come.
const HEDGES_REMEMBERED: usize = 64;

/// What it takes for an answer to a unit to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// So many unrelated domains agree; one is no check at all. An own device's answer always counts.
    Domains(usize),
    /// An own device agrees.
    Own,
}

/// A sound answer.
pub(super) struct Answer {
    pub(super) by: PeerId,
    pub(super) domain: TrustDomain,
    pub(super) is_own: bool,
    class: String,
    body: Vec<u8>,
    compute_ms: u32,
    failures_in_row: u32,
}

/// A lease that lost a race: what the winner said.
pub(super) struct Lost {
    lease: LeaseId,
    worker: PeerId,
    winner: PeerId,
    domain: TrustDomain,
    class: String,
    answer: Hash,
}

/// Which answer counts, and what that says of the others.
struct Verdict {
    /// Indices of answers that are the same, the one that counts first.
    right: Vec<usize>,
    /// Indices of answers that are wrong.
    wrong: Vec<usize>,
    /// Whether the right one is more than one domain's word.
    is_proven: bool,
}

impl Check {
    /// Answers still missing, if those under way and to come are right.
    pub(super) fn answers_missing(self, answers: &[Answer], leases: &[Holder]) -> usize {
        match self {
            Self::Domains(needed) => {
                let best = (0..answers.len()).map(|pivot| domains(answers, &agreeing(answers, pivot)).len()).max();
                needed - best.unwrap_or(0).min(needed - 1)
            }
            Self::Own => {
                let has_own = leases.iter().any(|holder| holder.is_own);
                let has_other = !answers.is_empty() || leases.iter().any(|holder| !holder.is_own);
                // What is under way counts as missing here.
                leases.len() + usize::from(!has_own) + usize::from(!has_other)
            }
        }
    }

    /// `compares_classes` says whether answers of different numeric classes can be compared: over many steps, honest ones
    /// drift apart further than any tolerance for one pass.
    fn verdict(self, answers: &[Answer], compares_classes: bool) -> Option<Verdict> {
        let pivot = match answers.iter().position(|answer| answer.is_own) {
            Some(own) => own,
            None => match self {
                Self::Own => return None,
                Self::Domains(needed) => {
                    let needed = if is(Mutant::QuorumOffByOne) { needed - 1 } else { needed };
                    (0..answers.len()).find(|pivot| domains(answers, &agreeing(answers, *pivot)).len() >= needed)?
                }
            },
        };
        let right = agreeing(answers, pivot);
        let is_proven = domains(answers, &right).len() > 1 || answers[pivot].is_own;
        let is_far = |index: &usize| {
            (compares_classes || answers[pivot].class == answers[*index].class)
                && compare(&answers[pivot].body, &answers[*index].body) == Agreement::Far
        };
        let wrong = (0..answers.len()).filter(is_far).collect();
        Some(Verdict { right, wrong, is_proven })
    }
}

/// Indices of the answers that confirm the one at `pivot`, itself first: the same bits within a numeric class, the same up to
/// rounding between classes.
fn agreeing(answers: &[Answer], pivot: usize) -> Vec<usize> {
    let confirms = |index: &usize| {
        *index != pivot
            && match compare(&answers[pivot].body, &answers[*index].body) {
                Agreement::Equal => true,
                Agreement::Close => answers[pivot].class != answers[*index].class,
                Agreement::Far => false,
            }
    };
    std::iter::once(pivot).chain((0..answers.len()).filter(confirms)).collect()
}

fn domains<'a>(answers: &'a [Answer], indices: &[usize]) -> BTreeSet<(&'a TrustDomain, Option<&'a PeerId>)> {
    let peer = |answer: &'a Answer| is(Mutant::CountsPeersAsDomains).then_some(&answer.by);
    indices.iter().map(|index| (&answers[*index].domain, peer(&answers[*index]))).collect()
}

impl Requester {
    /// How the units of a new stage are checked.
    pub(super) fn check_of_stage(&self) -> Check {
        Check::Domains(self.policy.quorum())
    }

    /// Decides, when a unit is first given away, whether an own device computes it too.
    pub(super) fn draw_check(&mut self, job: JobId, unit: UnitId, worker: &PeerId) {
        let (Policy::Friends, Some(lender)) = (self.policy, self.roster.lender(worker)) else { return };
        let valid = lender.valid_in_row();
        if lender.standing().is_own || self.is_judged(job, unit) != Some(true) {
            return;
        }
        let one_in = valid.clamp(1, AUDIT_EVERY_MAX);
        if self.rng.below(u64::from(one_in)) == 0 {
            self.set_check(job, unit, Check::Own);
        }
    }

    /// Keeps a sound answer, and lets it count if it may.
    pub(super) fn keep(
        &mut self,
        (job, unit): (JobId, UnitId),
        from: &PeerId,
        body: Vec<u8>,
        compute_ms: u32,
        now: Instant,
    ) {
        let lender = self.roster.lender_mut(from).expect("the worker of a live lease is in the roster");
        let failures_in_row = lender.failures_in_row();
        lender.count_delivery();
        let standing = lender.standing().clone();
        let class = lender.capabilities().numeric_class.clone();
        let (by, domain) = (from.clone(), standing.domain);
        let is_own = standing.is_own || is(Mutant::EverybodyIsOwn);
        let answer = Answer { by, domain, is_own, class, body, compute_ms, failures_in_row };
        let entry = self.stage_of(job).entry_mut(unit).expect("a leased unit belongs to the present stage");
        entry.answers.push(answer);
        self.settle(job, unit, now);
    }

    /// Lets a unit's answer count if it is checked as it must be.
    fn settle(&mut self, job: JobId, unit: UnitId, now: Instant) {
        let class = self.jobs[&job].class.clone();
        let stage = self.stage_of(job);
        let number = stage.number;
        let entry = stage.entry_mut(unit).expect("a unit that is settled belongs to the present stage");
        let compares_classes =
            !matches!(entry.unit.work, Work::Paint { .. } | Work::Run { .. }) || is(Mutant::ComparesClasses);
        let Some(Verdict { right, wrong, is_proven }) = entry.check.verdict(&entry.answers, compares_classes) else {
            stage.requeue(unit);
            return;
        };
        let preferred = right.iter().find(|index| Some(&entry.answers[**index].class) == class.as_ref());
        let counts = if is(Mutant::BelievesFirst) { 0 } else { *preferred.unwrap_or(&right[0]) };
        let mut answers: Vec<Option<Answer>> = std::mem::take(&mut entry.answers).into_iter().map(Some).collect();
        let may_lose = |_: &&Holder| !is(Mutant::HedgesWithoutCancel);
        let losers: Vec<LeaseId> = entry.leases.iter().filter(may_lose).map(|holder| holder.lease).collect();
        let confirmed: Vec<PeerId> =
            right.iter().filter_map(|index| Some(answers[*index].as_ref()?.by.clone())).collect();
        let liars: Vec<PeerId> = wrong.iter().filter_map(|index| Some(answers[*index].as_ref()?.by.clone())).collect();
        let doubted: Vec<PeerId> = (0..answers.len())
            .filter(|index| !right.contains(index) && !wrong.contains(index))
            .filter_map(|index| Some(answers[index].as_ref()?.by.clone()))
            .collect();
        let answer = answers[counts].take().expect("every answer is there once");
        stage.complete(unit, Done { by: answer.by.clone(), failures_in_row: answer.failures_in_row });
        for lease in losers {
            self.remember_loser(lease, &answer);
            self.note_stall(lease, now);
            self.call_off(lease);
        }
        let entry = self.jobs.get_mut(&job).expect("the unit belongs to a running job");
        entry.class.get_or_insert_with(|| answer.class.clone());
        if !is_proven {
            entry.unproven.entry(answer.by.clone()).or_insert(number);
        } else {
            confirmed.iter().for_each(|peer| self.with_lender(peer, super::Lender::count_valid));
        }
        doubted.iter().for_each(|peer| self.with_lender(peer, super::Lender::doubt));
        self.hedge_credit = self.hedge_credit.saturating_add(super::HEDGES_PER_HUNDRED).min(super::HEDGE_CREDIT_MAX);
        let Answer { by, body, compute_ms, .. } = answer;
        if is(Mutant::MergesTwice) {
            let (by, body) = (by.clone(), body.clone());
            self.outputs.push_back(RequesterOutput::Delivered { job, unit, by, body, compute_ms });
        }
        self.outputs.push_back(RequesterOutput::Delivered { job, unit, by, body, compute_ms });
        for liar in liars {
            let evidence = format!("its answer to unit {} of stage {} is wrong", unit.index, unit.stage);
            self.condemn(&liar, evidence, now);
        }
    }

    /// A worker was caught in a wrong answer: it is never asked again, and nothing of it that nobody confirmed is kept.
    fn condemn(&mut self, peer: &PeerId, evidence: String, now: Instant) {
        let leases = self.roster.lender(peer).map_or_else(Vec::new, |lender| lender.leases.clone());
        for lease in leases.into_iter().rev() {
            self.call_off(lease);
        }
        if !is(Mutant::CondemnsInName) {
            self.roster.remove(peer);
        }
        if self.condemned.len() >= protocol::limits::CONDEMNED_MAX {
            self.condemned.pop_front();
        }
        self.condemned.push_back(peer.clone());
        self.outputs.push_back(RequesterOutput::WorkerCondemned { peer: peer.clone(), evidence });
        for job in self.jobs.keys().copied().collect::<Vec<_>>() {
            self.forget_answers(job, peer);
            let entry = self.jobs.get_mut(&job).expect("the jobs are those of before");
            if let Some(stage) = entry.unproven.remove(peer).filter(|_| !is(Mutant::NeverRollsBack)) {
                self.taint(job, stage + u32::from(is(Mutant::RollsBackShort)), now);
            }
        }
    }

    /// Drops what a peer answered to units that are not done.
    pub(super) fn forget_answers(&mut self, job: JobId, peer: &PeerId) {
        let Some(stage) = self.jobs.get_mut(&job).and_then(|job| job.stage.as_mut()) else { return };
        let mut changed = Vec::new();
        for entry in stage.entries_mut().filter(|entry| entry.done.is_none()) {
            let before = entry.answers.len();
            entry.answers.retain(|answer| answer.by != *peer);
            if entry.answers.len() < before {
                changed.push(entry.unit.id);
            }
        }
        changed.into_iter().for_each(|unit| stage.requeue(unit));
    }

    /// An answer that counted in `number` was a liar's: the driver takes the job back to before that stage.
    fn taint(&mut self, job: JobId, number: u32, now: Instant) {
        for lease in self.leases_where(|lease| lease.job == job) {
            self.call_off(lease);
        }
        let entry = self.jobs.get_mut(&job).expect("only running jobs are tainted");
        entry.stage = None;
        entry.unproven.retain(|_, stage| *stage < number);
        self.outputs.retain(|output| !matches!(output, RequesterOutput::Delivered { job: of, .. } if *of == job));
        self.outputs.push_back(RequesterOutput::Tainted { job, stage: number });
        self.assign(now);
    }

    /// What waits for an own device that will not judge it, because it is gone, in trouble or failed that very unit, is checked
    /// like any other.
    pub(super) fn release_checks(&mut self, now: Instant) {
        for job in self.jobs.keys().copied().collect::<Vec<_>>() {
            let Some(stage) = self.jobs.get_mut(&job).and_then(|job| job.stage.as_mut()) else { continue };
            let waiting = stage.entries_mut().filter(|entry| entry.check == Check::Own && entry.done.is_none());
            for unit in waiting.map(|entry| entry.unit.id).collect::<Vec<_>>() {
                self.release_check(job, unit, now);
            }
        }
    }

    /// See [`Requester::release_checks`].
    fn release_check(&mut self, job: JobId, unit: UnitId, now: Instant) {
        // An earlier one may have tainted the job.
        if self.is_judged(job, unit) == Some(false) {
            self.set_check(job, unit, self.check_of_stage());
            self.settle(job, unit, now);
        }
    }

    /// Whether an own device computes the unit or will; `None` if it is not a unit of a present stage.
    pub(super) fn is_judged(&self, job: JobId, unit: UnitId) -> Option<bool> {
        let job = self.jobs.get(&job)?;
        let stage = job.stage.as_ref()?;
        let entry = stage.entry(unit)?;
        let key = Shape::of(&entry.unit.work, job.model, &stage.shape);
        let mut own = self.roster.lenders_of(job.model).filter(|(_, lender)| lender.standing().is_own);
        let waits = is(Mutant::WaitsForOwn) && own.next().is_some();
        Some(
            waits
                || own.any(|(peer, lender)| {
                    let may_begin = !lender.is_suspect() && !entry.failed_on(peer) && !lender.is_too_large(&key);
                    may_begin || entry.leases.iter().any(|holder| holder.worker == *peer)
                }),
        )
    }

    /// When the next own device has stalled on a unit that is only waiting for its word, and which unit.
    pub(super) fn next_stalled_check(&self) -> Option<(f64, JobId, UnitId)> {
        let stalled = self.roster.lenders().filter(|(_, lender)| lender.standing().is_own).filter_map(|(_, lender)| {
            let lease = &self.leases[lender.leases.first()?];
            let entry = self.jobs[&lease.job].stage.as_ref()?.entry(lease.unit)?;
            let is_awaited = entry.check == Check::Own && !entry.answers.is_empty();
            is_awaited.then_some((lender.outlook.stall_at, lease.job, lease.unit))
        });
        stalled.min_by(|one, other| one.0.total_cmp(&other.0))
    }

    /// An own device that stalls does not hold up its room: what others answered is checked without it.
    pub(super) fn pass_over_stalled_checks(&mut self, now: Instant) {
        while let Some((_, job, unit)) = self.next_stalled_check().filter(|(due, ..)| *due <= seconds(now)) {
            self.set_check(job, unit, self.check_of_stage());
            self.settle(job, unit, now);
            self.release_checks(now); // It is in trouble; nothing else waits for it either.
        }
    }

    pub(super) fn set_check(&mut self, job: JobId, unit: UnitId, check: Check) {
        let stage = self.stage_of(job);
        stage.entry_mut(unit).expect("the unit belongs to the present stage").check = check;
        stage.requeue(unit);
    }

    /// Compares the answer of a worker that lost a race with that of the winner: evidence that costs nothing more.
    pub(super) fn compare_late(&mut self, from: &PeerId, id: LeaseId, body: &[u8]) {
        let Some(place) = self.lost.iter().position(|lost| lost.lease == id && lost.worker == *from) else { return };
        let lost = self.lost.remove(place).expect("the place was just found");
        // Peers of one domain never confirm each other, and bits are only equal within a class.
        let can_tell = |lender: &super::Lender| {
            lender.capabilities().numeric_class == lost.class && lender.standing().domain != lost.domain
        };
        if !self.roster.lender(from).is_some_and(can_tell) {
            return;
        }
        let is_same = Hash::of(body) == lost.answer;
        for peer in [&lost.winner, from] {
            self.with_lender(peer, if is_same { super::Lender::count_valid } else { super::Lender::doubt });
        }
    }

    /// Who lost because it was late is not asked for a while, longer each time until it delivers.
    fn note_stall(&mut self, lease: LeaseId, now: Instant) {
        if self.is_overdue(lease, now) {
            let worker = self.leases[&lease].worker.clone();
            self.punish(&worker, now);
        }
    }

    fn remember_loser(&mut self, lease: LeaseId, winner: &Answer) {
        let worker = self.leases[&lease].worker.clone();
        if self.lost.len() >= HEDGES_REMEMBERED {
            self.lost.pop_front();
        }
        let (class, answer) = (winner.class.clone(), Hash::of(&winner.body));
        let domain = winner.domain.clone();
        self.lost.push_back(Lost { lease, worker, winner: winner.by.clone(), domain, class, answer });
    }

    fn with_lender(&mut self, peer: &PeerId, change: impl FnOnce(&mut super::Lender)) {
        if let Some(lender) = self.roster.lender_mut(peer) {
            change(lender);
        }
    }
}

/// Checks the form of an answer: the length its work says, finite values of sane size, and no evident pretence.
pub(super) fn check_form(unit: &Unit, shape: &protocol::ModelShape, input: &[u8], body: &[u8]) -> Result<(), String> {
    let expected = unit.work.output_values(shape);
    let count = if is(Mutant::AcceptsAnyLength) { body.len() / 4 } else { expected };
    match tensor::check(body, count) {
        Err(tensor::TensorError::Value { .. }) if is(Mutant::AcceptsNaN) => {}
        result => result.map_err(|error| error.to_string())?,
    }
    match &unit.work {
        Work::Encode { .. } | Work::Denoise { .. } | Work::Run { .. } => {
            // No network gives these; lazy workers and broken drivers do.
            if body.len() > 4 && body[4..] == body[..body.len() - 4] {
                return Err("all its values are the same".into());
            }
            if body == input {
                return Err("it is its own input".into());
            }
        }
        Work::Decode { .. } | Work::Paint { .. } => {}
    }
    Ok(())
}
