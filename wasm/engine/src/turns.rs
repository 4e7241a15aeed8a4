//! The pace of the Worker's one thread: lets messages in while a unit is computed, and keeps the GPU's submissions short.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use compute::{Cancelled, Pace, Pause};
use shaders::Pace as Submissions;
use wasm_bindgen::prelude::wasm_bindgen;

/// Longest time without a look at the messages that have come, but for single layers that take longer.
const TURN_MS: f64 = 40.0;

#[wasm_bindgen]
extern "C" {
    /// Resolves after the messages that wait have been handled (`worker.js`).
    #[wasm_bindgen(js_name = turn)]
    async fn turn();

    #[wasm_bindgen(js_namespace = performance)]
    fn now() -> f64;
}

/// The pace of one engine.
pub struct Turns {
    cancelled: AtomicBool,
    /// When messages were last let in.
    turned_ms: Mutex<f64>,
    /// What the GPU was given; `None` on the processor.
    gpu: Option<Mutex<Gpu>>,
}

/// What a GPU is working on.
#[derive(Default)]
struct Gpu {
    submissions: Submissions,
    /// When the first layer was given since it last finished.
    began_ms: Option<f64>,
}

impl Turns {
    /// For a GPU or the processor.
    pub fn new(gpu: bool) -> Self {
        Self { cancelled: AtomicBool::new(false), turned_ms: Mutex::new(now()), gpu: gpu.then(Mutex::default) }
    }

    /// A unit begins.
    pub fn begin(&self) {
        self.cancelled.store(false, Ordering::Relaxed);
    }

    /// The running unit is given up at its next turn.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Pace for Turns {
    fn pause(&self) -> Pause<'_> {
        Box::pin(async {
            let due = || now() - *self.turned_ms.lock().expect("one thread poisons no lock") >= TURN_MS;
            if due() {
                turn().await;
                *self.turned_ms.lock().expect("one thread poisons no lock") = now();
            }
            if self.cancelled.load(Ordering::Relaxed) { Err(Cancelled) } else { Ok(()) }
        })
    }

    fn is_full(&self, cost: f64) -> bool {
        let Some(gpu) = &self.gpu else { return false };
        let mut gpu = gpu.lock().expect("one thread poisons no lock");
        gpu.began_ms.get_or_insert_with(now);
        gpu.submissions.enqueued(cost);
        // The next layer costs about as much as the last.
        gpu.submissions.is_full_for(cost)
    }

    fn settled(&self) {
        let Some(gpu) = &self.gpu else { return };
        let mut gpu = gpu.lock().expect("one thread poisons no lock");
        if let Some(began_ms) = gpu.began_ms.take() {
            gpu.submissions.measured(now() - began_ms);
        }
    }
}
