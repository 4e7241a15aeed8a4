//! Who is in the room: one item per peer, with hooks for scripts.

use super::places::{Places, part, set_attribute, set_part};
use crate::page::state::State;
use crate::page::telling;

pub fn show(places: &Places, state: &State) {
    let count = state.peers.len();
    places.text("peers-count", &if count > 1 { count.to_string() } else { String::new() });
    let items = places.items("peers", "peer-template", count);
    for (item, peer) in items.iter().zip(&state.peers) {
        let facts = [
            ("data-peer", peer.id.as_str()),
            ("data-path", &peer.path),
            ("data-units", &peer.units_given.to_string()),
            ("data-taken", &peer.units_taken.to_string()),
            ("data-me", if peer.is_me { "true" } else { "false" }),
            ("data-lends", if peer.device.is_empty() { "false" } else { "true" }),
        ];
        for (name, value) in facts {
            set_attribute(item, name, Some(value));
        }
        set_part(item, "name", &telling::name(peer));
        set_part(item, "doing", &peer.doing);
        set_part(item, "device", &peer.device);
        set_part(item, "path", &peer.path);
        set_part(item, "units", &telling::units(peer));
        if let Some(tag) = part(item, "me") {
            set_attribute(&tag, "hidden", (!peer.is_me).then_some(""));
        }
    }
}
