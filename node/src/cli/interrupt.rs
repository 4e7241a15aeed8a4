//! Ctrl-C, a service manager's request to end, and that of a supervising process.

use std::io::Read;
use std::task::Poll;

use tokio::sync::mpsc;

/// Set for a supervised process: whoever supervises it asks it to end by a byte on its standard input, and by closing it,
/// which happens also if the supervisor is killed.
pub const SUPERVISED: &str = "MANYHANDS_SUPERVISED";

/// Requests of a supervisor that wait to be heard: more say nothing new.
const REQUESTS_MAX: usize = 8;

/// Hears requests to end from the moment it is made, also between two waits.
pub struct Interrupt {
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 2],
    #[cfg(windows)]
    signals: [tokio::signal::windows::CtrlC; 1],
    supervisor: Option<mpsc::Receiver<()>>,
}

impl Interrupt {
    /// Begins to listen. Must be called within a tokio runtime.
    pub fn listen() -> std::io::Result<Self> {
        let supervisor = std::env::var_os(SUPERVISED).map(|_| hear_supervisor()).transpose()?;
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self { signals: [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?], supervisor })
        }
        #[cfg(windows)]
        Ok(Self { signals: [tokio::signal::windows::ctrl_c()?], supervisor })
    }

    /// Waits for a request; returns at once if one came since the last wait.
    pub async fn asked(&mut self) {
        std::future::poll_fn(|context| {
            if self.signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
                return Poll::Ready(());
            }
            match self.supervisor.as_mut().map(|supervisor| supervisor.poll_recv(context)) {
                Some(Poll::Ready(Some(()))) => Poll::Ready(()),
                Some(Poll::Ready(None)) => {
                    self.supervisor = None; // It has said its last word.
                    Poll::Pending
                }
                Some(Poll::Pending) | None => Poll::Pending,
            }
        })
        .await;
    }
}

fn hear_supervisor() -> std::io::Result<mpsc::Receiver<()>> {
    let (ask, asked) = mpsc::channel(REQUESTS_MAX);
    std::thread::Builder::new().name("supervisor".into()).spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let read = input.read(&mut [0]);
            let _ = ask.try_send(());
            if !matches!(read, Ok(1..)) {
                return;
            }
        }
    })?;
    Ok(asked)
}
