//! The lane: a participant's end of its engine, which computes one unit at a time somewhere else.
//!
//! Both ends hold a channel to the other: a thread computes natively, a Worker in a page. The engine may come later than its lane,
//! fail, and come again.

#[cfg(not(target_arch = "wasm32"))]
mod native;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use protocol::{ModelId, ModelShape, Pilot, Unit};
use tokio::sync::mpsc;

#[cfg(not(target_arch = "wasm32"))]
pub use native::{EngineMaker, start};

/// Work for an engine; `K` names it.
pub struct Task<K> {
    /// The name under which the result comes back.
    pub key: K,
    /// What to compute.
    pub unit: Unit,
    /// The unit's input tensor.
    pub input: Vec<u8>,
    /// The conditioning the unit names.
    pub conditioning: Option<Arc<[u8]>>,
    /// Becomes true when nobody wants the result any more.
    pub cancelled: Arc<AtomicBool>,
}

/// What came of a task.
#[derive(Debug)]
pub struct Computed<K> {
    /// The task's name.
    pub key: K,
    /// The output tensor, or why there is none.
    pub output: Result<Vec<u8>, String>,
    /// Time the engine spent.
    pub took: Duration,
}

/// What an engine can do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ability {
    /// The models it can compute.
    pub models: Vec<(ModelId, ModelShape)>,
    /// The class within which results are equal bit for bit.
    pub numeric_class: String,
    /// Threads it computes with.
    pub threads: u32,
    /// What computes, for people.
    pub device: String,
    /// What it measured of itself.
    pub pilots: Vec<Pilot>,
    /// Whether a unit computed twice gave the same bits.
    pub self_repeatable: bool,
}

/// What an engine is asked.
pub enum ToEngine<K> {
    /// Compute this; the next task comes after its answer.
    Compute(Task<K>),
    /// Nobody wants the result of this task any more. It is answered all the same, with an error or late.
    Abort(K),
}

/// What an engine tells.
#[derive(Debug)]
pub enum FromEngine<K> {
    /// It is loaded, tested and can compute. One that was ready before has lost all its tasks.
    Ready(Ability),
    /// A task is done.
    Computed(Computed<K>),
    /// It still computes. Where timers are slowed down, as in a hidden page, this keeps the worker's heart beating.
    Beat,
    /// It is lost, with the task that it had; it may come again unless this is final.
    Failed {
        /// Why, in words.
        reason: String,
        /// It will not come again.
        is_final: bool,
    },
}

/// The participant's end. Dropping it ends the engine after the task it runs.
pub struct Lane<K> {
    orders: mpsc::UnboundedSender<ToEngine<K>>,
    news: mpsc::UnboundedReceiver<FromEngine<K>>,
    running: Option<(K, Arc<AtomicBool>)>,
}

/// The engine's end.
pub struct EngineEnd<K> {
    /// What the engine is asked; closed when the lane is gone.
    pub orders: mpsc::UnboundedReceiver<ToEngine<K>>,
    /// Where it tells.
    pub news: mpsc::UnboundedSender<FromEngine<K>>,
}

/// Starts an engine and gives the lane to it, at once; the engine says when it is ready.
pub type LaneMaker<K> = Box<dyn FnMut() -> Lane<K> + Send>;

/// The two ends of a new lane.
pub fn pair<K>() -> (Lane<K>, EngineEnd<K>) {
    // Unbounded in type only: a worker hands out one task at a time, so one task, one abort and one result are the most
    // that wait.
    let (orders, waiting) = mpsc::unbounded_channel();
    let (tell, news) = mpsc::unbounded_channel();
    (Lane { orders, news, running: None }, EngineEnd { orders: waiting, news: tell })
}

impl<K: Clone + PartialEq> Lane<K> {
    /// Hands a task to the engine.
    pub fn submit(&mut self, key: K, unit: Unit, input: Vec<u8>, conditioning: Option<Arc<[u8]>>) {
        let cancelled = Arc::new(AtomicBool::new(false));
        self.running = Some((key.clone(), cancelled.clone()));
        // An engine that is gone has said so, or is about to: `next` tells.
        let _ = self.orders.send(ToEngine::Compute(Task { key, unit, input, conditioning, cancelled }));
    }

    /// Asks the engine to give up the task `key`, if it runs; its result still comes back, as an error or late.
    pub fn abort(&mut self, key: &K) {
        if let Some((running, cancelled)) = &self.running
            && running == key
        {
            cancelled.store(true, Ordering::Relaxed);
            let _ = self.orders.send(ToEngine::Abort(key.clone()));
        }
    }

    /// Waits for the next news. An engine that ends without a word has failed for good.
    pub async fn next(&mut self) -> FromEngine<K> {
        let ended = || FromEngine::Failed { reason: "the engine ended".into(), is_final: true };
        self.news.recv().await.unwrap_or_else(ended)
    }
}
