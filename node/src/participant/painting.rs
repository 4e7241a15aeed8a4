//! A participant's own jobs, from the order to the pictures.

use coordinator::{FailCause, RequesterOutput};
use protocol::{Instant, JobId, Message};
use web_time::Instant as Clock;

use super::{Notice, Participant};
use crate::job::{Order, Painting};

impl Participant {
    pub(super) fn begin(&mut self, order: Order, now: Instant) {
        self.give_up(now);
        // This device is in the plan if it takes part.
        self.helps_itself |= self.lend && self.broken.is_none();
        self.sync_offers(now);
        self.carry(now);
        let (roster, itself) = (self.requester.roster(), self.may_do_it_itself());
        let paintings = match Painting::begin(order, roster, &self.traffic(), itself, now) {
            Ok(paintings) => paintings,
            Err(reason) => return self.fail(reason, now),
        };
        self.finished = (0, 0, 0);
        self.paintings = paintings;
        self.presence_due = Clock::now();
        if let Some(first) = self.paintings.first() {
            self.tell(Notice::Planned(first.plan().clone()));
        }
        for place in 0..self.paintings.len() {
            self.begin_job(place, now);
        }
    }

    fn begin_job(&mut self, place: usize, now: Instant) {
        let painting = &self.paintings[place];
        self.requester.begin_job(painting.job(), painting.model(), now);
        if let Some(snapshot) = painting.snapshot() {
            self.tell(Notice::Snapshot(Box::new(snapshot)));
        }
        painting.begin_stage(&mut self.requester, now);
    }

    pub(super) fn carry_requester(&mut self, output: RequesterOutput, now: Instant) {
        match output {
            RequesterOutput::Send { to, message, body } => self.send(&to, Message::ToWorker(message), body, now),
            RequesterOutput::Delivered { job, unit, by, body, compute_ms } => {
                let Some(painting) = self.paintings.iter_mut().find(|painting| painting.job() == job) else { return };
                let name = self.requester.roster().lender(&by).map(|lender| lender.capabilities().name.as_str());
                let path = self.paths.get(&by).map_or_else(|| "local".to_owned(), ToString::to_string);
                painting.note_worker(&by, name.unwrap_or_default(), path);
                match painting.accept(unit, &by, &body, compute_ms) {
                    Ok(()) => {
                        let stage = painting.stage();
                        let (units, done, total) = self.progress();
                        self.tell(Notice::Unit { by, units, done, total, stage });
                    }
                    Err(reason) => self.requester.reject(job, unit, &reason, now),
                }
            }
            RequesterOutput::StageDone { job } => {
                let place = self.paintings.iter().position(|painting| painting.job() == job);
                if let Some(place) = place.filter(|&place| self.paintings[place].stage_is_complete()) {
                    self.advance(place, now);
                }
            }
            RequesterOutput::JobFailed { job, cause, reasons } => {
                let is_too_large = matches!(cause, FailCause::OutOfMemory);
                if self.is_painting(job) && !(is_too_large && self.paint_smaller(job, now)) {
                    let reasons: Vec<_> =
                        reasons.iter().map(|(peer, reason)| format!("{}: {reason}", peer.short())).collect();
                    self.fail(format!("no worker could do a unit ({})", reasons.join("; ")), now);
                }
            }
            RequesterOutput::WorkerPaused { peer, reason } => {
                tracing::debug!(%peer, reason, "worker paused");
                let name = self.requester.roster().lender(&peer).map(|lender| lender.capabilities().name.as_str());
                let path = self.paths.get(&peer).map_or_else(|| "local".to_owned(), ToString::to_string);
                for painting in &mut self.paintings {
                    painting.note_worker(&peer, name.unwrap_or_default(), path.clone());
                    painting.note_failure(&peer, &reason);
                }
            }
            RequesterOutput::WorkerCondemned { peer, evidence } => {
                self.paintings.iter_mut().for_each(|painting| painting.condemn(&peer, &evidence));
                self.presence_due = Clock::now(); // The room hears of it.
                self.tell(Notice::Condemned(peer, evidence));
            }
            RequesterOutput::Tainted { job, stage } => self.roll_back(job, stage, now),
            RequesterOutput::WorkerDropped { peer, reason } => self.tell(Notice::Dropped(peer, reason)),
        }
    }

    /// Gives the order up because somebody asked for that.
    pub(super) fn cancel(&mut self, now: Instant) {
        self.give_up(now);
        self.order_ended(now);
    }

    /// Gives the order up, if there is one, and says why.
    pub(super) fn fail(&mut self, reason: String, now: Instant) {
        for painting in std::mem::take(&mut self.paintings) {
            self.requester.cancel(painting.job(), now);
        }
        self.tell(Notice::Failed(reason));
        self.order_ended(now);
    }

    /// A job without any worker is computed here after a while, or given up if this participant cannot do it either.
    pub(super) fn mend_starvation(&mut self, now: Instant) {
        let starved = self.paintings.iter().find(|painting| self.requester.is_starved(painting.job()));
        let Some((job, model)) = starved.map(|painting| (painting.job(), painting.model())) else {
            self.starved_since = None;
            return;
        };
        if self.helps_itself
            && let Some(reason) = self.broken.clone()
        {
            return self.fail(reason, now);
        }
        let since = *self.starved_since.get_or_insert_with(Clock::now);
        if since.elapsed() < self.patience {
            return;
        }
        if self.is_helping_itself_with(model) {
            let itself = self.requester.roster().lender(&self.me);
            if itself.is_none_or(|lender| lender.is_paused(now)) {
                return; // It will be asked, when its engine is loaded or its pause is over.
            }
            // It failed the unit, or lacks the memory, and so did whoever else is still there.
            self.requester.fail_if_hopeless(job);
            if !self.requester.is_starved(job) || self.requester.policy().quorum() == 1 {
                return;
            }
        }
        if self.engine.is_some() && !self.helps_itself {
            return self.lend_to_self(now);
        }
        let waited = self.patience.as_secs();
        let advice = "open the room on another machine that lends (`manyhands join`, or \"lend\" in a page)";
        let domains = self.requester.policy().quorum();
        let lacks = if domains > 1 && self.requester.roster().lenders_of(model).next().is_some() {
            // They are there, and may all be one person.
            format!("fewer than the {domains} unrelated networks that must agree have lent to this room")
        } else {
            "no worker with this model has been in the room".to_owned()
        };
        self.fail(format!("{lacks} for {waited} s; {advice}"), now);
    }

    fn advance(&mut self, place: usize, now: Instant) {
        let painting = &mut self.paintings[place];
        painting.advance();
        if !painting.is_done() {
            let (preview, snapshot) = (painting.preview(), painting.snapshot());
            painting.begin_stage(&mut self.requester, now);
            if let Some(snapshot) = snapshot {
                self.tell(Notice::Snapshot(Box::new(snapshot)));
            }
            if let Some((width, height, rgba)) = preview {
                self.tell(Notice::Preview { width, height, rgba });
            }
            return;
        }
        let painting = self.paintings.remove(place);
        let retries = self.requester.retries(painting.job());
        self.requester.cancel(painting.job(), now);
        self.finished = sum(self.finished, painting.progress());
        let painted = painting.finish(&self.traffic(), &self.me, retries);
        self.tell(Notice::Painted(Box::new(painted)));
        if self.paintings.is_empty() {
            self.order_ended(now);
        }
    }

    /// Takes the job back to before a stage that holds a wrong answer.
    fn roll_back(&mut self, job: JobId, stage: u32, now: Instant) {
        let Some(painting) = self.paintings.iter_mut().find(|painting| painting.job() == job) else { return };
        painting.roll_back(stage);
        let snapshot = painting.snapshot();
        painting.begin_stage(&mut self.requester, now);
        self.tell(Notice::RolledBack { stage });
        if let Some(snapshot) = snapshot {
            self.tell(Notice::Snapshot(Box::new(snapshot)));
        }
    }

    /// Begins a picture anew whose units need more memory than anybody has, in smaller ones. It is another picture then.
    fn paint_smaller(&mut self, job: JobId, now: Instant) -> bool {
        let Some(place) = self.paintings.iter().position(|painting| painting.job() == job) else { return false };
        let (roster, itself) = (self.requester.roster(), self.may_do_it_itself());
        let Some((painting, words)) = self.paintings[place].smaller(roster, itself, now) else { return false };
        let plan = painting.plan().clone();
        self.paintings[place] = painting;
        self.tell(Notice::Smaller(format!("nobody here has the memory for its units, so the picture is {words}")));
        self.tell(Notice::Planned(plan));
        self.begin_job(place, now);
        true
    }

    /// Whether this participant has an engine that it may lend itself.
    fn may_do_it_itself(&self) -> bool {
        self.engine.is_some() && self.broken.is_none()
    }

    fn is_painting(&self, job: JobId) -> bool {
        self.paintings.iter().any(|painting| painting.job() == job)
    }

    /// Units accepted, cost done and cost in all, of all pictures of the order.
    fn progress(&self) -> (u64, u64, u64) {
        self.paintings.iter().map(Painting::progress).fold(self.finished, sum)
    }

    fn give_up(&mut self, now: Instant) {
        let paintings = std::mem::take(&mut self.paintings);
        if paintings.is_empty() {
            return;
        }
        for painting in paintings {
            self.requester.cancel(painting.job(), now);
        }
        self.tell(Notice::Cancelled);
    }

    /// This device is its own worker only as long as there is something to paint.
    fn order_ended(&mut self, now: Instant) {
        self.helps_itself = false;
        self.sync_offers(now);
        self.presence_due = Clock::now();
    }

    fn traffic(&self) -> crate::job::Traffic {
        self.network.as_ref().map(net::Handle::traffic).unwrap_or_default()
    }
}

fn sum(a: (u64, u64, u64), b: (u64, u64, u64)) -> (u64, u64, u64) {
    (a.0 + b.0, a.1 + b.1, a.2 + b.2)
}
