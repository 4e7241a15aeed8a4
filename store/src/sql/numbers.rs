//! Counts and means, for people and the router.

use std::time::Duration;

use queue::{Ask, Endpoint, Owner, RoomName, Source, UnixMs};
use sqlx::Row;

use super::codes;
use super::fault::Fault;
use super::session::{Asked, Session, ask, encode};
use crate::limits::{MEASURED_JOBS, TELLERS_MAX};
use crate::store::{Report, Totals};

impl Session<'_> {
    pub(super) async fn report(&mut self, room: Option<&RoomName>) -> Result<Report, Fault> {
        let sums = "SELECT kind, CAST(SUM(amount) AS BIGINT) FROM ledger WHERE kind >= 0 {room} GROUP BY kind";
        let [mut held, mut released] = [0, 0];
        let mut report = Report::default();
        for row in self.rows(of_room(sums, room)).await? {
            let sum: i64 = row.try_get(1)?;
            match row.try_get::<i64, _>(0)? {
                0 => held = sum,
                1 => released = sum,
                2 => report.charged = codes::sum(sum),
                _ => report.saved = codes::sum(sum),
            }
        }
        report.held = codes::sum(held - released);
        let kept = "SELECT source, count(*) FROM jobs WHERE status >= 2 AND status = 2 {room} GROUP BY source";
        let forgotten =
            "SELECT source, CAST(SUM(jobs) AS BIGINT) FROM forgotten WHERE source >= 0 {room} GROUP BY source";
        for text in [kept, forgotten] {
            for row in self.rows(of_room(text, room)).await? {
                let jobs = codes::count(row.try_get(1)?);
                match row.try_get::<Option<i64>, _>(0)? {
                    Some(0) => report.local_jobs += jobs,
                    Some(1) => report.peer_jobs += jobs,
                    _ => report.cloud_jobs += jobs,
                }
            }
        }
        Ok(report)
    }

    pub(super) async fn totals(&mut self, room: Option<&RoomName>) -> Result<Totals, Fault> {
        let queued = self.count(of_room("SELECT count(*) FROM jobs WHERE status = 0 {room}", room)).await?;
        let processing = self.count(of_room("SELECT count(*) FROM jobs WHERE status = 1 {room}", room)).await?;
        let mut totals = Totals { queued, processing, ..Totals::default() };
        let ended = "SELECT status, count(*) FROM jobs WHERE status >= 2 {room} GROUP BY status";
        for row in self.rows(of_room(ended, room)).await? {
            let jobs = codes::count(row.try_get(1)?);
            match row.try_get::<i64, _>(0)? {
                2 => totals.completed = jobs,
                3 => totals.failed = jobs,
                _ => totals.cancelled = jobs,
            }
        }
        Ok(totals)
    }

    pub(super) async fn measured(&mut self, ask: &Ask, source: Source) -> Result<Option<Duration>, Fault> {
        let query = sqlx::query(
            "SELECT took_ms FROM jobs WHERE status = 2 AND ask = $1 AND source = $2
            ORDER BY finished DESC, id LIMIT $3",
        );
        let query = query.bind(ask.as_str()).bind(codes::source(source)).bind(codes::limit(MEASURED_JOBS));
        let rows = self.rows(query).await?;
        let times: Vec<i64> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let sum: u128 = times.iter().map(|time| u128::from(codes::count(*time))).sum();
        let mean = sum.checked_div(times.len() as u128);
        Ok(mean.map(|mean| Duration::from_millis(u64::try_from(mean).unwrap_or(u64::MAX))))
    }

    pub(super) async fn breaker(&mut self, endpoint: &Endpoint) -> Result<Option<String>, Fault> {
        let query = sqlx::query("SELECT body FROM breakers WHERE endpoint = $1").bind(endpoint.as_str());
        let row = self.rows(query).await?.pop();
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    pub(super) async fn set_breaker(&mut self, endpoint: &Endpoint, state: &str) -> Result<(), Fault> {
        let query = sqlx::query(
            "INSERT INTO breakers (endpoint, body) VALUES ($1, $2)
            ON CONFLICT (endpoint) DO UPDATE SET body = excluded.body",
        );
        self.run(query.bind(endpoint.as_str()).bind(state)).await?;
        Ok(())
    }

    pub(super) async fn tell(&mut self, relay: &Owner, text: &str, now: UnixMs) -> Result<(), Fault> {
        let query = sqlx::query(
            "INSERT INTO told (relay, told_at, body) VALUES ($1, $2, $3)
            ON CONFLICT (relay) DO UPDATE SET told_at = excluded.told_at, body = excluded.body",
        );
        self.run(query.bind(relay.as_str()).bind(codes::time(now)).bind(encode(&text)?)).await?;
        Ok(())
    }

    pub(super) async fn told(&mut self, relay: &Owner, since: UnixMs) -> Result<Vec<String>, Fault> {
        let query = sqlx::query(
            "SELECT body FROM told WHERE relay <> $1 AND told_at >= $2 ORDER BY told_at DESC, relay LIMIT $3",
        );
        let query = query.bind(relay.as_str()).bind(codes::time(since));
        self.records(query.bind(codes::limit(TELLERS_MAX))).await
    }
}

/// A query about one room or all.
fn of_room<'q>(text: &str, room: Option<&'q RoomName>) -> Asked<'q> {
    match room {
        Some(room) => ask(text.replace("{room}", "AND room = $1")).bind(room.as_str()),
        None => ask(text.replace("{room}", "")),
    }
}
