//! A requester alone, its workers played by hand: who is granted what, until when, and which deliveries count.

use std::time::Duration;

use coordinator::{RequesterOutput, Standing};
use protocol::limits::{
    CLAIM_BELIEVED, HEARTBEAT_EVERY, LEASE_SILENCE_MAX, LEASE_TIME_MAX, NAME_BYTES_MAX, PROBE_AFTER,
    UPLOAD_BYTES_PER_SECOND_MIN,
};
use protocol::{Capabilities, Pilot, RefuseReason, ToRequester, ToWorker, Unit, UnitId, Work};

use crate::desk::Desk;
use crate::toy::{SHAPE, at, capabilities, job, model, peer};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn every_idle_worker_gets_one_unit_before_anybody_gets_a_second() {
    let desk = Desk::new(3, &["ada", "bob"]);
    assert_eq!((desk.held("ada").len(), desk.held("bob").len()), (2, 1));
    let desk = Desk::new(9, &["ada", "bob"]);
    assert_eq!((desk.held("ada").len(), desk.held("bob").len()), (2, 2), "one in advance, until more is known");
    assert_eq!(desk.grants.values().map(|(_, unit)| unit.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn a_late_delivery_changes_nothing() {
    let mut desk = Desk::new(1, &["ada"]);
    let late = desk.held("ada")[0];
    desk.join("bob", at(100));
    desk.wait_until(at(3_100));
    let again = desk.held("bob")[0];
    desk.deliver("ada", late, at(3_200));
    assert_eq!(desk.delivered(), [0; 0], "the unit was granted again");
    desk.deliver("bob", again, at(3_300));
    assert_eq!((desk.delivered().len(), desk.stages_done()), (1, 1));
    desk.deliver("ada", late, at(3_400));
    assert_eq!((desk.delivered().len(), desk.stages_done()), (1, 1));
}

#[test]
fn a_doubled_delivery_counts_once() {
    let mut desk = Desk::new(2, &["ada"]);
    let lease = desk.held("ada")[0];
    desk.deliver("ada", lease, at(1));
    desk.deliver("ada", lease, at(2));
    assert_eq!((desk.delivered(), desk.stages_done()), (vec![0], 0));
    assert_eq!(desk.machine.roster().lender(&peer("ada")).unwrap().units_delivered(), 1);
}

#[test]
fn a_delivery_from_another_peer_changes_nothing() {
    let mut desk = Desk::new(2, &["ada", "eve"]);
    let lease = desk.held("ada")[0];
    desk.deliver("eve", lease, at(1));
    desk.say("eve", ToRequester::Refuse { lease, reason: RefuseReason::Failed("no".into()) }, at(1));
    desk.say("eve", ToRequester::Refuse { lease, reason: RefuseReason::UnknownModel }, at(1));
    assert_eq!((desk.delivered().len(), desk.held("ada").len(), desk.pauses()), (0, 1, 0));
    desk.deliver("stranger", lease, at(1));
    assert_eq!(desk.delivered().len(), 0);
}

#[test]
fn another_peers_heartbeat_keeps_no_lease_alive() {
    let mut desk = Desk::new(1, &["ada", "eve"]);
    let lease = desk.held("ada")[0];
    for ms in (500..3_500).step_by(500) {
        desk.say("eve", ToRequester::Heartbeat { lease }, at(ms));
    }
    desk.wait_until(at(3_500));
    assert_eq!((desk.held("ada").len(), desk.held("eve").len()), (0, 1));
}

#[test]
fn deliveries_of_a_cancelled_job_or_an_earlier_stage_change_nothing() {
    let mut desk = Desk::new(1, &["ada"]);
    let first = desk.held("ada")[0];
    desk.begin(1, 1, at(10));
    assert_eq!(desk.cancelled(), [first], "what is left of a stage is cancelled");
    desk.deliver("ada", first, at(20));
    assert_eq!(desk.delivered().len(), 0);
    let second = desk.held("ada")[0];
    desk.machine.cancel(job(1), at(30));
    desk.deliver("ada", second, at(40));
    assert_eq!((desk.delivered().len(), desk.stages_done(), desk.machine.poll_timeout()), (0, 0, None));
    desk.begin(2, 1, at(50));
    assert_eq!(desk.grants.len(), 2, "a job that has ended takes no stage");
}

#[test]
fn the_workers_of_a_job_are_released_when_it_ends() {
    let mut desk = Desk::new(2, &["ada", "bob"]);
    desk.join("eve", at(0));
    desk.leave("bob", at(1));
    desk.machine.cancel(job(1), at(2));
    desk.drain();
    let released = |name: &str| {
        let release = ToWorker::Release { job: job(1) };
        desk.count(|output| matches!(output, RequesterOutput::Send { to, message, .. } if *to == peer(name) && *message == release))
    };
    assert_eq!(["ada", "bob", "eve"].map(released), [1, 0, 1], "those who are there and were used, once");
}

#[test]
fn an_empty_stage_is_done_at_once() {
    let desk = Desk::new(0, &[]);
    assert_eq!(desk.stages_done(), 1);
    assert!(!desk.machine.is_starved(job(1)));
}

#[test]
fn a_worker_that_leaves_loses_its_units_at_once_and_bears_no_blame() {
    for by_message in [true, false] {
        let mut desk = Desk::new(4, &["ada", "bob"]);
        let lost: Vec<u32> = desk.held("ada").into_iter().map(|lease| desk.unit(lease)).collect();
        if by_message {
            desk.say("ada", ToRequester::Leave, at(5));
        } else {
            desk.leave("ada", at(5));
        }
        desk.join("cid", at(6));
        let regranted: Vec<u32> = desk.held("cid").into_iter().map(|lease| desk.unit(lease)).collect();
        assert_eq!((regranted, desk.pauses()), (lost, 0));
    }
}

#[test]
fn a_connection_made_anew_voids_the_leases_of_the_old_one() {
    let mut desk = Desk::new(1, &["ada"]);
    let old = desk.held("ada")[0];
    desk.join("ada", at(5));
    let new = desk.held("ada")[0];
    assert_ne!(old, new);
    desk.deliver("ada", old, at(6));
    assert_eq!(desk.delivered().len(), 0);
    desk.deliver("ada", new, at(7));
    assert_eq!(desk.delivered().len(), 1);
}

#[test]
fn a_peer_that_is_not_connected_is_not_heard() {
    let mut desk = Desk::new(1, &["ada"]);
    desk.leave("ada", at(1));
    desk.say("ada", ToRequester::Offer(capabilities(vec![model()])), at(2));
    assert!(desk.machine.roster().lender(&peer("ada")).is_none());
}

#[test]
fn heartbeats_keep_a_lease_until_its_time_is_over() {
    let mut desk = Desk::new(1, &["ada"]);
    let mut now = at(0);
    while now + HEARTBEAT_EVERY < at(0) + LEASE_TIME_MAX {
        now = now + HEARTBEAT_EVERY;
        desk.beat("ada", now);
        desk.wait_until(now);
        assert_eq!((desk.grants.len(), desk.pauses()), (1, 0));
    }
    assert!(desk.machine.poll_timeout() <= Some(at(0) + LEASE_TIME_MAX));
    desk.beat("ada", at(0) + LEASE_TIME_MAX);
    desk.wait_until(at(0) + LEASE_TIME_MAX);
    assert_eq!((desk.held("ada").len(), desk.pauses(), desk.cancelled().len()), (0, 1, 1));
    assert!(desk.machine.is_starved(job(1)));
}

#[test]
fn a_silent_worker_is_asked_then_loses_all_its_leases_and_gets_none_before_it_speaks() {
    let mut desk = Desk::new(3, &["ada"]);
    assert_eq!(desk.held("ada").len(), 2);
    let probes = |desk: &Desk| {
        desk.count(|output| matches!(output, RequesterOutput::Send { message: ToWorker::Probe { .. }, .. }))
    };
    let due = desk.machine.poll_timeout().unwrap();
    assert!((PROBE_AFTER..PROBE_AFTER + Duration::from_millis(10)).contains(&(due - at(0))), "{due:?}");
    desk.wait_until(due);
    assert_eq!((probes(&desk), desk.held("ada").len()), (1, 2));
    let end = at(0) + LEASE_SILENCE_MAX + Duration::from_millis(10);
    desk.wait_until(end);
    assert_eq!((desk.held("ada").len(), desk.pauses()), (0, 1));
    for round in 1..8 {
        let due = desk.machine.poll_timeout().unwrap();
        desk.wait_until(due);
        assert_eq!(desk.held("ada").len(), 0, "{round}: it has said nothing");
    }
    assert!(probes(&desk) > 3 && desk.machine.is_starved(job(1)));
    let lease = *desk.grants.keys().next().unwrap();
    desk.say("ada", ToRequester::Refuse { lease, reason: RefuseReason::UnknownLease }, at(600_000));
    desk.wait_until(at(600_000));
    assert_eq!(desk.held("ada").len(), 1, "nothing in advance for a worker that failed last");
    desk.deliver("ada", desk.held("ada")[0], at(600_100));
    assert_eq!(desk.held("ada").len(), 2, "a delivery restores trust");
}

#[test]
fn an_answer_to_a_probe_keeps_the_lease_and_an_unknown_lease_is_given_again_at_once() {
    let mut desk = Desk::new(1, &["ada", "bob"]);
    let lease = *desk.grants.keys().next().unwrap();
    let name = if desk.held("ada").is_empty() { "bob" } else { "ada" };
    desk.wait_until(at(1_300));
    desk.say(name, ToRequester::Heartbeat { lease }, at(1_400));
    desk.wait_until(at(4_000));
    assert_eq!((desk.held(name).len(), desk.pauses()), (1, 0));
    desk.say(name, ToRequester::Refuse { lease, reason: RefuseReason::UnknownLease }, at(4_100));
    assert_eq!((desk.grants.len(), desk.pauses()), (2, 0), "without blame");
}

#[test]
fn a_lease_is_not_silent_while_its_input_is_under_way() {
    let mut desk = Desk::new(0, &["ada"]);
    let work = Work::Decode { rows: 512, columns: 256 };
    let values = work.input_values(&SHAPE);
    let unit = Unit { job: job(1), id: UnitId { stage: 1, index: 0 }, model: model(), work };
    desk.machine.begin_stage(job(1), vec![(unit, vec![0; 4 * values].into())], None, &SHAPE, at(0));
    let under_way = Duration::from_secs((4 * values / UPLOAD_BYTES_PER_SECOND_MIN) as u64);
    assert_eq!(under_way, 8 * SECOND);
    assert_eq!(desk.machine.poll_timeout(), Some(at(0) + under_way + PROBE_AFTER));
}

#[test]
fn a_unit_that_stalled_goes_to_somebody_else_first() {
    let mut desk = Desk::new(2, &["ada", "bob"]);
    let (stalled, kept) = (desk.held("ada")[0], desk.held("bob")[0]);
    for ms in (500..=4_000).step_by(500) {
        desk.beat("bob", at(ms));
        desk.wait_until(at(ms));
    }
    assert_eq!(desk.held("ada").len(), 0, "bob is busy and still goes first");
    desk.deliver("bob", kept, at(4_100));
    assert_eq!(desk.unit(desk.held("bob")[0]), desk.unit(stalled));
}

#[test]
fn an_idle_worker_takes_over_what_waits_behind_another_unit() {
    let mut desk = Desk::new(2, &["ada"]);
    let waiting = desk.held("ada")[1];
    desk.join("bob", at(1));
    assert_eq!(desk.cancelled(), [waiting]);
    assert_eq!((desk.held("ada").len(), desk.unit(desk.held("bob")[0])), (1, 1));
    desk.join("cid", at(2));
    assert_eq!(desk.held("cid").len(), 0, "what is begun is not taken away");
}

#[test]
fn unsound_offers_are_dropped_with_a_reason() {
    let mut desk = Desk::new(2, &["ada"]);
    let mut boast = capabilities(vec![model()]);
    boast.name = "x".repeat(NAME_BYTES_MAX + 1);
    desk.say("ada", ToRequester::Offer(boast), at(1));
    assert_eq!(desk.count(|output| matches!(output, RequesterOutput::WorkerDropped { .. })), 1);
    assert!(desk.machine.roster().lender(&peer("ada")).is_none() && desk.machine.is_starved(job(1)));
}

#[test]
fn workers_that_lend_other_models_are_not_asked() {
    let mut desk = Desk::new(1, &[]);
    desk.machine.handle_joined(peer("ada"), Standing::alone(&peer("ada")), at(0));
    desk.say("ada", ToRequester::Offer(capabilities(vec![])), at(0));
    assert!(desk.grants.is_empty() && desk.machine.is_starved(job(1)));
    desk.say("ada", ToRequester::Offer(capabilities(vec![model()])), at(1));
    assert_eq!(desk.held("ada").len(), 1, "a second offer brings the model");
}

/// A unit held by ada, who claims so many nanoseconds for it.
fn slow_worker(nanoseconds_per_cost: u64) -> Desk {
    let mut desk = Desk::new(0, &[]);
    desk.machine.handle_joined(peer("ada"), Standing::alone(&peer("ada")), at(0));
    let pilots = vec![Pilot { model: model(), nanoseconds_per_cost }];
    let slow = Capabilities { pilots, ..capabilities(vec![model()]) };
    desk.say("ada", ToRequester::Offer(slow), at(0));
    desk.begin(0, 1, at(0));
    desk
}

#[test]
fn a_slow_worker_has_the_time_that_its_unit_is_expected_to_take() {
    let mut desk = slow_worker(200_000_000_000);
    let mut now = at(0);
    while now < at(0) + LEASE_TIME_MAX + 10 * SECOND {
        now = now + HEARTBEAT_EVERY;
        desk.beat("ada", now);
        desk.wait_until(now);
    }
    assert_eq!((desk.held("ada").len(), desk.pauses()), (1, 0), "a unit of 200 s is not late after 310 s");
    while now < at(0) + LEASE_TIME_MAX * 3 {
        now = now + HEARTBEAT_EVERY;
        desk.beat("ada", now);
        desk.wait_until(now);
    }
    assert_eq!((desk.held("ada").len(), desk.pauses()), (0, 1), "four times that is too long");
}

#[test]
fn who_has_only_claimed_to_be_slow_holds_up_no_idle_worker_for_long() {
    let mut desk = slow_worker(1_000_000_000_000);
    desk.join("bob", at(1));
    let mut now = at(1);
    while desk.held("bob").is_empty() {
        assert!(now < at(2) + CLAIM_BELIEVED, "bob is idle until {now:?}");
        now = now + HEARTBEAT_EVERY;
        desk.beat("ada", now);
        desk.wait_until(now);
    }
    assert!(now >= at(0) + CLAIM_BELIEVED && desk.pauses() == 0, "{now:?}");
    desk.deliver("bob", desk.held("bob")[0], now);
    assert_eq!((desk.delivered(), desk.held("ada").len()), (vec![0], 0));
}
