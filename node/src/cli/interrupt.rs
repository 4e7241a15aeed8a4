//! Ctrl-C, and a service manager's request to end.

/// Hears requests to end from the moment it is made, also between two waits.
pub struct Interrupt {
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 2],
    #[cfg(windows)]
    signals: [tokio::signal::windows::CtrlC; 1],
}

impl Interrupt {
    /// Begins to listen. Must be called within a tokio runtime.
    pub fn listen() -> std::io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self { signals: [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?] })
        }
        #[cfg(windows)]
        Ok(Self { signals: [tokio::signal::windows::ctrl_c()?] })
    }

    /// Waits for a request; returns at once if one came since the last wait.
    pub async fn asked(&mut self) {
        std::future::poll_fn(|context| {
            let mut heard = self.signals.iter_mut().map(|signal| signal.poll_recv(context));
            if heard.any(|poll| poll.is_ready()) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}
