//! A worker alone, its requesters played by hand: what it takes, refuses, computes and says.

use std::collections::BTreeMap;
use std::time::Duration;

use coordinator::{LeaseKey, Worker, WorkerOutput};
use protocol::limits::{
    BLOBS_MAX, HEARTBEAT_EVERY, LEASES_PER_WORKER, PROMPT_BYTES_MAX, UPLOAD_BYTES_PER_SECOND_MIN, WORKER_QUEUE_MAX,
};
use protocol::{
    Branches, Capabilities, Hash, Instant, JobId, JobSpec, Layout, LeaseId, ModelId, PlanChoice, RefuseReason, Size,
    ToRequester, ToWorker, Unit, UnitId, Work, tensor,
};

use crate::toy::{SHAPE, at, capabilities, job, model, peer};

/// A worker, and what it was told to compute.
struct Bench {
    machine: Worker,
    computing: Vec<LeaseKey>,
    aborted: Vec<LeaseKey>,
    said: Vec<(String, ToRequester)>,
}

impl Bench {
    fn new(requesters: &[&str]) -> Self {
        let machine = Worker::new(capabilities(vec![]), BTreeMap::from([(model(), SHAPE)]));
        let mut bench = Self { machine, computing: Vec::new(), aborted: Vec::new(), said: Vec::new() };
        for name in requesters {
            bench.machine.handle_joined(peer(name), at(0));
        }
        bench.drain();
        bench.said.clear();
        bench
    }

    fn hear(&mut self, name: &str, message: ToWorker, body: &[u8], now: Instant) {
        self.machine.handle(&peer(name), message, body.to_vec(), now);
        self.drain();
    }

    fn assign(&mut self, name: &str, lease: u64, unit: Unit, body: &[u8], now: Instant) {
        self.hear(name, ToWorker::Assign { lease: LeaseId(lease), unit: Box::new(unit) }, body, now);
    }

    fn assign_decode(&mut self, name: &str, lease: u64) {
        self.assign(name, lease, decode(), &tensor::to_bytes(&[0.0, 0.5]), at(1));
    }

    /// Ends what is computed now.
    fn computed(&mut self, result: Result<Vec<u8>, RefuseReason>, now: Instant) {
        let key = self.computing.last().expect("something is computed").clone();
        self.machine.handle_computed(&key, result, 7, now);
        self.drain();
    }

    fn wait_until(&mut self, now: Instant) {
        self.machine.handle_timeout(now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                WorkerOutput::Send { to, message, .. } => self.said.push((to.to_string(), message)),
                WorkerOutput::Compute { key, .. } => self.computing.push(key),
                WorkerOutput::Abort { key } => self.aborted.push(key),
            }
        }
    }

    fn said(&mut self) -> Vec<(String, ToRequester)> {
        std::mem::take(&mut self.said)
    }

    /// The only thing it said, which is a refusal.
    fn refusal(&mut self) -> RefuseReason {
        let said = self.said();
        let [(_, ToRequester::Refuse { reason, .. })] = &said[..] else { panic!("not one refusal: {said:?}") };
        reason.clone()
    }

    /// Leases computed so far, by requester and number.
    fn order(&self) -> Vec<(&str, u64)> {
        self.computing.iter().map(|key| (key.requester.as_str(), key.lease.0)).collect()
    }
}

fn unit(job: JobId, work: Work) -> Unit {
    Unit { job, id: UnitId { stage: 0, index: 0 }, model: model(), work }
}

fn decode() -> Unit {
    unit(job(1), Work::Decode { rows: 1, columns: 1 })
}

fn denoise(conditioning: Hash, conditioning_rows: u32) -> Unit {
    let branches = if conditioning_rows == 2 { Branches::Both } else { Branches::Prompt };
    unit(job(1), Work::Denoise { conditioning, conditioning_rows, branches, timestep: 1.0, rows: 1, columns: 1 })
}

fn heartbeat(lease: u64) -> ToRequester {
    ToRequester::Heartbeat { lease: LeaseId(lease) }
}

fn body() -> Vec<u8> {
    tensor::to_bytes(&[0.25; 12])
}

#[test]
fn everybody_who_joins_is_offered_the_models() {
    let mut bench = Bench::new(&[]);
    bench.machine.handle_joined(peer("ada"), at(0));
    bench.drain();
    let offer = ToRequester::Offer(capabilities(vec![model()]));
    assert_eq!(bench.said(), [("ada".to_owned(), offer)]);
}

#[test]
fn one_unit_is_computed_at_a_time_and_delivered() {
    let mut bench = Bench::new(&["ada"]);
    bench.assign_decode("ada", 1);
    bench.assign_decode("ada", 2);
    assert_eq!(bench.order(), [("ada", 1)]);
    bench.computed(Ok(body()), at(2));
    assert_eq!(bench.order(), [("ada", 1), ("ada", 2)]);
    bench.computed(Err(RefuseReason::failed("out of memory")), at(3));
    let deliver = ToRequester::Deliver { lease: LeaseId(1), compute_ms: 7 };
    let refuse = ToRequester::Refuse { lease: LeaseId(2), reason: RefuseReason::Failed("out of memory".into()) };
    assert_eq!(bench.said(), [("ada".to_owned(), deliver), ("ada".to_owned(), refuse)]);
    assert_eq!((bench.machine.units_delivered(), bench.machine.leases_held()), (1, 0));
}

#[test]
fn requesters_are_served_in_turn() {
    let mut bench = Bench::new(&["ada", "bob", "cid"]);
    for (name, lease) in [("bob", 1), ("bob", 2), ("cid", 1), ("cid", 2), ("ada", 1), ("ada", 2)] {
        bench.assign_decode(name, lease);
    }
    for _ in 0..6 {
        bench.computed(Ok(body()), at(2));
    }
    assert_eq!(bench.order(), [("bob", 1), ("cid", 1), ("ada", 1), ("bob", 2), ("cid", 2), ("ada", 2)]);
}

#[test]
fn a_requester_that_asks_for_more_than_its_share_is_told_busy() {
    let mut bench = Bench::new(&["ada", "bob"]);
    for lease in 0..LEASES_PER_WORKER as u64 {
        bench.assign_decode("ada", lease);
    }
    assert_eq!(bench.said(), []);
    bench.assign_decode("ada", 99);
    assert_eq!(bench.refusal(), RefuseReason::Busy);
    bench.assign_decode("bob", 1);
    assert_eq!(bench.said(), [], "others have their own share");
}

#[test]
fn a_full_queue_is_told_busy() {
    let names: Vec<String> = (0..WORKER_QUEUE_MAX).map(|number| format!("asker{number}")).collect();
    let mut bench = Bench::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let leases = (1..=LEASES_PER_WORKER as u64).flat_map(|lease| names.iter().map(move |name| (name, lease)));
    for (name, lease) in leases.take(WORKER_QUEUE_MAX + 1) {
        bench.assign_decode(name, lease);
    }
    assert_eq!((bench.said(), bench.machine.leases_held()), (vec![], WORKER_QUEUE_MAX + 1), "one runs");
    bench.assign_decode(&names[9], 9);
    assert_eq!(bench.refusal(), RefuseReason::Busy);
}

#[test]
fn units_outside_the_limits_are_refused_before_they_are_queued() {
    let input = tensor::to_bytes(&[0.0, 0.5]);
    let other = ModelId(Hash::of(b"another model"));
    let mut bench = Bench::new(&["ada"]);
    bench.assign("ada", 1, Unit { model: other, ..decode() }, &input, at(1));
    assert_eq!(bench.refusal(), RefuseReason::UnknownModel);
    let size = Size { width: 8, height: 8 };
    let spec = JobSpec {
        model: other,
        prompt: "sea".into(),
        negative: String::new(),
        size,
        steps: 1,
        guidance: 1.0,
        seed: 1,
        layout: Layout::new(PlanChoice::Whole, size, &SHAPE),
    };
    for (work, input) in [
        (Work::Decode { rows: u32::MAX, columns: u32::MAX }, vec![]),
        (Work::Decode { rows: 0, columns: 1 }, vec![]),
        (Work::Decode { rows: 1, columns: 1 }, vec![]),
        (Work::Decode { rows: 1, columns: 1 }, vec![0; 9]),
        (Work::Decode { rows: 1, columns: 1 }, tensor::to_bytes(&[f32::NAN, 0.0])),
        (Work::Encode { prompt: "x".repeat(PROMPT_BYTES_MAX + 1), negative: None }, vec![]),
        (Work::Encode { prompt: "sea".into(), negative: None }, vec![0; 4]),
        (Work::Paint { spec: Box::new(spec.clone()) }, vec![]),
        (Work::Paint { spec: Box::new(JobSpec { model: model(), steps: 0, ..spec.clone() }) }, vec![]),
    ] {
        bench.assign("ada", 1, unit(job(1), work.clone()), &input, at(1));
        assert!(matches!(bench.refusal(), RefuseReason::Invalid(_)), "{work:?}");
    }
    assert_eq!((bench.machine.leases_held(), bench.machine.poll_timeout()), (0, None));
    bench.assign(
        "ada",
        1,
        unit(job(1), Work::Paint { spec: Box::new(JobSpec { model: model(), ..spec }) }),
        &[],
        at(1),
    );
    assert_eq!(bench.order(), [("ada", 1)]);
}

#[test]
fn a_lease_granted_twice_is_refused() {
    let mut bench = Bench::new(&["ada", "bob"]);
    bench.assign_decode("ada", 1);
    bench.assign_decode("ada", 1);
    assert!(matches!(bench.refusal(), RefuseReason::Invalid(_)));
    bench.assign_decode("bob", 1);
    assert_eq!(bench.said(), [], "requesters count their leases independently");
}

#[test]
fn a_conditioning_must_be_what_its_hash_and_the_model_say() {
    let input = tensor::to_bytes(&[0.0, 0.5]);
    let good = tensor::to_bytes(&[0.5; 24]);
    let blob = Hash::of(&good);
    let mut bench = Bench::new(&["ada"]);
    bench.assign("ada", 1, denoise(blob, 2), &input, at(1));
    assert_eq!(bench.refusal(), RefuseReason::UnknownBlob(blob));
    bench.hear("ada", ToWorker::Store { blob }, b"something else", at(1));
    bench.hear("stranger", ToWorker::Store { blob }, &good, at(1));
    bench.assign("ada", 2, denoise(blob, 2), &input, at(1));
    assert_eq!(bench.refusal(), RefuseReason::UnknownBlob(blob));
    let large = vec![0; 2 * good.len()];
    bench.hear("ada", ToWorker::Store { blob: Hash::of(&large) }, &large, at(1));
    bench.assign("ada", 3, denoise(Hash::of(&large), 2), &input, at(1));
    assert_eq!(bench.refusal(), RefuseReason::UnknownBlob(Hash::of(&large)), "no model could use it");
    bench.hear("ada", ToWorker::Store { blob }, &good, at(1));
    bench.assign("ada", 4, denoise(blob, 1), &input, at(1));
    assert!(matches!(bench.refusal(), RefuseReason::Invalid(_)), "two rows where the unit says one");
    bench.assign("ada", 5, denoise(blob, 2), &input, at(1));
    assert_eq!(bench.order(), [("ada", 5)]);
}

#[test]
fn a_queued_unit_keeps_its_conditioning_whatever_is_stored_after_it() {
    let store = |bench: &mut Bench, value: f32| {
        let body = tensor::to_bytes(&[value; 24]);
        bench.hear("ada", ToWorker::Store { blob: Hash::of(&body) }, &body, at(1));
        Hash::of(&body)
    };
    let mut bench = Bench::new(&["ada"]);
    let blob = store(&mut bench, 0.5);
    bench.assign_decode("ada", 1);
    bench.assign("ada", 2, denoise(blob, 2), &tensor::to_bytes(&[0.0, 0.5]), at(1));
    for value in 0..2 * BLOBS_MAX {
        store(&mut bench, value as f32);
    }
    let key = bench.computing[0].clone();
    bench.machine.handle_computed(&key, Ok(body()), 1, at(2));
    let compute = std::iter::from_fn(|| bench.machine.poll_output())
        .find_map(|output| if let WorkerOutput::Compute { conditioning, .. } = output { conditioning } else { None });
    assert_eq!(compute.as_deref(), Some(&tensor::to_bytes(&[0.5; 24])[..]));
}

#[test]
fn every_lease_held_gets_its_heartbeat_on_time() {
    let mut bench = Bench::new(&["ada", "bob"]);
    assert_eq!(bench.machine.poll_timeout(), None);
    bench.assign_decode("ada", 1);
    bench.assign_decode("ada", 2);
    bench.assign_decode("bob", 5);
    for round in 1..5 {
        let due = bench.machine.poll_timeout().unwrap();
        assert_eq!(due, at(1) + HEARTBEAT_EVERY * round);
        bench.wait_until(due);
        let beats = [("ada", 1), ("ada", 2), ("bob", 5)].map(|(name, lease)| (name.to_owned(), heartbeat(lease)));
        assert_eq!(bench.said(), beats);
    }
    bench.wait_until(at(1));
    assert_eq!(bench.said(), [], "not before the next is due");
}

#[test]
fn a_result_under_way_keeps_its_lease_alive_until_it_must_have_arrived() {
    let mut bench = Bench::new(&["ada"]);
    bench.assign_decode("ada", 1);
    bench.computed(Ok(vec![0; 10 * UPLOAD_BYTES_PER_SECOND_MIN]), at(1));
    let sent = at(1);
    bench.said();
    let mut last = sent;
    while let Some(due) = bench.machine.poll_timeout() {
        bench.wait_until(due);
        if !bench.said().is_empty() {
            last = due;
        }
    }
    assert!((Duration::from_millis(9_500)..=Duration::from_secs(10)).contains(&(last - sent)), "{:?}", last - sent);
}

#[test]
fn results_that_have_arrived_need_no_heartbeat() {
    let mut bench = Bench::new(&["ada"]);
    for lease in 1..50 {
        bench.assign_decode("ada", lease);
        bench.computed(Ok(vec![0; 10 * UPLOAD_BYTES_PER_SECOND_MIN]), at(1));
    }
    bench.said();
    bench.wait_until(at(1) + HEARTBEAT_EVERY);
    assert_eq!(bench.said().len(), LEASES_PER_WORKER, "a requester has no more leases here than this");
}

#[test]
fn cancelled_leases_are_dropped_and_a_running_one_is_aborted() {
    let mut bench = Bench::new(&["ada", "bob"]);
    bench.assign_decode("ada", 1);
    bench.assign_decode("ada", 2);
    bench.assign_decode("bob", 1);
    bench.hear("bob", ToWorker::Cancel { lease: LeaseId(2) }, &[], at(2));
    assert_eq!(bench.machine.leases_held(), 3, "not bob's to cancel");
    bench.hear("ada", ToWorker::Cancel { lease: LeaseId(2) }, &[], at(2));
    bench.hear("ada", ToWorker::Cancel { lease: LeaseId(1) }, &[], at(2));
    bench.hear("ada", ToWorker::Cancel { lease: LeaseId(1) }, &[], at(2));
    assert_eq!((bench.aborted.len(), bench.machine.leases_held()), (1, 1));
    assert_eq!(bench.order(), [("ada", 1)], "the next one begins when the engine has let go");
    bench.computed(Ok(body()), at(3));
    assert_eq!((bench.said(), bench.order()), (vec![], vec![("ada", 1), ("bob", 1)]), "its result is dropped");
    assert_eq!(bench.machine.units_delivered(), 0);
}

#[test]
fn a_released_job_and_a_requester_that_left_take_their_leases_with_them() {
    for is_release in [true, false] {
        let mut bench = Bench::new(&["ada", "bob"]);
        bench.assign_decode("ada", 1);
        bench.assign_decode("ada", 2);
        bench.assign_decode("bob", 3);
        if is_release {
            bench.hear("ada", ToWorker::Release { job: job(9) }, &[], at(2));
            assert_eq!(bench.machine.leases_held(), 3, "another job");
            bench.hear("ada", ToWorker::Release { job: job(1) }, &[], at(2));
        } else {
            bench.machine.handle_left(&peer("ada"), at(2));
            bench.drain();
        }
        assert_eq!((bench.aborted.len(), bench.machine.leases_held()), (1, 1));
        bench.computed(Err(RefuseReason::failed("aborted")), at(3));
        assert_eq!((bench.said(), bench.order()), (vec![], vec![("ada", 1), ("bob", 3)]));
    }
}

#[test]
fn a_worker_that_leaves_says_so_and_takes_nothing_more() {
    let mut bench = Bench::new(&["ada", "bob"]);
    bench.assign_decode("ada", 1);
    bench.machine.leave(at(2));
    bench.drain();
    assert_eq!(bench.said(), ["ada", "bob"].map(|name| (name.to_owned(), ToRequester::Leave)));
    assert_eq!((bench.aborted.len(), bench.machine.poll_timeout()), (1, None));
    bench.assign_decode("ada", 2);
    assert_eq!(bench.refusal(), RefuseReason::Busy);
    bench.machine.handle_joined(peer("cid"), at(3));
    bench.drain();
    assert_eq!(bench.said(), [], "nothing is offered");
}

#[test]
fn a_peer_that_is_lent_to_no_longer_is_told_and_others_go_on() {
    let mut bench = Bench::new(&["ada", "bob"]);
    bench.assign_decode("ada", 1);
    bench.assign_decode("bob", 2);
    bench.machine.withdraw(&peer("ada"), at(2));
    bench.machine.withdraw(&peer("ada"), at(2));
    bench.drain();
    assert_eq!(bench.said(), [("ada".to_owned(), ToRequester::Leave)]);
    assert!(bench.machine.lends_to(&peer("bob")) && !bench.machine.lends_to(&peer("ada")));
    assert_eq!(bench.aborted.len(), 1);
    bench.computed(Ok(body()), at(3));
    assert_eq!(bench.said(), [], "the result of a lease that is over is dropped");
    assert_eq!(bench.order(), [("ada", 1), ("bob", 2)]);
    bench.machine.handle_joined(peer("ada"), at(4));
    bench.drain();
    assert_eq!(bench.said(), [("ada".to_owned(), ToRequester::Offer(capabilities(vec![model()])))]);
}

#[test]
fn a_worker_that_is_renamed_offers_itself_again_and_keeps_its_leases() {
    let mut bench = Bench::new(&["ada"]);
    bench.assign_decode("ada", 1);
    bench.machine.rename("new".into());
    bench.drain();
    let offer = ToRequester::Offer(Capabilities { name: "new".into(), ..capabilities(vec![model()]) });
    assert_eq!(bench.said(), [("ada".to_owned(), offer)]);
    assert_eq!(bench.machine.leases_held(), 1);
}

#[test]
fn a_result_that_nobody_asked_for_changes_nothing() {
    let mut bench = Bench::new(&["ada"]);
    bench.assign_decode("ada", 1);
    let other = LeaseKey { requester: peer("ada"), lease: LeaseId(2) };
    bench.machine.handle_computed(&other, Ok(body()), 1, at(2));
    bench.drain();
    assert_eq!((bench.said(), bench.machine.leases_held()), (vec![], 1));
}

#[test]
fn a_lease_called_off_before_it_comes_is_not_begun() {
    let mut bench = Bench::new(&["ada", "bob"]);
    bench.hear("ada", ToWorker::Cancel { lease: LeaseId(1) }, &[], at(1));
    bench.assign_decode("ada", 1);
    assert_eq!((bench.order().len(), bench.said()), (0, vec![]));
    bench.assign_decode("bob", 1);
    assert_eq!(bench.order(), [("bob", 1)], "another requester's lease");
}

#[test]
fn a_probe_is_answered_at_once() {
    let mut bench = Bench::new(&["ada"]);
    bench.assign_decode("ada", 1);
    bench.hear("ada", ToWorker::Probe { lease: LeaseId(1) }, &[], at(2));
    bench.hear("ada", ToWorker::Probe { lease: LeaseId(2) }, &[], at(2));
    let unknown = ToRequester::Refuse { lease: LeaseId(2), reason: RefuseReason::UnknownLease };
    assert_eq!(bench.said(), [("ada".to_owned(), heartbeat(1)), ("ada".to_owned(), unknown)]);
}

#[test]
fn an_own_requester_comes_first_and_nobody_starves() {
    let mut bench = Bench::new(&["ada", "own"]);
    bench.machine.prefer(&peer("own"));
    bench.assign_decode("ada", 1);
    for lease in 2..=4 {
        bench.assign_decode("ada", lease);
        bench.assign_decode("own", lease);
    }
    let mut now = at(1);
    for _ in 0..6 {
        now = now + Duration::from_secs(4);
        bench.computed(Ok(body()), now);
    }
    // Ada has waited ten seconds longer before her second turn comes.
    assert_eq!(bench.order()[..4], [("ada", 1), ("own", 2), ("own", 3), ("own", 4)]);
    let mut bench = Bench::new(&["ada", "own"]);
    bench.machine.prefer(&peer("own"));
    bench.assign_decode("own", 1);
    for lease in 2..=7 {
        bench.assign_decode("own", lease);
    }
    bench.assign_decode("ada", 1);
    let mut now = at(1);
    for _ in 0..7 {
        now = now + Duration::from_secs(4);
        bench.computed(Ok(body()), now);
    }
    let turn = bench.order().iter().position(|(name, _)| *name == "ada").unwrap();
    assert!((2..=5).contains(&turn), "{:?}", bench.order());
}
