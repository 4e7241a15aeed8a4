//! The lane: one thread that owns the engine and computes one unit at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use compute::Engine;
use protocol::{ModelId, ModelShape, Unit};
use tokio::sync::mpsc;

/// Work for the lane; `K` names it.
pub struct Task<K> {
    /// The name under which the result comes back.
    pub key: K,
    /// What to compute.
    pub unit: Unit,
    /// The unit's input tensor.
    pub input: Vec<u8>,
    /// The conditioning the unit names.
    pub conditioning: Option<Arc<[u8]>>,
}

/// What came of a task.
pub struct Computed<K> {
    /// The task's name.
    pub key: K,
    /// The output tensor, or why there is none.
    pub output: Result<Vec<u8>, String>,
    /// Time the engine spent.
    pub took: Duration,
}

/// A handle on the engine's thread. Dropping it ends the thread after the task it runs.
pub struct Lane<K> {
    tasks: blocking::Sender<(Task<K>, Arc<AtomicBool>)>,
    computed: mpsc::UnboundedReceiver<Computed<K>>,
    running: Option<(K, Arc<AtomicBool>)>,
    models: Vec<(ModelId, ModelShape)>,
    numeric_class: String,
}

impl<K: Clone + PartialEq + Send + 'static> Lane<K> {
    /// Starts a thread for `engine`.
    pub fn start(engine: Box<dyn Engine>) -> std::io::Result<Self> {
        let (models, numeric_class) = (engine.models(), engine.numeric_class());
        let (tasks, waiting) = blocking::channel();
        // Unbounded in type only: the worker hands out one task at a time, so one result is the most that waits.
        let (done, computed) = mpsc::unbounded_channel();
        std::thread::Builder::new().name("engine".into()).spawn(move || serve(engine, &waiting, &done))?;
        Ok(Self { tasks, computed, running: None, models, numeric_class })
    }

    /// Hands a task to the engine.
    pub fn submit(&mut self, task: Task<K>) {
        let cancelled = Arc::new(AtomicBool::new(false));
        self.running = Some((task.key.clone(), cancelled.clone()));
        self.tasks.send((task, cancelled)).expect("the engine's thread lives as long as its lane");
    }

    /// Asks the engine to give up the task `key`, if it runs; its result still comes back, as an error or late.
    pub fn abort(&mut self, key: &K) {
        if let Some((running, cancelled)) = &self.running
            && running == key
        {
            cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Waits for the next result.
    pub async fn next(&mut self) -> Computed<K> {
        self.computed.recv().await.expect("the engine's thread lives as long as its lane")
    }

    /// The models this lane can compute.
    pub fn models(&self) -> &[(ModelId, ModelShape)] {
        &self.models
    }

    /// The class within which results are equal bit for bit.
    pub fn numeric_class(&self) -> &str {
        &self.numeric_class
    }
}

fn serve<K>(
    mut engine: Box<dyn Engine>,
    tasks: &blocking::Receiver<(Task<K>, Arc<AtomicBool>)>,
    done: &mpsc::UnboundedSender<Computed<K>>,
) {
    while let Ok((task, cancelled)) = tasks.recv() {
        let began = Instant::now();
        let stop = || cancelled.load(Ordering::Relaxed);
        // A panic in a kernel costs its unit, not the peer.
        let output = catch_unwind(AssertUnwindSafe(|| {
            engine.compute(&task.unit, &task.input, task.conditioning.as_deref(), &stop)
        }));
        let output = match output {
            Ok(output) => output.map_err(|error| error.to_string()),
            Err(_) => Err("the engine panicked on this unit".to_owned()),
        };
        if done.send(Computed { key: task.key, output, took: began.elapsed() }).is_err() {
            return;
        }
    }
}
