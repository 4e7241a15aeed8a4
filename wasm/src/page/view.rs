//! Shows the state in the document, and hears what people do there: the only module that touches the document.
//!
//! index.html holds all markup. Text from anywhere is set as text, never as markup; looks beyond the style sheet go through
//! custom properties, which a strict content security policy allows.

mod here;
mod listen;
mod pictures;
mod places;
mod queue;
mod recent;
mod stage;

use web_sys::Document;

use super::form::{Field, Form};
use super::qr;
use super::state::{Activity, Copied, State};
use super::telling;
use crate::words::{EngineState, LinkState};
pub use listen::random_name;
pub use pictures::Pictures;
use places::Places;

/// The document, and what it shows already.
pub struct View {
    places: Places,
    /// The pictures' bytes.
    pub pictures: Pictures,
    /// Which look of which picture is drawn.
    drawn: Option<(Option<u64>, u32)>,
    /// The link that the code shows.
    coded: Option<String>,
}

impl View {
    /// A view of a document that holds index.html.
    pub fn new(document: Document) -> Self {
        Self { places: Places::new(document), pictures: Pictures::default(), drawn: None, coded: None }
    }

    /// Hears everything people do; `tell` gets it as messages.
    pub fn listen(&self, tell: &std::rc::Rc<dyn Fn(super::update::Msg)>) {
        listen::listen(&self.places, tell);
    }

    /// Shows the state. What has not changed is not touched.
    pub fn show(&mut self, state: &State) {
        self.places.title(&telling::title(state));
        self.show_status(state);
        self.show_form(state);
        self.show_room(state);
        self.show_device(state);
        here::show(&self.places, state);
        queue::show(&self.places, state);
        recent::show(&self.places, &self.pictures, state);
        recent::show_remarks(&self.places, state);
        stage::show(&self.places, &self.pictures, state, &mut self.drawn);
    }

    /// Puts the cursor into a field.
    pub fn point(&self, field: Field) {
        self.places.focus(field_id(field));
    }

    /// Selects the room's link, for browsers that do not let a page copy.
    pub fn select_link(&self) {
        self.places.select("share-link");
    }

    fn show_status(&self, state: &State) {
        let places = &self.places;
        places.text("status-text", &telling::status(state));
        places.attribute("status", "data-state", Some(link_name(state.link.state)));
        places.attribute("status", "data-activity", Some(activity_name(state.activity())));
        places.text("error", state.error.as_deref().unwrap_or_default());
        places.shown("error", state.error.is_some());
        places.text("gone-text", &state.gone.as_ref().map(telling::gone).unwrap_or_default());
        places.shown("gone", state.gone.is_some());
        places.text("live", &telling::aloud(state));
    }

    fn show_form(&self, state: &State) {
        let places = &self.places;
        let Form { prompt, negative, size, steps, guidance, seed, count, .. } = &state.form;
        places.value("prompt-field", prompt);
        places.value("negative-field", negative);
        places.value("size-field", size);
        places.value("steps-field", steps);
        places.value("guidance-field", guidance);
        places.value("seed-field", seed);
        places.value("count-field", count);
        let fields =
            [Field::Prompt, Field::Negative, Field::Size, Field::Steps, Field::Guidance, Field::Seed, Field::Count];
        for field in fields {
            let at_fault = (state.field_at_fault == Some(field)).then_some("true");
            places.attribute(field_id(field), "aria-invalid", at_fault);
            places.attribute(field_id(field), "aria-errormessage", at_fault.map(|_| "error"));
        }
        // Until this module runs, a click would submit the form as browsers did of old.
        places.disabled("paint", false);
        places.disabled("reuse-seed", state.last_seed().is_none());
        let can_cancel = state.queue.jobs.iter().any(|job| job.stage.can_cancel());
        places.disabled("cancel", state.painting.is_none() && !can_cancel);
    }

    fn show_room(&mut self, state: &State) {
        let places = &self.places;
        places.shown("room-in", state.room.is_some());
        places.shown("room-out", state.room.is_none());
        places.value("share-link", state.room.as_deref().unwrap_or_default());
        places.text("copy-link", telling::copy_label(Copied::Link, state.copied));
        places.text("new-room", if state.room.is_some() { "Create another room" } else { "Create a room" });
        places.text("room-error", state.room_error.as_deref().unwrap_or_default());
        places.shown("room-error", state.room_error.is_some());
        places.value_unless_edited("name-field", &state.settings.remembered.name);
        let made_up = state.peers.iter().find(|peer| peer.is_me).map(telling::name);
        places.attribute("name-field", "placeholder", Some(made_up.as_deref().unwrap_or("made up")));
        if self.coded == state.room {
            return;
        }
        let code = state.room.as_deref().and_then(qr::code);
        places.shown("code", code.is_some());
        if let Some(code) = code {
            places.attribute("qr", "viewBox", Some(&format!("0 0 {0} {0}", code.side)));
            places.attribute("qr-path", "d", Some(&code.path));
        }
        self.coded.clone_from(&state.room);
    }

    fn show_device(&self, state: &State) {
        let places = &self.places;
        places.checked("lend", state.lends());
        places.checked("pause-hidden", state.settings.pauses_hidden());
        let pledge = state.settings.remembered.pledge.map(|mib| mib.to_string()).unwrap_or_default();
        places.value_unless_edited("pledge", &pledge);
        places.text("engine-text", &state.engine.text);
        places.attribute("engine", "data-state", Some(engine_name(state.engine.state)));
        let progress = state.engine.progress.filter(|(_, all)| *all > 0);
        places.shown("engine-progress", progress.is_some());
        if let Some((done, all)) = progress {
            places.attribute("engine-progress", "value", Some(&format!("{:.3}", done as f64 / all as f64)));
        }
    }
}

fn field_id(field: Field) -> &'static str {
    match field {
        Field::Prompt => "prompt-field",
        Field::Negative => "negative-field",
        Field::Size => "size-field",
        Field::Steps => "steps-field",
        Field::Guidance => "guidance-field",
        Field::Seed => "seed-field",
        Field::Count => "count-field",
    }
}

fn link_name(state: LinkState) -> &'static str {
    match state {
        LinkState::Connecting => "connecting",
        LinkState::Connected => "connected",
        LinkState::Lost => "lost",
        LinkState::Alone => "alone",
        LinkState::Left => "left",
    }
}

fn engine_name(state: EngineState) -> &'static str {
    match state {
        EngineState::Off => "off",
        EngineState::Loading => "loading",
        EngineState::Ready => "ready",
        EngineState::Paused => "paused",
        EngineState::Failed => "failed",
    }
}

fn activity_name(activity: Activity) -> &'static str {
    match activity {
        Activity::Starting => "starting",
        Activity::Idle => "idle",
        Activity::Planning => "planning",
        Activity::Painting => "painting",
    }
}
