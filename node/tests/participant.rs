//! A participant alone, its engine played by hand: it comes late, fails, comes again, and is lent and withdrawn.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use node::lane::{self, Ability, Computed, EngineEnd, FromEngine, LaneMaker, Task, ToEngine};
use node::participant::TaskKey;
use node::{Command, Notice, Order, Painted, Participant, Setup};
use protocol::{Hash, JobRequest, JobSpec, ModelId, ModelShape, PlanChoice, Policy, Size, Work, tensor};
use sampler::SchedulerConfig;
use tokio::sync::mpsc;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const SHAPE: ModelShape = ModelShape { latent_channels: 4, factor: 2, native_cells: 8, tokens: 3, embedding_width: 5 };

const SCHEDULER: &str = r#"{
    "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "prediction_type": "epsilon", "steps_offset": 1
}"#;

fn model() -> ModelId {
    ModelId(Hash::of(b"model"))
}

fn order() -> Order {
    let request = JobRequest {
        prompt: "a lake".into(),
        negative: String::new(),
        size: Size { width: 16, height: 16 },
        steps: 3,
        guidance: 3.0,
        seed: 1,
        plan: PlanChoice::Auto,
    };
    let spec = JobSpec::new(request, model(), &SHAPE).unwrap();
    let order = Order::new(spec, SHAPE, SchedulerConfig::parse(SCHEDULER).unwrap(), PlanChoice::Auto);
    Order { preview: vec![[0.1, 0.2, 0.3]; 5], ..order }
}

/// A running participant, and the engines it asked for.
struct Seat {
    commands: mpsc::Sender<Command>,
    notices: mpsc::Receiver<Notice>,
    engines: mpsc::UnboundedReceiver<EngineEnd<TaskKey>>,
    running: tokio::task::JoinHandle<()>,
}

impl Seat {
    fn open(lend: bool) -> Self {
        let (asked, engines) = mpsc::unbounded_channel();
        let engine: LaneMaker<TaskKey> = Box::new(move || {
            let (lane, end) = lane::pair();
            asked.send(end).unwrap();
            lane
        });
        let (name, patience) = ("ada".into(), Duration::from_millis(1));
        let setup =
            Setup { network: None, me: None, name, engine: Some(engine), lend, patience, policy: Policy::default() };
        let (participant, commands, notices) = Participant::new(setup);
        Self { commands, notices, engines, running: tokio::spawn(participant.run()) }
    }

    async fn command(&self, command: Command) {
        self.commands.send(command).await.unwrap();
    }

    async fn engine(&mut self) -> EngineEnd<TaskKey> {
        tokio::time::timeout(PATIENCE, self.engines.recv()).await.expect("an engine is asked for").unwrap()
    }

    async fn notice(&mut self) -> Notice {
        tokio::time::timeout(PATIENCE, self.notices.recv()).await.expect("something is told").unwrap()
    }

    /// Waits for the first notice that `wanted` takes.
    async fn wait_for<T>(&mut self, wanted: impl Fn(Notice) -> Option<T>) -> T {
        loop {
            let notice = self.notice().await;
            assert!(!matches!(notice, Notice::Cancelled), "nobody cancelled");
            if let Some(found) = wanted(notice) {
                return found;
            }
        }
    }

    async fn failure(&mut self) -> String {
        self.wait_for(|notice| match notice {
            Notice::Failed(reason) => Some(reason),
            Notice::Painted(_) => panic!("painted"),
            _ => None,
        })
        .await
    }

    async fn painted(&mut self) -> Painted {
        self.wait_for(|notice| match notice {
            Notice::Painted(painted) => Some(*painted),
            Notice::Failed(reason) => panic!("{reason}"),
            _ => None,
        })
        .await
    }
}

async fn task(end: &mut EngineEnd<TaskKey>) -> Task<TaskKey> {
    loop {
        let order = tokio::time::timeout(PATIENCE, end.orders.recv()).await.expect("a task comes").unwrap();
        if let ToEngine::Compute(task) = order {
            return task;
        }
    }
}

fn ready(end: &EngineEnd<TaskKey>, numeric_class: &str) {
    let models = vec![(model(), SHAPE)];
    let ability = Ability {
        models,
        numeric_class: numeric_class.into(),
        threads: 1,
        device: "played".into(),
        ..Ability::default()
    };
    end.news.send(FromEngine::Ready(ability)).unwrap();
}

fn fail(end: &EngineEnd<TaskKey>, is_final: bool) {
    end.news.send(FromEngine::Failed { reason: "the device was lost".into(), is_final }).unwrap();
}

fn answer(end: &EngineEnd<TaskKey>, task: Task<TaskKey>) {
    let values = (0..task.unit.work.output_values(&SHAPE)).map(|index| (index % 7) as f32 / 8.0);
    let output = Ok(tensor::to_bytes(&values.collect::<Vec<_>>()));
    let computed = Computed { key: task.key, output, took: Duration::from_millis(1) };
    end.news.send(FromEngine::Computed(computed)).unwrap();
}

/// Computes until the lane is gone.
fn compute(mut end: EngineEnd<TaskKey>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(order) = end.orders.recv().await {
            if let ToEngine::Compute(task) = order {
                answer(&end, task);
            }
        }
    })
}

#[tokio::test]
async fn an_engine_is_started_only_when_it_is_needed_and_paints_alone() {
    let mut seat = Seat::open(false);
    assert!(seat.engines.try_recv().is_err());
    seat.command(Command::LendToSelf).await;
    seat.command(Command::Paint(Box::new(order()))).await;
    let end = seat.engine().await;
    ready(&end, "cpu");
    let serving = compute(end);
    let looks = std::cell::Cell::new(0);
    let painted = seat
        .wait_for(|notice| match notice {
            Notice::Preview { width: 8, height: 8, rgba } if rgba.len() == 256 => {
                looks.set(looks.get() + 1);
                None
            }
            Notice::Painted(painted) => Some(painted),
            Notice::Failed(reason) => panic!("{reason}"),
            _ => None,
        })
        .await;
    assert_eq!((painted.retries, painted.workers.len()), (0, 1));
    assert!(painted.workers[0].local && painted.workers[0].units == 5);
    // The noise, and the latent after each of three steps.
    assert_eq!(looks.get(), 4);
    seat.command(Command::Stop).await;
    seat.running.await.unwrap();
    tokio::time::timeout(PATIENCE, serving).await.expect("the engine ends with its participant").unwrap();
}

#[tokio::test]
async fn a_lost_engine_hands_its_unit_back_and_the_next_one_finishes_the_picture() {
    let mut seat = Seat::open(false);
    seat.command(Command::LendToSelf).await;
    seat.command(Command::Paint(Box::new(order()))).await;
    let mut end = seat.engine().await;
    ready(&end, "gpu");
    let first = task(&mut end).await;
    answer(&end, first);
    drop(task(&mut end).await);
    fail(&end, false);
    seat.wait_for(|notice| matches!(notice, Notice::EngineFailed { is_final: false, .. }).then_some(())).await;
    ready(&end, "cpu");
    compute(end);
    let painted = seat.painted().await;
    assert_eq!((painted.retries, painted.workers[0].units), (1, 5));
}

#[tokio::test]
async fn an_engine_that_is_lost_for_good_fails_the_picture_in_words_and_may_be_tried_again() {
    let mut seat = Seat::open(false);
    seat.command(Command::LendToSelf).await;
    seat.command(Command::Paint(Box::new(order()))).await;
    let end = seat.engine().await;
    fail(&end, true);
    assert_eq!(seat.failure().await, "the device was lost");
    seat.command(Command::LendToSelf).await;
    seat.command(Command::Paint(Box::new(order()))).await;
    let end = seat.engine().await;
    ready(&end, "cpu");
    compute(end);
    seat.painted().await;
}

#[tokio::test]
async fn an_engine_that_ends_without_a_word_has_failed() {
    let mut seat = Seat::open(true);
    drop(seat.engine().await);
    let is_final = |notice| matches!(notice, Notice::EngineFailed { is_final: true, .. }).then_some(());
    seat.wait_for(is_final).await;
}

#[tokio::test]
async fn a_device_that_lends_takes_part_in_its_own_picture_and_one_that_stops_unloads_its_engine() {
    let mut seat = Seat::open(true);
    let end = seat.engine().await;
    ready(&end, "cpu");
    seat.wait_for(|notice| matches!(notice, Notice::EngineReady(_)).then_some(())).await;
    let serving = compute(end);
    seat.command(Command::Paint(Box::new(order()))).await;
    let workers = seat
        .wait_for(|notice| match notice {
            Notice::Planned(plan) => Some(plan.workers.len()),
            _ => None,
        })
        .await;
    assert_eq!(workers, 1, "it is in the plan from the start");
    seat.painted().await;
    seat.command(Command::Lend(false)).await;
    tokio::time::timeout(PATIENCE, serving).await.expect("the engine is unloaded").unwrap();
    seat.command(Command::Lend(true)).await;
    let end = seat.engine().await;
    ready(&end, "cpu");
    seat.wait_for(|notice| matches!(notice, Notice::EngineReady(_)).then_some(())).await;
}

#[tokio::test]
async fn a_picture_too_large_for_everybodys_memory_is_painted_anew_in_tiles() {
    let mut seat = Seat::open(false);
    seat.command(Command::LendToSelf).await;
    let wide = order();
    let request = JobRequest {
        prompt: "a lake".into(),
        negative: String::new(),
        size: Size { width: 32, height: 16 },
        steps: 3,
        guidance: 3.0,
        seed: 1,
        plan: PlanChoice::Cfg,
    };
    let spec = JobSpec::new(request, model(), &SHAPE).unwrap();
    assert!(spec.layout.tiles.is_whole());
    seat.command(Command::Paint(Box::new(Order { spec, plan: PlanChoice::Cfg, ..wide }))).await;
    let mut end = seat.engine().await;
    ready(&end, "small");
    tokio::spawn(async move {
        while let Some(order) = end.orders.recv().await {
            let ToEngine::Compute(task) = order else { continue };
            match task.unit.work {
                Work::Denoise { columns, .. } if columns > 8 => {
                    let output = Err("the device failed: Out of memory".into());
                    let computed = Computed { key: task.key, output, took: Duration::from_millis(1) };
                    end.news.send(FromEngine::Computed(computed)).unwrap();
                }
                _ => answer(&end, task),
            }
        }
    });
    let reason = seat
        .wait_for(|notice| match notice {
            Notice::Smaller(reason) => Some(reason),
            Notice::Failed(reason) => panic!("{reason}"),
            _ => None,
        })
        .await;
    assert!(reason.ends_with("painted in tiles of 16 pixels and developed whole"), "{reason}");
    let painted = seat.painted().await;
    assert_eq!(painted.spec.layout.tiles.side(), Some(8));
    assert_eq!(painted.pixels.len(), 3 * 32 * 16);
}

#[tokio::test]
async fn pictures_of_one_order_are_painted_together_with_their_own_seeds() {
    let mut seat = Seat::open(false);
    seat.command(Command::LendToSelf).await;
    seat.command(Command::Paint(Box::new(Order { images: 3, ..order() }))).await;
    let end = seat.engine().await;
    ready(&end, "cpu");
    compute(end);
    let mut seeds = Vec::new();
    let mut progress = Vec::new();
    while seeds.len() < 3 {
        match seat.notice().await {
            Notice::Painted(painted) => seeds.push(painted.spec.seed),
            Notice::Unit { done, total, .. } => progress.push((done, total)),
            Notice::Failed(reason) => panic!("{reason}"),
            _ => {}
        }
    }
    seeds.sort_unstable();
    assert_eq!(seeds, [1, 2, 3]);
    assert!(progress.is_sorted() && progress.last().is_some_and(|(done, total)| done == total), "{progress:?}");
}

#[tokio::test]
async fn a_cancelled_picture_aborts_its_unit() {
    let mut seat = Seat::open(false);
    seat.command(Command::LendToSelf).await;
    seat.command(Command::Paint(Box::new(order()))).await;
    let mut end = seat.engine().await;
    ready(&end, "cpu");
    let running = task(&mut end).await;
    seat.command(Command::Cancel).await;
    let order = tokio::time::timeout(PATIENCE, end.orders.recv()).await.expect("an order comes").unwrap();
    assert!(matches!(order, ToEngine::Abort(key) if key == running.key));
    assert!(running.cancelled.load(std::sync::atomic::Ordering::Relaxed));
    loop {
        match seat.notice().await {
            Notice::Cancelled => break,
            Notice::Painted(_) | Notice::Failed(_) => panic!("the picture was cancelled"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn without_an_engine_and_without_workers_a_picture_fails_in_words() {
    let (name, patience) = ("ada".into(), Duration::from_millis(1));
    let setup = Setup { network: None, me: None, name, engine: None, lend: false, patience, policy: Policy::default() };
    let (participant, commands, mut notices) = Participant::new(setup);
    tokio::spawn(participant.run());
    commands.send(Command::Paint(Box::new(order()))).await.unwrap();
    loop {
        let notice = tokio::time::timeout(PATIENCE, notices.recv()).await.expect("something is told").unwrap();
        if let Notice::Failed(reason) = notice {
            assert!(reason.contains("no worker with this model"), "{reason}");
            break;
        }
    }
}
