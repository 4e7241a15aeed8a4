//! A requester alone, its workers played by hand: what it does about refusals and wrong bodies.

use std::sync::Arc;

use coordinator::RequesterOutput;
use protocol::limits::{ATTEMPTS_MAX, REASON_BYTES_MAX, REFUSAL_PAUSE, REFUSALS_IN_ROW_MAX};
use protocol::{Branches, Hash, LeaseId, RefuseReason, ToRequester, ToWorker, Unit, UnitId, Work, tensor};

use crate::desk::{Desk, decodes, sound_body};
use crate::toy::{SHAPE, at, capabilities, job, model, peer};

#[test]
fn a_busy_worker_is_asked_again_after_a_pause_and_bears_no_blame() {
    let mut desk = Desk::new(1, &["ada"]);
    for round in 0..u64::from(REFUSALS_IN_ROW_MAX) {
        let now = at(round * 250);
        desk.wait_until(now);
        desk.refuse("ada", RefuseReason::Busy, now);
        assert_eq!(desk.machine.poll_timeout(), Some(now + REFUSAL_PAUSE));
        assert!(!desk.machine.is_starved(job(1)), "it is there");
    }
    assert_eq!((desk.pauses(), desk.reasons()), (0, None));
    let now = at(u64::from(REFUSALS_IN_ROW_MAX) * 250);
    desk.wait_until(now);
    desk.refuse("ada", RefuseReason::Busy, now);
    assert_eq!(desk.pauses(), 1, "who refuses for ever fails in the end");
}

#[test]
fn a_worker_without_the_model_is_not_asked_for_it_again() {
    let mut desk = Desk::new(1, &["ada"]);
    desk.refuse("ada", RefuseReason::UnknownModel, at(1));
    desk.say("ada", ToRequester::Offer(capabilities(vec![model()])), at(2));
    desk.wait_until(at(100_000));
    assert_eq!((desk.grants.len(), desk.reasons()), (1, None));
    assert!(desk.machine.is_starved(job(1)));
    desk.join("bob", at(100_001));
    assert!(!desk.machine.is_starved(job(1)));
    assert_eq!(desk.held("bob").len(), 1);
}

fn stores(desk: &Desk) -> usize {
    desk.count(|output| matches!(output, RequesterOutput::Send { message: ToWorker::Store { .. }, .. }))
}

/// A job whose present stage has `units` units that name a conditioning.
pub fn conditioned(units: u32, workers: &[&str]) -> (Desk, Hash) {
    let body: Arc<[u8]> = tensor::to_bytes(&[0.5; 24]).into();
    let blob = Hash::of(&body);
    let (conditioning, branches) = (blob, Branches::Both);
    let work = Work::Denoise { conditioning, conditioning_rows: 2, branches, timestep: 1.0, rows: 1, columns: 1 };
    let mut desk = Desk::new(0, workers);
    let with_work = |(unit, input)| (Unit { work: work.clone(), ..unit }, input);
    let units = decodes(1, units).into_iter().map(with_work).collect();
    desk.machine.begin_stage(job(1), units, Some((blob, body)), &SHAPE, at(0));
    desk.drain();
    (desk, blob)
}

#[test]
fn a_conditioning_is_sent_once_to_each_worker_before_its_first_unit() {
    let (mut desk, _) = conditioned(6, &["ada", "bob"]);
    let to_ada: Vec<_> = desk
        .outputs
        .iter()
        .filter_map(|output| match output {
            RequesterOutput::Send { to, message, .. } if *to == peer("ada") => Some(message),
            _ => None,
        })
        .collect();
    assert!(matches!(to_ada[..], [ToWorker::Store { .. }, ToWorker::Assign { .. }, ToWorker::Assign { .. }]));
    let lease = desk.held("ada")[0];
    desk.deliver_body("ada", lease, tensor::to_bytes(&[0.0, 0.1, 0.2, 0.3]), at(1));
    assert_eq!((desk.delivered().len(), desk.held("ada").len(), stores(&desk)), (1, 2, 2));
}

#[test]
fn a_lost_conditioning_is_sent_again_once_and_then_held_against_the_worker() {
    let (mut desk, blob) = conditioned(1, &["ada", "bob"]);
    desk.refuse("ada", RefuseReason::UnknownBlob(blob), at(1));
    assert_eq!((stores(&desk), desk.pauses(), desk.held("ada").len()), (2, 0, 1));
    desk.refuse("ada", RefuseReason::UnknownBlob(blob), at(2));
    assert_eq!((desk.pauses(), desk.held("bob").len()), (1, 1));
    desk.refuse("bob", RefuseReason::UnknownBlob(Hash::of(b"another")), at(3));
    assert_eq!(desk.reasons().map(|reasons| reasons.len()), Some(2), "a blob that the unit does not name");
}

#[test]
fn wrong_bodies_are_never_delivered_and_fail_their_worker() {
    let short = sound_body()[4..].to_vec();
    let long = [sound_body(), vec![0; 4]].concat();
    let [not_a_number, infinite] =
        [f32::NAN, f32::INFINITY].map(|bad| [tensor::to_bytes(&[bad]), short.clone()].concat());
    for body in [short, long, not_a_number, infinite, Vec::new()] {
        let mut desk = Desk::new(1, &["eve", "ada"]);
        let (liar, other) = if desk.held("eve").is_empty() { ("ada", "eve") } else { ("eve", "ada") };
        desk.deliver_body(liar, desk.held(liar)[0], body, at(1));
        assert_eq!((desk.delivered().len(), desk.pauses(), desk.held(other).len()), (0, 1, 1));
        desk.deliver(other, desk.held(other)[0], at(2));
        assert_eq!((desk.delivered().len(), desk.stages_done()), (1, 1));
    }
}

#[test]
fn a_unit_fails_its_job_after_three_distinct_peers_with_their_reasons() {
    let mut desk = Desk::new(5, &["ada", "bob", "cid", "dan"]);
    let unit = desk.unit(desk.held("ada")[0]);
    for (round, reason) in
        (1..).zip([RefuseReason::Failed("out of memory".into()), RefuseReason::Invalid("odd".into())])
    {
        let name = ["ada", "bob", "cid", "dan"]
            .into_iter()
            .find(|name| desk.held(name).first().is_some_and(|lease| desk.unit(*lease) == unit));
        desk.refuse(name.expect("somebody holds the unit"), reason, at(round));
        desk.wait_until(at(round * 1_000));
        for name in ["ada", "bob", "cid", "dan"] {
            for lease in desk.held(name) {
                if desk.unit(lease) != unit {
                    desk.deliver(name, lease, at(round * 1_000));
                }
            }
        }
    }
    assert_eq!(desk.reasons(), None);
    let name = ["ada", "bob", "cid", "dan"].into_iter().find(|name| !desk.held(name).is_empty()).unwrap();
    desk.refuse(name, RefuseReason::failed(&"x".repeat(1_000)), at(3_000));
    let reasons = desk.reasons().expect("the job fails");
    assert_eq!(reasons.len(), ATTEMPTS_MAX);
    assert_eq!(
        (reasons[0].1.as_str(), reasons[1].1.as_str(), reasons[2].1.len()),
        ("out of memory", "odd", REASON_BYTES_MAX)
    );
    assert!(reasons[0].0 != reasons[1].0 && reasons[1].0 != reasons[2].0 && reasons[0].0 != reasons[2].0);
    assert!(["ada", "bob", "cid", "dan"].iter().all(|name| desk.held(name).is_empty()), "all else of the job is over");
}

#[test]
fn a_unit_that_failed_on_everybody_present_fails_its_job() {
    let mut desk = Desk::new(1, &["ada", "bob"]);
    desk.refuse("ada", RefuseReason::Failed("one".into()), at(1));
    assert_eq!(desk.reasons(), None, "bob has not tried");
    desk.refuse("bob", RefuseReason::Failed("two".into()), at(2));
    assert_eq!(desk.reasons().map(|reasons| reasons.len()), Some(2));
}

#[test]
fn a_unit_whose_last_untried_worker_left_waits_for_another() {
    let mut desk = Desk::new(1, &["ada", "bob"]);
    desk.refuse("ada", RefuseReason::Failed("one".into()), at(1));
    desk.leave("bob", at(2));
    desk.wait_until(at(10_000));
    assert_eq!((desk.reasons(), desk.held("ada").len()), (None, 0), "ada is not asked for it again");
    assert!(desk.machine.is_starved(job(1)));
    desk.join("cid", at(10_001));
    desk.deliver("cid", desk.held("cid")[0], at(10_002));
    assert_eq!(desk.stages_done(), 1);
}

#[test]
fn a_unit_that_nobody_left_can_do_fails_its_job_when_the_driver_has_waited_long_enough() {
    let mut desk = Desk::new(1, &["ada", "bob"]);
    desk.refuse("ada", RefuseReason::OutOfMemory, at(1));
    desk.machine.fail_if_hopeless(job(1));
    desk.drain();
    assert_eq!(desk.reasons(), None, "bob may do it");
    desk.leave("bob", at(2));
    desk.machine.fail_if_hopeless(job(1));
    desk.drain();
    assert_eq!(desk.reasons(), Some(vec![(peer("ada"), "out of memory".into())]));
    assert!(!desk.machine.is_starved(job(1)));
}

#[test]
fn a_rejected_delivery_is_a_failure_of_its_worker_and_is_done_again() {
    let mut desk = Desk::new(1, &["ada", "bob"]);
    desk.deliver("ada", desk.held("ada")[0], at(1));
    assert_eq!(desk.stages_done(), 1);
    let unit = UnitId { stage: 0, index: 0 };
    desk.machine.reject(job(1), unit, "not like its neighbours", at(2));
    desk.machine.reject(job(1), unit, "twice", at(2));
    desk.machine.reject(job(1), UnitId { stage: 7, index: 0 }, "no such unit", at(2));
    desk.drain();
    let ada = desk.machine.roster().lender(&peer("ada")).unwrap();
    assert_eq!((ada.units_delivered(), ada.failures(), desk.pauses()), (0, 1, 1));
    desk.deliver("bob", desk.held("bob")[0], at(3));
    assert_eq!((desk.delivered(), desk.stages_done()), (vec![0, 0], 2));
}

#[test]
fn a_delivery_rejected_at_once_announces_its_stage_once() {
    let mut machine = Desk::new(1, &["ada", "bob"]).machine;
    machine.handle(&peer("ada"), ToRequester::Deliver { lease: LeaseId(1), compute_ms: 1 }, sound_body(), at(1));
    let Some(RequesterOutput::Delivered { job, unit, .. }) = machine.poll_output() else { panic!("not delivered") };
    machine.reject(job, unit, "no", at(1));
    let rest: Vec<_> = std::iter::from_fn(|| machine.poll_output()).collect();
    assert!(!rest.iter().any(|output| matches!(output, RequesterOutput::StageDone { .. })), "{rest:?}");
}
