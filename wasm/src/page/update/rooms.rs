//! Rooms: the one in the address, a new one, another one, none.

use protocol::{Policy, RoomLink, RoomSecret};

use super::super::settings::{Settings, Start, room, room_of};
use super::{Effect, leave_behind, pause_or_go_on, queue, remark, sentence};
use crate::page::state::{Engine, Link, SessionState, State};
use crate::words::{EngineState, IceServer, LinkState, Options, Wish};

/// Folder name of the model that the page paints with.
const MODEL: &str = "demo";

/// The page opens: joins the room in its address, or none.
pub(super) fn open(state: &mut State, start: Start) -> Vec<Effect> {
    let (settings, complaint) = Settings::new(&start);
    state.settings = settings;
    state.hidden = start.hidden;
    state.form = start.form.unwrap_or_default();
    state.gone = start.underway;
    if let Some(text) = complaint {
        remark(state, &text);
    }
    match room_of(&start.fragment, &state.settings.relay) {
        None => begin(state, None),
        Some(Ok(link)) => begin(state, Some(&link)),
        Some(Err(text)) => {
            let effects = begin(state, None);
            state.room_error = Some(text);
            effects
        }
    }
}

/// Makes a room and enters it.
pub(super) fn create(state: &mut State, secret: [u8; protocol::room::SECRET_BYTES]) -> Vec<Effect> {
    let relay = Some(state.settings.relay.clone());
    let link = RoomLink { relay, secret: RoomSecret::from_random(secret), via: Vec::new(), policy: Policy::Friends };
    move_to(state, &link)
}

/// Enters the room of a link that was typed or pasted.
pub(super) fn enter(state: &mut State, link: &str) -> Vec<Effect> {
    match room(link) {
        Ok(link) => move_to(state, &link),
        Err(text) => {
            state.room_error = Some(text);
            Vec::new()
        }
    }
}

/// Follows the address, which the person or the Back button changed: what it does not name is left.
pub(super) fn follow(state: &mut State, fragment: &str) -> Vec<Effect> {
    match room_of(fragment, &state.settings.relay) {
        None if state.room.is_none() => {
            state.room_error = None;
            Vec::new()
        }
        None => begin(state, None),
        Some(Ok(link)) if state.room.as_ref() == Some(&link.to_string()) => Vec::new(),
        Some(Ok(link)) => begin(state, Some(&link)),
        Some(Err(text)) => {
            let effects = if state.room.is_some() { begin(state, None) } else { Vec::new() };
            state.room_error = Some(text);
            effects
        }
    }
}

/// The session takes wishes: tells it what happened meanwhile.
pub(super) fn joined(state: &mut State, generation: u32) -> Vec<Effect> {
    if generation != state.generation {
        return Vec::new();
    }
    state.session = SessionState::Open;
    pause_or_go_on(state).into_iter().collect()
}

/// There is no session: says why, and tries to paint alone where a room was asked for.
pub(super) fn refused(state: &mut State, generation: u32, text: &str) -> Vec<Effect> {
    if generation != state.generation {
        return Vec::new();
    }
    let text = sentence(text);
    if state.room.is_some() {
        let effects = begin(state, None);
        state.room_error = Some(text);
        return effects;
    }
    leave_behind(state);
    state.session = SessionState::Refused;
    state.link = Link { state: LinkState::Left, text: text.clone() };
    state.error = Some(text);
    vec![Effect::KeepUnderway(None)]
}

/// Tries once more what was refused.
pub(super) fn again(state: &mut State) -> Vec<Effect> {
    begin(state, None)
}

fn move_to(state: &mut State, link: &RoomLink) -> Vec<Effect> {
    if state.room.as_ref() == Some(&link.to_string()) {
        state.room_error = None;
        return Vec::new();
    }
    let text = link.to_string();
    let fragment = text.split_once('#').map(|(_, fragment)| fragment.to_owned()).unwrap_or_default();
    state.settings.relay = link.relay.clone().unwrap_or_else(|| state.settings.relay.clone());
    let relay = Some(state.settings.relay.clone()).filter(|relay| *relay != state.settings.base);
    let mut effects = vec![Effect::Address { fragment, relay }];
    effects.extend(begin(state, Some(link)));
    effects
}

/// Ends the present session, with its picture, and begins another.
fn begin(state: &mut State, link: Option<&RoomLink>) -> Vec<Effect> {
    let ended_a_picture = state.painting.is_some();
    leave_behind(state);
    state.generation += 1;
    state.session = SessionState::Joining;
    state.room = link.map(ToString::to_string);
    state.room_error = None;
    state.error = None;
    let text = if link.is_some() { "Entering the room." } else { "Painting alone." };
    state.link =
        Link { state: if link.is_some() { LinkState::Connecting } else { LinkState::Alone }, text: text.into() };
    state.engine =
        Engine { state: EngineState::Off, text: "Not started; it starts when it is needed.".into(), progress: None };
    let remembered = &state.settings.remembered;
    let stun = Some(&state.settings.stun).filter(|host| !host.is_empty());
    let stun = stun.map(|host| IceServer { urls: vec![format!("stun:{host}")], ..IceServer::default() });
    let options = Options {
        name: remembered.name.clone(),
        lend: state.lends(),
        engine: state.settings.engine,
        memory_mib: remembered.pledge,
        ice_servers: stun.into_iter().collect(),
        relayed_only: state.settings.relayed_only,
        base: state.settings.base.clone(),
        model: MODEL.into(),
    };
    let queue = queue::begin(state, link);
    let join = Effect::Join { generation: state.generation, link: state.room.clone(), options };
    let cancel = ended_a_picture.then_some([Effect::Wish(Wish::Cancel), Effect::KeepUnderway(None)]);
    cancel.into_iter().flatten().chain([join]).chain(queue).collect()
}
