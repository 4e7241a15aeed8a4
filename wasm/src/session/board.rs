//! What a session knows of its room and its picture: turns the participant's notices into news.

use std::collections::BTreeMap;
use std::time::Duration;

use node::{Notice, Painted, picture};
use protocol::limits::{CAUGHT_TOLD_MAX, ROOM_PEERS_MAX};
use protocol::{Activity, JobSpec, ModelId, PeerId};
use sampler::Stage;

use crate::session::eta::Eta;
use crate::session::order::{Checked, sentence};
use crate::words::{News, Peer, Recipe, Share};

/// Peers whose units are remembered after they left.
const COUNTED_MAX: usize = 4 * ROOM_PEERS_MAX;

/// How this session's own path is called.
const HERE: &str = "this device";

/// A session's knowledge.
pub struct Board {
    me: PeerId,
    name: String,
    members: BTreeMap<PeerId, Member>,
    units: BTreeMap<PeerId, Units>,
    device: String,
    is_lending: bool,
    is_painting: bool,
    doing: String,
    job: Option<Job>,
    is_changed: bool,
}

#[derive(Default)]
struct Member {
    path: String,
    name: String,
    device: String,
    models: Vec<ModelId>,
    doing: String,
    /// Who gave this member wrong answers, as it says.
    caught: Vec<PeerId>,
}

#[derive(Clone, Copy, Default)]
struct Units {
    given: u64,
    taken: u64,
}

/// The picture that was asked for last.
struct Job {
    spec: JobSpec,
    recipe: Recipe,
    model: String,
    wished: Duration,
    eta: Eta,
}

impl Board {
    /// The board of a session that knows nobody.
    pub fn new(me: PeerId, name: String) -> Self {
        Self {
            me,
            name,
            members: BTreeMap::new(),
            units: BTreeMap::new(),
            device: String::new(),
            is_lending: false,
            is_painting: false,
            doing: String::new(),
            job: None,
            is_changed: true,
        }
    }

    /// A picture was wished for at `now`; the notices of its job follow.
    pub fn begin(&mut self, checked: &Checked, now: Duration) {
        let (spec, recipe, model) = (checked.order.spec.clone(), checked.recipe.clone(), checked.model.clone());
        self.job = Some(Job { spec, recipe, model, wished: now, eta: Eta::default() });
    }

    /// This session goes by another name.
    pub fn rename(&mut self, name: String) {
        self.name = name;
        self.is_changed = true;
    }

    /// This session lends, or not.
    pub fn set_lending(&mut self, is_lending: bool) {
        self.is_lending = is_lending;
        self.is_changed = true;
    }

    /// A notice of the participant; gives what people should hear of it at once.
    pub fn handle(&mut self, notice: Notice, now: Duration) -> Vec<News> {
        match notice {
            Notice::Joined(peer, path) | Notice::Moved(peer, path) => {
                self.member(peer).path = path.to_string();
                Vec::new()
            }
            Notice::Left(peer) => {
                self.members.remove(&peer);
                self.is_changed = true;
                Vec::new()
            }
            Notice::Offered(peer, capabilities) => {
                if capabilities.is_sound() && self.members.contains_key(&peer) {
                    let member = self.member(peer);
                    member.name = capabilities.name;
                    member.models = capabilities.models;
                    member.device = match capabilities.device.as_str() {
                        "" => capabilities.numeric_class,
                        _ => capabilities.device,
                    };
                }
                Vec::new()
            }
            Notice::Withdrew(peer) => {
                if self.members.contains_key(&peer) {
                    let member = self.member(peer);
                    (member.device, member.models) = (String::new(), Vec::new());
                }
                Vec::new()
            }
            Notice::Present(peer, presence) => {
                if self.members.contains_key(&peer) {
                    let member = self.member(peer);
                    (member.name, member.doing) = (presence.name, describe(presence.activity));
                    member.caught = presence.caught;
                    member.caught.truncate(CAUGHT_TOLD_MAX);
                }
                Vec::new()
            }
            Notice::Dropped(peer, reason) => {
                let name = self.members.get(&peer).map_or("", |member| member.name.as_str());
                vec![News::Remark { text: sentence(&format!("{name} ({}) was dropped: {reason}", peer.short())) }]
            }
            Notice::Condemned(peer, evidence) => {
                let text = format!("{} ({}) is not asked any more: {evidence}", self.name_of(&peer), peer.short());
                vec![News::Remark { text: sentence(&text) }]
            }
            Notice::RolledBack { .. } => {
                let text = "part of the picture is painted again, because a member was caught in a wrong answer";
                vec![News::Remark { text: sentence(text) }]
            }
            Notice::Planned(plan) => {
                self.set_painting(true);
                self.planned(&plan)
            }
            Notice::Unit { by, units, done, total, stage } => {
                self.count(by).given += 1;
                vec![self.progress(units, (done, total), stage, now)]
            }
            Notice::Smaller(reason) => {
                // The history tells what was painted.
                vec![News::Remark { text: sentence(&format!("painting anew: {reason}")) }]
            }
            Notice::Preview { width, height, rgba } => vec![News::Preview { width, height, rgba }],
            Notice::Painted(painted) => self.painted(*painted, now),
            Notice::Failed(reason) => {
                self.set_painting(false);
                vec![News::Failed { text: sentence(&reason) }]
            }
            Notice::Cancelled => {
                self.set_painting(false);
                vec![News::Cancelled]
            }
            Notice::EngineReady(ability) => {
                self.device = ability.device;
                self.is_changed = true;
                Vec::new()
            }
            Notice::EngineFailed { .. } => {
                self.device.clear();
                self.is_changed = true;
                Vec::new()
            }
            Notice::Computing(peer, what) => {
                let whom = if peer == self.me { "its own picture".to_owned() } else { self.name_of(&peer) };
                self.set_doing(format!("working for {whom}: {what}"));
                Vec::new()
            }
            Notice::Delivered(to) => {
                // What it computes for itself counts as given to itself, once.
                if to != self.me {
                    self.count(to).taken += 1;
                }
                Vec::new()
            }
            Notice::Computed(_) => {
                self.set_doing(String::new());
                Vec::new()
            }
            Notice::Listening(_)
            | Notice::RelayConnected
            | Notice::RelayLost
            | Notice::LocalBegan
            | Notice::Snapshot(_) => Vec::new(),
        }
    }

    /// Everyone in the room, if anything about them changed since this was asked last.
    pub fn take_peers(&mut self) -> Option<News> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        let units = |peer: &PeerId| self.units.get(peer).copied().unwrap_or_default();
        let mine = units(&self.me);
        let me = Peer {
            id: self.me.to_string(),
            name: self.name.clone(),
            is_me: true,
            path: HERE.into(),
            device: if self.is_lending { self.device.clone() } else { String::new() },
            doing: self.doing_here(),
            units_given: mine.given,
            units_taken: mine.taken,
        };
        let others = self.members.iter().map(|(peer, member)| Peer {
            id: peer.to_string(),
            name: member.name.clone(),
            is_me: false,
            path: member.path.clone(),
            device: member.device.clone(),
            doing: self.doing_of(peer, member),
            units_given: units(peer).given,
            units_taken: units(peer).taken,
        });
        Some(News::Peers { peers: std::iter::once(me).chain(others).collect() })
    }

    /// Whether anything about the members changed since they were told.
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Whether a picture of this session is being painted.
    pub fn is_painting(&self) -> bool {
        self.is_painting
    }

    /// Members that can be talked to.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Whether another member lends this model.
    pub fn is_lent(&self, model: ModelId) -> bool {
        self.members.values().any(|member| member.models.contains(&model))
    }

    fn planned(&self, plan: &coordinator::Plan) -> Vec<News> {
        let Some(job) = &self.job else { return Vec::new() };
        let explanation = plan.explain();
        let split = explanation.lines().next().unwrap_or_default();
        let split = split.strip_prefix("Plan: ").unwrap_or(split);
        let split = split.split_once(", because").map_or(split, |(split, _)| split);
        let who = match plan.workers.len() {
            0 => "as soon as a device is ready".to_owned(),
            1 => "on one device".to_owned(),
            devices => format!("shared by {devices} devices"),
        };
        let time = plan.expected().map_or_else(String::new, |time| format!(", {time}"));
        let sentence = sentence(&format!("{split}, {who}{time}"));
        let units = u32::try_from(plan.units()).unwrap_or(u32::MAX);
        vec![News::Planned { sentence, explanation, recipe: job.recipe.clone(), units }]
    }

    fn progress(&mut self, units: u64, (done, total): (u64, u64), stage: Stage, now: Duration) -> News {
        let eta_s = self.job.as_mut().and_then(|job| job.eta.note(done, total, now));
        let (step, doing) = match stage {
            Stage::Encode => (None, "reading the prompt".to_owned()),
            Stage::Denoise { step, steps } => (Some(step + 1), format!("step {} of {steps}", step + 1)),
            Stage::Run { first, count, steps } => {
                (Some(first + count), format!("steps {} to {} of {steps}", first + 1, first + count))
            }
            Stage::Decode => (None, "developing the picture".to_owned()),
            Stage::Whole => (None, "painting".to_owned()),
            Stage::Done => (None, "done".to_owned()),
        };
        let fraction = if total == 0 { 0.0 } else { (done as f64 / total as f64) as f32 };
        News::Progress { fraction, eta_s, units: u32::try_from(units).unwrap_or(u32::MAX), step, doing }
    }

    fn painted(&mut self, painted: Painted, now: Duration) -> Vec<News> {
        self.set_painting(false);
        let Some(job) = self.job.take() else { return Vec::new() };
        let png = match picture::encode(&painted.pixels, job.spec.size, &job.spec, &job.model) {
            Ok(png) => png,
            Err(error) => {
                return vec![News::Failed { text: sentence(&format!("the picture cannot be encoded: {error}")) }];
            }
        };
        let workers = painted.workers.into_iter().map(|worker| Share {
            name: if worker.local { self.name.clone() } else { worker.name },
            path: if worker.local { HERE.into() } else { worker.path },
            peer: worker.peer,
            units: worker.units,
            compute_ms: worker.compute_ms,
        });
        vec![News::Painted {
            png,
            pixels_sha256: painted.pixels_sha256,
            latent_sha256: painted.latent_sha256,
            recipe: job.recipe,
            workers: workers.collect(),
            retries: painted.retries,
            took_ms: u64::try_from(now.saturating_sub(job.wished).as_millis()).unwrap_or(u64::MAX),
        }]
    }

    fn member(&mut self, peer: PeerId) -> &mut Member {
        self.is_changed = true;
        self.members.entry(peer).or_default()
    }

    fn count(&mut self, peer: PeerId) -> &mut Units {
        self.is_changed = true;
        if self.units.len() >= COUNTED_MAX && !self.units.contains_key(&peer) {
            let gone = self.units.keys().find(|peer| !self.members.contains_key(peer) && **peer != self.me).cloned();
            gone.and_then(|gone| self.units.remove(&gone));
        }
        self.units.entry(peer).or_default()
    }

    fn set_painting(&mut self, is_painting: bool) {
        self.is_painting = is_painting;
        self.is_changed = true;
    }

    fn set_doing(&mut self, doing: String) {
        self.is_changed |= self.doing != doing;
        self.doing = doing;
    }

    fn doing_here(&self) -> String {
        match (self.doing.as_str(), self.is_lending && !self.device.is_empty()) {
            ("", _) if self.is_painting => "painting".into(),
            ("", true) => "lending, waiting for work".into(),
            ("", false) => "here".into(),
            (doing, _) => doing.to_owned(),
        }
    }

    /// What a member does, and what others say of it.
    fn doing_of(&self, peer: &PeerId, member: &Member) -> String {
        let accuser = self.members.iter().find(|(_, other)| other.caught.contains(peer));
        match accuser {
            Some((accuser, _)) if accuser != peer => {
                format!("{}; {} says it gave wrong answers", member.doing, self.name_of(accuser))
            }
            Some(_) | None => member.doing.clone(),
        }
    }

    fn name_of(&self, peer: &PeerId) -> String {
        let name = self.members.get(peer).map(|member| member.name.as_str()).filter(|name| !name.is_empty());
        name.unwrap_or_else(|| peer.short()).to_owned()
    }
}

fn describe(activity: Activity) -> String {
    match activity {
        Activity::Idle => "here".into(),
        Activity::Lending { units: 0 } => "lending".into(),
        Activity::Lending { units: 1 } => "lending, 1 unit delivered".into(),
        Activity::Lending { units } => format!("lending, {units} units delivered"),
        Activity::Painting => "painting".into(),
    }
}

#[cfg(test)]
mod tests;
