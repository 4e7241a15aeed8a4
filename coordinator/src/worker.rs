//! Takes leases from several requesters and has them computed one at a time, each requester in its turn.
//!
//! Everything a unit claims is checked before it is queued; what cannot be computed is refused with its reason.

mod blobs;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use protocol::limits::{HEARTBEAT_EVERY, LEASES_PER_WORKER, MODELS_MAX, ROOM_PEERS_MAX, WORKER_QUEUE_MAX};
use protocol::{
    Capabilities, Hash, Instant, JobId, LeaseId, ModelId, ModelShape, PeerId, RefuseReason, ToRequester, ToWorker,
    Unit, Work, tensor,
};

use self::blobs::Blobs;
use crate::mutants::{Mutant, is};
use crate::requester::transfer_time_max;

/// An own requester comes before others that have waited less than this longer: nobody starves.
const OWN_FIRST: Duration = Duration::from_secs(10);

/// Leases remembered that were called off before they came.
const CALLED_OFF_MAX: usize = 64;

/// Lends one processor to the requesters of a room.
pub struct Worker {
    capabilities: Capabilities,
    models: BTreeMap<ModelId, ModelShape>,
    lending: bool,
    /// Connected peers, and the leases of each that wait.
    queues: BTreeMap<PeerId, Queue>,
    running: Option<Running>,
    /// Whose lease was computed last: the next requester after it comes next.
    served_last: Option<PeerId>,
    /// Results that may still be under way, the oldest first.
    uploads: Vec<Upload>,
    blobs: Blobs,
    /// Leases that were called off before they came: a short message overtakes a long one.
    called_off: VecDeque<LeaseKey>,
    beat_next: Option<Instant>,
    units_delivered: u64,
    outputs: VecDeque<WorkerOutput>,
}

/// Names a lease at a worker: requesters count their leases independently.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseKey {
    /// Who granted it.
    pub requester: PeerId,
    /// Its number there.
    pub lease: LeaseId,
}

/// What the driver of a [`Worker`] has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkerOutput {
    /// Send this to a requester.
    Send {
        /// The requester.
        to: PeerId,
        /// What to say.
        message: ToRequester,
        /// The raw body that follows.
        body: Vec<u8>,
    },
    /// Compute this, and answer with exactly one [`Worker::handle_computed`], also when it is aborted meanwhile. The next one
    /// comes after that answer.
    Compute {
        /// The lease.
        key: LeaseKey,
        /// The unit, checked against its model.
        unit: Box<Unit>,
        /// Its input: the length its work says, sane finite values.
        input: Vec<u8>,
        /// The conditioning that it names, of the length its work says; its values are not checked.
        conditioning: Option<Arc<[u8]>>,
    },
    /// Nobody wants this lease's result any more; stop computing it if that is possible.
    Abort {
        /// The lease.
        key: LeaseKey,
    },
}

/// What one requester waits for.
#[derive(Default)]
struct Queue {
    leases: VecDeque<Queued>,
    /// Since when it waits for its turn.
    since: Instant,
    /// Whether it belongs to this worker's owner.
    is_own: bool,
}

struct Queued {
    lease: LeaseId,
    unit: Box<Unit>,
    input: Vec<u8>,
    conditioning: Option<Arc<[u8]>>,
}

/// A result on its way. Its lease is kept alive until it must have arrived, however slow the link.
struct Upload {
    key: LeaseKey,
    job: JobId,
    until: Instant,
}

struct Running {
    key: LeaseKey,
    job: JobId,
    is_aborted: bool,
}

impl Worker {
    /// A worker that lends these models, at most [`MODELS_MAX`]. `capabilities.models` is filled in from them.
    pub fn new(capabilities: Capabilities, models: BTreeMap<ModelId, ModelShape>) -> Self {
        let capabilities = Capabilities { models: models.keys().copied().take(MODELS_MAX).collect(), ..capabilities };
        Self {
            capabilities,
            models,
            lending: true,
            queues: BTreeMap::new(),
            running: None,
            served_last: None,
            uploads: Vec::new(),
            blobs: Blobs::default(),
            called_off: VecDeque::new(),
            beat_next: None,
            units_delivered: 0,
            outputs: VecDeque::new(),
        }
    }

    /// A peer is connected and is offered this worker. If it already was, that connection and its leases are lost.
    pub fn handle_joined(&mut self, peer: PeerId, now: Instant) {
        self.forget(&peer);
        if self.lending && self.queues.len() < ROOM_PEERS_MAX {
            self.send(&peer, ToRequester::Offer(self.capabilities.clone()), Vec::new());
            self.queues.insert(peer, Queue { since: now, ..Queue::default() });
        }
        self.advance(now);
    }

    /// This requester is its owner's, and comes first.
    pub fn prefer(&mut self, requester: &PeerId) {
        if let Some(queue) = self.queues.get_mut(requester) {
            queue.is_own = true;
        }
    }

    /// A peer's connection is gone, and its leases with it.
    pub fn handle_left(&mut self, requester: &PeerId, now: Instant) {
        self.forget(requester);
        self.advance(now);
    }

    /// Lends to this peer no longer, until it joins again: its leases are over, and it is told. What runs is still answered
    /// by `handle_computed`.
    pub fn withdraw(&mut self, requester: &PeerId, now: Instant) {
        if self.queues.contains_key(requester) {
            self.send(requester, ToRequester::Leave, Vec::new());
            self.forget(requester);
        }
        self.advance(now);
    }

    /// Stops lending for good: every lease is over, and everybody is told. What runs is still answered by
    /// `handle_computed`.
    pub fn leave(&mut self, now: Instant) {
        self.lending = false;
        for requester in self.queues.keys().cloned().collect::<Vec<_>>() {
            self.withdraw(&requester, now);
        }
        self.blobs.clear();
        self.advance(now);
    }

    /// Offers itself again under another name, to everybody it is offered to; leases go on.
    pub fn rename(&mut self, name: String) {
        self.capabilities.name = name;
        self.offer_again();
    }

    /// Says that it works slower than it could from now on, or that it does no longer; leases go on.
    pub fn throttle(&mut self, is_throttled: bool) {
        if self.capabilities.throttled != is_throttled {
            self.capabilities.throttled = is_throttled;
            self.offer_again();
        }
    }

    fn offer_again(&mut self) {
        for requester in self.queues.keys().cloned().collect::<Vec<_>>() {
            self.send(&requester, ToRequester::Offer(self.capabilities.clone()), Vec::new());
        }
    }

    /// A requester says something.
    pub fn handle(&mut self, from: &PeerId, message: ToWorker, body: Vec<u8>, now: Instant) {
        match message {
            ToWorker::Store { blob } => self.store(from, blob, body),
            ToWorker::Assign { lease, unit } => self.take(from, lease, unit, body, now),
            ToWorker::Cancel { lease } => self.cancel(from, lease),
            ToWorker::Probe { lease } => self.answer_probe(from, lease),
            ToWorker::Release { .. } if is(Mutant::IgnoresRelease) => {}
            ToWorker::Release { job } => self.drop_leases(from, |_, held| held == job),
        }
        self.advance(now);
    }

    /// The engine is done with the unit of a `Compute`: its output, or why there is none. The result of an aborted lease is
    /// dropped.
    pub fn handle_computed(
        &mut self,
        key: &LeaseKey,
        result: Result<Vec<u8>, RefuseReason>,
        compute_ms: u32,
        now: Instant,
    ) {
        let Some(running) = self.running.take_if(|running| running.key == *key) else { return };
        if !running.is_aborted {
            let LeaseKey { requester, lease } = running.key;
            match result {
                Ok(body) => {
                    self.units_delivered += 1;
                    self.note_upload(LeaseKey { requester: requester.clone(), lease }, running.job, body.len(), now);
                    let next = self.queues.get(&requester).and_then(|queue| queue.leases.front());
                    let next = next.filter(|_| is(Mutant::AnswersAnother)).map(|queued| queued.lease);
                    let lease = next.unwrap_or(lease);
                    self.send(&requester, ToRequester::Deliver { lease, compute_ms }, body);
                }
                Err(reason) => self.send(&requester, ToRequester::Refuse { lease, reason }, Vec::new()),
            }
        }
        self.advance(now);
    }

    /// Time has passed: every lease held gets its heartbeat.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.beat_next.is_some_and(|next| next <= now) {
            self.beat_next = None;
            self.uploads.retain(|upload| now < upload.until);
            for LeaseKey { requester, lease } in self.held() {
                self.send(&requester, ToRequester::Heartbeat { lease }, Vec::new());
            }
        }
        self.advance(now);
    }

    /// When [`Worker::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.beat_next
    }

    /// What to do next; `None` until something happens.
    pub fn poll_output(&mut self) -> Option<WorkerOutput> {
        self.outputs.pop_front()
    }

    /// Whether it is offered to this peer.
    pub fn lends_to(&self, requester: &PeerId) -> bool {
        self.queues.contains_key(requester)
    }

    /// What it lends.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Units computed and sent so far.
    pub fn units_delivered(&self) -> u64 {
        self.units_delivered
    }

    /// Leases that wait or run.
    pub fn leases_held(&self) -> usize {
        self.waiting() + usize::from(self.computing().is_some())
    }

    fn store(&mut self, from: &PeerId, blob: Hash, body: Vec<u8>) {
        // A blob that no unit of a known model could name is not kept; a unit that names it is refused.
        let bytes_of = |shape: &ModelShape| conditioning_bytes(shape, 2);
        let bytes_max = self.models.values().map(bytes_of).max().unwrap_or(0);
        if self.queues.contains_key(from) && body.len() <= bytes_max && Hash::of(&body) == blob {
            self.blobs.insert(from, blob, body);
        }
    }

    fn cancel(&mut self, from: &PeerId, lease: LeaseId) {
        let key = LeaseKey { requester: from.clone(), lease };
        if self.held().contains(&key) {
            return self.drop_leases(from, |held, _| held == lease);
        }
        if self.queues.contains_key(from) {
            if self.called_off.len() >= CALLED_OFF_MAX {
                self.called_off.pop_front();
            }
            self.called_off.push_back(key);
        }
    }

    /// Says whether a lease is alive, also to those it is not lent to.
    fn answer_probe(&mut self, from: &PeerId, lease: LeaseId) {
        let is_alive = self.held().iter().any(|key| key.requester == *from && key.lease == lease);
        let unknown = ToRequester::Refuse { lease, reason: RefuseReason::UnknownLease };
        self.send(from, if is_alive { ToRequester::Heartbeat { lease } } else { unknown }, Vec::new());
    }

    fn take(&mut self, from: &PeerId, lease: LeaseId, unit: Box<Unit>, input: Vec<u8>, now: Instant) {
        let is_called_off = |key: &LeaseKey| key.requester == *from && key.lease == lease;
        if let Some(place) = self.called_off.iter().position(is_called_off) {
            self.called_off.remove(place);
            return;
        }
        match self.check(from, lease, &unit, &input) {
            Ok(conditioning) => {
                let queue = self.queues.get_mut(from).expect("only a connected requester's units pass their check");
                if queue.leases.is_empty() {
                    queue.since = queue.since.max(now);
                }
                queue.leases.push_back(Queued { lease, unit, input, conditioning });
                self.trim_uploads(from);
            }
            Err(reason) => self.send(from, ToRequester::Refuse { lease, reason }, Vec::new()),
        }
    }

    /// Drops the leases of a requester that `is_over` says are over, by their number and job.
    fn drop_leases(&mut self, from: &PeerId, is_over: impl Fn(LeaseId, JobId) -> bool) {
        if let Some(queue) = self.queues.get_mut(from) {
            queue.leases.retain(|queued| !is_over(queued.lease, queued.unit.job));
        }
        self.uploads.retain(|upload| upload.key.requester != *from || !is_over(upload.key.lease, upload.job));
        let running = self.running.as_mut().filter(|running| running.key.requester == *from && !running.is_aborted);
        if let Some(running) = running.filter(|running| is_over(running.key.lease, running.job)) {
            running.is_aborted = true;
            self.outputs.push_back(WorkerOutput::Abort { key: running.key.clone() });
        }
    }

    fn note_upload(&mut self, key: LeaseKey, job: JobId, bytes: usize, now: Instant) {
        let earlier = self.uploads.iter().filter(|upload| upload.key.requester == key.requester);
        let begins = earlier.map(|upload| upload.until).max().unwrap_or(now).max(now);
        self.uploads.push(Upload { key, job, until: begins + transfer_time_max(bytes) });
    }

    /// Forgets the uploads that have arrived: a requester grants no more than [`LEASES_PER_WORKER`] leases at a time, so
    /// those it grants anew replace those it has received.
    fn trim_uploads(&mut self, requester: &PeerId) {
        let under_way = LEASES_PER_WORKER.saturating_sub(self.held_of(requester));
        let uploads = self.uploads.iter().filter(|upload| upload.key.requester == *requester).count();
        let mut arrived = uploads.saturating_sub(under_way);
        self.uploads.retain(|upload| {
            let is_arrived = arrived > 0 && upload.key.requester == *requester;
            arrived -= usize::from(is_arrived);
            !is_arrived
        });
    }

    fn forget(&mut self, requester: &PeerId) {
        self.drop_leases(requester, |_, _| true);
        self.called_off.retain(|key| key.requester != *requester);
        self.queues.remove(requester);
    }

    /// Begins what comes next, if nothing runs, and keeps the heart beating while anything is held.
    fn advance(&mut self, now: Instant) {
        if self.running.is_none()
            && let Some((requester, queued)) = self.take_next(now)
        {
            let Queued { lease, unit, input, conditioning } = queued;
            self.served_last = Some(requester.clone());
            let key = LeaseKey { requester, lease };
            self.running = Some(Running { key: key.clone(), job: unit.job, is_aborted: false });
            self.outputs.push_back(WorkerOutput::Compute { key, unit, input, conditioning });
        }
        let is_idle = self.leases_held() == 0 && self.uploads.is_empty();
        self.beat_next = if is_idle { None } else { Some(self.beat_next.unwrap_or(now + HEARTBEAT_EVERY)) };
    }

    /// Takes the first waiting lease of the requester that has waited longest; of equals, of the next in turn.
    fn take_next(&mut self, now: Instant) -> Option<(PeerId, Queued)> {
        let after = self.served_last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.queues.range::<PeerId, _>((after, Bound::Unbounded));
        let mut best: Option<(Duration, &PeerId)> = None;
        for (peer, queue) in later.chain(self.queues.iter()).filter(|(_, queue)| !queue.leases.is_empty()) {
            let waited = (now - queue.since) + if queue.is_own { OWN_FIRST } else { Duration::ZERO };
            if best.is_none_or(|(longest, _)| waited > longest) {
                best = Some((waited, peer));
            }
        }
        let requester = best?.1.clone();
        let queue = self.queues.get_mut(&requester)?;
        queue.since = now;
        let queued = queue.leases.pop_front()?;
        Some((requester, queued))
    }

    fn send(&mut self, to: &PeerId, message: ToRequester, body: Vec<u8>) {
        self.outputs.push_back(WorkerOutput::Send { to: to.clone(), message, body });
    }

    /// Checks a unit against its model before it is queued, and finds the conditioning that it names.
    fn check(
        &mut self,
        from: &PeerId,
        lease: LeaseId,
        unit: &Unit,
        input: &[u8],
    ) -> Result<Option<Arc<[u8]>>, RefuseReason> {
        let invalid = |text: &str| Err(RefuseReason::invalid(text));
        let Some(queue) = self.queues.get(from) else { return Err(RefuseReason::Busy) };
        let running = self.computing().filter(|key| key.requester == *from);
        if queue.leases.iter().any(|queued| queued.lease == lease) || running.is_some_and(|key| key.lease == lease) {
            return invalid("the lease is already granted");
        }
        if self.waiting() >= WORKER_QUEUE_MAX || self.held_of(from) >= LEASES_PER_WORKER {
            return Err(RefuseReason::Busy);
        }
        let Some(shape) = self.models.get(&unit.model) else { return Err(RefuseReason::UnknownModel) };
        if let Err(error) = unit.work.check(shape) {
            return invalid(&error.to_string());
        }
        if let Err(error) = tensor::check(input, unit.work.input_values(shape)) {
            return invalid(&format!("input: {error}"));
        }
        if let Work::Paint { spec } = &unit.work
            && spec.model != unit.model
        {
            return invalid("the job is for another model");
        }
        let Some((conditioning, rows)) = unit.work.conditioning() else { return Ok(None) };
        let bytes = conditioning_bytes(shape, rows as usize);
        let newest = self.blobs.newest().filter(|_| is(Mutant::WrongBlob));
        let Some(blob) = self.blobs.touch(&newest.unwrap_or(conditioning)) else {
            return Err(RefuseReason::UnknownBlob(conditioning));
        };
        if blob.len() == bytes { Ok(Some(blob)) } else { invalid("the conditioning is not of the model's shape") }
    }

    /// The lease that runs and whose result is wanted.
    fn computing(&self) -> Option<&LeaseKey> {
        self.running.as_ref().filter(|running| !running.is_aborted).map(|running| &running.key)
    }

    /// Leases of this requester that wait or run.
    fn held_of(&self, requester: &PeerId) -> usize {
        let waiting = self.queues.get(requester).map_or(0, |queue| queue.leases.len());
        waiting + usize::from(self.computing().is_some_and(|key| key.requester == *requester))
    }

    fn waiting(&self) -> usize {
        self.queues.values().map(|queue| queue.leases.len()).sum()
    }

    /// Every lease that is alive here: running, waiting, or with its result still under way.
    fn held(&self) -> Vec<LeaseKey> {
        let waiting = self.queues.iter().flat_map(|(requester, queue)| {
            queue.leases.iter().map(|queued| LeaseKey { requester: requester.clone(), lease: queued.lease })
        });
        let uploads = self.uploads.iter().map(|upload| upload.key.clone());
        self.computing().cloned().into_iter().chain(waiting).chain(uploads).collect()
    }
}

fn conditioning_bytes(shape: &ModelShape, rows: usize) -> usize {
    rows * shape.tokens as usize * shape.embedding_width as usize * 4
}
