//! The wish that a worker ends: heard once it lets the running job end, heard again it does not wait for that.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::limits::ASKED_TWICE_AFTER;

/// Whether and since when the worker is to end.
pub struct Ending {
    asks: mpsc::Receiver<()>,
    wish: Wish,
}

/// When somebody asked first, and how long a running job has from then on.
struct Wish {
    first: Option<Instant>,
    drain: Duration,
}

impl Ending {
    /// Nobody has asked yet; `asks` tells when somebody does. A running job has the time `drain` then.
    pub fn new(asks: mpsc::Receiver<()>, drain: Duration) -> Self {
        Self { asks, wish: Wish { first: None, drain } }
    }

    /// Waits until somebody asks.
    pub async fn asked(&mut self) {
        if !self.is_asked() {
            self.hear().await;
        }
    }

    /// Waits until somebody has asked and the time for the running job is over, or they have asked again. May be called
    /// again if it was given up.
    pub async fn is_due(&mut self) {
        self.asked().await;
        while let Some(due) = self.wish.due() {
            tokio::select! {
                () = tokio::time::sleep_until(due) => return,
                is_again = self.hear() => if is_again { return },
            }
        }
    }

    /// Whether somebody has asked.
    pub fn is_asked(&self) -> bool {
        self.wish.first.is_some()
    }

    /// Hears the next request; whether it asks again.
    async fn hear(&mut self) -> bool {
        if self.asks.recv().await.is_none() {
            std::future::pending::<()>().await; // Nobody can ask any more.
        }
        self.wish.hear(Instant::now())
    }
}

impl Wish {
    /// Somebody asks; whether they ask again.
    fn hear(&mut self, now: Instant) -> bool {
        let first = *self.first.get_or_insert(now);
        now - first >= ASKED_TWICE_AFTER
    }

    /// When a running job is given up.
    fn due(&self) -> Option<Instant> {
        self.first.map(|first| first + self.drain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Duration = Duration::from_secs(20);

    #[test]
    fn a_running_job_has_its_time_from_the_first_request_on() {
        let (mut wish, now) = (Wish { first: None, drain: DRAIN }, Instant::now());
        assert_eq!(wish.due(), None);
        assert!(!wish.hear(now));
        assert_eq!(wish.due(), Some(now + DRAIN));
        wish.hear(now + DRAIN / 2);
        assert_eq!(wish.due(), Some(now + DRAIN), "asking again gives no more time");
    }

    #[test]
    fn a_request_heard_twice_is_one_and_a_later_one_another() {
        let (mut wish, now) = (Wish { first: None, drain: DRAIN }, Instant::now());
        assert!(!wish.hear(now));
        assert!(!wish.hear(now + ASKED_TWICE_AFTER / 2));
        assert!(wish.hear(now + ASKED_TWICE_AFTER));
    }
}
