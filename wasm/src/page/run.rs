//! Joins the three: events and news in, [`update`], effects out, and the view after each round.

mod address;
mod queue;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{Blob, Window};

use super::history::{Database, StoreError};
use super::state::{Copied, Picture, State};
use super::update::{Effect, Msg, update};
use super::view::{Pictures, View};
use crate::queue::Desk;
use crate::session::Session;
use crate::words::{News, Options, Wish};

/// Wishes that wait for a session; a person makes no more while it opens.
const WISHES_MAX: usize = 64;

/// How often a full storage is asked again after old pictures were removed.
const STORE_ATTEMPTS: usize = 3;

thread_local! {
    static PAGE: RefCell<Option<Rc<Page>>> = const { RefCell::new(None) };
}

/// The page at work.
struct Page {
    window: Window,
    state: RefCell<State>,
    view: RefCell<View>,
    inbox: RefCell<VecDeque<Msg>>,
    is_busy: Cell<bool>,
    session: RefCell<Held>,
    database: RefCell<Option<Database>>,
    /// Where the present room's queue is asked.
    desk: RefCell<Option<Rc<Desk>>>,
}

/// The session, or the wishes that wait for it.
enum Held {
    Waiting(VecDeque<Wish>),
    Open(Session),
}

/// Opens the page in a document that holds index.html. A second call does nothing.
#[wasm_bindgen]
pub fn page_open() {
    let Some(window) = web_sys::window() else { return };
    let Some(document) = window.document() else { return };
    if PAGE.with_borrow(Option::is_some) {
        return;
    }
    let page = Rc::new(Page {
        window: window.clone(),
        state: RefCell::new(State::new()),
        view: RefCell::new(View::new(document)),
        inbox: RefCell::default(),
        is_busy: Cell::new(false),
        session: RefCell::new(Held::Waiting(VecDeque::new())),
        database: RefCell::new(None),
        desk: RefCell::new(None),
    });
    PAGE.set(Some(Rc::clone(&page)));
    let heard = Rc::clone(&page);
    let tell: Rc<dyn Fn(Msg)> = Rc::new(move |msg| heard.tell(msg));
    page.view.borrow().listen(&tell);
    page.tell(Msg::Opened(Box::new(address::start(&window))));
    spawn_local(load_history(Rc::clone(&page)));
    address::at_farewell(&window, move || {
        if let Held::Open(session) = &*page.session.borrow() {
            session.farewell();
        }
    });
}

/// The state as JSON, for scripts and tests to read.
#[wasm_bindgen]
pub fn page_state() -> String {
    let state = |page: &Rc<Page>| serde_json::to_string(&*page.state.borrow());
    PAGE.with_borrow(|page| page.as_ref().map(state)).and_then(Result::ok).unwrap_or_else(|| "null".into())
}

/// Shows a remark of the script that starts the page.
#[wasm_bindgen]
pub fn page_remark(text: &str) {
    let page = PAGE.with_borrow(Clone::clone);
    if let Some(page) = page {
        page.tell(Msg::Remark(text.to_owned()));
    }
}

impl Page {
    /// Takes a message. One that comes while another is worked on waits its turn.
    fn tell(self: &Rc<Self>, msg: Msg) {
        self.inbox.borrow_mut().push_back(msg);
        if self.is_busy.replace(true) {
            return;
        }
        loop {
            let Some(msg) = self.inbox.borrow_mut().pop_front() else { break };
            let effects = update(&mut self.state.borrow_mut(), msg);
            for effect in effects {
                self.carry_out(effect);
            }
        }
        self.view.borrow_mut().show(&self.state.borrow());
        self.is_busy.set(false);
    }

    fn carry_out(self: &Rc<Self>, effect: Effect) {
        match effect {
            Effect::Join { generation, link, options } => self.join(generation, link, options),
            Effect::Wish(wish) => self.wish(wish),
            Effect::Address { fragment, relay } => address::show(&self.window, &fragment, relay.as_deref()),
            Effect::Remember(remembered) => address::remember(&self.window, &remembered),
            Effect::KeepForm(form) => address::keep_form(&self.window, &form),
            Effect::KeepUnderway(underway) => address::keep_underway(&self.window, underway.as_ref()),
            Effect::OpenQueue { generation, link, room } => queue::open(self, generation, &link, &room),
            Effect::Ask { generation, request, after_ms } => queue::ask(self, generation, request, after_ms),
            Effect::KeepJobs { room, jobs } => address::keep_jobs(&self.window, &room, &jobs),
            Effect::KeepPicture(picture, file) => {
                let Some(blob) = Pictures::blob(&file, picture.file.mime()) else { return };
                self.view.borrow_mut().pictures.hold(&picture.id, blob.clone());
                spawn_local(keep(Rc::clone(self), *picture, blob));
            }
            Effect::DropPictures(ids) => {
                ids.iter().for_each(|id| self.view.borrow_mut().pictures.drop(id));
                let database = self.database.borrow().clone();
                spawn_local(async move {
                    if let Some(database) = database {
                        // What stays behind is dropped as surplus at the next visit.
                        let _ = database.remove(&ids).await;
                    }
                });
            }
            Effect::Copy(what, text) => spawn_local(copy(Rc::clone(self), what, text)),
            Effect::Point(field) => self.view.borrow().point(field),
        }
    }

    /// Ends the present session and begins another, which hears the wishes made meanwhile.
    fn join(self: &Rc<Self>, generation: u32, link: Option<String>, options: Options) {
        let old = self.session.replace(Held::Waiting(VecDeque::new()));
        if let Held::Open(session) = old {
            session.wish(Wish::Leave);
        }
        let page = Rc::clone(self);
        spawn_local(async move {
            let hearing = Rc::downgrade(&page);
            let tell = move |news: News| {
                if let Some(page) = hearing.upgrade() {
                    let now_ms = js_sys::Date::now() as u64;
                    page.tell(Msg::Told(generation, Box::new(news), now_ms));
                }
            };
            let joined = Session::join(link, options, tell).await;
            if page.state.borrow().generation != generation {
                return;
            }
            match joined {
                Ok(session) => {
                    let waiting = match &mut *page.session.borrow_mut() {
                        Held::Waiting(wishes) => std::mem::take(wishes),
                        Held::Open(_) => VecDeque::new(),
                    };
                    waiting.into_iter().for_each(|wish| session.wish(wish));
                    page.session.replace(Held::Open(session));
                    page.tell(Msg::Joined(generation));
                }
                Err(text) => page.tell(Msg::JoinRefused(generation, text)),
            }
        });
    }

    fn wish(&self, wish: Wish) {
        match &mut *self.session.borrow_mut() {
            Held::Open(session) => session.wish(wish),
            Held::Waiting(wishes) if wishes.len() < WISHES_MAX => wishes.push_back(wish),
            Held::Waiting(wishes) => {
                wishes.pop_front();
                wishes.push_back(wish);
            }
        }
    }
}

/// Reads the pictures of earlier visits. A browser without a database keeps pictures in memory.
async fn load_history(page: Rc<Page>) {
    let Ok(database) = Database::open().await else { return };
    page.database.replace(Some(database.clone()));
    let Ok(rows) = database.all().await else { return };
    let (pictures, blobs): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    for (picture, blob) in pictures.iter().zip(blobs) {
        let mut view = page.view.borrow_mut();
        if !view.pictures.holds(&picture.id) {
            view.pictures.hold(&picture.id, blob);
        }
    }
    page.tell(Msg::HistoryLoaded(pictures));
}

/// Keeps a picture for later visits; a full storage gives up the oldest ones first.
async fn keep(page: Rc<Page>, picture: Picture, blob: Blob) {
    let database = page.database.borrow().clone();
    let Some(database) = database else {
        return page
            .tell(Msg::Remark("This browser keeps no pictures here; they stay until this tab is closed.".into()));
    };
    for _ in 0..STORE_ATTEMPTS {
        match database.put(&picture, &blob).await {
            Ok(()) => return,
            Err(StoreError::Full) => page.tell(Msg::StorageFull),
            Err(StoreError::Missing) => break,
        }
    }
    page.tell(Msg::Remark("This picture could not be kept for later visits; download it to keep it.".into()));
}

async fn copy(page: Rc<Page>, what: Copied, text: String) {
    // Pages that are not secure have no clipboard.
    let secure = page.window.is_secure_context();
    let copied = secure && JsFuture::from(page.window.navigator().clipboard().write_text(&text)).await.is_ok();
    if !copied && what == Copied::Link {
        page.view.borrow().select_link();
    }
    page.tell(Msg::Copied(what, copied));
}
