//! Rooms with liars: which answers count under which policy, who is caught, and what becomes of what a liar said before.

use std::collections::BTreeSet;

use coordinator::{Policy, Requester, RequesterOutput, Standing, TrustDomain};
use protocol::{
    Capabilities, Instant, JobSpec, Layout, PeerId, PlanChoice, RefuseReason, Size, ToRequester, ToWorker, Unit,
    UnitId, Work, tensor,
};

use crate::desk::Desk;
use crate::refusals::conditioned;
use crate::toy::{Picture, Rng, SHAPE, at, job, model, peer, reference};
use crate::world::{Temper, World};

const PICTURE: Picture = Picture { tiles: 4, steps: 3, split: true };
const STEPS_MAX: usize = 200_000;

fn asker() -> PeerId {
    peer("asker")
}

fn domain(name: &str) -> Standing {
    Standing { domain: TrustDomain(name.into()), is_own: false }
}

/// A room of workers, each with its temper and the domain it belongs to, `own` for an own device.
fn room(policy: Policy, workers: &[(&str, Temper, &str)]) -> World {
    let mut world = World::new(3).with_policy(&asker(), policy);
    for (name, temper, of) in workers {
        let standing = if *of == "own" { Standing::own() } else { domain(of) };
        world.join_as(&peer(name), temper.clone(), 40, &standing);
    }
    world.submit(&asker(), job(1), PICTURE);
    world.run(STEPS_MAX);
    world
}

fn picture(world: &World) -> Option<&Vec<u8>> {
    world.painting(&asker(), job(1)).finished.as_ref()
}

fn condemned(world: &World) -> BTreeSet<&str> {
    let name = |notice: &'_ RequesterOutput| match notice {
        RequesterOutput::WorkerCondemned { peer, .. } => Some(peer.clone()),
        _ => None,
    };
    let all: BTreeSet<PeerId> = world.notices.iter().filter_map(name).collect();
    world.requester(&asker()).condemned().filter(|peer| all.contains(*peer)).map(PeerId::as_str).collect()
}

#[test]
fn in_an_open_room_a_liar_is_caught_and_no_lie_counts() {
    let honest = Temper::Honest;
    let workers = [("ada", honest.clone(), "a"), ("bob", honest.clone(), "b"), ("eve", Temper::Lies(1), "e")];
    let world = room(Policy::Open, &workers);
    assert_eq!(picture(&world), Some(&reference(PICTURE)));
    assert_eq!(condemned(&world), BTreeSet::from(["eve"]));
}

#[test]
fn liars_of_one_domain_never_confirm_each_other() {
    let liar = Temper::Lies(7);
    let workers = [
        ("abe", liar.clone(), "e"),
        ("ann", liar.clone(), "e"),
        ("eve", liar.clone(), "e"),
        ("sue", Temper::Honest, "s"),
        ("zoe", Temper::Honest, "z"),
    ];
    let world = room(Policy::Open, &workers);
    assert_eq!(picture(&world), Some(&reference(PICTURE)));
    assert!(condemned(&world).is_subset(&BTreeSet::from(["abe", "ann", "eve"])));
}

#[test]
fn two_lying_domains_fool_an_open_room_and_not_a_paranoid_one() {
    let (liar, honest) = (Temper::Lies(7), Temper::Honest);
    let workers = [
        ("abe", liar.clone(), "e"),
        ("ann", liar.clone(), "f"),
        ("pam", honest.clone(), "p"),
        ("sue", honest.clone(), "s"),
        ("zoe", honest.clone(), "z"),
    ];
    assert_ne!(picture(&room(Policy::Open, &workers[..2])), Some(&reference(PICTURE)), "said in the documentation");
    let world = room(Policy::Paranoid, &workers);
    assert_eq!(picture(&world), Some(&reference(PICTURE)));
    assert_eq!(condemned(&world), BTreeSet::from(["abe", "ann"]));
}

#[test]
fn without_a_second_domain_an_open_room_waits_for_one() {
    let mut world = room(Policy::Open, &[("ada", Temper::Honest, "a"), ("ann", Temper::Honest, "a")]);
    assert!(picture(&world).is_none() && world.requester(&asker()).is_starved(job(1)));
    world.join_as(&peer("zoe"), Temper::Honest, 40, &domain("z"));
    world.run(STEPS_MAX);
    assert_eq!(picture(&world), Some(&reference(PICTURE)));
}

#[test]
fn an_own_device_needs_no_second_opinion_and_judges_others() {
    for policy in [Policy::Open, Policy::Paranoid, Policy::Friends] {
        let world = room(policy, &[("own", Temper::Honest, "own")]);
        assert_eq!(picture(&world), Some(&reference(PICTURE)), "{policy:?}");
        let world = room(policy, &[("eve", Temper::Lies(1), "e"), ("own", Temper::Honest, "own")]);
        assert_eq!(picture(&world), Some(&reference(PICTURE)), "{policy:?}");
        assert_eq!(condemned(&world), BTreeSet::from(["eve"]), "{policy:?}");
    }
}

#[test]
fn an_own_device_in_trouble_holds_up_nobody() {
    let broken = |text: &str| Temper::Refuses(RefuseReason::Failed(text.into()));
    let too_small = Temper::Refuses(RefuseReason::OutOfMemory);
    for temper in [Temper::Silent, Temper::Beating, Temper::NotANumber, broken("driver lost"), too_small] {
        let workers = [("ada", Temper::Honest, "a"), ("bob", Temper::Honest, "b"), ("own", temper.clone(), "own")];
        let world = room(Policy::Friends, &workers);
        assert_eq!(picture(&world), Some(&reference(PICTURE)), "{temper:?}");
        assert!(world.now <= at(60_000), "{temper:?} took until {:?}", world.now);
    }
}

#[test]
fn friends_are_believed_where_nobody_can_check() {
    let world = room(Policy::Friends, &[("ada", Temper::Honest, "a"), ("bob", Temper::Honest, "b")]);
    assert_eq!(picture(&world), Some(&reference(PICTURE)));
    assert_eq!(condemned(&world), BTreeSet::new());
}

#[test]
fn what_a_friend_said_unchecked_is_thrown_out_when_he_is_caught() {
    let mut caught_late = 0;
    for seed in 0..200 {
        let mut rng = Rng(seed);
        let mut world = World::new(seed).with_policy(&asker(), Policy::Friends);
        world.join_as(&peer("ada"), Temper::Honest, 40, &domain("a"));
        world.join_as(&peer("eve"), Temper::Lies(1), 40, &domain("e"));
        world.submit(&asker(), job(1), PICTURE);
        world.run(rng.below(120));
        // Now somebody is there who can tell.
        world.join_as(&peer("own"), Temper::Honest, 40, &Standing::own());
        world.run(STEPS_MAX);
        if condemned(&world).contains("eve") {
            assert_eq!(picture(&world), Some(&reference(PICTURE)), "seed {seed}");
            caught_late += 1;
        }
    }
    assert!(caught_late > 100, "{caught_late}");
}

#[test]
fn no_order_of_events_lets_a_lie_count_in_an_open_room() {
    let expected = reference(PICTURE);
    for seed in 0..300u64 {
        let mut rng = Rng(seed);
        let policy = [Policy::Open, Policy::Paranoid][rng.below(2)];
        let mut world = World::new(seed).with_policy(&asker(), policy);
        world.delay_percent = [0, 5, 20][rng.below(3)];
        world.submit(&asker(), job(1), PICTURE);
        let tempers = [
            Temper::Lies(1),
            Temper::Lies(7),
            Temper::NotANumber,
            Temper::Short,
            Temper::Silent,
            Temper::Refuses(RefuseReason::Busy),
            Temper::Refuses(RefuseReason::OutOfMemory),
        ];
        for number in 0..4 + rng.below(6) {
            world.run(rng.below(40));
            let name = peer(&format!("worker{number}"));
            if number < 4 {
                world.join_as(&name, Temper::Honest, 10 + rng.below(100) as u64, &domain(&format!("honest{number}")));
            } else {
                world.join_as(&name, tempers[rng.below(tempers.len())].clone(), 10, &domain("bad"));
            }
        }
        world.run(STEPS_MAX);
        let painting = world.painting(&asker(), job(1));
        assert_eq!(painting.finished.as_ref(), Some(&expected), "seed {seed}: {:?}", painting.failed);
        assert!(condemned(&world).iter().all(|name| **name >= *"worker4"), "seed {seed}: {:?}", condemned(&world));
    }
}

#[test]
fn a_condemned_worker_is_not_taken_in_again() {
    let mut world = room(
        Policy::Open,
        &[("ada", Temper::Honest, "a"), ("bob", Temper::Honest, "b"), ("eve", Temper::Lies(1), "e")],
    );
    world.kill(&peer("eve"));
    world.join_as(&peer("eve"), Temper::Honest, 40, &domain("e"));
    world.run_until(world.now + std::time::Duration::from_secs(1));
    assert!(world.requester(&asker()).roster().lender(&peer("eve")).is_none());
    let dropped = |notice: &_| matches!(notice, RequesterOutput::WorkerDropped { .. });
    assert!(world.notices.iter().any(dropped));
}

#[test]
fn a_late_unit_gets_a_second_worker_and_the_first_answer_counts() {
    let mut desk = Desk::new(2, &["ada", "bob"]);
    // What a unit takes is known from the first two.
    let first = |desk: &Desk, name: &str| desk.held(name)[0];
    let (ada, bob) = (first(&desk, "ada"), first(&desk, "bob"));
    desk.deliver("ada", ada, at(100));
    desk.deliver("bob", bob, at(100));
    desk.begin(1, 1, at(100));
    let (holder, other) = if desk.held("ada").is_empty() { ("bob", "ada") } else { ("ada", "bob") };
    let held = desk.held(holder)[0];
    let mut now = at(100);
    while desk.held(other).is_empty() {
        now = desk.machine.poll_timeout().expect("something is due").max(now);
        desk.beat(holder, now);
        desk.wait_until(now);
        assert!(now < at(1_000), "the unit is late long before");
    }
    let hedge = desk.held(other)[0];
    assert_eq!(desk.unit(hedge), desk.unit(held));
    desk.deliver(other, hedge, now);
    assert_eq!((desk.delivered().len(), desk.cancelled()), (3, vec![held]), "the loser is told");
    desk.deliver(holder, held, now);
    assert_eq!(desk.delivered().len(), 3);
}

#[test]
fn hedges_are_paid_for_by_deliveries() {
    // Twelve workers, six of which say that they work and never deliver.
    let mut world = World::new(1).with_requester(&asker());
    for number in 0..6 {
        world.join(&peer(&format!("good{number}")), Temper::Honest, 50);
        world.join(&peer(&format!("late{number}")), Temper::Beating, 50);
    }
    world.submit(&asker(), job(1), Picture { tiles: 6, steps: 4, split: false });
    world.run(STEPS_MAX);
    assert!(picture(&world).is_some());
    assert!(world.now - Instant::ZERO < std::time::Duration::from_secs(60), "{:?}", world.now);
}

#[test]
fn a_unit_too_large_for_everybody_fails_its_job_for_want_of_memory_and_blames_nobody() {
    let mut desk = Desk::new(1, &["ada", "bob"]);
    for round in 0..2 {
        let name = if desk.held("ada").is_empty() { "bob" } else { "ada" };
        desk.refuse(name, RefuseReason::OutOfMemory, at(round));
    }
    let failed = |output: &RequesterOutput| matches!(output, RequesterOutput::JobFailed { cause: coordinator::FailCause::OutOfMemory, reasons, .. } if reasons.len() == 2);
    assert_eq!((desk.count(failed), desk.pauses()), (1, 0));
    desk.machine.begin_job(job(1), model(), at(10));
    desk.begin(0, 1, at(10));
    let failed = |output: &RequesterOutput| {
        matches!(output, RequesterOutput::JobFailed { cause: coordinator::FailCause::OutOfMemory, .. })
    };
    assert_eq!(desk.count(failed), 2, "the same again is not tried");
}

#[test]
fn pretence_is_seen_in_the_form_of_an_answer() {
    let (mut desk, _) = conditioned(2, &["ada", "bob"]);
    let its_input = tensor::to_bytes(&[0.0, 0.5, 0.0, 0.5])[..8].repeat(2);
    for (name, lie) in [("ada", tensor::to_bytes(&[0.5; 4])), ("bob", its_input)] {
        let lease = desk.held(name)[0];
        desk.deliver_body(name, lease, lie, at(1));
    }
    assert_eq!((desk.delivered().len(), desk.pauses()), (1, 1), "all the same is nobody's answer");
}

/// Over many steps honest machines of different classes drift apart, further than any tolerance for one pass.
#[test]
fn whole_pictures_of_another_numeric_class_prove_nothing() {
    let size = Size { width: 8, height: 8 };
    let layout = Layout::new(PlanChoice::Whole, size, &SHAPE);
    let (prompt, negative) = ("a lake".into(), String::new());
    let spec = JobSpec { model: model(), prompt, negative, size, steps: 4, guidance: 1.0, seed: 1, layout };
    let work = Work::Paint { spec: Box::new(spec) };
    let values = work.output_values(&SHAPE);
    let unit = Unit { job: job(1), id: UnitId { stage: 0, index: 0 }, model: model(), work };
    let mut machine = Requester::new(Policy::Open, 0);
    for (name, class) in [("ann", "cpu"), ("bob", "gpu"), ("cid", "cpu")] {
        machine.handle_joined(peer(name), domain(name), at(0));
        let capabilities = Capabilities { models: vec![model()], ..Capabilities::new(name, class) };
        machine.handle(&peer(name), ToRequester::Offer(capabilities), Vec::new(), at(0));
    }
    machine.begin_job(job(1), model(), at(0));
    machine.begin_stage(job(1), vec![(unit, [].into())], None, &SHAPE, at(0));
    let mut delivered = None;
    while let Some(output) = machine.poll_output() {
        match output {
            RequesterOutput::Send { to, message: ToWorker::Assign { lease, .. }, .. } => {
                let value = if to == peer("bob") { 0.5 } else { 0.25 };
                let deliver = ToRequester::Deliver { lease, compute_ms: 1 };
                machine.handle(&to, deliver, tensor::to_bytes(&vec![value; values]), at(10));
            }
            RequesterOutput::Delivered { body, .. } => delivered = Some(body),
            RequesterOutput::WorkerCondemned { peer, .. } => panic!("{peer} is condemned for its numeric class"),
            RequesterOutput::Send { .. }
            | RequesterOutput::StageDone { .. }
            | RequesterOutput::Tainted { .. }
            | RequesterOutput::JobFailed { .. }
            | RequesterOutput::WorkerPaused { .. }
            | RequesterOutput::WorkerDropped { .. } => {}
        }
    }
    assert_eq!(delivered, Some(tensor::to_bytes(&vec![0.25; values])), "two of one class agree");
}

#[test]
fn who_loses_a_race_confirms_the_winner_only_from_another_domain() {
    for (domains, confirmed) in [(["a", "b"], 1), (["a", "a"], 0)] {
        let mut desk = Desk::new(2, &["ada", "bob"]);
        for (name, of) in ["ada", "bob"].into_iter().zip(domains) {
            desk.machine.handle_standing(&peer(name), domain(of));
        }
        for name in ["ada", "bob"] {
            desk.deliver(name, desk.held(name)[0], at(100));
        }
        desk.begin(1, 1, at(100));
        let (holder, other) = if desk.held("ada").is_empty() { ("bob", "ada") } else { ("ada", "bob") };
        let held = desk.held(holder)[0];
        let mut now = at(100);
        while desk.held(other).is_empty() {
            now = desk.machine.poll_timeout().expect("something is due").max(now);
            desk.beat(holder, now);
            desk.wait_until(now);
        }
        desk.deliver(other, desk.held(other)[0], now);
        desk.deliver(holder, held, now);
        for name in [holder, other] {
            let valid = desk.machine.roster().lender(&peer(name)).unwrap().valid_in_row();
            assert_eq!(valid, confirmed, "{name} of {domains:?}");
        }
    }
}
