//! An engine on a thread of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use compute::Engine;
use protocol::{Branches, Hash, JobId, ModelId, ModelShape, Pilot, Unit, UnitId, Work, tensor};

use super::{Ability, Computed, EngineEnd, FromEngine, LaneMaker, ToEngine, pair};

/// Loads an engine, or says why it cannot.
pub type EngineMaker = Box<dyn Fn() -> Result<Box<dyn Engine>, String> + Send + Sync>;

/// Starts the engine of `make` on a thread whenever a lane is asked for. `threads` is what the room is told.
pub fn start<K: Clone + PartialEq + Send + 'static>(make: EngineMaker, threads: u32) -> LaneMaker<K> {
    let make = Arc::new(make);
    Box::new(move || {
        let (lane, end) = pair();
        let make = make.clone();
        let started = std::thread::Builder::new().name("engine".into()).spawn({
            let news = end.news.clone();
            move || match make() {
                Ok(engine) => serve(engine, threads, end),
                Err(reason) => drop(news.send(FromEngine::Failed { reason, is_final: true })),
            }
        });
        // A lane whose engine's end is gone tells that it failed.
        if let Err(error) = started {
            tracing::warn!(%error, "no thread for the engine");
        }
        lane
    })
}

/// Computes one small unit of each model twice: how long it takes orders this worker among others until they have measured
/// it. An engine that cannot compute it says nothing of its speed.
fn pilot(engine: &mut dyn Engine, models: &[(ModelId, ModelShape)]) -> (Vec<Pilot>, bool) {
    let mut is_repeatable = true;
    let mut run = |(model, shape): &(ModelId, ModelShape)| {
        let conditioning = tensor::to_bytes(&vec![0.0; (shape.tokens * shape.embedding_width) as usize]);
        let work = Work::Denoise {
            conditioning: Hash::of(&conditioning),
            conditioning_rows: 1,
            branches: Branches::Prompt,
            timestep: 500.0,
            rows: shape.native_cells,
            columns: shape.native_cells,
        };
        let input = tensor::to_bytes(&vec![0.5; work.input_values(shape)]);
        let cost = u128::from(work.cost(shape).max(1));
        let unit = Unit { job: JobId([0; 16]), id: UnitId { stage: 0, index: 0 }, model: *model, work };
        let mut once = || {
            let began = Instant::now();
            let output = engine.compute(&unit, &input, Some(&conditioning), &|| false).ok()?;
            Some((output, began.elapsed()))
        };
        let (first, _) = once()?; // The first run also warms caches.
        let (second, took) = once()?;
        is_repeatable &= first == second;
        let nanoseconds_per_cost = u64::try_from(took.as_nanos() / cost).unwrap_or(u64::MAX).max(1);
        Some(Pilot { model: *model, nanoseconds_per_cost })
    };
    let pilots = models.iter().filter_map(&mut run).collect();
    (pilots, is_repeatable)
}

fn serve<K>(mut engine: Box<dyn Engine>, threads: u32, mut end: EngineEnd<K>) {
    let (models, numeric_class) = (engine.models(), engine.numeric_class());
    let device = format!("CPU, {threads} thread{}", if threads == 1 { "" } else { "s" });
    let (pilots, self_repeatable) = pilot(&mut *engine, &models);
    let ability = Ability { models, numeric_class, threads, device, pilots, self_repeatable };
    if end.news.send(FromEngine::Ready(ability)).is_err() {
        return;
    }
    while let Some(order) = end.orders.blocking_recv() {
        let task = match order {
            ToEngine::Compute(task) => task,
            ToEngine::Abort(_) => continue, // The task's own flag has told the computation.
        };
        let began = Instant::now();
        let stop = || task.cancelled.load(Ordering::Relaxed);
        // A panic in a kernel costs its unit, not the peer.
        let output = catch_unwind(AssertUnwindSafe(|| {
            engine.compute(&task.unit, &task.input, task.conditioning.as_deref(), &stop)
        }));
        let output = match output {
            Ok(output) => output.map_err(|error| error.to_string()),
            Err(_) => Err("the engine panicked on this unit".to_owned()),
        };
        let computed = Computed { key: task.key, output, took: began.elapsed() };
        if end.news.send(FromEngine::Computed(computed)).is_err() {
            return;
        }
    }
}
