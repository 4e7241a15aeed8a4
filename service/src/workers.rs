//! Workers that were heard of lately: who is there for a room, with which models, and which jobs each holds.
//!
//! All of it is hearsay in memory. Who may deliver what is decided by leases in the store; this tells people, the router, and
//! a worker which of its jobs are wanted no more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use data_encoding::BASE32_NOPAD;
use queue::{JobId, Model, NameError, Owner, RoomName, Source, UnixMs, UserName};
use sha2::{Digest, Sha256};

use crate::limits::{WORKER_JOBS_MAX, WORKER_SEEN_TIME, WORKERS_MAX};

/// A worker that was heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its id, as leases have it.
    pub owner: Owner,
    /// What kind of worker it is.
    pub source: Source,
    /// What it has; `None` if it takes whatever there is.
    pub models: Option<Vec<Model>>,
    /// Whether it has a job.
    pub is_busy: bool,
    /// When it was last heard of.
    pub at: UnixMs,
}

/// What stands in a path in place of a room for a worker that serves every room: one of the relay's operator.
pub const EVERY_ROOM: &str = "_";

#[derive(Debug)]
struct Record {
    source: Source,
    models: Option<Vec<Model>>,
    jobs: BTreeSet<JobId>,
    /// Jobs that it says it has and that are not its own.
    unwanted: BTreeSet<JobId>,
    at: UnixMs,
}

/// The register.
#[derive(Debug, Default)]
pub struct Workers {
    records: Mutex<BTreeMap<(RoomName, Owner), Record>>,
}

/// A worker's id: its own name, and what tells it from a worker of another user that calls itself the same.
pub fn owner(name: &str, user: &UserName) -> Result<Owner, NameError> {
    let user = BASE32_NOPAD.encode(&Sha256::digest(user.as_str())[..5]).to_lowercase();
    Owner::new(format!("{name}.{user}"))
}

impl Workers {
    /// Hears of a worker; `models` are left as they were if it does not say.
    pub fn seen(&self, room: &RoomName, owner: &Owner, source: Source, models: Option<&[Model]>, now: UnixMs) {
        let mut records = self.records();
        let key = (room.clone(), owner.clone());
        if let Some(record) = records.get_mut(&key) {
            record.at = now;
            if let Some(models) = models {
                record.models = Some(models.to_vec());
            }
            return;
        }
        if records.len() >= WORKERS_MAX {
            forget(&mut records, now);
        }
        let models = models.map(<[Model]>::to_vec);
        records.insert(key, Record { source, models, jobs: BTreeSet::new(), unwanted: BTreeSet::new(), at: now });
    }

    /// A worker holds a job.
    pub fn busy(&self, room: &RoomName, owner: &Owner, job: &JobId) {
        if let Some(record) = self.records().get_mut(&(room.clone(), owner.clone()))
            && record.jobs.len() < WORKER_JOBS_MAX
        {
            record.jobs.insert(job.clone());
        }
    }

    /// It does not any more.
    pub fn free(&self, room: &RoomName, owner: &Owner, job: &JobId) {
        if let Some(record) = self.records().get_mut(&(room.clone(), owner.clone())) {
            record.jobs.remove(job);
        }
    }

    /// It says that it has a job which is not its own any more.
    pub fn unwanted(&self, room: &RoomName, owner: &Owner, job: &JobId) {
        if let Some(record) = self.records().get_mut(&(room.clone(), owner.clone()))
            && record.unwanted.len() < WORKER_JOBS_MAX
        {
            record.unwanted.insert(job.clone());
        }
    }

    /// Those jobs, once: it is told now.
    pub fn take_unwanted(&self, room: &RoomName, owner: &Owner) -> Vec<JobId> {
        let mut records = self.records();
        let record = records.get_mut(&(room.clone(), owner.clone()));
        record.map(|record| std::mem::take(&mut record.unwanted).into_iter().collect()).unwrap_or_default()
    }

    /// The jobs that a worker holds, as far as is known.
    pub fn jobs(&self, room: &RoomName, owner: &Owner) -> Vec<JobId> {
        let records = self.records();
        records
            .get(&(room.clone(), owner.clone()))
            .map(|record| record.jobs.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Who is there for a room: its own workers, and those of every room.
    pub fn of(&self, room: &RoomName, now: UnixMs) -> Vec<Seen> {
        let serves_it = |its: &RoomName| its == room || its.as_str() == EVERY_ROOM;
        let records = self.records();
        let there = records.iter().filter(|((its, _), record)| serves_it(its) && !is_gone(record, now));
        let seen = |((_, owner), record): (&(RoomName, Owner), &Record)| Seen {
            owner: owner.clone(),
            source: record.source,
            models: record.models.clone(),
            is_busy: !record.jobs.is_empty(),
            at: record.at,
        };
        there.map(seen).collect()
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<(RoomName, Owner), Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Whether it would take a job of this model.
    pub fn has(&self, model: &Model) -> bool {
        self.models.as_ref().is_none_or(|models| models.contains(model))
    }
}

fn is_gone(record: &Record, now: UnixMs) -> bool {
    now.since(record.at) > WORKER_SEEN_TIME
}

/// Makes room for one more: those who are gone, else who was heard of least lately.
fn forget(records: &mut BTreeMap<(RoomName, Owner), Record>, now: UnixMs) {
    records.retain(|_, record| !is_gone(record, now));
    if records.len() >= WORKERS_MAX
        && let Some(oldest) = records.iter().min_by_key(|(_, record)| record.at).map(|(key, _)| key.clone())
    {
        records.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_000_000);

    fn room(name: &str) -> RoomName {
        RoomName::new(name).unwrap()
    }

    fn worker(name: &str) -> Owner {
        owner(name, &UserName::new("ada").unwrap()).unwrap()
    }

    fn names(workers: &Workers, name: &str, now: UnixMs) -> Vec<String> {
        let seen = workers.of(&room(name), now);
        seen.iter().map(|one| one.owner.as_str().split('.').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_room_has_its_own_workers_and_those_of_every_room() {
        let workers = Workers::default();
        workers.seen(&room("a"), &worker("mine"), Source::Peer, None, NOW);
        workers.seen(&room("b"), &worker("theirs"), Source::Peer, None, NOW);
        workers.seen(&room(EVERY_ROOM), &worker("operators"), Source::Local, None, NOW);
        assert_eq!(names(&workers, "a", NOW), ["operators", "mine"]);
        assert_eq!(names(&workers, "c", NOW), ["operators"]);
    }

    #[test]
    fn who_is_not_heard_of_is_gone() {
        let workers = Workers::default();
        workers.seen(&room("a"), &worker("w"), Source::Peer, None, NOW);
        let later = NOW.after(WORKER_SEEN_TIME);
        assert_eq!(names(&workers, "a", later), ["w"]);
        assert!(names(&workers, "a", UnixMs(later.0 + 1)).is_empty());
    }

    #[test]
    fn models_are_kept_until_others_are_named() {
        let workers = Workers::default();
        let model = |name: &str| Model::new(name).unwrap();
        workers.seen(&room("a"), &worker("w"), Source::Peer, Some(&[model("demo")]), NOW);
        workers.seen(&room("a"), &worker("w"), Source::Peer, None, NOW);
        let seen = workers.of(&room("a"), NOW);
        assert!(seen[0].has(&model("demo")) && !seen[0].has(&model("sdxl")));
    }

    #[test]
    fn a_worker_is_busy_while_it_holds_a_job() {
        let workers = Workers::default();
        let (a, w, job) = (room("a"), worker("w"), JobId::from_random([1; 16]));
        workers.busy(&a, &w, &job);
        assert_eq!(workers.jobs(&a, &w), [], "nobody knows this worker");
        workers.seen(&a, &w, Source::Peer, None, NOW);
        workers.busy(&a, &w, &job);
        assert_eq!(workers.jobs(&a, &w), std::slice::from_ref(&job));
        assert!(workers.of(&room("a"), NOW)[0].is_busy);
        workers.free(&a, &w, &job);
        assert!(!workers.of(&room("a"), NOW)[0].is_busy);
    }

    #[test]
    fn the_register_is_bounded_and_keeps_the_newest() {
        let workers = Workers::default();
        for index in 0..=WORKERS_MAX {
            let now = UnixMs(NOW.0 + index as u64 / 1000);
            workers.seen(&room("a"), &worker(&format!("w{index}")), Source::Peer, None, now);
        }
        let names = names(&workers, "a", NOW);
        assert_eq!(names.len(), WORKERS_MAX);
        assert!(!names.contains(&"w0".to_owned()) && names.contains(&format!("w{WORKERS_MAX}")));
    }

    #[test]
    fn two_users_workers_of_one_name_are_two() {
        let of = |user: &str| owner("w", &UserName::new(user).unwrap()).unwrap();
        assert_ne!(of("ada"), of("eve"));
        assert!(owner(&"w".repeat(64), &UserName::new("u".repeat(64)).unwrap()).is_ok());
        assert!(owner("a/b", &UserName::new("ada").unwrap()).is_err());
    }
}
