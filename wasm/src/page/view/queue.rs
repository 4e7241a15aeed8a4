//! The choice of quality, and the person's jobs in the relay's queue: one item per job, with hooks for scripts.

use super::places::{Places, part, set_attribute, set_part};
use crate::page::jobs::QueueJob;
use crate::page::state::State;
use crate::page::telling::{self, queue as words};
use crate::queue::Offer;

pub fn show(places: &Places, state: &State) {
    show_quality(places, state);
    let queue = &state.queue;
    let line = words::line(queue);
    places.text("queue-line", &line);
    places.shown("queue-line", !line.is_empty() && queue.is_watching);
    places.attribute("queue-line", "data-waiting", queue.line.map(|line| line.waiting.to_string()).as_deref());
    let items = places.items("jobs", "job-template", queue.jobs.len());
    places.shown("jobs", !queue.jobs.is_empty());
    for (item, job) in items.iter().zip(&queue.jobs) {
        show_job(item, job, &queue.offers);
    }
}

/// Only a room whose relay keeps a queue has a choice. A job type decides about size, steps and guidance.
fn show_quality(places: &Places, state: &State) {
    let queue = &state.queue;
    let chosen = queue.chosen(&state.form);
    places.shown("quality", !queue.offers.is_empty());
    places.attribute("quality", "data-cloud", chosen.map(|offer| words::cloud_name(offer.cloud)));
    // The form's wish, also before the relay has said what it offers: what is shown is read again with the next key.
    places.checked("quality-high", state.form.is_high);
    places.checked("quality-quick", !state.form.is_high);
    for id in ["size-box", "steps-box", "guidance-box"] {
        places.shown(id, chosen.is_none());
    }
    places.shown("kind-box", chosen.is_some());
    let options = places.items("kind-field", "kind-template", queue.offers.len());
    for (option, offer) in options.iter().zip(&queue.offers) {
        set_attribute(option, "value", Some(&offer.kind));
        super::places::set_text(option, &words::offer(offer));
    }
    // Also while the room paints: a list shows its first entry by itself, which would be read as the person's choice.
    if let Some(offer) = queue.offer(&state.form.kind) {
        places.value("kind-field", &offer.kind);
    }
    places.text("quality-note", &words::quality(queue, &state.form));
}

fn show_job(item: &web_sys::Element, job: &QueueJob, offers: &[Offer]) {
    let view = job.view.as_ref();
    let position = view.and_then(|view| view.position).map(|position| position.to_string());
    let eta = view.and_then(|view| view.eta_s).map(|seconds| format!("{seconds:.1}"));
    let cost = view.map(|view| format!("{:.6}", view.cost_usd));
    let facts = [
        ("data-id", Some(job.kept.key.as_str())),
        ("data-job", job.kept.id.as_deref()),
        ("data-stage", Some(job.stage.name())),
        ("data-status", view.map(|view| words::status_name(view.status))),
        ("data-position", position.as_deref()),
        ("data-eta", eta.as_deref()),
        ("data-source", view.and_then(|view| view.source).map(words::source_name)),
        ("data-worker", view.map(|view| view.worker.as_str())),
        ("data-cost", cost.as_deref()),
    ];
    for (name, value) in facts {
        set_attribute(item, name, value);
    }
    let prompt = telling::quoted(&job.kept.recipe.prompt);
    set_part(item, "prompt", &prompt);
    set_part(item, "kind", &job.kept.label);
    set_part(item, "doing", &words::doing(job, offers));
    let route = view.map(|view| view.route.as_str()).unwrap_or_default();
    set_part(item, "route", route);
    for (name, is_shown) in [
        ("bar", !job.stage.is_final()),
        ("why", !route.is_empty()),
        ("cancel", job.stage.can_cancel()),
        ("again", job.stage.can_repeat()),
        ("away", job.stage.is_final()),
    ] {
        if let Some(place) = part(item, name) {
            set_attribute(&place, "hidden", (!is_shown).then_some(""));
        }
    }
    for (name, verb) in [("cancel", "Cancel"), ("again", "Paint again"), ("away", "Dismiss")] {
        if let Some(button) = part(item, name) {
            set_attribute(&button, "aria-label", Some(&format!("{verb}: {prompt}")));
        }
    }
    if let Some(bar) = part(item, "bar") {
        // Without a value it says that nobody knows, which is so while the job waits.
        let fraction = view.map(|view| view.fraction).filter(|fraction| *fraction > 0.0);
        set_attribute(&bar, "value", fraction.map(|fraction| format!("{fraction:.3}")).as_deref());
        set_attribute(&bar, "aria-label", Some(&format!("Progress of {prompt}")));
    }
}
