//! The strip of recent pictures, and the remarks.

use super::pictures::Pictures;
use super::places::{Places, part, set_attribute, set_part};
use crate::page::state::State;
use crate::page::telling;

pub fn show(places: &Places, pictures: &Pictures, state: &State) {
    places.shown("recent", !state.history.is_empty());
    let items = places.items("history", "recent-template", state.history.len());
    for (item, picture) in items.iter().zip(&state.history) {
        let prompt = telling::quoted(&picture.recipe.prompt);
        set_attribute(item, "data-id", Some(&picture.id));
        set_attribute(
            item,
            "data-shown",
            Some(if state.shown.as_ref() == Some(&picture.id) { "true" } else { "false" }),
        );
        if let Some(image) = part(item, "image") {
            set_attribute(&image, "src", pictures.url(&picture.id));
            set_attribute(&image, "alt", Some(&prompt));
        }
        if let Some(open) = part(item, "open") {
            set_attribute(&open, "title", Some(&prompt));
        }
        if let Some(remove) = part(item, "remove") {
            set_attribute(&remove, "aria-label", Some(&format!("Delete {prompt}")));
        }
    }
}

pub fn show_remarks(places: &Places, state: &State) {
    let items = places.items("remarks", "remark-template", state.remarks.len());
    for (item, remark) in items.iter().zip(&state.remarks) {
        set_attribute(item, "data-id", Some(&remark.id.to_string()));
        set_part(item, "text", &remark.text);
    }
}
