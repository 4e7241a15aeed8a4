//! Numbers that stand for statuses and kinds in the database. They are never changed, only added to.

use queue::{EntryKind, MicroUsd, Mode, Source, Status, UnixMs};

pub(super) fn status(status: Status) -> i64 {
    match status {
        Status::Queued => 0,
        Status::Processing => 1,
        Status::Completed => 2,
        Status::Failed => 3,
        Status::Cancelled => 4,
    }
}

pub(super) fn mode(mode: Mode) -> i64 {
    match mode {
        Mode::Auto => 0,
        Mode::Local => 1,
        Mode::Cloud => 2,
    }
}

pub(super) fn source(source: Source) -> i64 {
    match source {
        Source::Local => 0,
        Source::Peer => 1,
        Source::Cloud => 2,
    }
}

pub(super) fn kind(kind: EntryKind) -> i64 {
    match kind {
        EntryKind::Hold => 0,
        EntryKind::Release => 1,
        EntryKind::Charge => 2,
        EntryKind::Saving => 3,
    }
}

/// A moment, for searching; the record has it exactly.
pub(super) fn time(at: UnixMs) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

/// An amount, which [`crate::limits::SPENT_MAX`] keeps far below the largest integer.
pub(super) fn amount(amount: MicroUsd) -> i64 {
    i64::try_from(amount.0).unwrap_or(i64::MAX)
}

/// A sum of amounts.
pub(super) fn sum(sum: i64) -> MicroUsd {
    MicroUsd(u64::try_from(sum).unwrap_or_default())
}

/// A count.
pub(super) fn count(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}

/// A limit, for `LIMIT`.
pub(super) fn limit(count_max: usize) -> i64 {
    i64::try_from(count_max).unwrap_or(i64::MAX)
}
