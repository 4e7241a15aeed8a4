//! The one function that changes the state: a message in, effects out.

mod painting;
mod queue;
mod rooms;

use std::collections::VecDeque;

use super::form::{Field, Form};
use super::history::surplus;
use super::jobs::Kept;
use super::plain::{plain, plain_lines};
use super::settings::{self, NAME_CHARACTERS_MAX, Remembered, Start};
use super::state::{Copied, Engine, Link, Picture, Remark, SessionState, State, Underway};
use super::telling;
use crate::queue::{Answer, PictureKind, Request, Trouble};
use crate::words::{News, Options, Peer, Recipe, Wish};

/// Characters of one sentence from elsewhere.
pub(super) const SENTENCE_CHARACTERS_MAX: usize = 400;

/// Characters of an explanation from elsewhere.
pub(super) const EXPLANATION_CHARACTERS_MAX: usize = 8_000;

/// Remarks on the screen at once; the oldest goes first.
const REMARKS_MAX: usize = 4;

/// Members shown; rooms are limited to as many.
const PEERS_MAX: usize = protocol::limits::ROOM_PEERS_MAX;

/// What happens to the page.
#[derive(Clone, Debug)]
pub enum Msg {
    /// It opens.
    Opened(Box<Start>),
    /// The session of this generation takes wishes.
    Joined(u32),
    /// The session of this generation could not be made.
    JoinRefused(u32, String),
    /// The session of this generation tells something, at this many milliseconds since 1970.
    Told(u32, Box<News>, u64),
    /// The form was edited.
    Edited(Form),
    /// Paint what the form says; the number is random.
    Paint(Form, u64),
    /// Give the picture up, and those after it.
    Cancel,
    /// Put the last picture's seed into the form.
    ReuseSeed,
    /// Put the shown picture's recipe into the form.
    Recall,
    /// Show a recent picture and put its recipe into the form.
    Open(String),
    /// Forget a recent picture.
    Delete(String),
    /// Forget all recent pictures.
    ClearHistory,
    /// The recent pictures of earlier visits.
    HistoryLoaded(Vec<Picture>),
    /// The browser has no room for one more picture.
    StorageFull,
    /// Make a room with this secret.
    NewRoom([u8; protocol::room::SECRET_BYTES]),
    /// Enter the room of a link.
    EnterRoom(String),
    /// The address has another fragment.
    Fragment(String),
    /// The person has another name.
    Rename(String),
    /// Lend this device, or not.
    Lend(bool),
    /// Memory for the engine, as typed.
    Pledge(String),
    /// Pause lending while hidden, or not.
    PauseHidden(bool),
    /// The page was hidden or shown.
    Hidden(bool),
    /// Copy the room's link.
    CopyLink,
    /// Copy the shown picture's recipe.
    CopyRecipe,
    /// It was copied, or the browser did not allow it.
    Copied(Copied, bool),
    /// Paint the picture that a reload ended; the number is random.
    PaintGone(u64),
    /// Forget it.
    ForgetGone,
    /// The desk of the room's queue is open, in the session of this generation; with what is remembered of jobs there.
    QueueOpened(u32, Vec<Kept>),
    /// What was asked of the queue is answered, at this many milliseconds since 1970.
    Answered(u32, Box<Request>, Box<Result<Answer, Trouble>>, u64),
    /// Call a job off.
    CancelJob(String),
    /// Ask once more for a job that failed.
    RepeatJob(String),
    /// Take a job that is at its end off the page.
    DismissJob(String),
    /// The person has read a remark.
    Dismiss(u32),
    /// The browser has something to say.
    Remark(String),
}

/// What is to be done outside the state.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// End the present session and begin this one.
    Join {
        /// Its number.
        generation: u32,
        /// The room; `None` to paint alone.
        link: Option<String>,
        /// How to join it.
        options: Options,
    },
    /// Tell the session.
    Wish(Wish),
    /// Show this room in the address: its fragment, and its relay where that is not the page's own host.
    Address {
        /// What follows `#`.
        fragment: String,
        /// The relay's address.
        relay: Option<String>,
    },
    /// Remember from visit to visit.
    Remember(Remembered),
    /// Remember the form over a reload.
    KeepForm(Form),
    /// Remember the picture under way over a reload.
    KeepUnderway(Option<Underway>),
    /// Open the desk of the queue of this room, and tell what is remembered of jobs there.
    OpenQueue {
        /// The session's number.
        generation: u32,
        /// The room's link.
        link: String,
        /// The room's name in the queue.
        room: String,
    },
    /// Ask the relay's queue.
    Ask {
        /// The session's number.
        generation: u32,
        /// What.
        request: Request,
        /// After this pause.
        after_ms: u32,
    },
    /// Remember the person's jobs in this room's queue over a reload.
    KeepJobs {
        /// The room's name in the queue.
        room: String,
        /// What to remember of each.
        jobs: Vec<Kept>,
    },
    /// Keep a picture.
    KeepPicture(Box<Picture>, Vec<u8>),
    /// Forget pictures.
    DropPictures(Vec<String>),
    /// Copy a text.
    Copy(Copied, String),
    /// Put the cursor into a field.
    Point(Field),
}

/// Changes `state` by one message and returns what is to be done.
pub fn update(state: &mut State, msg: Msg) -> Vec<Effect> {
    state.copied = None;
    match msg {
        Msg::Opened(start) => rooms::open(state, *start),
        Msg::Joined(generation) => rooms::joined(state, generation),
        Msg::JoinRefused(generation, text) => rooms::refused(state, generation, &text),
        Msg::Told(generation, news, now_ms) if generation == state.generation => told(state, *news, now_ms),
        Msg::Told(..) => Vec::new(),
        Msg::Edited(form) => edited(state, form),
        Msg::Paint(form, random) => painting::paint(state, form, random),
        Msg::Cancel if state.painting.is_some() || !state.waiting.is_empty() => painting::cancel(state),
        Msg::Cancel => queue::cancel_newest(state),
        Msg::ReuseSeed => reuse_seed(state),
        Msg::Recall => match state.picture().cloned() {
            Some(picture) => recall(state, &picture),
            None => Vec::new(),
        },
        Msg::Open(id) => match state.history.iter().find(|picture| picture.id == id).cloned() {
            Some(picture) => {
                state.shown = Some(picture.id.clone());
                recall(state, &picture)
            }
            None => Vec::new(),
        },
        Msg::Delete(id) => drop_pictures(state, vec![id]),
        Msg::ClearHistory => {
            let all = state.history.iter().map(|picture| picture.id.clone()).collect();
            drop_pictures(state, all)
        }
        Msg::HistoryLoaded(pictures) => history_loaded(state, pictures),
        Msg::StorageFull => storage_full(state),
        Msg::NewRoom(secret) => rooms::create(state, secret),
        Msg::EnterRoom(link) => rooms::enter(state, &link),
        Msg::Fragment(fragment) => rooms::follow(state, &fragment),
        Msg::Rename(name) => rename(state, &name),
        Msg::Lend(lend) => {
            state.settings.remembered.lend = Some(lend);
            vec![remember(state), Effect::Wish(Wish::Lend(lend))]
        }
        Msg::Pledge(text) => pledge(state, &text),
        Msg::PauseHidden(pause) => {
            state.settings.remembered.pause_hidden = Some(pause);
            let mut effects = vec![remember(state)];
            effects.extend(pause_or_go_on(state));
            effects
        }
        Msg::Hidden(hidden) => {
            state.hidden = hidden;
            pause_or_go_on(state).into_iter().chain(queue::watch(state)).collect()
        }
        Msg::CopyLink => state.room.clone().map(|link| Effect::Copy(Copied::Link, link)).into_iter().collect(),
        Msg::CopyRecipe => {
            let recipe = state.picture().map(|picture| telling::recipe(&picture.recipe));
            recipe.map(|text| Effect::Copy(Copied::Recipe, text)).into_iter().collect()
        }
        Msg::Copied(what, true) => {
            state.copied = Some(what);
            Vec::new()
        }
        Msg::Copied(_, false) => {
            remark(state, "This browser does not let the page copy. Select the text and copy it yourself.");
            Vec::new()
        }
        Msg::PaintGone(random) => painting::paint_gone(state, random),
        Msg::ForgetGone => {
            state.gone = None;
            vec![Effect::KeepUnderway(None)]
        }
        Msg::QueueOpened(generation, kept) => queue::opened(state, generation, kept),
        Msg::Answered(generation, request, answer, now_ms) => {
            queue::answered(state, generation, *request, *answer, now_ms)
        }
        Msg::CancelJob(key) => queue::cancel(state, &key),
        Msg::RepeatJob(key) => queue::repeat(state, &key),
        Msg::DismissJob(key) => queue::dismiss(state, &key),
        Msg::Dismiss(id) => {
            state.remarks.retain(|remark| remark.id != id);
            Vec::new()
        }
        Msg::Remark(text) => {
            remark(state, &text);
            Vec::new()
        }
    }
}

/// What the session tells. Everything in it may come from others.
fn told(state: &mut State, news: News, now_ms: u64) -> Vec<Effect> {
    match news {
        News::Status { state: link, text } => state.link = Link { state: link, text: sentence(&text) },
        News::Engine { state: engine, text, progress } => {
            state.engine = Engine { state: engine, text: sentence(&text), progress };
        }
        News::Peers { peers } => state.peers = peers.into_iter().take(PEERS_MAX).map(harmless).collect(),
        News::Remark { text } => remark(state, &text),
        News::Planned { sentence: text, explanation, recipe, units } => {
            let explanation = plain_lines(&explanation, EXPLANATION_CHARACTERS_MAX);
            painting::planned(state, sentence(&text), explanation, &recipe, units);
        }
        News::Progress { fraction, eta_s, units, step, doing } => {
            painting::progressed(state, fraction, eta_s, units, step, sentence(&doing));
        }
        News::Preview { width, height, rgba } => painting::previewed(state, width, height, rgba),
        News::Painted { png, pixels_sha256, latent_sha256, recipe, workers, retries, took_ms } => {
            let picture = Picture {
                id: plain(&pixels_sha256, 64),
                latent_sha256: plain(&latent_sha256, 64),
                recipe,
                sentence: String::new(),
                explanation: String::new(),
                workers,
                retries,
                took_ms,
                when_ms: now_ms,
                bytes: png.len() as u64,
                file: PictureKind::Png,
                origin: None,
            };
            return painting::painted(state, picture, png);
        }
        News::Failed { text } => return painting::failed(state, sentence(&text)),
        News::Cancelled => return painting::cancelled(state),
    }
    Vec::new()
}

/// Keeps the form over a reload; a complaint ends when its field is touched.
fn edited(state: &mut State, form: Form) -> Vec<Effect> {
    if state.form == form {
        return Vec::new();
    }
    if state.field_at_fault.take().is_some() {
        state.error = None;
    }
    let is_turned_to = form.is_high && !state.form.is_high;
    state.form = form.clone();
    let offers = if is_turned_to { queue::look_round(state) } else { None };
    [Some(Effect::KeepForm(form)), offers, queue::watch(state)].into_iter().flatten().collect()
}

fn reuse_seed(state: &mut State) -> Vec<Effect> {
    let Some(seed) = state.last_seed() else { return Vec::new() };
    state.form.seed = seed.to_string();
    vec![Effect::KeepForm(state.form.clone())]
}

fn recall(state: &mut State, picture: &Picture) -> Vec<Effect> {
    match &picture.origin {
        // The type decides the rest, and what the room paints at once is another matter.
        Some(origin) => {
            let Recipe { prompt, negative, seed, .. } = picture.recipe.clone();
            let seed = seed.map(|seed| seed.to_string()).unwrap_or_default();
            state.form =
                Form { prompt, negative, seed, is_high: true, kind: origin.kind.clone(), ..state.form.clone() };
        }
        None => {
            state.form.fill(&picture.recipe);
            state.form.is_high = false;
        }
    }
    state.field_at_fault = None;
    vec![Effect::KeepForm(state.form.clone())]
}

fn drop_pictures(state: &mut State, ids: Vec<String>) -> Vec<Effect> {
    state.history.retain(|picture| !ids.contains(&picture.id));
    if state.picture().is_none() {
        state.shown = None;
    }
    if ids.is_empty() {
        return Vec::new();
    }
    let jobs = queue::forget(state, &ids);
    jobs.into_iter().chain([Effect::DropPictures(ids)]).collect()
}

/// Pictures of this visit stay before those of earlier ones.
fn history_loaded(state: &mut State, mut pictures: Vec<Picture>) -> Vec<Effect> {
    pictures.retain(|picture| state.history.iter().all(|known| known.id != picture.id));
    state.history.append(&mut pictures);
    state.history.sort_by_key(|picture| std::cmp::Reverse(picture.when_ms));
    let ids = surplus(&state.history);
    drop_pictures(state, ids)
}

/// Makes room by forgetting the older half; the newest picture is never given away for it.
fn storage_full(state: &mut State) -> Vec<Effect> {
    remark(
        state,
        "The browser's storage is full. The oldest recent pictures were removed; download the ones you want to keep.",
    );
    let keep = state.history.len().div_ceil(2).max(1);
    let ids = state.history.iter().skip(keep).map(|picture| picture.id.clone()).collect();
    drop_pictures(state, ids)
}

fn rename(state: &mut State, name: &str) -> Vec<Effect> {
    let name = plain(name, NAME_CHARACTERS_MAX);
    if name == state.settings.remembered.name {
        return Vec::new();
    }
    state.settings.remembered.name.clone_from(&name);
    vec![remember(state), Effect::Wish(Wish::Rename(name))]
}

fn pledge(state: &mut State, text: &str) -> Vec<Effect> {
    match settings::pledge(text) {
        Ok(pledge) => {
            state.settings.remembered.pledge = pledge;
            let wish = pledge.map(|mib| Effect::Wish(Wish::Pledge(mib)));
            [Some(remember(state)), wish].into_iter().flatten().collect()
        }
        Err(text) => {
            remark(state, &text);
            Vec::new()
        }
    }
}

/// Tells the session to pause or to go on, if that changes anything.
fn pause_or_go_on(state: &mut State) -> Option<Effect> {
    let pause = state.hidden && state.settings.pauses_hidden();
    if state.session != SessionState::Open || pause == state.paused {
        return None;
    }
    state.paused = pause;
    Some(Effect::Wish(Wish::Pause(pause)))
}

fn remember(state: &State) -> Effect {
    Effect::Remember(state.settings.remembered.clone())
}

fn remark(state: &mut State, text: &str) {
    let text = sentence(text);
    if text.is_empty() || state.remarks.iter().any(|remark| remark.text == text) {
        return;
    }
    state.remarks_made += 1;
    state.remarks.push_back(Remark { id: state.remarks_made, text });
    if state.remarks.len() > REMARKS_MAX {
        state.remarks.pop_front();
    }
}

fn sentence(text: &str) -> String {
    plain(text, SENTENCE_CHARACTERS_MAX)
}

fn harmless(peer: Peer) -> Peer {
    let short = |text: &str| plain(text, 120);
    Peer {
        id: plain(&peer.id, protocol::limits::PEER_ID_BYTES_MAX),
        name: plain(&peer.name, NAME_CHARACTERS_MAX),
        path: short(&peer.path),
        device: short(&peer.device),
        doing: short(&peer.doing),
        is_me: peer.is_me,
        units_given: peer.units_given,
        units_taken: peer.units_taken,
    }
}

/// Forgets everything that belongs to the session that ends.
fn leave_behind(state: &mut State) {
    state.painting = None;
    state.waiting = VecDeque::new();
    state.given_up = VecDeque::new();
    state.peers = Vec::new();
    state.paused = false;
}

#[cfg(test)]
mod tests;
