//! Virtual time: real time, faster, and able to jump.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// No real wait is longer; a wait for ever looks again after it.
const NAP_MAX: Duration = Duration::from_secs(3600);

/// A clock that begins at nothing.
pub(crate) struct Clock {
    begun: Instant,
    speed: f64,
    ahead: watch::Sender<Duration>,
}

impl Clock {
    pub(crate) fn new(speed: f64) -> Self {
        Self { begun: Instant::now(), speed: speed.clamp(0.001, 1.0e6), ahead: watch::Sender::new(Duration::ZERO) }
    }

    pub(crate) fn advance(&self, time: Duration) {
        self.ahead.send_modify(|ahead| *ahead = ahead.saturating_add(time));
    }

    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed().mul_f64(self.speed).saturating_add(*self.ahead.borrow())
    }

    pub(crate) async fn until(&self, time: Duration) {
        let mut jumps = self.ahead.subscribe();
        loop {
            jumps.borrow_and_update();
            let left = time.saturating_sub(self.now());
            if left.is_zero() {
                return;
            }
            let real = left.as_secs_f64() / self.speed;
            // A little more than nothing, so that rounding does not make it turn round and round.
            let nap = Duration::from_secs_f64(real.clamp(1.0e-4, NAP_MAX.as_secs_f64()));
            tokio::select! {
                _ = jumps.changed() => {}
                () = sleep(nap) => {}
            }
        }
    }
}
