//! What must hold of a store whatever happened: no budget is passed, the books balance.

use std::collections::BTreeMap;

use queue::{AttemptKey, AttemptState, EntryKind, MicroUsd};
use store::JobStore;

use super::pair::{Pair, room, same, user};

/// What the ledger says of one attempt.
#[derive(Debug, Default)]
struct Line {
    held: Vec<MicroUsd>,
    released: Vec<MicroUsd>,
    charged: Vec<MicroUsd>,
}

impl Pair {
    /// What is held or charged is within every budget, and no job has two attempts that may run.
    pub async fn check_budgets(&self) -> Result<(), String> {
        let budgets = self.setup.budgets;
        for (room, user) in [(room(0), user(0)), (room(1), user(1))] {
            let expected = self.memory.spending(&room, &user, self.now.day()).await;
            let found = self.store.spending(&room, &user, self.now.day()).await;
            same("spending", &expected, &found)?;
            let spent = found.map_err(|error| error.to_string())?;
            let lines = [
                (spent.total, budgets.total),
                (spent.day, budgets.day),
                (spent.user_day, budgets.user_day),
                (spent.room_day, budgets.room_day),
            ];
            if lines.iter().any(|(spent, budget)| spent > budget) {
                return Err(format!("{spent:?} passes {budgets:?}"));
            }
        }
        Ok(())
    }

    /// The ledger has one hold for every attempt, one release for every settled one, and charges nobody more than was held.
    pub async fn check_books(&self) -> Result<(), String> {
        let mut lines: BTreeMap<AttemptKey, Line> = BTreeMap::new();
        for (_, entry) in self.store.ledger(0, 10_000).await.map_err(|error| error.to_string())? {
            let Some(key) = entry.attempt else { continue };
            let line = lines.entry(key).or_default();
            match entry.kind {
                EntryKind::Hold => line.held.push(entry.amount),
                EntryKind::Release => line.released.push(entry.amount),
                EntryKind::Charge => line.charged.push(entry.amount),
                EntryKind::Saving => return Err("a saving of an attempt".to_owned()),
            }
        }
        let mut unsettled = BTreeMap::new();
        let mut counted = MicroUsd::default();
        for (key, _) in &self.attempts {
            let attempt = self.store.attempt(key).await.map_err(|error| error.to_string())?;
            let attempt = attempt.ok_or_else(|| format!("{key:?} is lost"))?;
            let line = lines.remove(key).unwrap_or_default();
            let is_settled = attempt.state == AttemptState::Settled;
            let charged = line.charged.iter().copied().sum::<MicroUsd>();
            let is_good = line.held == [attempt.hold]
                && line.released == if is_settled { vec![attempt.hold] } else { vec![] }
                && line.charged.len() <= usize::from(is_settled)
                && charged <= attempt.hold;
            if !is_good {
                return Err(format!("{line:?} of {attempt:?}"));
            }
            counted = counted.plus(if is_settled { charged } else { attempt.hold });
            if !is_settled && unsettled.insert(key.job.clone(), key.number).is_some() {
                return Err(format!("two attempts of {} are open", key.job));
            }
        }
        if !lines.is_empty() {
            return Err(format!("entries of nobody: {lines:?}"));
        }
        let spent = self.store.spending(&room(0), &user(0), self.now.day()).await.map_err(|error| error.to_string())?;
        if spent.total == counted { Ok(()) } else { Err(format!("{} are spent, the books say {counted}", spent.total)) }
    }
}
