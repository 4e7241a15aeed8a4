//! A job's life in the relay's queue as the page sees it: handed over, watched, called off, fetched, shown; over reloads.

use super::super::form::{Complaint, Form};
use super::super::jobs::{JOBS_MAX, Kept, Origin, Queue, QueueJob, Stage};
use super::super::plain::{plain, plain_lines};
use super::{EXPLANATION_CHARACTERS_MAX, Effect, painting, remark, sentence};
use crate::page::state::{Picture, State};
use crate::queue::pace::{LINE_MS, again_after_ms, look_after_ms};
use crate::queue::{Answer, Offer, Request, Status, Trouble, View, picture_kind, room_name};
use crate::words::Recipe;

/// Failures in a row after which handing over, calling off or fetching is given up: about a minute of trying.
const FAILURES_MAX: u32 = 6;

/// Failures in a row after which nobody asks any more whether a relay keeps a queue: about five minutes.
const OFFERS_FAILURES_MAX: u32 = 14;

/// Characters of a word from the relay: a type, a kind of worker.
const WORD_CHARACTERS_MAX: usize = 64;

/// Characters of a file's address: signatures make them long.
const ADDRESS_BYTES_MAX: usize = 8 * 1024;

/// Another room, or none: forgets the queue of the one before, and asks for that of this one.
pub(super) fn begin(state: &mut State, link: Option<&protocol::RoomLink>) -> Option<Effect> {
    let left = state.queue.open().count();
    if left > 0 {
        let them =
            if left == 1 { "One picture of yours stays".to_owned() } else { format!("{left} pictures of yours stay") };
        remark(state, &format!("{them} in the queue of the room that you left; its link brings you back to it."));
    }
    let room = link.and_then(room_name);
    state.queue = Queue { room: room.clone().unwrap_or_default(), asked: state.queue.asked, ..Queue::default() };
    Some(Effect::OpenQueue { generation: state.generation, link: link?.to_string(), room: room? })
}

/// The queue's desk is open: asks what can be asked for, and how the jobs stand that were asked for before a reload.
pub(super) fn opened(state: &mut State, generation: u32, kept: Vec<Kept>) -> Vec<Effect> {
    if generation != state.generation || !state.queue.jobs.is_empty() {
        return Vec::new();
    }
    let mut effects = vec![Effect::Ask { generation, request: Request::Offers, after_ms: 0 }];
    for kept in kept.into_iter().take(JOBS_MAX) {
        let mut job = QueueJob::new(kept);
        effects.extend(proceed(&mut job, generation, 0));
        state.queue.jobs.push(job);
    }
    effects
}

/// Hands jobs over to the relay.
pub(super) fn paint(state: &mut State, form: &Form, offer: &Offer, random: u64) -> Result<Vec<Effect>, Complaint> {
    let recipes = form.recipes_of(offer, random)?;
    state.error = None;
    if state.queue.open().count() + recipes.len() > JOBS_MAX {
        state.error =
            Some(format!("At most {JOBS_MAX} pictures of yours wait in the queue; wait for one, or cancel one."));
        return Ok(Vec::new());
    }
    Ok(recipes.into_iter().flat_map(|recipe| hand_over(state, &offer.kind, &offer.label, recipe)).collect())
}

/// Asks once more for what has failed, as a new job.
pub(super) fn repeat(state: &mut State, key: &str) -> Vec<Effect> {
    let Some(job) = state.queue.job(key).filter(|job| job.stage.can_repeat()) else { return Vec::new() };
    let Kept { kind, label, recipe, .. } = job.kept.clone();
    state.queue.jobs.retain(|job| job.kept.key != key);
    hand_over(state, &kind, &label, recipe)
}

/// Calls a job off, whether the relay has it already or not.
pub(super) fn cancel(state: &mut State, key: &str) -> Vec<Effect> {
    let generation = state.generation;
    let Some(job) = state.queue.job(key).filter(|job| job.stage.can_cancel()) else { return Vec::new() };
    let is_handed = job.stage == Stage::Watching;
    (job.stage, job.failures) = (Stage::Cancelling, 0);
    job.trouble.clear();
    // One that is just being handed over is called off as soon as the relay has named it: it may have it already.
    if is_handed { proceed(job, generation, 0).into_iter().collect() } else { Vec::new() }
}

/// Calls off the newest job that can be.
pub(super) fn cancel_newest(state: &mut State) -> Vec<Effect> {
    let newest = state.queue.open().find(|job| job.stage.can_cancel()).map(|job| job.kept.key.clone());
    newest.map(|key| cancel(state, &key)).unwrap_or_default()
}

/// Takes a job that is at its end off the page.
pub(super) fn dismiss(state: &mut State, key: &str) -> Vec<Effect> {
    state.queue.jobs.retain(|job| job.kept.key != key || !job.stage.is_final());
    vec![keep(state)]
}

/// Pictures were deleted: their jobs are not to bring them back.
pub(super) fn forget(state: &mut State, pictures: &[String]) -> Option<Effect> {
    let before = state.queue.jobs.len();
    let is_gone = |job: &QueueJob| job.kept.picture.as_ref().is_some_and(|picture| pictures.contains(picture));
    state.queue.jobs.retain(|job| !is_gone(job));
    (state.queue.jobs.len() != before).then(|| keep(state))
}

/// Begins to count the room's queue, if somebody wants to know.
pub(super) fn watch(state: &mut State) -> Option<Effect> {
    if state.queue.is_watching || !wants_line(state) {
        return None;
    }
    state.queue.is_watching = true;
    Some(Effect::Ask { generation: state.generation, request: Request::Line, after_ms: 0 })
}

/// What can be asked for is asked again: who is there for it may have changed.
pub(super) fn look_round(state: &State) -> Option<Effect> {
    let request = Request::Offers;
    (!state.queue.offers.is_empty()).then_some(Effect::Ask { generation: state.generation, request, after_ms: 0 })
}

/// The relay has answered, or cannot. Everything in it may be wrong.
pub(super) fn answered(
    state: &mut State,
    generation: u32,
    request: Request,
    answer: Result<Answer, Trouble>,
    now_ms: u64,
) -> Vec<Effect> {
    if generation != state.generation {
        return Vec::new();
    }
    match request {
        Request::Offers => offered(state, answer),
        Request::Line => counted(state, answer),
        Request::Submit { key, turn, .. } => with_job(state, &key, turn, |job| submitted(job, answer, generation)),
        Request::Look { key, turn, .. } => with_job(state, &key, turn, |job| looked(job, answer, generation)),
        Request::Cancel { key, turn, .. } => with_job(state, &key, turn, |job| called_off(job, answer, generation)),
        Request::Fetch { key, turn, .. } => match answer {
            Ok(Answer::Picture(bytes)) => fetched(state, &key, turn, bytes, now_ms),
            Ok(_) => Vec::new(),
            Err(trouble) => with_job(state, &key, turn, |job| not_fetched(job, &trouble, generation)),
        },
    }
}

fn offered(state: &mut State, answer: Result<Answer, Trouble>) -> Vec<Effect> {
    match answer {
        Ok(Answer::Offers(offers)) => {
            state.queue.offers = offers.into_iter().map(harmless_offer).collect();
            state.queue.failures = 0;
            watch(state).into_iter().collect()
        }
        // A relay that was there a moment ago keeps what it offered.
        Err(trouble) if trouble.is_passing() && state.queue.failures < OFFERS_FAILURES_MAX => {
            state.queue.failures += 1;
            let after_ms = again_after_ms(state.queue.failures, None);
            vec![Effect::Ask { generation: state.generation, request: Request::Offers, after_ms }]
        }
        Ok(_) | Err(_) => {
            state.queue.offers = Vec::new();
            Vec::new()
        }
    }
}

fn counted(state: &mut State, answer: Result<Answer, Trouble>) -> Vec<Effect> {
    let stays = match &answer {
        Ok(_) => true,
        Err(trouble) => trouble.is_passing(),
    };
    state.queue.line = if let Ok(Answer::Line(line)) = answer { Some(line) } else { None };
    state.queue.is_watching = stays && wants_line(state);
    let generation = state.generation;
    let again =
        state.queue.is_watching.then_some(Effect::Ask { generation, request: Request::Line, after_ms: LINE_MS });
    // Who is there for it changes as well.
    let around = again.as_ref().filter(|_| state.queue.line.is_some()).and_then(|_| look_round(state));
    again.into_iter().chain(around).collect()
}

fn submitted(job: &mut QueueJob, answer: Result<Answer, Trouble>, generation: u32) -> Option<Effect> {
    match answer {
        Ok(Answer::Job(view)) => {
            job.kept.id = Some(view.id.clone());
            job.failures = 0;
            job.trouble.clear();
            if job.stage == Stage::Cancelling {
                return proceed(job, generation, 0);
            }
            job.stage = Stage::Watching;
            take_note(job, *view, generation)
        }
        Ok(_) => None,
        Err(trouble) if trouble.is_passing() && job.failures < FAILURES_MAX => try_again(job, &trouble, generation),
        Err(_) if job.stage == Stage::Cancelling => end(job, Stage::Cancelled, String::new()),
        Err(trouble) => end(job, Stage::Failed, trouble.told()),
    }
}

fn looked(job: &mut QueueJob, answer: Result<Answer, Trouble>, generation: u32) -> Option<Effect> {
    match answer {
        Ok(Answer::Job(view)) => {
            if job.stage != Stage::Fetching {
                job.failures = 0;
                job.trouble.clear();
            }
            take_note(job, *view, generation)
        }
        Ok(_) => None,
        Err(trouble) if trouble.is_absence() => end(job, Stage::Lost, String::new()),
        // However long it takes: the job goes on without this page.
        Err(trouble) if trouble.is_passing() => {
            job.failures += 1;
            job.trouble = sentence(&trouble.told());
            look(job, generation, again_after_ms(job.failures, retry_after(&trouble)))
        }
        Err(trouble) => end(job, Stage::Failed, trouble.told()),
    }
}

fn called_off(job: &mut QueueJob, answer: Result<Answer, Trouble>, generation: u32) -> Option<Effect> {
    match answer {
        Ok(_) => look(job, generation, 0),
        Err(trouble) if trouble.is_absence() => end(job, Stage::Lost, String::new()),
        Err(trouble) if trouble.is_passing() && job.failures < FAILURES_MAX => try_again(job, &trouble, generation),
        // It may be done meanwhile.
        Err(trouble) => {
            job.stage = Stage::Watching;
            job.trouble = sentence(&format!("It could not be called off. {}", trouble.told()));
            look(job, generation, look_after_ms(0))
        }
    }
}

/// What the relay told of a job decides what is next.
fn take_note(job: &mut QueueJob, view: View, generation: u32) -> Option<Effect> {
    let view = harmless(view);
    let status = view.status;
    let error = view.error.clone();
    let has_picture = !view.files.is_empty();
    job.view = Some(view);
    match status {
        Status::Queued | Status::Processing => {
            job.looks += 1;
            look(job, generation, look_after_ms(job.looks))
        }
        Status::Completed if has_picture => {
            let pause = if job.failures > 0 { again_after_ms(job.failures, None) } else { 0 };
            job.stage = Stage::Fetching;
            proceed(job, generation, pause)
        }
        Status::Completed => end(job, Stage::Failed, "The job is done and there is no picture in it.".into()),
        Status::Failed if error.is_empty() => end(job, Stage::Failed, "The job failed, and nobody said why.".into()),
        Status::Failed => end(job, Stage::Failed, crate::session::order::sentence(&error)),
        Status::Cancelled => end(job, Stage::Cancelled, String::new()),
    }
}

/// Addresses of files end: asks for a new one.
fn not_fetched(job: &mut QueueJob, trouble: &Trouble, generation: u32) -> Option<Effect> {
    job.failures += 1;
    let told = format!("The picture is done and cannot be fetched. {}", trouble.told());
    if job.failures > FAILURES_MAX {
        return end(job, Stage::Failed, told);
    }
    job.trouble = sentence(&told);
    look(job, generation, 0)
}

fn fetched(state: &mut State, key: &str, turn: u32, bytes: Vec<u8>, now_ms: u64) -> Vec<Effect> {
    let offers = state.queue.offers.clone();
    let Some(job) = state.queue.job(key).filter(|job| job.turn == turn && job.stage == Stage::Fetching) else {
        return Vec::new();
    };
    let (Some(kind), Some(view)) = (picture_kind(&bytes), job.view.clone()) else { return Vec::new() };
    let id = protocol::Hash::of(&bytes).to_string();
    let was_shown = job.kept.picture.replace(id.clone()).is_some();
    job.stage = Stage::Shown;
    job.trouble.clear();
    let Kept { kind: asked, label, recipe, .. } = job.kept.clone();
    let done = offers.iter().find(|offer| offer.kind == view.kind && view.kind != asked);
    let recipe = done.map_or(recipe.clone(), |offer| Recipe {
        width: offer.width,
        height: offer.height,
        steps: offer.steps,
        guidance: offer.guidance,
        ..recipe
    });
    let origin = Origin {
        kind: asked,
        label: done.map_or(label, |offer| offer.label.clone()),
        source: view.source,
        worker: view.worker,
        cost_usd: view.cost_usd,
    };
    let picture = Picture {
        id,
        latent_sha256: String::new(),
        recipe,
        sentence: format!("{}, through the relay's queue.", origin.label),
        explanation: view.route,
        workers: Vec::new(),
        retries: 0,
        took_ms: view.took_ms.unwrap_or_default(),
        when_ms: now_ms,
        bytes: bytes.len() as u64,
        file: kind,
        origin: Some(origin),
    };
    // After a reload the page shows again what it shows anyway, and nothing else in its place.
    let shows = !was_shown || state.shown.is_none();
    state.queue.tidy();
    let mut effects = painting::keep(state, picture, bytes, shows);
    effects.push(keep(state));
    effects
}

fn hand_over(state: &mut State, kind: &str, label: &str, recipe: Recipe) -> Vec<Effect> {
    state.queue.asked += 1;
    let key = format!("{}-{}", state.settings.visit, state.queue.asked);
    let (kind, label) = (kind.to_owned(), label.to_owned());
    let mut job = QueueJob::new(Kept { key, id: None, kind, label, recipe, picture: None });
    let submit = proceed(&mut job, state.generation, 0);
    state.queue.jobs.insert(0, job);
    state.queue.tidy();
    // Remembered before it is sent: a reload in between asks again with the same key.
    [Some(keep(state)), submit, watch(state)].into_iter().flatten().collect()
}

/// Changes a job by the answer to its last request, and remembers what changed.
fn with_job(
    state: &mut State,
    key: &str,
    turn: u32,
    change: impl FnOnce(&mut QueueJob) -> Option<Effect>,
) -> Vec<Effect> {
    let before = state.queue.kept();
    let Some(job) = state.queue.job(key).filter(|job| job.turn == turn && !job.stage.is_final()) else {
        return Vec::new();
    };
    let mut next = change(job);
    let earlier = job.kept.picture.clone().filter(|_| job.stage == Stage::Fetching);
    if let Some(id) = earlier.filter(|id| state.history.iter().any(|picture| picture.id == *id)) {
        // This browser has kept it.
        (job.stage, next) = (Stage::Shown, None);
        state.shown.get_or_insert(id);
    }
    // Its picture is among the recent ones all the same.
    let is_past = |job: &QueueJob| job.stage == Stage::Lost && job.kept.picture.is_some();
    state.queue.jobs.retain(|job| !is_past(job));
    let kept = (state.queue.kept() != before).then(|| keep(state));
    kept.into_iter().chain(next).collect()
}

/// The request that a job's stage calls for.
fn proceed(job: &mut QueueJob, generation: u32, after_ms: u32) -> Option<Effect> {
    let (key, turn) = (job.kept.key.clone(), job.turn + 1);
    let request = match (job.stage, job.kept.id.clone()) {
        (Stage::Handing, _) | (Stage::Cancelling, None) => {
            let Kept { kind, recipe, .. } = job.kept.clone();
            Request::Submit { key, turn, kind, recipe }
        }
        (Stage::Watching, Some(id)) => Request::Look { key, turn, id },
        (Stage::Cancelling, Some(id)) => Request::Cancel { key, turn, id },
        (Stage::Fetching, Some(_)) => {
            let url = job.view.as_ref()?.files.first()?.clone();
            Request::Fetch { key, turn, url }
        }
        (Stage::Watching | Stage::Fetching, None)
        | (Stage::Shown | Stage::Cancelled | Stage::Failed | Stage::Lost, _) => return None,
    };
    job.turn = turn;
    Some(Effect::Ask { generation, request, after_ms })
}

/// A look, whatever the stage.
fn look(job: &mut QueueJob, generation: u32, after_ms: u32) -> Option<Effect> {
    let id = job.kept.id.clone()?;
    job.turn += 1;
    let request = Request::Look { key: job.kept.key.clone(), turn: job.turn, id };
    Some(Effect::Ask { generation, request, after_ms })
}

fn try_again(job: &mut QueueJob, trouble: &Trouble, generation: u32) -> Option<Effect> {
    job.failures += 1;
    let after_ms = again_after_ms(job.failures, retry_after(trouble));
    job.trouble = sentence(&format!("{} Trying again in {} s.", trouble.told(), after_ms.div_ceil(1000)));
    proceed(job, generation, after_ms)
}

fn end(job: &mut QueueJob, stage: Stage, trouble: String) -> Option<Effect> {
    (job.stage, job.trouble) = (stage, sentence(&trouble));
    None
}

fn keep(state: &State) -> Effect {
    Effect::KeepJobs { room: state.queue.room.clone(), jobs: state.queue.kept() }
}

fn wants_line(state: &State) -> bool {
    let queue = &state.queue;
    !state.hidden && !queue.offers.is_empty() && (state.form.is_high || queue.open().next().is_some())
}

fn retry_after(trouble: &Trouble) -> Option<u64> {
    match trouble {
        Trouble::Refused { retry_after_s, .. } => *retry_after_s,
        Trouble::Unreachable(_) | Trouble::Malformed(_) => None,
    }
}

fn harmless_offer(offer: Offer) -> Offer {
    let label = plain(&offer.label, WORD_CHARACTERS_MAX);
    let label = if label.is_empty() { plain(&offer.kind, WORD_CHARACTERS_MAX) } else { label };
    Offer { label, note: sentence(&offer.note), ..offer }
}

fn harmless(view: View) -> View {
    View {
        kind: plain(&view.kind, WORD_CHARACTERS_MAX),
        worker: plain(&view.worker, WORD_CHARACTERS_MAX),
        route: plain_lines(&view.route, EXPLANATION_CHARACTERS_MAX),
        error: sentence(&view.error),
        fallback_of: plain(&view.fallback_of, WORD_CHARACTERS_MAX),
        files: view.files.into_iter().filter(|address| address.len() <= ADDRESS_BYTES_MAX).collect(),
        ..view
    }
}

#[cfg(test)]
mod tests;
