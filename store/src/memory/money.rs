//! Paid attempts and the ledger in memory.

use queue::{
    Attempt, AttemptKey, AttemptState, Budgets, Day, EntryKind, HoldAsk, Job, JobId, MicroUsd, Mode, Nonce, Outcome,
    Owner, RoomName, Source, Spending, Status, Step, Stepped, UnixMs, UserName,
};

use super::Records;
use crate::limits::SPENT_MAX;
use crate::store::{Held, Report, Taken, without_cost};

impl Records {
    pub(super) fn hold(&mut self, id: &JobId, ask: HoldAsk, budgets: &Budgets, nonce: [u8; 16], now: UnixMs) -> Held {
        let nonce = Nonce::from_random(nonce);
        let earlier: Vec<_> = self.attempts.values().filter(|attempt| attempt.key.job == *id).collect();
        let is_open = earlier.iter().any(|attempt| attempt.state != AttemptState::Settled);
        let has_had_all = earlier.len() >= queue::limits::ATTEMPTS_MAX as usize;
        let is_used = self.attempts.values().any(|attempt| attempt.nonce == nonce);
        let number = earlier.len() as u32 + 1;
        let Some(job) = self.jobs.get(id) else { return Held::NotNow };
        let may = job.status() == Status::Queued && job.order.mode != Mode::Local;
        if !may || is_open || has_had_all || is_used {
            return Held::NotNow;
        }
        let (room, user) = (job.order.room.clone(), job.order.user.clone());
        let spent = self.spending(&room, &user, now.day());
        let cap = |budget: MicroUsd| budget.min(MicroUsd(SPENT_MAX));
        let budgets = Budgets {
            total: cap(budgets.total),
            day: cap(budgets.day),
            user_day: cap(budgets.user_day),
            room_day: cap(budgets.room_day),
        };
        if let Err(over) = budgets.permit(ask.price.worst(), &spent) {
            return Held::Refused(over);
        }
        let job = self.jobs.get_mut(id).expect("it was found");
        let owner = Owner::new(format!("cloud:{}", ask.endpoint)).expect("an owner has room for a prefix");
        let lease = job.lease(owner, Source::Cloud, now).expect("it waits");
        job.attempts = number;
        let key = AttemptKey { job: id.clone(), number };
        let (attempt, entry) = Attempt::hold(key.clone(), lease.fence, (room, user), ask, nonce, now);
        let taken = Taken { job: job.clone(), lease };
        self.attempts.insert(key, attempt.clone());
        self.ledger.push(entry);
        Held::Taken(Box::new(taken), Box::new(attempt))
    }

    pub(super) fn step(&mut self, key: &AttemptKey, step: Step, now: UnixMs) -> Option<(Stepped, Attempt)> {
        let attempt = self.attempts.get_mut(key)?;
        if step == Step::Settle {
            return Some((Stepped::Refused(attempt.state), attempt.clone()));
        }
        let stepped = attempt.step(step, now);
        if let Stepped::Taken(entries) = &stepped {
            self.ledger.extend(entries.iter().cloned());
        }
        Some((stepped, attempt.clone()))
    }

    pub(super) fn settle(&mut self, key: &AttemptKey, outcome: Outcome, now: UnixMs) -> Option<Job> {
        let attempt = self.attempts.get_mut(key)?;
        let Stepped::Taken(entries) = attempt.step(Step::Settle, now) else { return self.jobs.get(&key.job).cloned() };
        let (fence, cost) = (attempt.fence, attempt.counted());
        self.ledger.extend(entries);
        let job = self.jobs.get_mut(&key.job)?;
        let is_its = job.present_lease().is_some_and(|lease| lease.source == Source::Cloud && lease.fence == fence);
        job.cost = job.cost.plus(cost);
        if is_its {
            job.finish(fence, without_cost(outcome), now).expect("the lease is its");
            self.count_completed(&key.job);
        } else if cost > MicroUsd::default() {
            job.version += 1;
        }
        self.jobs.get(&key.job).cloned()
    }

    pub(super) fn claim(&mut self, nonce: &str, remote: Option<String>, now: UnixMs) -> Option<Job> {
        let attempt = self.attempts.values_mut().find(|attempt| attempt.nonce.is(nonce))?;
        let job = self.jobs.get(&attempt.key.job)?;
        let lease = job.present_lease()?;
        if lease.source != Source::Cloud || lease.fence != attempt.fence {
            return None;
        }
        let step = Step::Claim { nonce: nonce.to_owned(), remote };
        matches!(attempt.step(step, now), Stepped::Taken(_)).then(|| job.clone())
    }

    pub(super) fn adopt(&mut self, driver: &Owner, now: UnixMs) -> Vec<Attempt> {
        let mut driven = Vec::new();
        for attempt in self.attempts.values_mut().filter(|attempt| attempt.state != AttemptState::Settled) {
            if attempt.driver == *driver || attempt.driven_until <= now {
                attempt.driver = driver.clone();
                attempt.driven_until = now.after(queue::limits::LEASE_TIME);
                driven.push(attempt.clone());
            }
        }
        driven
    }

    pub(super) fn spending(&self, room: &RoomName, user: &UserName, day: Day) -> Spending {
        let sum = |counts: &dyn Fn(&&Attempt) -> bool| {
            self.attempts.values().filter(counts).map(Attempt::counted).sum::<MicroUsd>()
        };
        Spending {
            total: sum(&|_| true),
            day: sum(&|attempt| attempt.day == day),
            user_day: sum(&|attempt| attempt.day == day && attempt.user == *user),
            room_day: sum(&|attempt| attempt.day == day && attempt.room == *room),
        }
    }

    pub(super) fn report(&self, room: Option<&RoomName>) -> Report {
        let is_its = |other: &RoomName| room.is_none_or(|room| room == other);
        let entries = |kind| {
            let entries = self.ledger.iter().filter(move |entry| entry.kind == kind && is_its(&entry.room));
            entries.map(|entry| entry.amount).sum::<MicroUsd>()
        };
        let open = self.attempts.values().filter(|attempt| attempt.state != AttemptState::Settled);
        let completed = |source| {
            let counts = self.completed.iter().filter(move |((room, by), _)| *by == source && is_its(room));
            counts.map(|(_, count)| count).sum()
        };
        Report {
            charged: entries(EntryKind::Charge),
            held: open.filter(|attempt| is_its(&attempt.room)).map(|attempt| attempt.hold).sum(),
            saved: entries(EntryKind::Saving),
            local_jobs: completed(Source::Local),
            peer_jobs: completed(Source::Peer),
            cloud_jobs: completed(Source::Cloud),
        }
    }
}
