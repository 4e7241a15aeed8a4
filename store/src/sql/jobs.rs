//! Submitting, looking at and changing jobs that nobody has.

use std::time::Duration;

use queue::{Ask, Change, Job, JobId, JobState, Model, NewJob, RoomName, Status, UnixMs};

use super::codes;
use super::fault::Fault;
use super::session::{Asked, Session, ask, encode};
use crate::store::{StoreError, Submitted};

/// How many jobs of the room `$1` are not finished.
const UNFINISHED: &str = "(SELECT count(*) FROM jobs WHERE room = $1 AND status = 0)
    + (SELECT count(*) FROM jobs WHERE room = $1 AND status = 1)";

/// A job's head; the whole record where an older program saved it last.
const HEAD: &str = "COALESCE(head, body)";

impl Session<'_> {
    pub(super) async fn submit(&mut self, id: &JobId, order: &NewJob, now: UnixMs) -> Result<Submitted, Fault> {
        let job = Job::new(id.clone(), order.clone(), now);
        let unfinished_max = self.limits.unfinished_per_room_max;
        // Asked in the statement that inserts: the usual submission is one message to the database.
        let query = ask(format!(
            "INSERT INTO jobs (id, room, user_name, idempotency_key, ask, model, status, mode, rank, body, head)
            SELECT $2, $1, $3, $4, $5, $6, 0, $7, $8, $9, $10 WHERE {UNFINISHED} < $11
            ON CONFLICT DO NOTHING"
        ));
        let query = (query.bind(order.room.as_str()))
            .bind(id.as_str())
            .bind(order.user.as_str())
            .bind(order.key.as_ref().map(|key| key.as_str().to_owned()))
            .bind(order.ask.as_ref().map(|ask| ask.as_str().to_owned()))
            .bind(order.model.as_ref().map(|model| model.as_str().to_owned()))
            .bind(codes::mode(order.mode))
            .bind(job.rank())
            .bind(encode(&job)?)
            .bind(encode(&job.head())?)
            .bind(codes::limit(unfinished_max));
        if self.run(query).await? == 1 {
            self.changed.push(id.clone());
            return Ok(Submitted { job, is_new: true });
        }
        let known = match self.same(order).await? {
            Some(job) => Some(job),
            None => self.job(id).await?,
        };
        let job = known.ok_or(StoreError::Full(unfinished_max))?;
        Ok(Submitted { job, is_new: false })
    }

    /// An error takes back what was inserted before it, with the transaction.
    pub(super) async fn submit_all(
        &mut self,
        orders: &[(JobId, NewJob)],
        now: UnixMs,
    ) -> Result<Vec<Submitted>, Fault> {
        let mut submitted = Vec::with_capacity(orders.len());
        for (id, order) in orders {
            submitted.push(self.submit(id, order, now).await?);
        }
        Ok(submitted)
    }

    /// The job of this room, user and idempotency key.
    async fn same(&mut self, order: &NewJob) -> Result<Option<Job>, Fault> {
        let Some(key) = &order.key else { return Ok(None) };
        let query = sqlx::query("SELECT body FROM jobs WHERE room = $1 AND user_name = $2 AND idempotency_key = $3");
        self.record(query.bind(order.room.as_str()).bind(order.user.as_str()).bind(key.as_str())).await
    }

    pub(super) async fn list(&mut self, room: Option<&RoomName>, count_max: usize) -> Result<Vec<Job>, Fault> {
        let parts = [
            "status = 1 AND room = $2 ORDER BY rank, id",
            "status = 0 AND room = $2 ORDER BY rank, id",
            "status >= 2 AND room = $2 ORDER BY finished DESC, id",
        ];
        let mut jobs = Vec::new();
        for part in parts {
            let left = count_max - jobs.len();
            let part = if room.is_some() { part.to_owned() } else { part.replace(" AND room = $2", "") };
            let mut query = ask(format!("SELECT {HEAD} FROM jobs WHERE {part} LIMIT $1")).bind(codes::limit(left));
            if let Some(room) = room {
                query = query.bind(room.as_str());
            }
            jobs.extend(self.heads(query).await?);
        }
        Ok(jobs)
    }

    pub(super) async fn position(&mut self, id: &JobId) -> Result<Option<u64>, Fault> {
        let Some(job) = self.job(id).await?.filter(|job| job.state == JobState::Queued) else { return Ok(None) };
        let query = sqlx::query("SELECT count(*) FROM jobs WHERE room = $1 AND status = 0 AND (rank, id) < ($2, $3)");
        Ok(Some(self.count(query.bind(job.order.room.as_str()).bind(job.rank()).bind(id.as_str())).await?))
    }

    pub(super) async fn waiting(&mut self, count_max: usize) -> Result<Vec<Job>, Fault> {
        let query = ask(format!(
            "SELECT {HEAD} FROM jobs WHERE id IN (
                SELECT id FROM (
                    SELECT id, rank, ROW_NUMBER() OVER (PARTITION BY room ORDER BY rank, id) AS place
                    FROM jobs WHERE status = 0
                ) AS placed ORDER BY place, rank, id LIMIT $1
            ) ORDER BY rank, id"
        ));
        self.heads(query.bind(codes::limit(count_max))).await
    }

    /// The heads in the first column, which is [`HEAD`].
    async fn heads(&mut self, query: Asked<'_>) -> Result<Vec<Job>, Fault> {
        let jobs: Vec<Job> = self.records(query).await?;
        Ok(jobs.iter().map(Job::head).collect())
    }

    pub(super) async fn cancel(&mut self, id: &JobId, now: UnixMs) -> Result<Option<Job>, Fault> {
        let Some(mut job) = self.own_job(id).await? else { return Ok(None) };
        let before = job.version;
        if job.cancel(now) != Change::None {
            self.save_job(&job, before).await?;
        }
        Ok(Some(job))
    }

    pub(super) async fn refuse(&mut self, id: &JobId, reason: &str, now: UnixMs) -> Result<Change, Fault> {
        let Some(mut job) = self.own_job(id).await? else { return Ok(Change::None) };
        let before = job.version;
        let change = job.refuse(reason, now);
        if change != Change::None {
            self.save_job(&job, before).await?;
        }
        Ok(change)
    }

    pub(super) async fn retry(&mut self, id: &JobId) -> Result<Option<Change>, Fault> {
        let Some(mut job) = self.own_job(id).await? else { return Ok(None) };
        let before = job.version;
        if job.status() != Status::Failed {
            return Ok(Some(Change::None));
        }
        let query = ask(format!("SELECT {UNFINISHED}")).bind(job.order.room.as_str());
        let unfinished_max = self.limits.unfinished_per_room_max;
        if self.count(query).await? >= unfinished_max as u64 {
            return Err(StoreError::Full(unfinished_max).into());
        }
        let change = job.retry();
        self.save_job(&job, before).await?;
        Ok(Some(change))
    }

    pub(super) async fn fall_back(
        &mut self,
        id: &JobId,
        to: &Ask,
        model: Option<&Model>,
        input: &str,
        expected: Duration,
    ) -> Result<bool, Fault> {
        let waits = |job: &Job| job.state == JobState::Queued;
        let Some(mut job) = self.own_job(id).await?.filter(waits) else { return Ok(false) };
        let before = job.version;
        if job.fallback_of.is_none() {
            job.fallback_of.clone_from(&job.order.ask);
        }
        job.order.ask = Some(to.clone());
        job.order.model = model.cloned();
        job.order.input = input.to_owned();
        job.order.expected = expected;
        job.version += 1;
        self.save_job(&job, before).await?;
        Ok(true)
    }

    pub(super) async fn explain(&mut self, id: &JobId, route: &str) -> Result<(), Fault> {
        let Some(mut job) = self.own_job(id).await? else { return Ok(()) };
        if job.state != JobState::Queued || job.route.as_deref() == Some(route) {
            return Ok(());
        }
        let before = job.version;
        job.route = Some(route.to_owned());
        job.version += 1;
        self.save_job(&job, before).await
    }
}
