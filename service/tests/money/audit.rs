//! Goes through the ledger entry by entry, and compares it with what the endpoint really billed.

use std::collections::BTreeMap;

use queue::{AttemptKey, Budgets, Entry, EntryKind, MicroUsd};
use runpod::emulator::Meter;
use store::JobStore;

/// What a ledger says in all.
#[derive(Debug, Default)]
pub struct Audit {
    /// Charged.
    pub charged: MicroUsd,
    /// Held and not released.
    pub held: MicroUsd,
    /// The most that was ever held and charged together.
    pub peak: MicroUsd,
    /// Attempts that were ever held.
    pub attempts: usize,
}

/// Fails if any entry passes a budget, charges more than was held, or charges twice.
pub async fn audit(store: &dyn JobStore, budgets: &Budgets) -> Audit {
    let mut entries = Vec::new();
    loop {
        let more = store.ledger(entries.last().map_or(0, |(number, _)| *number), 1000).await.unwrap();
        if more.is_empty() {
            break;
        }
        entries.extend(more);
    }
    let mut books = Books::default();
    for (number, entry) in &entries {
        books.enter(entry);
        books.check(budgets, *number, entry);
    }
    let held = books.open.values().copied().sum();
    let charged = books.charges.values().copied().sum();
    Audit { charged, held, peak: books.peak, attempts: books.holds.len() }
}

/// What a worker bills that starts, claims in vain and idles until it stops: 8 s and 5 s, and the second it began.
const IN_VAIN: MicroUsd = MicroUsd((8 + 5 + 1) * 190);

/// What the endpoint billed is covered by what was charged or is still held, and no work was paid twice. Nobody tells the relay
/// of workers that the endpoint starts besides, for a job that another takes or has claimed: their starts are billed all the
/// same.
pub fn compare(audit: &Audit, meter: &Meter) {
    let in_vain = MicroUsd(meter.claims_refused * IN_VAIN.0);
    let covered = audit.charged.plus(audit.held).plus(in_vain).plus(meter.untold);
    assert!(meter.micro_usd <= covered, "{} billed, {covered} charged or held", meter.micro_usd);
    let twice: Vec<_> = meter.runs_by_nonce.iter().filter(|(_, runs)| **runs > 1).collect();
    assert!(twice.is_empty(), "attempts that ran twice: {twice:?}");
}

#[derive(Default)]
struct Books {
    holds: BTreeMap<AttemptKey, MicroUsd>,
    open: BTreeMap<AttemptKey, MicroUsd>,
    charges: BTreeMap<AttemptKey, MicroUsd>,
    by_user: BTreeMap<String, i128>,
    by_room: BTreeMap<String, i128>,
    total: i128,
    peak: MicroUsd,
}

impl Books {
    fn enter(&mut self, entry: &Entry) {
        let amount = i128::from(entry.amount.0);
        let by = match entry.kind {
            EntryKind::Hold => {
                let key = entry.attempt.clone().unwrap();
                assert!(self.holds.insert(key.clone(), entry.amount).is_none(), "{key:?} is held twice");
                self.open.insert(key, entry.amount);
                amount
            }
            EntryKind::Release => {
                let key = entry.attempt.clone().unwrap();
                assert_eq!(self.open.remove(&key), Some(entry.amount), "{key:?} is released as it was held");
                -amount
            }
            EntryKind::Charge => {
                let key = entry.attempt.clone().unwrap();
                assert!(!self.open.contains_key(&key), "{key:?} is charged while it is held");
                assert!(entry.amount <= self.holds[&key], "{key:?} is charged more than was held");
                assert!(self.charges.insert(key.clone(), entry.amount).is_none(), "{key:?} is charged twice");
                amount
            }
            EntryKind::Saving => 0,
        };
        self.total += by;
        *self.by_user.entry(entry.user.to_string()).or_default() += by;
        *self.by_room.entry(entry.room.to_string()).or_default() += by;
        self.peak = self.peak.max(MicroUsd(u64::try_from(self.total).unwrap()));
    }

    /// All entries of a test are of one day.
    fn check(&self, budgets: &Budgets, number: u64, entry: &Entry) {
        let (user, room) = (self.by_user[entry.user.as_str()], self.by_room[entry.room.as_str()]);
        let lines = [
            ("total", self.total, budgets.total),
            ("day", self.total, budgets.day),
            ("user", user, budgets.user_day),
            ("room", room, budgets.room_day),
        ];
        for (budget, spent, limit) in lines {
            assert!(spent <= i128::from(limit.0), "entry {number}: {spent} of {limit} of the {budget} are spent");
        }
    }
}
