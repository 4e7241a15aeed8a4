//! How often a network stops to let others run: between its layers, and, on a GPU, before it has asked for too much at once.

use std::future::{Future, ready};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use burn::tensor::Tensor;

/// The work was given up because its caller asked for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// Asked between layers whether to give the work up.
pub type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// A wait between two layers; it ends the work if the caller wants that.
pub type Pause<'a> = Pin<Box<dyn Future<Output = Result<(), Cancelled>> + 'a>>;

/// What happens between the layers of a network.
pub trait Pace: Sync {
    /// Called after each layer. Where the thread also serves others, the wait lets them run.
    fn pause(&self) -> Pause<'_>;

    /// Called after each layer with what it cost, about, in multiplications: whether the device must finish what it was
    /// given before it is given more. Processors compute as they are asked; GPUs only take notes.
    fn is_full(&self, _cost: f64) -> bool {
        false
    }

    /// Called once the device has finished, if [`Pace::is_full`] said so.
    fn settled(&self) {}
}

/// The pace of a thread of our own: never waits.
pub struct Free<'a>(pub Stop<'a>);

impl Pace for Free<'_> {
    fn pause(&self) -> Pause<'_> {
        Box::pin(ready(if (self.0)() { Err(Cancelled) } else { Ok(()) }))
    }
}

/// What a network does after a layer whose output is `x`, `[batch, channels, rows, columns]`.
pub(crate) async fn rest(x: &Tensor<4>, pace: &dyn Pace) -> Result<(), Cancelled> {
    // Two convolutions over the whole picture are most of what a layer is.
    let [batch, channels, rows, columns] = x.dims().map(|side| side as f64);
    if pace.is_full(18.0 * batch * channels * channels * rows * columns) {
        // Reading one value back is how a browser says that everything before it is done.
        let first = x.clone().slice([0..1, 0..1, 0..1, 0..1]);
        let _ = first.into_data_async().await; // A lost device is reported by its own callback.
        pace.settled();
    }
    pace.pause().await
}

/// The result of a future whose pace is [`Free`] and whose device is a processor.
pub(crate) fn finish<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("nothing on a processor waits"),
    }
}
