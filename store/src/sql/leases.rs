//! Leases of workers: taking, renewing, ending; and what they stream.

use futures::TryStreamExt;
use queue::{
    Entry, EntryKind, Job, JobId, JobState, LeaseError, MicroUsd, Outcome, Owner, Progress, Source, Status, UnixMs,
};
use sqlx::Row;

use super::codes;
use super::fault::Fault;
use super::session::{Session, ask, decode};
use crate::limits::{EXPIRED_MAX, SPENT_MAX};
use crate::store::{Beat, Offer, StoreError, Taken, without_cost};

impl Session<'_> {
    pub(super) async fn take(&mut self, offer: &Offer, now: UnixMs) -> Result<Option<Taken>, Fault> {
        if offer.source == Source::Cloud {
            return Ok(None);
        }
        let room = if offer.room.is_some() { "room = $1" } else { "$1 = ''" };
        let find = self.dialect.find();
        let model = match &offer.models {
            Some(_) => format!("(model IS NULL OR {find}($2, ' ' || model || ' ') > 0)"),
            None => "$2 = ''".to_owned(),
        };
        let lock = self.dialect.skip_locked();
        let query = ask(format!(
            "SELECT body FROM jobs WHERE status = 0 AND mode <> 2 AND {room} AND {model}
            ORDER BY rank, id LIMIT 1{lock}"
        ));
        let query = query.bind(offer.room.as_ref().map_or("", |room| room.as_str()));
        // Names hold no spaces.
        let models = offer.models.iter().flatten().map(|model| format!(" {model} ")).collect::<String>();
        let Some(mut job): Option<Job> = self.record(query.bind(models)).await? else { return Ok(None) };
        let before = job.version;
        let Some(lease) = job.lease(offer.owner.clone(), offer.source, now) else {
            return Err(StoreError::Unreadable("a waiting job that does not wait".to_owned()).into());
        };
        self.save_job(&job, before).await?;
        Ok(Some(Taken { job, lease }))
    }

    pub(super) async fn beat(
        &mut self,
        id: &JobId,
        fence: u64,
        progress: Option<Progress>,
        now: UnixMs,
    ) -> Result<Beat, Fault> {
        let Some(mut job) = self.own_job(id).await? else { return Ok(Beat::Unknown) };
        let before = job.version;
        if let Err(error) = job.beat(fence, progress, now) {
            return Ok(Beat::Over(error));
        }
        self.save_job(&job, before).await?;
        Ok(Beat::Renewed)
    }

    pub(super) async fn finish(
        &mut self,
        id: &JobId,
        fence: u64,
        outcome: Outcome,
        saving: MicroUsd,
        now: UnixMs,
    ) -> Result<Option<Result<Job, LeaseError>>, Fault> {
        let Some(mut job) = self.own_job(id).await? else { return Ok(None) };
        let before = job.version;
        if job.present_lease().is_some_and(|lease| lease.fence == fence && lease.source == Source::Cloud) {
            return Ok(Some(Err(LeaseError::Stale)));
        }
        if let Err(error) = job.finish(fence, without_cost(outcome), now) {
            return Ok(Some(Err(error)));
        }
        self.save_job(&job, before).await?;
        if job.status() == Status::Completed && saving > MicroUsd::default() {
            let entry = Entry {
                at: now,
                job: job.id.clone(),
                attempt: None,
                user: job.order.user.clone(),
                room: job.order.room.clone(),
                kind: EntryKind::Saving,
                amount: saving.min(MicroUsd(SPENT_MAX)),
            };
            self.append(&[entry]).await?;
        }
        Ok(Some(Ok(job)))
    }

    pub(super) async fn expire(&mut self, now: UnixMs) -> Result<Vec<Job>, Fault> {
        let lock = self.dialect.skip_locked();
        let query =
            ask(format!("SELECT body FROM jobs WHERE lease_until <= $1 ORDER BY lease_until, id LIMIT $2{lock}"));
        let mut jobs: Vec<Job> = self.records(query.bind(codes::time(now)).bind(codes::limit(EXPIRED_MAX))).await?;
        for job in &mut jobs {
            let before = job.version;
            job.expire(now);
            self.save_job(job, before).await?;
        }
        Ok(jobs)
    }

    pub(super) async fn hand_back(&mut self, owner: &Owner, now: UnixMs) -> Result<u64, Fault> {
        let lock = self.dialect.for_update();
        let query = ask(format!("SELECT body FROM jobs WHERE lease_owner = $1 AND source <> 2 ORDER BY id{lock}"));
        let mut jobs: Vec<Job> = self.records(query.bind(owner.as_str())).await?;
        for job in &mut jobs {
            let (before, fence) = (job.version, job.fence);
            // Refused only where the column and the record differ, and then there is nothing to hand back.
            if job.finish(fence, Outcome::HandedBack, now).is_ok() {
                self.save_job(job, before).await?;
            }
        }
        Ok(jobs.len() as u64)
    }

    pub(super) async fn push_chunk(&mut self, id: &JobId, fence: u64, chunk: &str) -> Result<Beat, Fault> {
        let Some(job) = self.own_job(id).await? else { return Ok(Beat::Unknown) };
        if job.present_lease().is_none_or(|lease| lease.fence != fence) {
            let is_cancelled = job.state == JobState::Cancelled;
            return Ok(Beat::Over(if is_cancelled { LeaseError::Cancelled } else { LeaseError::Stale }));
        }
        let query = sqlx::query("SELECT count(*), COALESCE(MAX(number), 0) FROM chunks WHERE job = $1");
        let row = self.row(query.bind(id.as_str())).await?;
        let (kept, last): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        if kept >= codes::limit(self.limits.chunks_max) {
            return Err(StoreError::Unfetched(self.limits.chunks_max).into());
        }
        // As a JSON string: a text of Postgres cannot hold every character.
        let query = sqlx::query("INSERT INTO chunks (job, number, body) VALUES ($1, $2, $3)");
        self.run(query.bind(id.as_str()).bind(last + 1).bind(serde_json::to_string(chunk)?)).await?;
        self.changed.push(id.clone());
        Ok(Beat::Renewed)
    }

    pub(super) async fn drain_chunks(&mut self, id: &JobId) -> Result<Vec<String>, Fault> {
        // The job's row orders who drains and who pushes.
        if self.own_job(id).await?.is_none() {
            return Ok(Vec::new());
        }
        let bytes_max = self.limits.drained_bytes_max;
        let (mut chunks, mut bytes, mut last) = (Vec::new(), 0, 0);
        let query = sqlx::query("SELECT body, number FROM chunks WHERE job = $1 ORDER BY number").bind(id.as_str());
        let mut rows = query.fetch(&mut *self.connection);
        while let Some(row) = rows.try_next().await? {
            let chunk: String = decode(&row, 0)?;
            bytes += chunk.len();
            if bytes > bytes_max && !chunks.is_empty() {
                break;
            }
            last = row.try_get::<i64, _>(1)?;
            chunks.push(chunk);
        }
        drop(rows);
        if !chunks.is_empty() {
            let query = sqlx::query("DELETE FROM chunks WHERE job = $1 AND number <= $2");
            self.run(query.bind(id.as_str()).bind(last)).await?;
        }
        Ok(chunks)
    }
}
