//! Workers that were heard of lately: who is there for a room, with which models, and which jobs each holds.
//!
//! All of it is hearsay in memory, of which relays on one queue tell each other now and then. Who may deliver what is decided by
//! leases in the store; this tells people, the router, and a worker which of its jobs are wanted no more.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use data_encoding::BASE32_NOPAD;
use queue::{JobId, Model, NameError, Owner, RoomName, Source, UnixMs, UserName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::limits::{TOLD_BYTES_MAX, WORKER_JOBS_MAX, WORKER_SEEN_TIME, WORKERS_MAX};

/// A worker that was heard of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// A worker as one relay tells another of it.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    room: RoomName,
    worker: Seen,
}

/// The register.
#[derive(Debug, Default)]
pub struct Workers {
    records: Mutex<BTreeMap<(RoomName, Owner), Record>>,
    /// What other relays said last.
    elsewhere: Mutex<BTreeMap<(RoomName, Owner), Seen>>,
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

    /// Hears what other relays tell, which takes the place of what they told before.
    pub fn hear(&self, told: &[String], now: UnixMs) {
        let told = told.iter().filter_map(|text| serde_json::from_str::<Vec<Told>>(text).ok()).flatten();
        let mut heard: BTreeMap<(RoomName, Owner), Seen> = BTreeMap::new();
        for Told { room, mut worker } in told.take(WORKERS_MAX) {
            // Clocks differ, and nobody is there for longer because of that.
            worker.at = worker.at.min(now);
            match heard.entry((room, worker.owner.clone())) {
                Entry::Vacant(entry) => drop(entry.insert(worker)),
                Entry::Occupied(mut entry) => entry.get_mut().join(worker),
            }
        }
        *self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = heard;
    }

    /// What other relays are to be told: who was heard of here, the newest first; `None` if nobody was.
    pub fn tell(&self, now: UnixMs) -> Option<String> {
        let records = self.records();
        let mut there: Vec<_> = records.iter().filter(|(_, record)| !is_gone(record.at, now)).collect();
        there.sort_by_key(|(_, record)| std::cmp::Reverse(record.at));
        let mut text = String::new();
        for ((room, owner), record) in there {
            let told = Told { room: room.clone(), worker: record.seen(owner) };
            let told = serde_json::to_string(&told).expect("a worker is plain data");
            if text.len() + told.len() > TOLD_BYTES_MAX {
                break;
            }
            text.push(if text.is_empty() { '[' } else { ',' });
            text.push_str(&told);
        }
        (!text.is_empty()).then(|| text + "]")
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
        let here = records.iter().filter(|((its, _), _)| serves_it(its));
        let mut there: BTreeMap<_, Seen> = here.map(|(key, record)| (key, record.seen(&key.1))).collect();
        let elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, worker) in elsewhere.iter().filter(|((its, _), _)| serves_it(its)) {
            match there.entry(key) {
                Entry::Vacant(entry) => drop(entry.insert(worker.clone())),
                Entry::Occupied(mut entry) => entry.get_mut().join(worker.clone()),
            }
        }
        there.into_values().filter(|seen| !is_gone(seen.at, now)).collect()
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<(RoomName, Owner), Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn seen(&self, owner: &Owner) -> Seen {
        Seen {
            owner: owner.clone(),
            source: self.source,
            models: self.models.clone(),
            is_busy: !self.jobs.is_empty(),
            at: self.at,
        }
    }
}

impl Seen {
    /// Takes in what another relay knows of the same worker.
    fn join(&mut self, other: Self) {
        let is_busy = self.is_busy || other.is_busy;
        if other.at > self.at {
            *self = other;
        }
        self.is_busy = is_busy;
    }

    /// Whether it would take a job of this model.
    pub fn has(&self, model: &Model) -> bool {
        self.models.as_ref().is_none_or(|models| models.contains(model))
    }
}

fn is_gone(at: UnixMs, now: UnixMs) -> bool {
    now.since(at) > WORKER_SEEN_TIME
}

/// Makes room for one more: those who are gone, else who was heard of least lately.
fn forget(records: &mut BTreeMap<(RoomName, Owner), Record>, now: UnixMs) {
    records.retain(|_, record| !is_gone(record.at, now));
    if records.len() >= WORKERS_MAX
        && let Some(oldest) = records.iter().min_by_key(|(_, record)| record.at).map(|(key, _)| key.clone())
    {
        records.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn relays_tell_each_other_who_is_there() {
        let (here, there) = (Workers::default(), Workers::default());
        let (a, w, job) = (room("a"), worker("w"), JobId::from_random([1; 16]));
        assert_eq!(here.tell(NOW), None);
        here.seen(&a, &w, Source::Peer, Some(&[Model::new("sdxl").unwrap()]), NOW);
        here.busy(&a, &w, &job);
        let text = here.tell(NOW).unwrap();
        there.hear(&[text.clone(), "damaged".to_owned()], NOW);
        assert_eq!(there.of(&a, NOW), here.of(&a, NOW));
        assert_eq!(there.of(&room("b"), NOW), []);
        assert_eq!(there.tell(NOW), None, "each tells what it has heard itself");
        // A worker that asks both is one, and busy while either says so.
        let later = NOW.after(Duration::from_secs(1));
        there.seen(&a, &w, Source::Peer, None, later);
        let [seen] = there.of(&a, later).try_into().unwrap();
        assert_eq!((seen.is_busy, seen.at), (true, later));
        there.hear(&[], later);
        assert!(!there.of(&a, later)[0].is_busy);
        there.hear(&[text], later);
        assert_eq!(there.of(&a, later.after(WORKER_SEEN_TIME + Duration::from_secs(1))), []);
    }

    #[test]
    fn what_is_told_is_bounded_and_the_newest() {
        let workers = Workers::default();
        let models: Vec<Model> = (0..64).map(|number| Model::new(format!("{number:064}")).unwrap()).collect();
        for index in 0..1000 {
            let now = UnixMs(NOW.0 + index);
            workers.seen(&room("a"), &worker(&format!("w{index}")), Source::Peer, Some(&models), now);
        }
        let text = workers.tell(NOW).unwrap();
        assert!(text.len() <= TOLD_BYTES_MAX + 2, "{}", text.len());
        let other = Workers::default();
        other.hear(&[text], UnixMs(NOW.0 + 1000));
        let names = names(&other, "a", NOW);
        assert!(names.contains(&"w999".to_owned()) && !names.contains(&"w0".to_owned()));
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
