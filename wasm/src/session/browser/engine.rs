//! The engine's end of the participant's lane: starts the Worker when it is asked for, and again when it fails.

use std::rc::Rc;
use std::time::Duration;

use futures_timer::Delay;
use node::lane::{Ability, Computed, EngineEnd, FromEngine, Task, ToEngine};
use node::participant::TaskKey;
use tokio::sync::mpsc;

use super::inner::Inner;
use super::worker::{EngineWorker, Ready, Said};
use crate::session::lifecycle::{Lifecycle, Next};
use crate::session::order::sentence;
use crate::words::{EngineState, News};

/// What is said of an engine that was not started.
pub const OFF: &str = "This device computes nothing until you lend it, or until nobody else can paint.";

/// A Worker that says nothing for so long while it loads is stuck: it tells progress ten times a second, and compiles in
/// seconds.
const LOADING_SILENCE_MAX: Duration = Duration::from_secs(120);

/// A Worker that was told to give a unit up must say so within this time; one layer of a large model takes a second.
const CANCEL_TIME_MAX: Duration = Duration::from_secs(20);

/// Serves one lane after the other until the participant is gone.
pub async fn run(inner: Rc<Inner>, mut asked: mpsc::UnboundedReceiver<EngineEnd<TaskKey>>) {
    while let Some(end) = asked.recv().await {
        let is_released = serve(&inner, end).await;
        if is_released && !inner.has_left.get() {
            inner.show_engine(EngineState::Off, OFF.into(), None);
        }
    }
}

/// What became of a Worker.
enum Ended {
    /// Nobody needs it any more.
    Released,
    Failed {
        reason: String,
        is_certain: bool,
    },
}

/// Keeps a Worker for this lane, until the lane is gone; whether that was because nobody needs it any more.
async fn serve(inner: &Inner, mut end: EngineEnd<TaskKey>) -> bool {
    let mut life = Lifecycle::new(inner.options.engine);
    let mut why = "Starting the engine.".to_owned();
    loop {
        inner.show_engine(EngineState::Loading, why, None);
        let (reason, is_certain) = match work(inner, &mut end, &mut life).await {
            Ended::Released => return true,
            Ended::Failed { reason, is_certain } => (reason, is_certain),
        };
        match life.handle_failed(&reason, is_certain) {
            Next::Start(_, text) => {
                let _ = end.news.send(FromEngine::Failed { reason, is_final: false });
                inner.tell(News::Remark { text: text.clone() });
                why = text;
            }
            Next::Stop(text) => {
                let _ = end.news.send(FromEngine::Failed { reason: text.clone(), is_final: true });
                inner.show_engine(EngineState::Failed, text, None);
                // The participant drops its lane; until then nothing of it is answered.
                while end.orders.recv().await.is_some() {}
                return false;
            }
        }
    }
}

/// One Worker's life.
async fn work(inner: &Inner, end: &mut EngineEnd<TaskKey>, life: &mut Lifecycle) -> Ended {
    let failed = |reason: String| Ended::Failed { reason, is_certain: false };
    let mut worker = match EngineWorker::start(&format!("{}engine/worker.js", inner.base)) {
        Ok(worker) => worker,
        Err(reason) => return failed(reason),
    };
    let model_url = format!("{}models/{}/", inner.base, inner.options.model);
    if let Err(reason) = worker.load(&model_url, life.choice(), inner.memory_mib.get()) {
        return failed(reason);
    }
    let mut desk = Desk { worker: &mut worker, is_ready: false, ids: 0, running: None };
    let mut silence = Some(Delay::new(LOADING_SILENCE_MAX));
    loop {
        let stuck = async {
            match &mut silence {
                Some(delay) => delay.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Orders first: those for an earlier Worker must not be taken for new ones.
            biased;
            order = end.orders.recv() => match order {
                None => return Ended::Released,
                Some(ToEngine::Compute(task)) => if let Err(reason) = desk.compute(task) {
                    return failed(reason);
                },
                Some(ToEngine::Abort(key)) => if desk.abort(&key) {
                    silence = Some(Delay::new(CANCEL_TIME_MAX));
                },
            },
            said = desk.worker.next() => match said {
                Said::Loading { what, done, total } => {
                    silence = Some(Delay::new(LOADING_SILENCE_MAX));
                    let text = sentence(&format!("the engine is being prepared: {what}"));
                    inner.show_engine(EngineState::Loading, text, (total > 0).then_some((done, total)));
                }
                Said::Ready(ready) => {
                    (silence, desk.is_ready) = (None, true);
                    life.handle_ready(ready.device.starts_with("GPU"));
                    begin(inner, end, ready);
                }
                Said::Tick => _ = end.news.send(FromEngine::Beat),
                Said::Result { id, output, took_ms } => {
                    silence = None;
                    if let Some(key) = desk.take(id) {
                        if output.is_ok() {
                            life.handle_computed();
                        }
                        let took = Duration::try_from_secs_f64(took_ms / 1000.0).unwrap_or_default();
                        let _ = end.news.send(FromEngine::Computed(Computed { key, output, took }));
                    }
                }
                Said::Failed { reason, is_certain } => return Ended::Failed { reason, is_certain },
                Said::Remark(text) => inner.tell(News::Remark { text: sentence(&text) }),
            },
            () = inner.is_losing_engine.notified() => desk.worker.lose(),
            () = stuck => return failed("it does not answer".into()),
        }
    }
}

/// A Worker and the task it has.
struct Desk<'a> {
    worker: &'a mut EngineWorker,
    is_ready: bool,
    ids: u32,
    running: Option<(u32, TaskKey)>,
}

impl Desk<'_> {
    /// Hands the task over, unless it was meant for an earlier Worker.
    fn compute(&mut self, task: Task<TaskKey>) -> Result<(), String> {
        if !self.is_ready {
            return Ok(());
        }
        self.ids = self.ids.wrapping_add(1);
        self.running = Some((self.ids, task.key));
        self.worker.compute(self.ids, &task.unit, &task.input, task.conditioning.as_deref())
    }

    /// Cancels the task, if it has it.
    fn abort(&self, key: &TaskKey) -> bool {
        let running = self.running.as_ref().filter(|(_, running)| running == key);
        running.inspect(|(id, _)| self.worker.cancel(*id)).is_some()
    }

    fn take(&mut self, id: u32) -> Option<TaskKey> {
        self.running.take_if(|(running, _)| *running == id).map(|(_, key)| key)
    }
}

fn begin(inner: &Inner, end: &EngineEnd<TaskKey>, ready: Ready) {
    let Ready { numeric_class, device, threads, models, remark } = ready;
    let text = [Some(sentence(&device)), remark.as_deref().map(sentence)];
    let text = text.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let _ = end.news.send(FromEngine::Ready(Ability { models, numeric_class, threads, device, ..Ability::default() }));
    inner.show_engine(EngineState::Ready, text, None);
}
