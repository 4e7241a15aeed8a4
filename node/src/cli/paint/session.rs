//! One painting as a person sees it at the command line.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use node::checkpoint::Keeper;
use node::{Command, Notice, Order};
use protocol::{Capabilities, ModelId, PeerId};
use serde_json::json;
use tokio::sync::mpsc;

use super::gallery::Gallery;
use super::{Arguments, SETTLE};
use crate::cli::Complaint;
use crate::cli::interrupt::Interrupt;
use crate::cli::screen::{Screen, plain};

/// A participant that paints, and the screen that shows it.
pub struct Session<'a> {
    pub commands: mpsc::Sender<Command>,
    pub notices: &'a mut mpsc::Receiver<Notice>,
    pub screen: &'a mut Screen,
    pub interrupt: Interrupt,
    /// The job's model.
    pub model: ModelId,
    /// Those who lend it, by the names they gave themselves.
    pub names: BTreeMap<PeerId, String>,
    /// Keeps the painting while it is painted, if there is a place for that.
    pub keeper: &'a mut Option<Keeper>,
    /// Where finished pictures go.
    pub gallery: &'a mut Gallery,
}

impl Session<'_> {
    /// Waits for whom the arguments say, and paints; `false` if the person gave up.
    pub async fn paint(
        &mut self,
        arguments: &Arguments,
        in_room: bool,
        order: Order,
        began: Instant,
    ) -> Result<bool, Complaint> {
        if in_room && !self.wait_for_workers(arguments).await? {
            return Ok(false);
        }
        if in_room && self.names.is_empty() && arguments.no_local {
            return Err(Complaint(format!(
                "no worker with this model came into the room within {} s; open one with `manyhands join LINK`, or drop --no-local",
                arguments.wait
            )));
        }
        if in_room && self.names.is_empty() {
            self.screen.say("alone", "No worker is in the room; this machine paints alone (--no-local would wait).");
        }
        if self.names.is_empty() && !self.lend_to_self().await? {
            return Ok(false);
        }
        let prepare = began.elapsed();
        self.command(Command::Paint(Box::new(order))).await?;
        self.watch(u64::try_from(prepare.as_millis()).unwrap_or(u64::MAX)).await
    }

    /// Waits until this machine's engine is there, so that it is planned with, or has failed, which the order will hear;
    /// `false` if the person gave up.
    async fn lend_to_self(&mut self) -> Result<bool, Complaint> {
        self.command(Command::LendToSelf).await?;
        loop {
            let notice = tokio::select! {
                notice = self.notices.recv() => notice.ok_or("the node ended")?,
                () = self.interrupt.asked() => return Ok(false),
            };
            self.note(&notice);
            if matches!(notice, Notice::EngineReady(_) | Notice::EngineFailed { .. }) {
                return Ok(true);
            }
        }
    }

    /// Waits until enough workers are there or the time is over; `false` if the person gave up.
    async fn wait_for_workers(&mut self, arguments: &Arguments) -> Result<bool, Complaint> {
        let least = arguments.min_workers.max(1);
        self.screen.say("waiting", &format!("Waiting for {least} worker(s), at most {} s.", arguments.wait));
        let mut until = tokio::time::Instant::now() + Duration::from_secs(arguments.wait);
        let mut settling = false;
        loop {
            if self.names.len() >= least && !settling {
                settling = true;
                until = tokio::time::Instant::now() + SETTLE;
            }
            tokio::select! {
                notice = self.notices.recv() => self.note(&notice.ok_or("the node ended")?),
                () = tokio::time::sleep_until(until) => return Ok(true),
                () = self.interrupt.asked() => return Ok(false),
            }
        }
    }

    /// Shows the order until all its pictures are written; `false` if the person gave up.
    async fn watch(&mut self, prepare_ms: u64) -> Result<bool, Complaint> {
        loop {
            let notice = tokio::select! {
                notice = self.notices.recv() => notice.ok_or("the node ended")?,
                () = self.interrupt.asked() => {
                    self.screen.end_bar();
                    let more = if self.gallery.is_begun() { " more" } else { "" };
                    self.screen.say("cancelled", &format!("Cancelled; nothing{more} was written."));
                    self.command(Command::Cancel).await?;
                    return Ok(false);
                }
            };
            self.note(&notice);
            match notice {
                Notice::Painted(mut painted) => {
                    painted.wall_ms.prepare = prepare_ms;
                    if self.gallery.is_last() {
                        self.screen.end_bar();
                    }
                    self.gallery.hang(*painted, self.keeper.as_ref().map(Keeper::account), self.screen)?;
                    if self.gallery.is_full() {
                        return Ok(true);
                    }
                }
                Notice::Failed(reason) => {
                    self.screen.end_bar();
                    return Err(Complaint(reason));
                }
                _ => {}
            }
        }
    }

    /// Shows a notice and keeps the names of those who lend.
    fn note(&mut self, notice: &Notice) {
        match notice {
            Notice::Offered(peer, Capabilities { name, models, .. }) => {
                let name = plain(name);
                if !models.contains(&self.model) {
                    self.screen
                        .say("lacks", &format!("{name} ({}) lends, but does not have this model.", peer.short()));
                } else if self.names.insert(peer.clone(), name.clone()).is_none() {
                    self.screen.say("offered", &format!("{name} ({}) lends its processor.", peer.short()));
                }
            }
            Notice::Left(peer) => {
                if let Some(name) = self.names.remove(peer) {
                    self.screen.say("left", &format!("{name} ({}) left.", peer.short()));
                }
            }
            Notice::Dropped(peer, reason) => {
                self.names.remove(peer);
                self.screen.say("dropped", &format!("{} was dropped: {}.", peer.short(), plain(reason)));
            }
            Notice::Condemned(peer, evidence) => {
                let name = self.names.get(peer).map_or_else(|| peer.short().to_owned(), Clone::clone);
                self.screen.say("condemned", &format!("{name} is not asked any more: {evidence}."));
            }
            Notice::RolledBack { stage } => {
                let what = "What it took part in is painted again";
                self.screen.say("rolled-back", &format!("{what}, from stage {stage} on."));
            }
            Notice::RelayLost => self.screen.say("relay-lost", "The relay is gone; those already met go on."),
            Notice::LocalBegan => self.screen.say("local", "This machine computes."),
            Notice::Planned(plan) => {
                self.screen.say("plan", &plan.explain());
                self.screen.begin_bar();
            }
            Notice::Unit { by, units, done, total, stage } => {
                self.screen.set_total(*total);
                let mut fields = json!({ "units": units, "by": by.as_str(), "done": done, "total": total });
                match stage {
                    sampler::Stage::Denoise { step, .. } => fields["step"] = (step + 1).into(),
                    sampler::Stage::Run { first, count, .. } => fields["step"] = (first + count).into(),
                    sampler::Stage::Encode | sampler::Stage::Decode | sampler::Stage::Whole | sampler::Stage::Done => {}
                }
                self.screen.progress("unit", *done, stage_text(*stage), fields);
            }
            Notice::Snapshot(snapshot) => self.keep(snapshot),
            Notice::Smaller(reason) => self.screen.say("smaller", &format!("Painting anew: {reason}.")),
            Notice::Listening(_)
            | Notice::Joined(..)
            | Notice::Present(..)
            | Notice::RelayConnected
            | Notice::Painted(_)
            | Notice::Failed(_)
            | Notice::Cancelled
            | Notice::Moved(..)
            | Notice::Withdrew(_)
            | Notice::Preview { .. }
            | Notice::EngineReady(_)
            | Notice::EngineFailed { .. }
            | Notice::Computing(..)
            | Notice::Computed(_)
            | Notice::Delivered(_) => {}
        }
    }

    /// Keeps the painting; the first failure to is told, and is the last try.
    fn keep(&mut self, snapshot: &sampler::Snapshot) {
        let Some(Err(error)) = self.keeper.as_mut().map(|keeper| keeper.note(snapshot)) else { return };
        self.screen.say("not-kept", &format!("No checkpoint can be written ({error}); the painting goes on without."));
        *self.keeper = None;
    }

    async fn command(&self, command: Command) -> Result<(), Complaint> {
        self.commands.send(command).await.map_err(|_| Complaint("the node ended".into()))
    }
}

fn stage_text(stage: sampler::Stage) -> String {
    match stage {
        sampler::Stage::Encode => "reading the prompt".into(),
        sampler::Stage::Denoise { step, steps } => format!("step {} of {steps}", step + 1),
        sampler::Stage::Run { first, count, steps } => format!("steps {} to {} of {steps}", first + 1, first + count),
        sampler::Stage::Decode => "decoding".into(),
        sampler::Stage::Whole => "painting".into(),
        sampler::Stage::Done => "done".into(),
    }
}
