//! What a session's tasks share: the board, the standing, and the way to the participant and to whoever listens.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_timer::Delay;
use node::{Command, Notice};
use protocol::{PeerId, RoomLink};
use tokio::sync::{Notify, mpsc};
use wasm_bindgen_futures::spawn_local;
use web_sys::RequestCache;
use web_time::Instant;

use crate::fetch;
use crate::session::board::Board;
use crate::session::order::{self, CARD_BYTES_MAX, Checked, Model};
use crate::session::status::Standing;
use crate::words::{EngineState, LinkState, News, Options, Recipe};

/// The members are told at most this often.
const PEERS_EVERY: Duration = Duration::from_millis(250);

/// The card is a few kilobytes; a network that needs longer for it carries no tensors either.
const CARD_TIME_MAX: Duration = Duration::from_secs(15);

/// Shared by a session's tasks.
pub struct Inner {
    pub me: PeerId,
    pub link: Option<RoomLink>,
    pub options: Options,
    /// Folder of engine and models, ending in a slash.
    pub base: String,
    pub commands: mpsc::Sender<Command>,
    /// Most memory for the engine, from its next start on.
    pub memory_mib: Cell<Option<u32>>,
    pub standing: RefCell<Standing>,
    pub has_left: Cell<bool>,
    /// The network came back.
    pub is_online: Notify,
    /// The engine is to lose its device.
    pub is_losing_engine: Notify,
    listener: Box<dyn Fn(News)>,
    board: RefCell<Board>,
    told: RefCell<Option<(LinkState, String)>>,
    engine: RefCell<(EngineState, String)>,
    is_paused: Cell<bool>,
    network: RefCell<Option<net::Handle>>,
    card: RefCell<Option<Rc<Model>>>,
    /// Wishes to paint, counted.
    wishes: Cell<u64>,
    /// The wish that is being checked.
    checking: Cell<Option<u64>>,
    /// The members may have changed without a notice.
    is_poked: Notify,
    began: Instant,
}

impl Inner {
    /// The beginning of a session.
    pub fn new(
        me: PeerId,
        link: Option<RoomLink>,
        options: Options,
        base: String,
        commands: mpsc::Sender<Command>,
        listener: impl Fn(News) + 'static,
    ) -> Rc<Self> {
        let is_offline = web_sys::window().is_some_and(|window| !window.navigator().on_line());
        let standing = Standing {
            has_room: link.is_some(),
            has_relay: link.as_ref().is_some_and(|link| link.relay.is_some()),
            relayed_only: options.relayed_only,
            is_offline,
            abilities: net::abilities(),
            ..Standing::default()
        };
        let mut board = Board::new(me.clone(), options.name.clone());
        board.set_lending(options.lend);
        Rc::new(Self {
            me,
            link,
            base,
            commands,
            memory_mib: Cell::new(options.memory_mib),
            standing: RefCell::new(standing),
            has_left: Cell::new(false),
            is_online: Notify::new(),
            is_losing_engine: Notify::new(),
            listener: Box::new(listener),
            board: RefCell::new(board),
            told: RefCell::new(None),
            engine: RefCell::new((EngineState::Off, String::new())),
            is_paused: Cell::new(false),
            network: RefCell::new(None),
            card: RefCell::new(None),
            wishes: Cell::new(0),
            checking: Cell::new(None),
            is_poked: Notify::new(),
            began: Instant::now(),
            options,
        })
    }

    /// Tells the listener.
    pub fn tell(&self, news: News) {
        (self.listener)(news);
    }

    /// Paints as soon as the recipe is checked.
    pub fn paint(self: &Rc<Self>, recipe: Recipe) {
        let wish = self.wishes.get() + 1;
        self.wishes.set(wish);
        if self.checking.replace(Some(wish)).is_some() {
            self.tell(News::Cancelled);
        }
        let inner = Rc::clone(self);
        spawn_local(async move {
            let wished = inner.began.elapsed();
            let checked = inner.check(recipe).await;
            if inner.checking.get() != Some(wish) || inner.has_left.get() {
                return;
            }
            inner.checking.set(None);
            match checked {
                Ok(checked) => inner.begin(checked, wished),
                Err(text) => {
                    inner.command(Command::Cancel);
                    inner.tell(News::Failed { text });
                }
            }
        });
    }

    /// Gives the picture up, at whatever point it is.
    pub fn cancel(&self) {
        if self.checking.take().is_some() {
            self.tell(News::Cancelled);
        }
        self.command(Command::Cancel);
    }

    /// Begins or ends lending.
    pub fn lend(&self, lend: bool) {
        self.board.borrow_mut().set_lending(lend);
        self.is_poked.notify_one();
        self.command(Command::Lend(lend));
    }

    /// The page works slower than it could, because nobody sees it, or does so no longer.
    pub fn throttle(&self, is_throttled: bool) {
        self.command(Command::Throttle(is_throttled));
    }

    /// Stops working for others, or goes on.
    pub fn pause(&self, paused: bool) {
        self.is_paused.set(paused);
        self.command(Command::Pause(paused));
        let (state, text) = self.engine.borrow().clone();
        if state == EngineState::Ready {
            self.show_engine(state, text, None);
        }
    }

    /// Gives the engine at most so much memory when it starts next.
    pub fn pledge(&self, memory_mib: u32) {
        self.memory_mib.set(Some(memory_mib));
        // It may have failed for want of memory: it is tried again when it is needed.
        if self.engine.borrow().0 == EngineState::Failed {
            self.show_engine(EngineState::Off, super::engine::OFF.into(), None);
        }
    }

    /// Goes by another name; an empty one changes nothing.
    pub fn rename(&self, name: String) {
        if name.is_empty() {
            return;
        }
        self.board.borrow_mut().rename(name.clone());
        self.is_poked.notify_one();
        self.command(Command::Rename(name));
    }

    /// Leaves the room and ends all tasks. A second call does nothing.
    pub fn leave(&self) {
        if self.has_left.get() {
            return;
        }
        self.command(Command::Stop);
        self.has_left.set(true);
        self.is_online.notify_one();
        self.standing.borrow_mut().has_left = true;
        self.tell_status();
    }

    /// Closes all connections before the page is gone.
    pub fn farewell(&self) {
        if let Some(network) = self.network.borrow().as_ref() {
            network.farewell();
        }
    }

    /// The room's network is there.
    pub fn enter(&self, network: net::Handle) {
        self.network.replace(Some(network));
    }

    /// The room's network, once it is there.
    pub fn network(&self) -> Option<net::Handle> {
        self.network.borrow().clone()
    }

    /// The relay cannot be reached, for this reason; or that is over.
    pub fn set_trouble(&self, trouble: Option<String>) {
        self.standing.borrow_mut().trouble = trouble;
        self.tell_status();
    }

    /// The browser says that it lost, or found, the network.
    pub fn set_offline(&self, is_offline: bool) {
        self.standing.borrow_mut().is_offline = is_offline;
        if !is_offline {
            self.is_online.notify_one();
        }
        self.tell_status();
    }

    /// Tells how the session stands, if that changed.
    pub fn tell_status(&self) {
        let status = self.standing.borrow().tell();
        if self.told.borrow().as_ref() == Some(&status) {
            return;
        }
        self.told.replace(Some(status.clone()));
        let (state, text) = status;
        self.tell(News::Status { state, text });
    }

    /// Tells how the engine stands.
    pub fn show_engine(&self, state: EngineState, text: String, progress: Option<(u64, u64)>) {
        self.engine.replace((state, text.clone()));
        let (state, text) = match state {
            EngineState::Ready if self.is_paused.get() => {
                (EngineState::Paused, format!("{text} Paused: nothing is computed for others."))
            }
            state => (state, text),
        };
        self.tell(News::Engine { state, text, progress });
    }

    fn begin(&self, checked: Checked, wished: Duration) {
        let is_lent = self.board.borrow().is_lent(checked.order.spec.model);
        self.board.borrow_mut().begin(&checked, wished);
        // An engine that has failed for good may still wait for others.
        if !is_lent && self.engine.borrow().0 != EngineState::Failed {
            self.command(Command::LendToSelf);
        }
        self.command(Command::Paint(Box::new(checked.order)));
    }

    async fn check(&self, recipe: Recipe) -> Result<Checked, String> {
        let card = self.card().await?;
        order::check(recipe, &card, u64::from(rand::random::<u32>()))
    }

    /// The model's card, fetched once.
    async fn card(&self) -> Result<Rc<Model>, String> {
        if let Some(card) = self.card.borrow().as_ref() {
            return Ok(Rc::clone(card));
        }
        let model = &self.options.model;
        let url = format!("{}models/{model}/model.json", self.base);
        let answer = fetch::get(&url, CARD_BYTES_MAX, CARD_TIME_MAX, RequestCache::Default).await;
        let answer = answer.map_err(|error| format!("The model {model} cannot be fetched from {url} ({error})."))?;
        let card = Rc::new(order::read_card(&answer)?);
        self.card.replace(Some(Rc::clone(&card)));
        Ok(card)
    }

    fn handle(&self, notice: Notice) {
        let is_farewell = matches!(notice, Notice::Left(_) | Notice::Withdrew(_));
        match &notice {
            Notice::RelayConnected => {
                let mut standing = self.standing.borrow_mut();
                (standing.is_connected, standing.was_connected, standing.trouble) = (true, true, None);
            }
            Notice::RelayLost => self.standing.borrow_mut().is_connected = false,
            _ => {}
        }
        let news = self.board.borrow_mut().handle(notice, self.began.elapsed());
        let members = self.board.borrow().members();
        self.standing.borrow_mut().members = members;
        self.tell_status();
        news.into_iter().for_each(|news| self.tell(news));
        // Nobody is left who could take the units: waiting brings nothing.
        let is_alone = is_farewell && members == 0 && self.board.borrow().is_painting();
        if is_alone && self.engine.borrow().0 != EngineState::Failed {
            self.command(Command::LendToSelf);
        }
    }
}

/// Turns the participant's notices into news until it ends.
pub async fn hear(inner: Rc<Inner>, mut notices: mpsc::Receiver<Notice>) {
    let mut peers_at = Instant::now();
    loop {
        let is_due = inner.board.borrow().is_changed();
        let left = peers_at.saturating_duration_since(Instant::now());
        if is_due && left.is_zero() {
            let peers = inner.board.borrow_mut().take_peers();
            peers.into_iter().for_each(|peers| inner.tell(peers));
            peers_at = Instant::now() + PEERS_EVERY;
            continue;
        }
        tokio::select! {
            notice = notices.recv() => match notice {
                Some(notice) => inner.handle(notice),
                None => return,
            },
            () = inner.is_poked.notified() => {}
            () = Delay::new(left), if is_due => {}
        }
    }
}
