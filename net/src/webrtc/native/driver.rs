//! The task behind a connection: it alone touches str0m, and moves datagrams, timers and bytes until the connection ends.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use str0m::channel::{ChannelConfig, ChannelId};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc};
use tokio::sync::mpsc;

use super::line::{Bundle, Channel, Line};
use super::sockets::Sockets;
use crate::limits::{
    DATAGRAM_BYTES_MAX, WEBRTC_CHANNELS_MAX, WEBRTC_CLOSE_WAIT, WEBRTC_FAREWELL_MAX, WEBRTC_SILENCE_MAX,
    WEBRTC_UNCLOSED_MAX,
};
use crate::webrtc::{Error, FIRST_CHANNEL};

/// What the driver and the muxer share beside the lines.
#[derive(Debug, Default)]
pub struct Shared {
    pub bundle: Arc<Bundle>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_connected: bool,
    /// Lines for which a channel is to be opened.
    opening: Vec<Arc<Line>>,
    /// Channels that the other side has opened.
    inbound: VecDeque<Channel>,
    is_closing: bool,
    /// Why the connection ended, until somebody asks.
    reason: Option<Error>,
}

/// The task.
pub struct Driver {
    rtc: Rtc,
    sockets: Sockets,
    shared: Arc<Shared>,
    candidates: mpsc::Receiver<Candidate>,
    lines: HashMap<ChannelId, Held>,
    /// When str0m wants to be told the time.
    wake_at: Instant,
    heard_at: Instant,
    /// By when a connection that is being closed ends at the latest.
    farewell_at: Option<Instant>,
}

struct Held {
    line: Arc<Line>,
    /// Whether this side opened the channel.
    is_ours: bool,
    is_open: bool,
    /// Since when nobody uses it.
    idle_since: Option<Instant>,
    is_closing: bool,
}

impl Held {
    fn new(line: Arc<Line>, is_ours: bool) -> Self {
        Self { line, is_ours, is_open: !is_ours, idle_since: None, is_closing: false }
    }

    /// When to close it, if the other side has not done so by then.
    fn close_at(&self) -> Option<Instant> {
        let wait = if self.is_ours { WEBRTC_CLOSE_WAIT } else { WEBRTC_UNCLOSED_MAX };
        self.idle_since.filter(|_| !self.is_closing).map(|since| since + wait)
    }
}

impl Shared {
    pub fn is_connected(&self) -> bool {
        self.state().is_connected
    }

    /// Opens a channel; its stream can be written to at once.
    pub fn open(&self) -> Channel {
        let (line, channel) = Line::new(&self.bundle);
        self.state().opening.push(line);
        self.bundle.ring.notify_one();
        channel
    }

    /// A channel that the other side has opened.
    pub fn accept(&self) -> Option<Channel> {
        self.state().inbound.pop_front()
    }

    /// Ends the connection once everything is sent.
    pub fn close(&self) {
        self.state().is_closing = true;
        self.bundle.ring.notify_one();
    }

    /// Why the connection has ended.
    pub fn reason(&self) -> Error {
        self.state().reason.take().unwrap_or(Error::NoWay)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the state")
    }
}

impl Driver {
    /// Drives `rtc`, which knows the addresses of `sockets`; `candidates` are ways to the other side.
    pub fn new(rtc: Rtc, sockets: Sockets, candidates: mpsc::Receiver<Candidate>) -> (Self, Arc<Shared>) {
        let shared = Arc::new(Shared::default());
        let driver = Self {
            rtc,
            sockets,
            shared: Arc::clone(&shared),
            candidates,
            lines: HashMap::new(),
            wake_at: Instant::now(),
            heard_at: Instant::now(),
            farewell_at: None,
        };
        (driver, shared)
    }

    /// Until the connection ends, by either side.
    pub async fn run(mut self) {
        if let Err(error) = self.drive().await {
            tracing::debug!(%error, "connection lost");
            self.shared.state().reason = Some(error);
        }
        // The other side hears of it at once, if anything reaches it.
        if self.rtc.close().is_ok() {
            let _ = self.drain().await;
        }
        for held in self.lines.values() {
            held.line.end();
        }
        let mut state = self.shared.state();
        state.opening.drain(..).for_each(|line| line.end());
        drop(state);
        self.shared.bundle.end();
    }

    async fn drive(&mut self) -> Result<(), Error> {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            self.drain().await?;
            self.open_and_close().await?;
            while self.send().await? {}
            if let Some(end) = self.end() {
                return end;
            }
            let end_at = self.shared.is_connected().then_some(self.heard_at + WEBRTC_SILENCE_MAX);
            let close_at = self.lines.values().filter_map(Held::close_at).min();
            let deadline = [self.farewell_at, end_at, close_at].into_iter().flatten().fold(self.wake_at, Instant::min);
            let has_candidates = !self.candidates.is_closed();
            let received = tokio::select! {
                arrival = self.sockets.receive(&mut buffer) => Some(arrival),
                candidate = self.candidates.recv(), if has_candidates => {
                    if let Some(candidate) = candidate {
                        self.rtc.add_remote_candidate(candidate);
                    }
                    None
                }
                () = self.shared.bundle.ring.notified() => None,
                () = tokio::time::sleep_until(deadline.into()) => None,
            };
            let now = Instant::now();
            let datagram = received.map(|arrival| {
                let bytes = &buffer[..arrival.bytes];
                Receive::new(Protocol::Udp, arrival.source, arrival.destination, bytes)
            });
            match datagram {
                Some(Ok(datagram)) => self.rtc.handle_input(Input::Receive(now, datagram))?,
                // Nonsense from anywhere changes nothing.
                Some(Err(_)) => {}
                None => self.rtc.handle_input(Input::Timeout(now))?,
            }
        }
    }

    /// Whether and how the connection ends.
    fn end(&mut self) -> Option<Result<(), Error>> {
        if !self.rtc.is_alive() {
            return Some(Err(Error::NoWay));
        }
        let is_connected = self.shared.is_connected();
        if is_connected && self.heard_at.elapsed() >= WEBRTC_SILENCE_MAX {
            return Some(Err(Error::NoWay));
        }
        if !self.shared.state().is_closing {
            return None;
        }
        let farewell_at = *self.farewell_at.get_or_insert_with(|| Instant::now() + WEBRTC_FAREWELL_MAX);
        let rtc = &mut self.rtc;
        let mut is_sent = |(id, held): (&ChannelId, &Held)| {
            !held.line.has_more() && rtc.channel(*id).is_none_or(|mut channel| channel.buffered_amount() == 0)
        };
        let is_over = !is_connected || Instant::now() >= farewell_at || self.lines.iter().all(&mut is_sent);
        is_over.then_some(Ok(()))
    }

    /// Takes all that str0m has for us, as it wants after every change.
    async fn drain(&mut self) -> Result<(), Error> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    self.wake_at = at;
                    return Ok(());
                }
                Output::Transmit(datagram) => {
                    self.sockets.send(datagram.source, datagram.destination, &datagram.contents).await;
                }
                Output::Event(event) => self.handle(event)?,
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Connected => {
                self.heard_at = Instant::now();
                self.shared.state().is_connected = true;
                self.shared.bundle.muxer.wake();
            }
            Event::ChannelOpen(id, label) => self.handle_open(id, &label)?,
            Event::ChannelData(data) => {
                self.heard_at = Instant::now();
                if self.lines.get(&data.id).is_some_and(|held| !held.line.receive(data.data)) {
                    return Err(Error::Flooded);
                }
            }
            Event::ChannelClose(id) => {
                if let Some(held) = self.lines.remove(&id) {
                    held.line.end();
                }
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) if self.shared.is_connected() => {
                return Err(Error::NoWay);
            }
            Event::Closed => return Err(Error::NoWay),
            // There is no sound and no film here, and no figures are asked for.
            _ => {}
        }
        Ok(())
    }

    fn handle_open(&mut self, id: ChannelId, label: &str) -> Result<(), Error> {
        if let Some(held) = self.lines.get_mut(&id) {
            held.is_open = true;
            return Ok(());
        }
        if label == FIRST_CHANNEL {
            return Ok(());
        }
        if self.shared.bundle.is_full() || self.lines.len() >= WEBRTC_CHANNELS_MAX {
            return Err(Error::Flooded);
        }
        let (line, channel) = Line::new(&self.shared.bundle);
        self.lines.insert(id, Held::new(line, false));
        self.shared.state().inbound.push_back(channel);
        self.shared.bundle.muxer.wake();
        Ok(())
    }

    /// Opens the channels that streams wait for, and closes those whose streams are gone for long.
    async fn open_and_close(&mut self) -> Result<(), Error> {
        if !self.shared.is_connected() {
            return Ok(());
        }
        let opening = std::mem::take(&mut self.shared.state().opening);
        for line in opening {
            let id = self.rtc.direct_api().create_data_channel(ChannelConfig::default());
            self.lines.insert(id, Held::new(line, true));
            self.drain().await?;
        }
        let now = Instant::now();
        let mut due = Vec::new();
        for (id, held) in &mut self.lines {
            if held.is_open && held.line.is_done() {
                held.idle_since.get_or_insert(now);
            }
            if held.close_at().is_some_and(|at| now >= at) {
                held.is_closing = true;
                due.push(*id);
            }
        }
        for id in due {
            self.rtc.direct_api().close_data_channel(id);
            self.drain().await?;
        }
        Ok(())
    }

    /// Sends one message of every line that has one, as far as str0m takes them; whether it took any.
    async fn send(&mut self) -> Result<bool, Error> {
        let ready = self.lines.iter().filter(|(_, held)| held.is_open && held.line.has_more());
        let ready: Vec<_> = ready.map(|(id, held)| (*id, Arc::clone(&held.line))).collect();
        let mut is_any = false;
        for (id, line) in ready {
            let Some(mut channel) = self.rtc.channel(id) else { continue };
            if line.send_next(|message| channel.write(true, message))? {
                is_any = true;
                self.drain().await?;
            }
        }
        Ok(is_any)
    }
}
