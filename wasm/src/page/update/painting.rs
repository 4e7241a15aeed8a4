//! A picture's life in the page: asked for, planned, growing, finished, failed or given up; then the next one.

use super::super::form::{Complaint, Form};
use super::super::history::surplus;
use super::{Effect, drop_pictures, queue, rooms};
use crate::page::state::{Painting, Picture, Preview, SessionState, State, Underway};
use crate::words::{Recipe, Wish};

/// Pixels along one side of a look: the largest picture has as many cells of 8 pixels.
const PREVIEW_SIDE_MAX: u32 = protocol::limits::SIDE_PIXELS_MAX / 8;

/// Pictures given up whose end is still to come; a person presses Cancel no faster.
const GIVEN_UP_MAX: usize = 8;

/// Paints what the form says: in the room, which gives up a picture that is being painted, or through the relay's queue.
pub(super) fn paint(state: &mut State, form: Form, random: u64) -> Vec<Effect> {
    let mut effects = vec![Effect::KeepForm(form.clone())];
    state.form = form.clone();
    let begun = match state.queue.chosen(&form).cloned() {
        Some(offer) => queue::paint(state, &form, &offer, random),
        None => form.recipes(random).map(|recipes| begin(state, recipes)),
    };
    match begun {
        Ok(begun) => {
            state.field_at_fault = None;
            effects.extend(begun);
        }
        Err(Complaint { field, text }) => {
            (state.error, state.field_at_fault) = (Some(text), Some(field));
            effects.push(Effect::Point(field));
        }
    }
    effects
}

/// Paints again what a reload ended, with the same seeds.
pub(super) fn paint_gone(state: &mut State, random: u64) -> Vec<Effect> {
    let Some(Underway { recipe, more }) = state.gone.take() else { return Vec::new() };
    let mut form = Form { count: more.saturating_add(1).to_string(), ..Form::default() };
    form.fill(&recipe);
    paint(state, form, random)
}

/// Gives the picture up, whatever state it is in, and those after it.
pub(super) fn cancel(state: &mut State) -> Vec<Effect> {
    state.waiting.clear();
    let Some(painting) = state.painting.take() else { return Vec::new() };
    if state.given_up.len() == GIVEN_UP_MAX {
        state.given_up.pop_front();
    }
    state.given_up.push_back(painting.recipe);
    vec![Effect::Wish(Wish::Cancel), Effect::KeepUnderway(None)]
}

/// The session has planned a picture: this one, unless it is one that was given up meanwhile.
pub(super) fn planned(state: &mut State, sentence: String, explanation: String, recipe: &Recipe, units: u32) {
    let Some(painting) = state.painting.as_mut() else { return };
    if !same(&painting.recipe, recipe) || state.given_up.iter().any(|given_up| same(given_up, recipe)) {
        return;
    }
    // A plan for this picture means that the session is done with every earlier one, also if it did not say so.
    state.given_up.clear();
    painting.is_planned = true;
    (painting.sentence, painting.explanation, painting.units_in_all) = (sentence, explanation, units);
}

/// A unit was accepted.
pub(super) fn progressed(
    state: &mut State,
    fraction: f32,
    eta_s: Option<f32>,
    units: u32,
    step: Option<u32>,
    doing: String,
) {
    let Some(painting) = present(state) else { return };
    let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { painting.fraction };
    painting.fraction = fraction.max(painting.fraction);
    painting.eta_s = eta_s.filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    (painting.units, painting.step, painting.doing) = (units, step, doing);
}

/// A cheap look; one that lies about its size is not shown.
pub(super) fn previewed(state: &mut State, width: u32, height: u32, rgba: Vec<u8>) {
    let fits = |side: u32| (1..=PREVIEW_SIDE_MAX).contains(&side);
    if !fits(width) || !fits(height) || rgba.len() as u64 != u64::from(width) * u64::from(height) * 4 {
        return;
    }
    let Some(painting) = present(state) else { return };
    painting.preview = Some(Preview { width, height, rgba });
    painting.previews += 1;
}

/// The picture is finished: shows it, keeps it, goes on with the next.
pub(super) fn painted(state: &mut State, mut picture: Picture, png: Vec<u8>) -> Vec<Effect> {
    if state.given_up.pop_front().is_some() {
        return Vec::new();
    }
    if let Some(painting) = state.painting.take() {
        (picture.sentence, picture.explanation) = (painting.sentence, painting.explanation);
    }
    state.error = None;
    let mut effects = keep(state, picture, png, true);
    match state.waiting.pop_front() {
        Some(next) => effects.extend(ask(state, next)),
        None => effects.push(Effect::KeepUnderway(None)),
    }
    effects
}

/// Puts a picture before the recent ones, and perhaps on the easel.
pub(super) fn keep(state: &mut State, picture: Picture, file: Vec<u8>, shows: bool) -> Vec<Effect> {
    if shows {
        state.shown = Some(picture.id.clone());
    }
    state.history.retain(|known| known.id != picture.id);
    state.history.insert(0, picture.clone());
    let mut effects = vec![Effect::KeepPicture(Box::new(picture), file)];
    let ids = surplus(&state.history);
    effects.extend(drop_pictures(state, ids));
    effects
}

/// There will be no picture, and those after it would fail as well.
pub(super) fn failed(state: &mut State, text: String) -> Vec<Effect> {
    if state.given_up.pop_front().is_some() {
        return Vec::new();
    }
    state.painting = None;
    state.waiting.clear();
    state.error = Some(text);
    vec![Effect::KeepUnderway(None)]
}

/// A picture was given up: by the person, which the page knows already, or by the session.
pub(super) fn cancelled(state: &mut State) -> Vec<Effect> {
    if state.given_up.pop_front().is_some() || state.painting.take().is_none() {
        return Vec::new();
    }
    state.waiting.clear();
    vec![Effect::KeepUnderway(None)]
}

fn begin(state: &mut State, recipes: Vec<Recipe>) -> Vec<Effect> {
    let mut effects = cancel(state);
    if state.session == SessionState::Refused {
        effects.extend(rooms::again(state));
    }
    (state.error, state.gone) = (None, None);
    state.batch = recipes.len() as u32;
    state.waiting = recipes.into();
    if let Some(first) = state.waiting.pop_front() {
        effects.extend(ask(state, first));
    }
    effects
}

fn ask(state: &mut State, recipe: Recipe) -> Vec<Effect> {
    let more = state.waiting.len() as u32;
    state.painting = Some(Painting {
        recipe: recipe.clone(),
        is_planned: false,
        fraction: 0.0,
        eta_s: None,
        units: 0,
        units_in_all: 0,
        step: None,
        doing: String::new(),
        sentence: String::new(),
        explanation: String::new(),
        preview: None,
        previews: 0,
        number: (state.batch.saturating_sub(more), state.batch),
    });
    vec![Effect::KeepUnderway(Some(Underway { recipe: recipe.clone(), more })), Effect::Wish(Wish::Paint(recipe))]
}

/// The picture that news are about, if they are not about one that was given up.
fn present(state: &mut State) -> Option<&mut Painting> {
    let told = state.given_up.is_empty();
    state.painting.as_mut().filter(|_| told)
}

fn same(ours: &Recipe, theirs: &Recipe) -> bool {
    ours.seed == theirs.seed
        && (ours.width, ours.height, ours.steps) == (theirs.width, theirs.height, theirs.steps)
        && ours.prompt.trim() == theirs.prompt.trim()
}
