//! A timer that can be set again: the runtime's own natively, the page's in a browser.
//!
//! One that needs no runtime keeps a thread, and that thread is woken whenever a timer is set: several times for each message.

#[cfg(target_arch = "wasm32")]
pub use futures_timer::Delay;
#[cfg(not(target_arch = "wasm32"))]
pub use native::Delay;

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use tokio::time::{Instant, Sleep, sleep};

    /// Is ready once its time has passed. Made within a tokio runtime.
    #[derive(Debug)]
    pub struct Delay(Pin<Box<Sleep>>);

    impl Delay {
        /// Ready after `time`.
        pub fn new(time: Duration) -> Self {
            Self(Box::pin(sleep(time)))
        }

        /// Ready `time` from now, whatever was set before.
        pub fn reset(&mut self, time: Duration) {
            self.0.as_mut().reset(Instant::now() + time);
        }
    }

    impl Future for Delay {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            self.0.as_mut().poll(context)
        }
    }
}
