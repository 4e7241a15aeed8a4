//! A participant's engine: when it is started, whom it is lent to, and what happens when it is lost.

use std::collections::BTreeMap;

use coordinator::{Standing, Worker, WorkerOutput};
use protocol::limits::{DEVICE_BYTES_MAX, NAME_BYTES_MAX};
use protocol::{Capabilities, Instant, Message, RefuseReason, ToRequester};
use web_time::Instant as Clock;

use super::{Notice, Participant, cut, describe};
use crate::lane::{Ability, Computed, FromEngine};

impl Participant {
    /// Something came from the engine.
    pub(super) fn handle_engine(&mut self, news: FromEngine<super::TaskKey>, now: Instant) {
        match news {
            FromEngine::Ready(ability) => self.engine_ready(ability, now),
            FromEngine::Computed(computed) => self.computed(computed, now),
            FromEngine::Beat => {} // The loop looks at the time after every event.
            FromEngine::Failed { reason, is_final } => {
                self.lose_worker(now);
                if is_final {
                    self.lane = None;
                    self.broken = Some(reason.clone());
                }
                self.tell(Notice::EngineFailed { reason, is_final });
            }
        }
    }

    pub(super) fn set_lend(&mut self, lend: bool, now: Instant) {
        self.lend = lend;
        self.presence_due = Clock::now();
        if !lend && self.paintings.is_empty() {
            // Nobody needs the engine: its memory goes back.
            self.lose_worker(now);
            self.lane = None;
            self.helps_itself = false;
            return;
        }
        if lend {
            self.broken = None; // Whoever asks again wants another try.
            self.helps_itself |= !self.paintings.is_empty();
            if let Err(reason) = self.start_engine() {
                self.tell(Notice::EngineFailed { reason, is_final: true });
            }
        }
        self.sync_offers(now);
    }

    pub(super) fn set_paused(&mut self, paused: bool, now: Instant) {
        self.paused = paused;
        self.sync_offers(now);
    }

    /// Tells the room that this device is slower than it could be, or no longer.
    pub(super) fn set_throttled(&mut self, throttled: bool) {
        self.throttled = throttled;
        if let Some(worker) = &mut self.worker {
            worker.throttle(throttled);
        }
    }

    pub(super) fn rename(&mut self, name: &str) {
        self.name = cut(name, NAME_BYTES_MAX);
        self.presence_due = Clock::now();
        if let Some(worker) = &mut self.worker {
            worker.rename(self.name.clone());
        }
    }

    /// Lends this device to its own job.
    pub(super) fn lend_to_self(&mut self, now: Instant) {
        self.helps_itself = true;
        match self.start_engine() {
            Err(reason) if !self.paintings.is_empty() => self.fail(reason, now),
            Err(reason) => _ = self.broken.get_or_insert(reason), // The next job hears it.
            Ok(()) if self.worker.is_some() => {
                self.sync_offers(now);
                self.tell(Notice::LocalBegan);
            }
            Ok(()) => {} // It begins when the engine is ready.
        }
    }

    /// Starts the engine unless it runs; what becomes of it comes as news from its lane.
    pub(super) fn start_engine(&mut self) -> Result<(), String> {
        if self.lane.is_some() {
            return Ok(());
        }
        if let Some(reason) = &self.broken {
            return Err(reason.clone());
        }
        let make = self.engine.as_mut().ok_or("this participant has no engine")?;
        self.lane = Some(make());
        Ok(())
    }

    /// Offers the worker to those it is lent to, and withdraws it from the others.
    pub(super) fn sync_offers(&mut self, now: Instant) {
        let Some(worker) = &mut self.worker else { return };
        let to_room = self.lend && !self.paused;
        let mut wanted: BTreeMap<_, bool> = self.paths.keys().map(|peer| (peer, to_room)).collect();
        wanted.insert(&self.me, self.helps_itself);
        for (peer, is_wanted) in wanted {
            if is_wanted == worker.lends_to(peer) {
                continue;
            }
            if !is_wanted {
                worker.withdraw(peer, now);
                continue;
            }
            if *peer == self.me {
                self.requester.handle_joined(peer.clone(), Standing::own(), now);
            }
            worker.handle_joined(peer.clone(), now);
            if *peer == self.me {
                worker.prefer(peer);
            }
        }
    }

    pub(super) fn carry_worker(&mut self, output: WorkerOutput, now: Instant) {
        match output {
            WorkerOutput::Send { to, message, body } => {
                if matches!(message, ToRequester::Deliver { .. }) {
                    self.delivered += 1;
                    self.tell(Notice::Delivered(to.clone()));
                }
                self.send(&to, Message::ToRequester(message), body.into(), now);
            }
            WorkerOutput::Compute { key, unit, input, conditioning } => {
                self.tell(Notice::Computing(key.requester.clone(), describe(&unit.work)));
                let lane = self.lane.as_mut().expect("a worker has a lane");
                lane.submit(key, *unit, input, conditioning);
            }
            WorkerOutput::Abort { key } => {
                let lane = self.lane.as_mut().expect("a worker has a lane");
                lane.abort(&key);
            }
        }
    }

    /// Whether this device computes its own job, or will as soon as its engine is loaded.
    pub(super) fn is_helping_itself_with(&self, model: protocol::ModelId) -> bool {
        let can = self.worker.as_ref().is_none_or(|worker| worker.capabilities().models.contains(&model));
        self.helps_itself && self.lane.is_some() && can
    }

    fn engine_ready(&mut self, ability: Ability, now: Instant) {
        // An engine that comes again begins anew.
        self.lose_worker(now);
        let capabilities = Capabilities {
            threads: ability.threads,
            device: cut(&ability.device, DEVICE_BYTES_MAX),
            pilots: ability.pilots.clone(),
            self_repeatable: ability.self_repeatable,
            throttled: self.throttled,
            ..Capabilities::new(self.name.clone(), cut(&ability.numeric_class, NAME_BYTES_MAX))
        };
        self.worker = Some(Worker::new(capabilities, ability.models.iter().copied().collect()));
        self.presence_due = Clock::now();
        self.tell(Notice::EngineReady(ability));
        self.sync_offers(now);
        if self.helps_itself {
            self.tell(Notice::LocalBegan);
        }
    }

    fn computed(&mut self, Computed { key, output, took }: Computed<super::TaskKey>, now: Instant) {
        let Some(worker) = &mut self.worker else { return };
        let took_ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        worker.handle_computed(&key, output.map_err(|reason| refusal(&reason)), took_ms, now);
        self.carry(now);
        self.tell(Notice::Computed(self.delivered));
    }

    /// Takes the worker from the room: what it held goes back to its requesters without blame, because the units did
    /// nothing wrong and the engine may come again.
    fn lose_worker(&mut self, now: Instant) {
        let Some(worker) = &mut self.worker else { return };
        worker.leave(now);
        self.carry(now);
        self.worker = None;
        self.presence_due = Clock::now();
    }
}

/// Why a unit was not computed, for its requester. Engines and their drivers have no common word for a lack of memory but
/// these.
fn refusal(reason: &str) -> RefuseReason {
    let text = reason.to_lowercase();
    let lacks_memory = ["out of memory", "outofmemory", "not enough memory"].iter().any(|words| text.contains(words));
    if lacks_memory { RefuseReason::OutOfMemory } else { RefuseReason::failed(reason) }
}
