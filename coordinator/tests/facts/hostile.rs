//! Peers that say anything at all: nothing they send makes a machine fail or changes a picture.

use std::collections::BTreeMap;

use coordinator::{Policy, Requester, RequesterOutput, Standing, Worker, WorkerOutput};
use protocol::limits::{LEASES_PER_WORKER, NAME_BYTES_MAX, WORKER_QUEUE_MAX};
use protocol::{
    Branches, Capabilities, Hash, JobSpec, Layout, LeaseId, Message, ModelId, PlanChoice, RefuseReason, Size,
    ToRequester, ToWorker, Unit, UnitId, Work, tensor,
};

use crate::toy::{Picture, Rng, SHAPE, at, capabilities, job, model, peer, reference};
use crate::world::{Temper, World};

fn any_body(rng: &mut Rng) -> Vec<u8> {
    match rng.below(4) {
        0 => Vec::new(),
        1 => (0..rng.below(300)).map(|_| rng.next() as u8).collect(),
        2 => tensor::to_bytes(&vec![0.5; rng.below(100)]),
        _ => tensor::to_bytes(&vec![f32::NAN; rng.below(100)]),
    }
}

fn any_lease(rng: &mut Rng) -> LeaseId {
    LeaseId(if rng.chance(90) { rng.next() % 60 } else { rng.next() })
}

fn any_blob(rng: &mut Rng) -> Hash {
    Hash::of(&tensor::to_bytes(&vec![0.5; rng.below(30)]))
}

fn any_model(rng: &mut Rng) -> ModelId {
    if rng.chance(80) { model() } else { ModelId(any_blob(rng)) }
}

fn any_side(rng: &mut Rng) -> u32 {
    [0, 1, 2, 4, 512, 4096, u32::MAX][rng.below(7)]
}

fn any_work(rng: &mut Rng) -> Work {
    let (rows, columns) = (any_side(rng), any_side(rng));
    match rng.below(4) {
        0 => Work::Encode { prompt: "x".repeat(rng.below(9_000)), negative: rng.chance(50).then(String::new) },
        1 => Work::Denoise {
            conditioning: any_blob(rng),
            conditioning_rows: rng.below(4) as u32,
            branches: [Branches::Negative, Branches::Prompt, Branches::Both][rng.below(3)],
            timestep: [0.0, 999.0, -1.0, f32::NAN, f32::INFINITY][rng.below(5)],
            rows,
            columns,
        },
        2 => Work::Decode { rows, columns },
        _ => {
            let size = Size { width: any_side(rng), height: any_side(rng) };
            let layout = Layout::new(PlanChoice::Whole, Size { width: 8, height: 8 }, &SHAPE);
            let (prompt, negative) = ("sea".to_owned(), "x".repeat(rng.below(9_000)));
            let (steps, guidance) = (rng.below(300) as u32, [0.0, 7.5, f32::NAN][rng.below(3)]);
            let spec = JobSpec { model: any_model(rng), prompt, negative, size, steps, guidance, seed: 0, layout };
            Work::Paint { spec: Box::new(spec) }
        }
    }
}

fn any_to_worker(rng: &mut Rng) -> (ToWorker, Vec<u8>) {
    let message = match rng.below(6) {
        0 => {
            let body = tensor::to_bytes(&vec![0.5; rng.below(30)]);
            return (ToWorker::Store { blob: if rng.chance(80) { Hash::of(&body) } else { any_blob(rng) } }, body);
        }
        1 => ToWorker::Cancel { lease: any_lease(rng) },
        2 => ToWorker::Release { job: job(rng.below(3) as u8) },
        3 => ToWorker::Probe { lease: any_lease(rng) },
        _ => {
            let work = any_work(rng);
            let sound = work.check(&SHAPE).is_ok() && rng.chance(80);
            let values = if sound { work.input_values(&SHAPE) } else { 0 };
            let id = UnitId { stage: rng.next() as u32, index: rng.next() as u32 };
            let unit = Unit { job: job(rng.below(3) as u8), id, model: any_model(rng), work };
            let assign = ToWorker::Assign { lease: any_lease(rng), unit: Box::new(unit) };
            return (assign, if sound { vec![0; 4 * values] } else { any_body(rng) });
        }
    };
    (message, any_body(rng))
}

fn any_to_requester(rng: &mut Rng) -> (ToRequester, Vec<u8>) {
    let lease = any_lease(rng);
    let message = match rng.below(12) {
        0 => ToRequester::Offer(Capabilities {
            name: "x".repeat(rng.below(2 * NAME_BYTES_MAX)),
            threads: rng.next() as u32,
            ..capabilities((0..rng.below(40)).map(|_| any_model(rng)).collect())
        }),
        1..4 => ToRequester::Offer(capabilities(vec![model()])),
        4 => ToRequester::Leave,
        5 => ToRequester::Heartbeat { lease },
        6..9 => {
            let reason = match rng.below(7) {
                0 => RefuseReason::Busy,
                1 => RefuseReason::UnknownModel,
                2 => RefuseReason::UnknownBlob(any_blob(rng)),
                5 => RefuseReason::UnknownLease,
                6 => RefuseReason::OutOfMemory,
                3 => RefuseReason::Invalid("ü".repeat(rng.below(1_000))),
                _ => RefuseReason::Failed("ü".repeat(rng.below(1_000))),
            };
            ToRequester::Refuse { lease, reason }
        }
        _ => ToRequester::Deliver { lease, compute_ms: rng.next() as u32 },
    };
    (message, any_body(rng))
}

#[test]
fn nothing_that_requesters_say_breaks_a_worker() {
    for seed in 0..300 {
        let mut rng = Rng(seed);
        let mut worker = Worker::new(capabilities(vec![]), BTreeMap::from([(model(), SHAPE)]));
        let names = ["ada", "bob", "eve"].map(peer);
        let mut computing = None;
        for tick in 0..400 {
            let now = at(tick * 100);
            let name = &names[rng.below(3)];
            match rng.below(20) {
                0 => worker.handle_joined(name.clone(), now),
                1 => worker.handle_left(name, now),
                2 => worker.handle_timeout(now),
                3..6 => {
                    if let Some(key) = computing.take() {
                        let result = if rng.chance(50) { Ok(any_body(&mut rng)) } else { Err(RefuseReason::Busy) };
                        worker.handle_computed(&key, result, 1, now);
                    }
                }
                _ => {
                    let (message, body) = any_to_worker(&mut rng);
                    worker.handle(name, message, body, now);
                }
            }
            while let Some(output) = worker.poll_output() {
                if let WorkerOutput::Compute { key, unit, input, .. } = output {
                    assert!(computing.replace(key).is_none(), "seed {seed}: one unit at a time");
                    assert_eq!(unit.work.check(&SHAPE), Ok(()), "seed {seed}");
                    assert_eq!(input.len(), 4 * unit.work.input_values(&SHAPE), "seed {seed}");
                }
            }
            assert!(worker.leases_held() <= WORKER_QUEUE_MAX + 1, "seed {seed}");
            assert!(worker.poll_timeout().is_some() || worker.leases_held() == 0, "seed {seed}: the heart beats");
        }
    }
}

#[test]
fn nothing_that_workers_say_breaks_a_requester() {
    for seed in 0..1_000 {
        let mut rng = Rng(seed);
        let mut requester = Requester::new(Policy::Open, seed);
        let names = ["ada", "bob", "eve"].map(peer);
        let mut last_lease = 0;
        for tick in 0..400 {
            let now = at(tick * 100);
            let name = &names[rng.below(3)];
            match rng.below(24) {
                0 => requester.handle_joined(name.clone(), Standing::alone(name), now),
                1 => requester.handle_left(name, now),
                2..6 => requester.handle_timeout(now),
                6 => {
                    let (id, model) = (job(rng.below(3) as u8), any_model(&mut rng));
                    requester.begin_job(id, model, now);
                    let unit = |index| {
                        let work = Work::Decode { rows: 1, columns: 1 };
                        (
                            Unit { job: id, id: UnitId { stage: 0, index }, model, work },
                            tensor::to_bytes(&[0.0; 2]).into(),
                        )
                    };
                    requester.begin_stage(id, (0..6).map(unit).collect(), None, &SHAPE, now);
                }
                7 => requester.reject(
                    job(rng.below(3) as u8),
                    UnitId { stage: 0, index: rng.below(8) as u32 },
                    "no",
                    now,
                ),
                8 => requester.cancel(job(rng.below(3) as u8), now),
                _ => {
                    let (message, mut body) = any_to_requester(&mut rng);
                    if rng.chance(50) {
                        body = tensor::to_bytes(&[0.5; 12]);
                    }
                    requester.handle(name, message, body, now);
                }
            }
            while let Some(output) = requester.poll_output() {
                match output {
                    RequesterOutput::Send { message: ToWorker::Assign { lease, .. }, .. } => {
                        assert!(lease.0 > last_lease, "seed {seed}: lease numbers only grow");
                        last_lease = lease.0;
                    }
                    RequesterOutput::Delivered { body, .. } => assert!(tensor::from_bytes(&body, 12).is_ok()),
                    RequesterOutput::Send { .. }
                    | RequesterOutput::StageDone { .. }
                    | RequesterOutput::JobFailed { .. }
                    | RequesterOutput::WorkerPaused { .. }
                    | RequesterOutput::WorkerCondemned { .. }
                    | RequesterOutput::Tainted { .. }
                    | RequesterOutput::WorkerDropped { .. } => {}
                }
            }
            let crowded = requester.roster().lenders().any(|(_, lender)| lender.leases_held() > LEASES_PER_WORKER);
            assert!(!crowded, "seed {seed}");
        }
    }
}

/// A stranger shouts at everybody while an honest pair paints.
#[test]
fn a_picture_is_painted_as_if_nobody_shouted() {
    let picture = Picture { tiles: 4, steps: 3, split: true };
    let expected = reference(picture);
    let (asker, honest, eve) = (peer("asker"), peer("honest"), peer("eve"));
    for seed in 0..200 {
        let mut rng = Rng(seed);
        let mut world = World::new(seed).with_requester(&asker).with_requester(&eve);
        world.join(&honest, Temper::Honest, 20);
        world.requester_mut(&asker).handle_joined(eve.clone(), Standing::alone(&eve), at(0));
        world.submit(&asker, job(1), picture);
        for _ in 0..300 {
            let (message, mut body) = any_to_requester(&mut rng);
            // Bodies of sound length would be believed: telling lies from truth takes a second opinion, which is not here.
            if body.len().is_multiple_of(4) {
                body.push(0);
            }
            world.inject(&eve, &asker, Message::ToRequester(message), body);
            let (message, body) = any_to_worker(&mut rng);
            world.inject(&eve, &honest, Message::ToWorker(message), body);
            world.run(3);
        }
        world.run(100_000);
        let painting = world.painting(&asker, job(1));
        assert_eq!(painting.finished.as_ref(), Some(&expected), "seed {seed}: {:?}", painting.failed);
    }
}
