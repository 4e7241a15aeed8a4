//! A paid attempt: money is held before anything is asked for, and what may have been asked for is never asked again.
//!
//! ```text
//! Held -> Intent -> Submitted -> Claimed -> Done | Failed -> Settled
//!   |       |   \-> Unknown --^     \------------------^
//!   \-------+---------\------> Expired (nobody came, and nobody can any more) -> Settled
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::EXPIRY_SLACK;
use crate::money::{Entry, EntryKind, MicroUsd, Price};
use crate::names::{Endpoint, JobId, Nonce, Owner, RoomName, UserName};
use crate::time::{Day, UnixMs};

/// Which attempt of which job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptKey {
    /// The job.
    pub job: JobId,
    /// Counted from 1.
    pub number: u32,
}

/// Where an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// Its worst case is set aside; nothing has been asked for.
    Held,
    /// It is written down that the endpoint is being asked now.
    Intent,
    /// The endpoint has taken it and named it.
    Submitted,
    /// The endpoint was asked and its answer is lost: it may run, so it is never asked for again.
    Unknown,
    /// A worker of the cloud has begun; no second one can.
    Claimed,
    /// It gave a result.
    Done,
    /// It gave none.
    Failed,
    /// Nobody claimed it in time; whoever comes now is refused.
    Expired,
    /// Its hold is released and its cost charged.
    Settled,
}

impl AttemptState {
    /// Whether it may still run or cost something.
    pub fn is_open(self) -> bool {
        match self {
            Self::Held | Self::Intent | Self::Submitted | Self::Unknown | Self::Claimed => true,
            Self::Done | Self::Failed | Self::Expired | Self::Settled => false,
        }
    }
}

/// What is needed to hold money for an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldAsk {
    /// The endpoint that will be asked.
    pub endpoint: Endpoint,
    /// Its price.
    pub price: Price,
    /// How long the endpoint keeps a job that nobody runs (`policy.ttl`).
    pub ttl: Duration,
    /// Whether the endpoint's workers claim what they run; if not, an attempt whose end is unknown is charged in full.
    pub claims: bool,
    /// Whoever drives the attempt: a relay's id.
    pub driver: Owner,
}

/// A paid attempt, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its name.
    pub key: AttemptKey,
    /// The fence of the lease it works under.
    pub fence: u64,
    /// Makes it claimable once.
    pub nonce: Nonce,
    /// Whose money.
    pub room: RoomName,
    /// See [`Self::room`].
    pub user: UserName,
    /// Who is asked.
    pub endpoint: Endpoint,
    /// At what price.
    pub price: Price,
    /// Where it is.
    pub state: AttemptState,
    /// What is set aside.
    pub hold: MicroUsd,
    /// What it cost, once that is known.
    pub cost: Option<MicroUsd>,
    /// The day it counts for: that of its hold.
    pub day: Day,
    /// How the endpoint names it.
    pub remote: Option<String>,
    /// See [`HoldAsk::ttl`].
    pub ttl: Duration,
    /// See [`HoldAsk::claims`].
    pub claims: bool,
    /// When the endpoint was asked.
    pub asked: Option<UnixMs>,
    /// When a worker claimed it.
    pub claimed: Option<UnixMs>,
    /// When it was held.
    pub created: UnixMs,
    /// Who drives it, and until when unless renewed: another relay takes it over then.
    pub driver: Owner,
    /// See [`Self::driver`].
    pub driven_until: UnixMs,
    /// Why it failed.
    pub reason: Option<String>,
}

/// What happens to an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The endpoint is about to be asked. Must be durable before it is.
    Intend,
    /// The endpoint named it.
    Submit {
        /// The name.
        remote: String,
    },
    /// The endpoint was asked, and whether it heard is not known.
    LoseReply,
    /// The endpoint certainly refused, or was certainly not asked.
    Reject {
        /// Why.
        reason: String,
    },
    /// A worker of the cloud begins.
    Claim {
        /// What it was given with its input.
        nonce: String,
        /// How the endpoint names the job.
        remote: Option<String>,
    },
    /// It ended with a result.
    Finish {
        /// Time until it began, as reported.
        cold_start: Duration,
        /// Time it ran, as reported.
        execution: Duration,
    },
    /// It ended without one.
    Fail {
        /// Why.
        reason: String,
        /// Time it ran, as reported; `None` if nothing is known, which is charged in full.
        execution: Option<Duration>,
    },
    /// Nothing more can come of it: its time is over, or the endpoint does not know it any more.
    Expire {
        /// Whether the endpoint itself said that it is gone.
        is_gone: bool,
    },
    /// The hold is released, the cost charged.
    Settle,
}

/// What a step led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// It was taken; these entries go into the ledger in the same transaction.
    Taken(Vec<Entry>),
    /// It is not possible from where the attempt is, and nothing changed.
    Refused(AttemptState),
}

impl Attempt {
    /// Sets the worst case aside for a new attempt; the caller has asked the budgets.
    pub fn hold(
        key: AttemptKey,
        fence: u64,
        (room, user): (RoomName, UserName),
        ask: HoldAsk,
        nonce: Nonce,
        now: UnixMs,
    ) -> (Self, Entry) {
        let hold = ask.price.worst();
        let attempt = Self {
            key,
            fence,
            nonce,
            room,
            user,
            endpoint: ask.endpoint,
            price: ask.price,
            state: AttemptState::Held,
            hold,
            cost: None,
            day: now.day(),
            remote: None,
            ttl: ask.ttl,
            claims: ask.claims,
            asked: None,
            claimed: None,
            created: now,
            driver: ask.driver,
            driven_until: now.after(crate::limits::LEASE_TIME),
            reason: None,
        };
        let entry = attempt.entry(EntryKind::Hold, hold, now);
        (attempt, entry)
    }

    /// Takes a step, or refuses it and changes nothing.
    pub fn step(&mut self, step: Step, now: UnixMs) -> Stepped {
        use AttemptState::{Claimed, Done, Expired, Failed, Held, Intent, Settled, Submitted, Unknown};
        let mut entries = Vec::new();
        match (step, self.state) {
            (Step::Intend, Held) => {
                self.asked = Some(now);
                self.state = Intent;
            }
            (Step::Submit { remote }, Intent | Unknown) => {
                self.remote = Some(remote);
                self.state = Submitted;
            }
            // The worker was faster than the answer to whoever asked for it.
            (Step::Submit { remote }, Claimed) if self.remote.is_none() => self.remote = Some(remote),
            (Step::LoseReply, Intent) => self.state = Unknown,
            (Step::Reject { reason }, Held | Intent) => self.end(Failed, MicroUsd::default(), Some(reason)),
            (Step::Claim { nonce, remote }, Intent | Unknown | Submitted) if self.nonce.is(&nonce) => {
                self.remote = self.remote.take().or(remote);
                self.claimed = Some(now);
                self.state = Claimed;
            }
            (Step::Finish { cold_start, execution }, Submitted | Claimed) => {
                self.end(Done, self.price.measured(cold_start, execution), None);
            }
            (Step::Fail { reason, execution }, Submitted | Claimed) => {
                let cost = execution.map_or(self.hold, |time| self.price.measured(self.price.cold_start_max, time));
                self.end(Failed, cost, Some(reason));
            }
            (Step::Expire { is_gone }, Intent | Unknown | Submitted | Claimed) if is_gone || self.is_overdue(now) => {
                // What nobody claimed never ran, where workers claim what they run. What is gone may have run all its time.
                let is_free = self.claims && self.state != Claimed && self.is_overdue(now);
                let cost = if is_free { MicroUsd::default() } else { self.hold };
                self.end(Expired, cost, Some("the cloud did not say what became of it".to_owned()));
            }
            (Step::Settle, Done | Failed | Expired) => {
                self.state = Settled;
                entries.push(self.entry(EntryKind::Release, self.hold, now));
                let cost = self.cost.unwrap_or(self.hold);
                if cost > MicroUsd::default() {
                    entries.push(self.entry(EntryKind::Charge, cost, now));
                }
            }
            (_, state) => return Stepped::Refused(state),
        }
        Stepped::Taken(entries)
    }

    /// What it takes of the budgets: its hold until it is settled, then its cost.
    pub fn counted(&self) -> MicroUsd {
        match self.state {
            AttemptState::Settled => self.cost.unwrap_or(self.hold),
            AttemptState::Held
            | AttemptState::Intent
            | AttemptState::Submitted
            | AttemptState::Unknown
            | AttemptState::Claimed
            | AttemptState::Done
            | AttemptState::Failed
            | AttemptState::Expired => self.hold,
        }
    }

    /// Whether the endpoint must have dropped or ended it by now.
    pub fn is_overdue(&self, now: UnixMs) -> bool {
        let from = self.claimed.or(self.asked).unwrap_or(self.created);
        let longest = if self.claimed.is_some() { self.price.execution_max } else { self.ttl };
        now >= from.after(longest + EXPIRY_SLACK)
    }

    fn end(&mut self, state: AttemptState, cost: MicroUsd, reason: Option<String>) {
        self.state = state;
        self.cost = Some(cost.min(self.hold));
        self.reason = reason;
    }

    fn entry(&self, kind: EntryKind, amount: MicroUsd, at: UnixMs) -> Entry {
        let (job, attempt) = (self.key.job.clone(), Some(self.key.clone()));
        Entry { at, job, attempt, user: self.user.clone(), room: self.room.clone(), kind, amount }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMs = UnixMs(0);
    const TTL: Duration = Duration::from_secs(300);

    fn held(claims: bool) -> Attempt {
        let price = Price {
            per_second: MicroUsd(10),
            cold_start_max: Duration::from_secs(60),
            execution_max: Duration::from_secs(120),
            idle: Duration::from_secs(5),
        };
        let endpoint = Endpoint::new("gpu").unwrap();
        let ask = HoldAsk { endpoint, price, ttl: TTL, claims, driver: Owner::new("relay").unwrap() };
        let whose = (RoomName::new("room").unwrap(), UserName::new("user").unwrap());
        let key = AttemptKey { job: JobId::from_random([0; 16]), number: 1 };
        Attempt::hold(key, 1, whose, ask, Nonce::from_random([9; 16]), START).0
    }

    fn take(attempt: &mut Attempt, step: Step, now: UnixMs) -> Vec<Entry> {
        match attempt.step(step.clone(), now) {
            Stepped::Taken(entries) => entries,
            Stepped::Refused(state) => panic!("{step:?} refused in {state:?}"),
        }
    }

    fn refuse(attempt: &mut Attempt, step: Step, now: UnixMs) {
        let before = attempt.clone();
        assert!(matches!(attempt.step(step, now), Stepped::Refused(state) if state == before.state));
        assert_eq!(*attempt, before);
    }

    fn claim(attempt: &Attempt) -> Step {
        Step::Claim { nonce: attempt.nonce.as_str().to_owned(), remote: Some("remote".to_owned()) }
    }

    #[test]
    fn a_plain_attempt_is_held_asked_claimed_and_settled() {
        let mut attempt = held(true);
        assert_eq!(attempt.counted(), MicroUsd(1850));
        take(&mut attempt, Step::Intend, START);
        take(&mut attempt, Step::Submit { remote: "remote".to_owned() }, START);
        let step = claim(&attempt);
        take(&mut attempt, step.clone(), START);
        refuse(&mut attempt, step, START);
        let times = (Duration::from_secs(3), Duration::from_secs(2));
        take(&mut attempt, Step::Finish { cold_start: times.0, execution: times.1 }, START);
        assert_eq!(attempt.counted(), MicroUsd(1850), "held until settled");
        let entries = take(&mut attempt, Step::Settle, START);
        let lines: Vec<_> = entries.iter().map(|entry| (entry.kind, entry.amount)).collect();
        assert_eq!(lines, [(EntryKind::Release, MicroUsd(1850)), (EntryKind::Charge, MicroUsd(100))]);
        assert_eq!(attempt.counted(), MicroUsd(100));
        refuse(&mut attempt, Step::Settle, START);
    }

    #[test]
    fn what_may_have_been_asked_is_never_asked_again() {
        let mut attempt = held(true);
        take(&mut attempt, Step::Intend, START);
        take(&mut attempt, Step::LoseReply, START);
        refuse(&mut attempt, Step::Intend, START);
        refuse(&mut attempt, Step::Reject { reason: String::new() }, START);
        let end = START.after(TTL + EXPIRY_SLACK);
        refuse(&mut attempt, Step::Expire { is_gone: false }, UnixMs(end.0 - 1));
        take(&mut attempt, Step::Expire { is_gone: false }, end);
        let step = claim(&attempt);
        refuse(&mut attempt, step, end);
        assert_eq!(attempt.cost, Some(MicroUsd(0)), "what nobody claimed never ran");
    }

    #[test]
    fn an_unknown_end_is_charged_in_full_where_workers_do_not_claim() {
        let mut attempt = held(false);
        take(&mut attempt, Step::Intend, START);
        take(&mut attempt, Step::LoseReply, START);
        take(&mut attempt, Step::Expire { is_gone: false }, START.after(TTL + EXPIRY_SLACK));
        assert_eq!(attempt.cost, Some(attempt.hold));
    }

    #[test]
    fn gone_is_not_free() {
        let mut attempt = held(true);
        take(&mut attempt, Step::Intend, START);
        take(&mut attempt, Step::Submit { remote: "remote".to_owned() }, START);
        take(&mut attempt, Step::Expire { is_gone: true }, START);
        assert_eq!(attempt.cost, Some(attempt.hold));
    }

    #[test]
    fn a_worker_may_claim_before_the_answer_to_the_call_comes_and_after_it_is_lost() {
        for lost in [false, true] {
            let mut attempt = held(true);
            take(&mut attempt, Step::Intend, START);
            if lost {
                take(&mut attempt, Step::LoseReply, START);
            }
            let step = claim(&attempt);
            take(&mut attempt, step, START);
            assert_eq!(attempt.remote.as_deref(), Some("remote"));
            refuse(&mut attempt, Step::Expire { is_gone: false }, START);
        }
    }

    #[test]
    fn a_wrong_nonce_claims_nothing() {
        let mut attempt = held(true);
        take(&mut attempt, Step::Intend, START);
        refuse(&mut attempt, Step::Claim { nonce: "guess".to_owned(), remote: None }, START);
    }

    #[test]
    fn a_certain_refusal_costs_nothing_and_a_wrong_report_no_more_than_was_held() {
        let mut attempt = held(true);
        take(&mut attempt, Step::Intend, START);
        take(&mut attempt, Step::Reject { reason: "no such endpoint".to_owned() }, START);
        assert_eq!(take(&mut attempt, Step::Settle, START).len(), 1, "no charge");
        let mut attempt = held(true);
        take(&mut attempt, Step::Intend, START);
        take(&mut attempt, Step::Submit { remote: "remote".to_owned() }, START);
        let years = Duration::from_secs(100_000_000);
        take(&mut attempt, Step::Finish { cold_start: years, execution: years }, START);
        assert_eq!(attempt.cost, Some(attempt.hold));
    }
}
