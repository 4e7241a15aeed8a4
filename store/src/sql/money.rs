//! Paid attempts and the ledger.

use queue::{
    Attempt, AttemptKey, Budgets, Day, Entry, HoldAsk, Job, JobId, JobState, MicroUsd, Mode, Nonce, Outcome, Owner,
    RoomName, Source, Spending, Step, Stepped, UnixMs, UserName,
};
use sqlx::Row;

use super::codes;
use super::fault::Fault;
use super::session::{Gate, Session, ask, decode, encode};
use crate::limits::SPENT_MAX;
use crate::store::{Claimed, Held, StoreError, Taken, without_cost};

impl Session<'_> {
    pub(super) async fn hold(
        &mut self,
        id: &JobId,
        ask: HoldAsk,
        budgets: &Budgets,
        nonce: [u8; 16],
        now: UnixMs,
    ) -> Result<Held, Fault> {
        self.enter(Gate::Purse).await?;
        let may_pay = |job: &Job| job.state == JobState::Queued && job.order.mode != Mode::Local;
        let Some(mut job) = self.own_job(id).await?.filter(may_pay) else { return Ok(Held::NotNow) };
        let nonce = Nonce::from_random(nonce);
        let Some(number) = self.next_attempt(id, &nonce).await? else { return Ok(Held::NotNow) };
        let spent = self.spending(&job.order.room, &job.order.user, now.day()).await?;
        if let Err(over) = within_reach(budgets).permit(ask.price.worst(), &spent) {
            return Ok(Held::Refused(over));
        }
        let before = job.version;
        let owner = Owner::new(format!("cloud:{}", ask.endpoint)).expect("an owner has room for a prefix");
        let lease = job.lease(owner, Source::Cloud, now).expect("it waits");
        job.attempts = number;
        self.save_job(&job, before).await?;
        let whose = (job.order.room.clone(), job.order.user.clone());
        let key = AttemptKey { job: id.clone(), number };
        let (attempt, entry) = Attempt::hold(key, lease.fence, whose, ask, nonce, now);
        self.insert_attempt(&attempt).await?;
        self.append(&[entry]).await?;
        Ok(Held::Taken(Box::new(Taken { job, lease }), Box::new(attempt)))
    }

    pub(super) async fn step(
        &mut self,
        key: &AttemptKey,
        step: Step,
        now: UnixMs,
    ) -> Result<Option<(Stepped, Attempt)>, Fault> {
        let Some(mut attempt) = self.own_attempt(key).await? else { return Ok(None) };
        if step == Step::Settle {
            return Ok(Some((Stepped::Refused(attempt.state), attempt)));
        }
        let before = attempt.counted();
        let stepped = attempt.step(step, now);
        if let Stepped::Taken(entries) = &stepped {
            self.save_spending_attempt(&attempt, before).await?;
            self.append(entries).await?;
        }
        Ok(Some((stepped, attempt)))
    }

    pub(super) async fn settle(
        &mut self,
        key: &AttemptKey,
        outcome: Outcome,
        now: UnixMs,
    ) -> Result<Option<Job>, Fault> {
        let job = self.own_job(&key.job).await?;
        let Some(mut attempt) = self.own_attempt(key).await? else { return Ok(None) };
        let counted = attempt.counted();
        let Stepped::Taken(entries) = attempt.step(Step::Settle, now) else { return Ok(job) };
        self.save_spending_attempt(&attempt, counted).await?;
        let Some(mut job) = job else {
            self.append(&entries).await?;
            return Ok(None);
        };
        let (before, cost) = (job.version, attempt.counted());
        if is_under(&job, &attempt) {
            job.finish(attempt.fence, without_cost(outcome), now).expect("the lease is the attempt's");
        } else if cost > MicroUsd::default() {
            job.version += 1;
        }
        job.cost = job.cost.plus(cost);
        self.save_job(&job, before).await?;
        self.append(&entries).await?;
        Ok(Some(job))
    }

    pub(super) async fn claim(&mut self, nonce: &str, remote: Option<String>, now: UnixMs) -> Result<Claimed, Fault> {
        let Some(attempt) = self.attempt_by_nonce(nonce).await? else { return Ok(Claimed::Refused) };
        let Some(job) = self.own_job(&attempt.key.job).await? else { return Ok(Claimed::Refused) };
        let Some(mut attempt) = self.own_attempt(&attempt.key).await? else { return Ok(Claimed::Refused) };
        if !is_under(&job, &attempt) {
            return Ok(Claimed::Refused);
        }
        match attempt.step(Step::Claim { nonce: nonce.to_owned(), remote }, now) {
            Stepped::Refused(_) => Ok(Claimed::Refused),
            Stepped::Taken(entries) => {
                self.save_attempt(&attempt).await?;
                self.append(&entries).await?;
                Ok(Claimed::Granted(Box::new(job)))
            }
        }
    }

    pub(super) async fn attempt_by_nonce(&mut self, nonce: &str) -> Result<Option<Attempt>, Fault> {
        self.record(sqlx::query("SELECT body FROM attempts WHERE nonce = $1").bind(nonce)).await
    }

    pub(super) async fn adopt(&mut self, driver: &Owner, now: UnixMs) -> Result<Vec<Attempt>, Fault> {
        let lock = self.dialect.for_update();
        let query = ask(format!("SELECT body FROM attempts WHERE is_settled = 0 ORDER BY job, number{lock}"));
        let mut driven: Vec<Attempt> = self.records(query).await?;
        driven.retain(|attempt| attempt.driver == *driver || attempt.driven_until <= now);
        for attempt in &mut driven {
            attempt.driver = driver.clone();
            attempt.driven_until = now.after(queue::limits::LEASE_TIME);
            self.save_attempt(attempt).await?;
        }
        Ok(driven)
    }

    pub(super) async fn spending(&mut self, room: &RoomName, user: &UserName, day: Day) -> Result<Spending, Fault> {
        let query = sqlx::query(
            "SELECT (SELECT amount FROM spent),
                CAST(COALESCE(SUM(counted), 0) AS BIGINT),
                CAST(COALESCE(SUM(CASE WHEN user_name = $2 THEN counted ELSE 0 END), 0) AS BIGINT),
                CAST(COALESCE(SUM(CASE WHEN room = $3 THEN counted ELSE 0 END), 0) AS BIGINT)
            FROM attempts WHERE day = $1",
        );
        let day = i64::try_from(day.0).unwrap_or(i64::MAX);
        let row = self.row(query.bind(day).bind(user.as_str()).bind(room.as_str())).await?;
        Ok(Spending {
            total: codes::sum(row.try_get(0)?),
            day: codes::sum(row.try_get(1)?),
            user_day: codes::sum(row.try_get(2)?),
            room_day: codes::sum(row.try_get(3)?),
        })
    }

    /// Appends to the ledger.
    pub(super) async fn append(&mut self, entries: &[Entry]) -> Result<(), Fault> {
        if entries.is_empty() {
            return Ok(());
        }
        self.enter(Gate::Ledger).await?;
        for entry in entries {
            let query = sqlx::query(
                "INSERT INTO ledger (seq, room, kind, amount, body)
                SELECT COALESCE(MAX(seq), 0) + 1, $1, $2, $3, $4 FROM ledger",
            );
            let query = query.bind(entry.room.as_str()).bind(codes::kind(entry.kind));
            self.run(query.bind(codes::amount(entry.amount)).bind(encode(entry)?)).await?;
        }
        Ok(())
    }

    pub(super) async fn ledger(&mut self, after: u64, count_max: usize) -> Result<Vec<(u64, Entry)>, Fault> {
        let query = sqlx::query("SELECT body, seq FROM ledger WHERE seq > $1 ORDER BY seq LIMIT $2");
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let rows = self.rows(query.bind(after).bind(codes::limit(count_max))).await?;
        rows.iter().map(|row| Ok((codes::count(row.try_get(1)?), decode(row, 0)?))).collect()
    }

    /// The number of a job's next attempt; `None` if it may have none, or the nonce was used.
    async fn next_attempt(&mut self, id: &JobId, nonce: &Nonce) -> Result<Option<u32>, Fault> {
        let query = sqlx::query(
            "SELECT count(*), count(*) FILTER (WHERE is_settled = 0),
                (SELECT count(*) FROM attempts WHERE nonce = $2)
            FROM attempts WHERE job = $1",
        );
        let row = self.row(query.bind(id.as_str()).bind(nonce.as_str())).await?;
        let (all, unsettled, same): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let earlier = u32::try_from(all).map_err(|_| StoreError::Unreadable("too many attempts".to_owned()))?;
        let may = unsettled == 0 && same == 0 && earlier < queue::limits::ATTEMPTS_MAX;
        Ok(may.then_some(earlier + 1))
    }

    async fn insert_attempt(&mut self, attempt: &Attempt) -> Result<(), Fault> {
        let query = sqlx::query(
            "INSERT INTO attempts (job, number, nonce, is_settled, day, room, user_name, counted, body)
            VALUES ($1, $2, $3, 0, $4, $5, $6, $7, $8)",
        );
        let query = (query.bind(attempt.key.job.as_str()))
            .bind(i64::from(attempt.key.number))
            .bind(attempt.nonce.as_str())
            .bind(i64::try_from(attempt.day.0).unwrap_or(i64::MAX))
            .bind(attempt.room.as_str())
            .bind(attempt.user.as_str())
            .bind(codes::amount(attempt.counted()))
            .bind(encode(attempt)?);
        self.run(query).await?;
        self.spend(MicroUsd::default(), attempt.counted()).await
    }

    /// Saves an attempt that counted `before`.
    async fn save_spending_attempt(&mut self, attempt: &Attempt, before: MicroUsd) -> Result<(), Fault> {
        self.save_attempt(attempt).await?;
        self.spend(before, attempt.counted()).await
    }

    /// Keeps the sum over all attempts.
    async fn spend(&mut self, before: MicroUsd, after: MicroUsd) -> Result<(), Fault> {
        if before != after {
            let difference = codes::amount(after) - codes::amount(before);
            self.run(sqlx::query("UPDATE spent SET amount = amount + $1").bind(difference)).await?;
        }
        Ok(())
    }
}

/// Whether the job is under the lease of this attempt.
fn is_under(job: &Job, attempt: &Attempt) -> bool {
    job.present_lease().is_some_and(|lease| lease.source == Source::Cloud && lease.fence == attempt.fence)
}

/// The budgets, none further than amounts reach.
fn within_reach(budgets: &Budgets) -> Budgets {
    let reach = MicroUsd(SPENT_MAX);
    Budgets {
        total: budgets.total.min(reach),
        day: budgets.day.min(reach),
        user_day: budgets.user_day.min(reach),
        room_day: budgets.room_day.min(reach),
    }
}
