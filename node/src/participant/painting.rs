//! A participant's own job, from the order to the picture.

use coordinator::RequesterOutput;
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
        let traffic = self.traffic();
        let painting = match Painting::begin(order, self.requester.roster(), traffic) {
            Ok(painting) => painting,
            Err(reason) => return self.fail(reason, now),
        };
        self.tell(Notice::Planned(painting.plan().clone()));
        self.requester.begin_job(painting.job(), painting.model(), now);
        if let Some(snapshot) = painting.snapshot() {
            self.tell(Notice::Snapshot(Box::new(snapshot)));
        }
        painting.begin_stage(&mut self.requester, now);
        self.painting = Some(painting);
        self.presence_due = Clock::now();
    }

    pub(super) fn carry_requester(&mut self, output: RequesterOutput, now: Instant) {
        match output {
            RequesterOutput::Send { to, message, body } => self.send(&to, Message::ToWorker(message), body, now),
            RequesterOutput::Delivered { job, unit, by, body, compute_ms } => {
                let Some(painting) = self.painting.as_mut().filter(|painting| painting.job() == job) else { return };
                let name = self.requester.roster().lender(&by).map(|lender| lender.capabilities().name.as_str());
                let path = self.paths.get(&by).map_or_else(|| "local".to_owned(), ToString::to_string);
                painting.note_worker(&by, name.unwrap_or_default(), path);
                match painting.accept(unit, &by, &body, compute_ms) {
                    Ok(()) => {
                        let notice = painting.unit_notice(by);
                        self.tell(notice);
                    }
                    Err(reason) => self.requester.reject(job, unit, &reason, now),
                }
            }
            RequesterOutput::StageDone { job } => {
                if self.painting.as_ref().is_some_and(|painting| painting.job() == job && painting.stage_is_complete())
                {
                    self.advance(now);
                }
            }
            RequesterOutput::JobFailed { job, reasons, .. } => {
                if self.painting.as_ref().is_some_and(|painting| painting.job() == job) {
                    let reasons: Vec<_> =
                        reasons.iter().map(|(peer, reason)| format!("{}: {reason}", peer.short())).collect();
                    self.fail(format!("no worker could do a unit ({})", reasons.join("; ")), now);
                }
            }
            RequesterOutput::WorkerPaused { peer, reason } => tracing::debug!(%peer, reason, "worker paused"),
            RequesterOutput::WorkerCondemned { peer, evidence } => {
                if let Some(painting) = &mut self.painting {
                    painting.condemn(&peer, &evidence);
                }
                self.presence_due = Clock::now(); // The room hears of it.
                self.tell(Notice::Condemned(peer, evidence));
            }
            RequesterOutput::Tainted { job, stage } => self.roll_back(job, stage, now),
            RequesterOutput::WorkerDropped { peer, reason } => self.tell(Notice::Dropped(peer, reason)),
        }
    }

    /// Gives the job up because somebody asked for that.
    pub(super) fn cancel(&mut self, now: Instant) {
        self.give_up(now);
        self.job_ended(now);
    }

    /// Gives the job up, if one runs, and says why.
    pub(super) fn fail(&mut self, reason: String, now: Instant) {
        if let Some(painting) = self.painting.take() {
            self.requester.cancel(painting.job(), now);
        }
        self.tell(Notice::Failed(reason));
        self.job_ended(now);
    }

    /// A job without any worker is computed here after a while, or given up if this participant computes nothing.
    pub(super) fn mend_starvation(&mut self, now: Instant) {
        let starved = self.painting.as_ref().filter(|painting| self.requester.is_starved(painting.job()));
        let Some(model) = starved.map(Painting::model) else {
            self.starved_since = None;
            return;
        };
        if self.helps_itself
            && let Some(reason) = self.broken.clone()
        {
            return self.fail(reason, now);
        }
        let since = *self.starved_since.get_or_insert_with(Clock::now);
        if since.elapsed() < self.patience || self.is_helping_itself_with(model) {
            return;
        }
        if self.engine.is_some() && !self.helps_itself {
            return self.lend_to_self(now);
        }
        let waited = self.patience.as_secs();
        let advice = "open the room on another machine that lends (`manyhands join`, or \"lend\" in a page)";
        self.fail(format!("no worker with this model has been in the room for {waited} s; {advice}"), now);
    }

    fn advance(&mut self, now: Instant) {
        let painting = self.painting.as_mut().expect("only a running job advances");
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
        let painting = self.painting.take().expect("the job was just there");
        let retries = self.requester.retries(painting.job());
        self.requester.cancel(painting.job(), now);
        let painted = painting.finish(&self.traffic(), &self.me, retries);
        self.tell(Notice::Painted(Box::new(painted)));
        self.job_ended(now);
    }

    /// Takes the job back to before a stage that holds a wrong answer.
    fn roll_back(&mut self, job: JobId, stage: u32, now: Instant) {
        let Some(painting) = self.painting.as_mut().filter(|painting| painting.job() == job) else { return };
        painting.roll_back(stage);
        let snapshot = painting.snapshot();
        painting.begin_stage(&mut self.requester, now);
        self.tell(Notice::RolledBack { stage });
        if let Some(snapshot) = snapshot {
            self.tell(Notice::Snapshot(Box::new(snapshot)));
        }
    }

    fn give_up(&mut self, now: Instant) {
        if let Some(painting) = self.painting.take() {
            self.requester.cancel(painting.job(), now);
            self.tell(Notice::Cancelled);
        }
    }

    /// This device is its own worker only as long as there is something to paint.
    fn job_ended(&mut self, now: Instant) {
        self.helps_itself = false;
        self.sync_offers(now);
        self.presence_due = Clock::now();
    }

    fn traffic(&self) -> crate::job::Traffic {
        self.network.as_ref().map(net::Handle::traffic).unwrap_or_default()
    }
}
