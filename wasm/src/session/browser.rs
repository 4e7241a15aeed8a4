//! The session as a page holds it: joins a room, takes wishes, tells news.

mod engine;
mod inner;
mod listener;
mod relay;
mod worker;

use std::rc::Rc;

use node::lane;
use node::participant::TaskKey;
use node::{Command, Participant, Setup};
use protocol::room::SECRET_BYTES;
use protocol::{PeerId, Policy, RoomLink, RoomSecret};
use tokio::sync::mpsc;
use wasm_bindgen_futures::spawn_local;

use self::inner::Inner;
use self::listener::Listener;
use crate::fetch;
use crate::session::order::{made_up_name, sentence, shown_name};
use crate::words::probe::{Measured, Probe};
use crate::words::{EngineState, News, Options, Wish};

/// How long an own job waits for somebody who lends before this device paints it: a member that just came needs no longer
/// than this to offer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(4);

/// The model, if nobody names another.
const MODEL: &str = "demo";

/// One participant in this page. Dropping it leaves the room.
pub struct Session {
    inner: Rc<Inner>,
    _listeners: Vec<Listener>,
}

impl Session {
    /// Joins the room of `link`, or paints alone without one. `tell` hears all news, from the first status on. Only a link
    /// that cannot be understood is an error, as a sentence; a relay out of reach is news, and is tried again.
    pub async fn join(link: Option<String>, options: Options, tell: impl Fn(News) + 'static) -> Result<Self, String> {
        let link = link.map(|link| RoomLink::parse(&link)).transpose();
        let link = link.map_err(|error| sentence(&error.to_string()))?;
        let keypair = net::Keypair::generate_ed25519();
        let me = net::peer_name(&keypair.public().to_peer_id());
        let options = Options { name: name(&options.name), model: model(&options.model), ..options };
        let base = fetch::folder(&options.base)?;
        let (starts, asked) = mpsc::unbounded_channel();
        let engine: lane::LaneMaker<TaskKey> = Box::new(move || {
            let (lane, end) = lane::pair();
            // Without a listener the engine's end is dropped, and the lane says that the engine has ended.
            let _ = starts.send(end);
            lane
        });
        let setup = Setup {
            network: None,
            me: Some(me.clone()),
            name: options.name.clone(),
            engine: Some(engine),
            lend: options.lend,
            patience: PATIENCE,
            policy: link.as_ref().map_or_else(Policy::default, |link| link.policy),
        };
        let (participant, commands, notices) = Participant::new(setup);
        let inner = Inner::new(me, link.clone(), options, base, commands, tell);
        inner.show_engine(EngineState::Off, engine::OFF.into(), None);
        inner.tell_status();
        spawn_local(participant.run());
        spawn_local(engine::run(Rc::clone(&inner), asked));
        spawn_local(inner::hear(Rc::clone(&inner), notices));
        if let Some(link) = link {
            spawn_local(relay::connect(Rc::clone(&inner), link, keypair));
        }
        let listeners = [("online", false), ("offline", true)].into_iter().filter_map(|(event, is_offline)| {
            let inner = Rc::downgrade(&inner);
            Listener::on_window(event, move || {
                if let Some(inner) = inner.upgrade() {
                    inner.set_offline(is_offline);
                }
            })
        });
        // Browsers slow hidden pages down; the room is told. The event comes to the document and goes on to its window.
        let seen = Rc::downgrade(&inner);
        let hides = Listener::on_window("visibilitychange", move || {
            let is_hidden = web_sys::window().and_then(|window| window.document()).is_some_and(|page| page.hidden());
            if let Some(inner) = seen.upgrade() {
                inner.throttle(is_hidden);
            }
        });
        Ok(Self { _listeners: listeners.chain(hides).collect(), inner })
    }

    /// Hands over a wish; what becomes of it comes as news.
    pub fn wish(&self, wish: Wish) {
        match wish {
            Wish::Paint(recipe) => self.inner.paint(recipe),
            Wish::Cancel => self.inner.cancel(),
            Wish::Lend(lend) => self.inner.lend(lend),
            Wish::Pause(paused) => self.inner.pause(paused),
            Wish::Rename(name) => self.inner.rename(shown_name(&name)),
            Wish::Pledge(memory_mib) => self.inner.pledge(memory_mib),
            Wish::Leave => self.inner.leave(),
        }
    }

    /// Tells the room good-bye at once, as far as that is possible without waiting: for a page that is being closed.
    pub fn farewell(&self) {
        self.inner.farewell();
    }

    /// Makes the engine lose its GPU, as a driver's crash would; for tests.
    pub fn lose_engine(&self) {
        self.inner.is_losing_engine.notify_one();
    }

    /// Measures the path to a member, or says in a sentence why not.
    pub async fn probe(&self, peer: &str, probe: Probe) -> Result<Measured, String> {
        let network = self.inner.network().ok_or("There is no network to measure; join a room first.")?;
        let peer = PeerId::new(peer).ok_or("That is not a peer's id.")?;
        let measured = network.probe(&peer, probe.into()).await;
        measured.map(Measured::from).map_err(|error| sentence(&error.to_string()))
    }

    /// The room's link, secret included; `None` alone.
    pub fn link(&self) -> Option<String> {
        self.inner.link.as_ref().map(ToString::to_string)
    }

    /// The room's public id; `None` alone.
    pub fn room(&self) -> Option<String> {
        self.inner.link.as_ref().map(|link| link.secret.keys().id().to_string())
    }

    /// This session's peer id.
    pub fn me(&self) -> String {
        self.inner.me.to_string()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.inner.leave();
    }
}

/// The link of a new room at the relay with this web address, or a sentence about what is wrong with the address.
pub fn new_room(relay: &str) -> Result<String, String> {
    let secret = RoomSecret::from_random(rand::random::<[u8; SECRET_BYTES]>());
    let relay = relay.trim().split('#').next().unwrap_or_default().trim_end_matches('/');
    let link = RoomLink { relay: Some(relay.to_owned()), secret, via: Vec::new(), policy: Policy::Friends }.to_string();
    match RoomLink::parse(&link) {
        Ok(_) => Ok(link),
        Err(_) => Err("A relay's address begins with https:// or http:// and names a host.".into()),
    }
}

fn name(given: &str) -> String {
    match shown_name(given) {
        name if name.is_empty() => made_up_name(rand::random(), rand::random()),
        name => name,
    }
}

fn model(given: &str) -> String {
    if given.is_empty() { MODEL.to_owned() } else { given.to_owned() }
}

impl Inner {
    /// Hands a command to the participant. Its queue is longer than any row of clicks; a command beyond it is refused.
    fn command(&self, command: Command) {
        if self.commands.try_send(command).is_err() && !self.has_left.get() {
            self.tell(News::Remark { text: "This session is busy; try again.".into() });
        }
    }
}
