//! Purging and forgetting: changes of many jobs, a few at a time.

use std::collections::BTreeMap;

use queue::{Job, RoomName, UnixMs};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::codes;
use super::fault::Fault;
use super::session::{Session, ask};
use crate::limits::SWEEP_MAX;

/// Ended jobs that may be forgotten: no money is held for them.
const FORGETTABLE: &str = "status >= 2
    AND NOT EXISTS (SELECT 1 FROM attempts WHERE attempts.job = jobs.id AND attempts.is_settled = 0)";

impl Session<'_> {
    /// Cancels some waiting jobs of a room; says how many.
    pub(super) async fn purge_some(&mut self, room: &RoomName, now: UnixMs) -> Result<u64, Fault> {
        let lock = self.dialect.for_update();
        let query =
            ask(format!("SELECT body FROM jobs WHERE room = $1 AND status = 0 ORDER BY rank, id LIMIT $2{lock}"));
        let mut jobs: Vec<Job> = self.records(query.bind(room.as_str()).bind(codes::limit(SWEEP_MAX))).await?;
        for job in &mut jobs {
            let before = job.version;
            job.cancel(now);
            self.save_job(job, before).await?;
        }
        Ok(jobs.len() as u64)
    }

    /// Forgets some jobs that ended before `before`, and what relays told before it; says how many jobs.
    pub(super) async fn forget_old(&mut self, before: UnixMs) -> Result<u64, Fault> {
        self.run(sqlx::query("DELETE FROM told WHERE told_at < $1").bind(codes::time(before))).await?;
        let lock = self.dialect.skip_locked();
        let query = ask(format!(
            "SELECT id, room, status, source FROM jobs WHERE {FORGETTABLE} AND finished < $1
            ORDER BY finished, id LIMIT $2{lock}"
        ));
        let rows = self.rows(query.bind(codes::time(before)).bind(codes::limit(SWEEP_MAX))).await?;
        self.forget_rows(rows).await
    }

    /// Forgets some of the oldest jobs, if more have ended than are kept; says how many.
    pub(super) async fn forget_surplus(&mut self) -> Result<u64, Fault> {
        let ended = self.count(sqlx::query("SELECT count(*) FROM jobs WHERE status >= 2")).await?;
        let surplus = ended.saturating_sub(self.limits.finished_max as u64).min(SWEEP_MAX as u64);
        if surplus == 0 {
            return Ok(0);
        }
        let lock = self.dialect.skip_locked();
        let query = ask(format!(
            "SELECT id, room, status, source FROM jobs WHERE {FORGETTABLE} ORDER BY finished, id LIMIT $1{lock}"
        ));
        let rows = self.rows(query.bind(codes::limit(surplus as usize))).await?;
        self.forget_rows(rows).await
    }

    async fn forget_rows(&mut self, rows: Vec<AnyRow>) -> Result<u64, Fault> {
        let mut completed: BTreeMap<(String, i64), i64> = BTreeMap::new();
        for row in &rows {
            let (id, room): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
            let (status, source): (i64, Option<i64>) = (row.try_get(2)?, row.try_get(3)?);
            self.run(sqlx::query("DELETE FROM chunks WHERE job = $1").bind(id)).await?;
            self.run(sqlx::query("DELETE FROM jobs WHERE id = $1").bind(id)).await?;
            if let (2, Some(source)) = (status, source) {
                *completed.entry((room.to_owned(), source)).or_default() += 1;
            }
        }
        for ((room, source), jobs) in completed {
            let query = sqlx::query(
                "INSERT INTO forgotten (room, source, jobs) VALUES ($1, $2, $3)
                ON CONFLICT (room, source) DO UPDATE SET jobs = forgotten.jobs + excluded.jobs",
            );
            self.run(query.bind(room).bind(source).bind(jobs)).await?;
        }
        Ok(rows.len() as u64)
    }
}
