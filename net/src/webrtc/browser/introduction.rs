//! How a page introduces itself: offer, answer and candidates, as libp2p's `/webrtc` has it.
//!
//! The circuit is encrypted from end to end and both ends are authenticated, so the fingerprints in the descriptions
//! belong to the peers that sent them; nothing is proved again on the connection itself.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use futures::future::{Either, select};
use futures::io::{ReadHalf, WriteHalf};
use futures::task::AtomicWaker;
use futures::{AsyncReadExt, AsyncWriteExt};
use js_sys::{JSON, Reflect};
use libp2p::Stream;
use wasm_bindgen::prelude::Closure;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{
    RtcConfiguration, RtcIceCandidateInit, RtcPeerConnection, RtcPeerConnectionIceEvent, RtcSdpType,
    RtcSessionDescriptionInit,
};

use super::connection::Connection;
use crate::browser::Sockets;
use crate::limits::{CANDIDATES_MAX, SIGNALLING_TIME_MAX};
use crate::roster::pause;
use crate::signalling::words::{self, Kind};
use crate::webrtc::{Error, Role};

/// Introduces this page to the one at the other end of `stream`, and waits until they are connected.
pub(super) async fn introduce(
    stream: Stream,
    role: Role,
    servers: &RtcConfiguration,
    sockets: &Sockets,
) -> Result<Connection, Error> {
    match select(pin!(talk(stream, role, servers, sockets)), pin!(pause(SIGNALLING_TIME_MAX))).await {
        Either::Left((result, _)) => result,
        Either::Right(((), _)) => Err(Error::Late),
    }
}

/// The ways to this page that the browser has found and the other side has not been told.
#[derive(Default)]
struct Candidates {
    found: RefCell<VecDeque<String>>,
    news: AtomicWaker,
}

/// Listens for candidates until it is dropped.
struct Finder {
    connection: RtcPeerConnection,
    candidates: Rc<Candidates>,
    _closure: Closure<dyn FnMut(RtcPeerConnectionIceEvent)>,
}

async fn talk(stream: Stream, role: Role, servers: &RtcConfiguration, sockets: &Sockets) -> Result<Connection, Error> {
    let (mut reader, mut writer) = stream.split();
    let browser = RtcPeerConnection::new_with_configuration(servers)?;
    // Listens before any description is set: channels of the other side may come at once.
    let connection = Connection::new(browser.clone(), sockets);
    let finder = Finder::attach(&browser);
    match role {
        Role::Offerer => {
            let first = connection.open_first()?;
            let offer = JsFuture::from(browser.create_offer()).await?;
            describe_self(&browser, RtcSdpType::Offer, &offer, &mut writer).await?;
            describe_other(&browser, RtcSdpType::Answer, &mut reader).await?;
            connect(&connection, &browser, &finder, &mut reader, &mut writer).await?;
            first.close();
        }
        Role::Answerer => {
            describe_other(&browser, RtcSdpType::Offer, &mut reader).await?;
            let answer = JsFuture::from(browser.create_answer()).await?;
            describe_self(&browser, RtcSdpType::Answer, &answer, &mut writer).await?;
            connect(&connection, &browser, &finder, &mut reader, &mut writer).await?;
        }
    }
    spawn_local(async move {
        // The other side may have closed the circuit already.
        let _ = writer.close().await;
    });
    Ok(connection)
}

/// Takes our description and sends it.
async fn describe_self(
    browser: &RtcPeerConnection,
    kind: RtcSdpType,
    description: &JsValue,
    writer: &mut WriteHalf<Stream>,
) -> Result<(), Error> {
    let text = Reflect::get(description, &"sdp".into())?.as_string().ok_or(Error::Malformed)?;
    let init = RtcSessionDescriptionInit::new(kind);
    init.set_sdp(&text);
    JsFuture::from(browser.set_local_description(&init)).await?;
    let word = if kind == RtcSdpType::Offer { Kind::Offer } else { Kind::Answer };
    Ok(words::write(writer, word, text).await?)
}

/// Reads the other side's description and takes it.
async fn describe_other(
    browser: &RtcPeerConnection,
    kind: RtcSdpType,
    reader: &mut ReadHalf<Stream>,
) -> Result<(), Error> {
    let expected = if kind == RtcSdpType::Offer { Kind::Offer } else { Kind::Answer };
    let text = match words::read(reader).await? {
        Some((word, text)) if word == expected => text,
        _ => return Err(Error::Malformed),
    };
    let init = RtcSessionDescriptionInit::new(kind);
    init.set_sdp(&text);
    JsFuture::from(browser.set_remote_description(&init)).await?;
    Ok(())
}

/// Exchanges candidates until there is a way.
async fn connect(
    connection: &Connection,
    browser: &RtcPeerConnection,
    finder: &Finder,
    reader: &mut ReadHalf<Stream>,
    writer: &mut WriteHalf<Stream>,
) -> Result<(), Error> {
    let hearing = async {
        for _ in 0..CANDIDATES_MAX {
            match words::read(reader).await {
                Ok(Some((Kind::Candidate, text))) => try_candidate(browser, &text).await,
                Ok(_) => (),
                // The other side is connected and has said all it will.
                Err(_) => break,
            }
        }
        pending::<()>().await
    };
    let telling = async {
        for _ in 0..CANDIDATES_MAX {
            if words::write(writer, Kind::Candidate, finder.next().await).await.is_err() {
                break;
            }
        }
        pending::<()>().await
    };
    let (hearing, telling) = (pin!(hearing), pin!(telling));
    match select(pin!(connection.connected()), select(hearing, telling)).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Err(Error::Malformed),
    }
}

/// Gives the browser a candidate; one that it cannot use is not tried.
async fn try_candidate(browser: &RtcPeerConnection, text: &str) {
    let Ok(candidate) = JSON::parse(text) else { return };
    if !candidate.is_object() {
        return;
    }
    let candidate: RtcIceCandidateInit = candidate.unchecked_into();
    let adding = browser.add_ice_candidate_with_opt_rtc_ice_candidate_init(Some(&candidate));
    let _ = JsFuture::from(adding).await;
}

impl Finder {
    fn attach(connection: &RtcPeerConnection) -> Self {
        let candidates = Rc::new(Candidates::default());
        let finding = Rc::clone(&candidates);
        let closure = Closure::<dyn FnMut(RtcPeerConnectionIceEvent)>::new(move |event: RtcPeerConnectionIceEvent| {
            let candidate = event.candidate().and_then(|candidate| JSON::stringify(&candidate.to_json()).ok());
            let mut found = finding.found.borrow_mut();
            if let Some(candidate) = candidate.filter(|_| found.len() < CANDIDATES_MAX) {
                found.push_back(candidate.into());
                finding.news.wake();
            }
        });
        connection.set_onicecandidate(Some(closure.as_ref().unchecked_ref()));
        Self { connection: connection.clone(), candidates, _closure: closure }
    }

    async fn next(&self) -> String {
        poll_fn(|context| {
            self.candidates.news.register(context.waker());
            self.candidates.found.borrow_mut().pop_front().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

impl Drop for Finder {
    fn drop(&mut self) {
        self.connection.set_onicecandidate(None);
    }
}
