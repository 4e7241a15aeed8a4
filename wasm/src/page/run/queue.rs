//! Asks the relay's queue what the page wants to know, after its pauses, and tells what was answered.

use std::rc::Rc;
use std::time::Duration;

use futures_timer::Delay;
use protocol::RoomLink;
use wasm_bindgen_futures::spawn_local;

use super::{Page, address};
use crate::page::update::Msg;
use crate::queue::{Desk, Request};

/// Opens the desk of a room's queue, in place of the one before.
pub fn open(page: &Rc<Page>, generation: u32, link: &str, room: &str) {
    let desk = RoomLink::parse(link).ok().and_then(|link| Desk::of(&link));
    page.desk.replace(desk.map(Rc::new));
    let kept = address::jobs(&page.window, room);
    page.tell(Msg::QueueOpened(generation, kept));
}

/// Asks after a pause, unless the page has gone to another room meanwhile.
pub fn ask(page: &Rc<Page>, generation: u32, request: Request, after_ms: u32) {
    let page = Rc::clone(page);
    spawn_local(async move {
        if after_ms > 0 {
            Delay::new(Duration::from_millis(after_ms.into())).await;
        }
        let desk = page.desk.borrow().clone();
        let Some(desk) = desk.filter(|_| page.state.borrow().generation == generation) else { return };
        let answer = desk.ask(&request).await;
        let now_ms = js_sys::Date::now() as u64;
        page.tell(Msg::Answered(generation, Box::new(request), Box::new(answer), now_ms));
    });
}
