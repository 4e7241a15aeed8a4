//! What an operator asks of the queue from the command line: its ledger, a token, its job types.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use queue::{Catalogue, Entry, EntryKind, RoomName, UnixMs, UserName};
use serde_json::json;
use service::access::{Grant, Right};
use service::limits::TOKEN_TIME_MAX;

use crate::settings::Settings;

/// Entries of the ledger that are read at once.
const PAGE: usize = 1_000;

/// A command.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print every hold, release, charge and saving of the queue, and what was paid and saved in all.
    #[command(after_help = LEDGER_EXAMPLES)]
    Ledger(LedgerFlags),
    /// Print a token for the queue's API. Whoever holds it may do what it says; nobody can take it back before its time.
    #[command(after_help = TOKEN_EXAMPLES)]
    Token(TokenFlags),
    /// Print the job types that can be asked for here.
    #[command(after_help = TYPES_EXAMPLES)]
    JobTypes,
}

const LEDGER_EXAMPLES: &str = "\
Examples:
  manyhands-relay ledger
  manyhands-relay ledger --room studio --json | jq .report

Works while the relay runs. Amounts are US dollars: a hold sets the worst case aside before an endpoint is asked, a release
ends it, a charge is what was spent, a saving what the cloud would have charged for what the room did itself.";

const TOKEN_EXAMPLES: &str = "\
Examples:
  A member who may submit jobs and see their own:
    manyhands-relay token --room studio --user ada --can read,submit --ttl 12h
  The same, and its jobs may overflow to the cloud, within the budgets:
    manyhands-relay token --room studio --user ada --can read,submit,spend --ttl 12h
  A worker for any room that it names; for all rooms at once it needs an operator's:
    manyhands-relay token --user painter --can work --ttl 30d
  An operator, who may do everything:
    manyhands-relay token --user me --can operate --ttl 1h

Rights: read, submit, spend (jobs may cost money), work (take and do jobs), operate. Use it as `Authorization: Bearer TOKEN`.";

const TYPES_EXAMPLES: &str = "\
Examples:
  manyhands-relay job-types
  manyhands-relay job-types --json | jq '.[].id'

An own catalogue is named by `catalogue` in the table [queue] of the configuration file.";

/// Which part of the ledger.
#[derive(Clone, Debug, Parser)]
pub struct LedgerFlags {
    /// Only this room.
    #[arg(long, value_name = "ROOM", value_parser = room)]
    pub room: Option<RoomName>,
}

/// What a token says.
#[derive(Clone, Debug, Parser)]
pub struct TokenFlags {
    /// The room it is for; every room if none is given.
    #[arg(long, value_name = "ROOM", value_parser = room)]
    pub room: Option<RoomName>,
    /// Whose it is: budgets and jobs are counted by this name.
    #[arg(long, value_name = "USER", value_parser = user)]
    pub user: UserName,
    /// What it allows: read, submit, spend, work, operate; several with commas.
    #[arg(long, value_name = "RIGHTS", value_delimiter = ',', required = true, value_parser = right)]
    pub can: Vec<Right>,
    /// How long: 90s, 30m, 12h, 7d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    pub ttl: Duration,
}

impl Command {
    /// Does it and prints the answer.
    pub async fn run(self, settings: Settings, is_json: bool) -> Result<()> {
        let Some(queue) = &settings.queue else {
            bail!("this relay keeps no queue; remove --no-queue or queue = false")
        };
        queue.check()?;
        match self {
            Self::Ledger(flags) => print_ledger(&settings, queue, &flags, is_json).await,
            Self::Token(flags) => print_token(&settings, queue, flags, is_json),
            Self::JobTypes => print_types(queue, is_json),
        }
    }
}

async fn print_ledger(
    settings: &Settings,
    queue: &service::Settings,
    flags: &LedgerFlags,
    is_json: bool,
) -> Result<()> {
    let store = service::open_store_to_read(queue, settings.data.as_deref()).await?;
    let is_meant = |entry: &Entry| flags.room.as_ref().is_none_or(|room| *room == entry.room);
    let mut output = std::io::stdout().lock();
    let (mut after, mut lines) = (0, Vec::new());
    loop {
        let page = store.ledger(after, PAGE).await?;
        let Some((last, _)) = page.last() else { break };
        after = *last;
        for (number, entry) in page.iter().filter(|(_, entry)| is_meant(entry)) {
            let Entry { at, job, attempt, user, room, kind, amount } = entry;
            if is_json {
                lines.push(json!({
                    "number": number, "at_ms": at, "job": job, "attempt": attempt.as_ref().map(|key| key.number),
                    "user": user, "room": room, "kind": kind, "amount_usd": amount.usd(),
                }));
            } else {
                let (day, kind) = (at.day(), kind_name(*kind));
                writeln!(output, "{number:>6}  {day}  {kind:<8} {amount:>12}  {room}  {user}  {job}")?;
            }
        }
    }
    let report = store.report(flags.room.as_ref()).await?;
    if is_json {
        let report = json!({
            "charged_usd": report.charged.usd(), "held_usd": report.held.usd(), "saved_usd": report.saved.usd(),
            "jobs": { "local": report.local_jobs, "peer": report.peer_jobs, "cloud": report.cloud_jobs },
        });
        writeln!(output, "{}", json!({ "entries": lines, "report": report }))?;
    } else {
        writeln!(output, "charged {}, held {}, saved {}", report.charged, report.held, report.saved)?;
        let (local, peer, cloud) = (report.local_jobs, report.peer_jobs, report.cloud_jobs);
        writeln!(output, "jobs done: {local} on the relay's machine, {peer} by members, {cloud} in the cloud")?;
    }
    store.close().await;
    Ok(())
}

fn print_token(settings: &Settings, queue: &service::Settings, flags: TokenFlags, is_json: bool) -> Result<()> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
    let until = UnixMs(u64::try_from(since.as_millis())?).after(flags.ttl);
    let rights: BTreeSet<Right> = flags.can.into_iter().collect();
    if rights.contains(&Right::Operate) && flags.room.is_some() {
        bail!("whoever operates does so for every room; leave --room out");
    }
    let mint = service::mint(queue, settings.data.as_deref())?;
    let grant = Grant { room: flags.room, user: flags.user, rights, until };
    let token = mint.grant(&grant)?;
    let mut output = std::io::stdout().lock();
    if is_json {
        writeln!(output, "{}", json!({ "token": token, "room": grant.room, "user": grant.user, "until_ms": until }))?;
    } else {
        writeln!(output, "{token}")?;
    }
    Ok(())
}

fn print_types(queue: &service::Settings, is_json: bool) -> Result<()> {
    let catalogue: Catalogue = service::open_catalogue(queue)?;
    let mut output = std::io::stdout().lock();
    if is_json {
        let types: Vec<_> = catalogue
            .types()
            .map(|one| {
                json!({
                    "id": one.id, "label": one.label, "queue": one.queue, "model": one.model, "task": one.task,
                    "width": one.width, "height": one.height, "steps": one.steps, "guidance": one.guidance,
                    "expected_s": one.expected.as_secs_f64(),
                })
            })
            .collect();
        writeln!(output, "{}", serde_json::Value::from(types))?;
    } else {
        for one in catalogue.types() {
            let size = format!("{}x{}", one.width, one.height);
            let (steps, seconds) = (one.steps, one.expected.as_secs());
            let (id, queue, label) = (one.id.as_str(), one.queue.as_str(), &one.label);
            writeln!(output, "{id:<20} {queue:<8} {size:>9} {steps:>3} steps {seconds:>4} s  {label}")?;
        }
    }
    Ok(())
}

fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Hold => "hold",
        EntryKind::Release => "release",
        EntryKind::Charge => "charge",
        EntryKind::Saving => "saving",
    }
}

fn room(text: &str) -> Result<RoomName, String> {
    RoomName::new(text).map_err(|error| error.to_string())
}

fn user(text: &str) -> Result<UserName, String> {
    UserName::new(text).map_err(|error| error.to_string())
}

fn right(text: &str) -> Result<Right, String> {
    let found = Right::ALL.into_iter().find(|right| right.name() == text.trim());
    found.ok_or_else(|| "a right is one of read, submit, spend, work, operate".to_owned())
}

/// `90s`, `30m`, `12h`, `7d`.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || "a time is a number and s, m, h or d, as 12h; a year at most".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
    let time = Duration::from_secs(number.checked_mul(seconds).ok_or_else(wrong)?);
    if time.is_zero() || time > TOKEN_TIME_MAX { Err(wrong()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(time("12h"), Ok(Duration::from_secs(43_200)));
        assert_eq!(time("366d"), Ok(TOKEN_TIME_MAX));
        for wrong in ["", "h", "0s", "12", "1y", "-1h", "367d", "99999999999999999999d", "1ää"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rights_are_those_that_tokens_have() {
        for one in Right::ALL {
            assert_eq!(right(one.name()), Ok(one));
        }
        assert!(right("everything").unwrap_err().contains("operate"));
    }
}
