//! When a breaker opens, whom it lets through, and that no clock closes it.

use super::*;

const START: UnixMs = UnixMs(1_700_000_000_000);

fn later(seconds: u64) -> UnixMs {
    START.after(std::time::Duration::from_secs(seconds))
}

/// A breaker that three failures have opened at [`START`].
fn open() -> Breaker {
    let mut breaker = Breaker::default();
    let opened: Vec<bool> = (0..BREAKER_FAILURES_MAX).map(|_| breaker.fail(Fault::Failure, START)).collect();
    assert_eq!(opened, [false, false, true]);
    breaker
}

#[test]
fn three_failures_within_ten_minutes_open_it() {
    let mut breaker = Breaker::default();
    assert!(breaker.admit(START));
    assert!(!breaker.fail(Fault::Failure, START));
    assert!(!breaker.fail(Fault::Failure, later(599)));
    assert!(!breaker.is_open(later(599)));
    assert!(!breaker.fail(Fault::Failure, later(600)), "the first no longer counts");
    assert!(breaker.fail(Fault::Failure, later(601)));
    assert!(breaker.is_open(later(601)) && !breaker.admit(later(601)));
}

#[test]
fn successes_between_failures_do_not_hide_them() {
    let mut breaker = Breaker::default();
    for second in 0..3 {
        breaker.succeed(later(second));
        breaker.fail(Fault::Failure, later(second));
    }
    assert!(breaker.is_open(later(2)));
}

#[test]
fn a_refused_key_or_an_empty_account_opens_it_at_once() {
    for (fault, word) in [(Fault::Unauthorized, "key"), (Fault::OutOfFunds, "empty")] {
        let mut breaker = Breaker::default();
        assert!(breaker.fail(fault, START));
        assert!(breaker.reason(START).unwrap().contains(word));
        assert_eq!(breaker.state(), BreakerState::Open { since: START, fault });
    }
}

#[test]
fn after_its_cool_down_exactly_one_job_probes() {
    let mut breaker = open();
    let cool = START.after(BREAKER_COOL_DOWN);
    assert!(!breaker.admit(UnixMs(cool.0 - 1)));
    assert!(!breaker.is_open(cool));
    assert_eq!((0..100).filter(|_| breaker.admit(cool)).count(), 1);
    assert!(breaker.is_open(cool));
    assert!(breaker.reason(cool).unwrap().contains("one job tries it again"));
    let mut well = breaker.clone();
    well.succeed(cool);
    assert_eq!((well.state(), well.reason(cool)), (BreakerState::Closed, None));
    assert!(!well.fail(Fault::Failure, cool), "old failures are forgotten");
    assert!(breaker.fail(Fault::Failure, cool), "one failure of the probe is enough");
    assert!(!breaker.admit(UnixMs(cool.after(BREAKER_COOL_DOWN).0 - 1)));
    assert!(breaker.admit(cool.after(BREAKER_COOL_DOWN)));
}

#[test]
fn a_probe_that_is_lost_or_did_not_go_makes_room_for_another() {
    let mut lost = open();
    let cool = START.after(BREAKER_COOL_DOWN);
    assert!(lost.admit(cool));
    let mut withdrawn = lost.clone();
    assert!(!lost.admit(UnixMs(cool.after(BREAKER_PROBE_LOST).0 - 1)));
    assert!(lost.admit(cool.after(BREAKER_PROBE_LOST)));
    assert!(!lost.admit(cool.after(BREAKER_PROBE_LOST)), "again exactly one");
    withdrawn.withdraw(cool);
    assert_eq!((0..9).filter(|_| withdrawn.admit(cool)).count(), 1);
}

#[test]
fn what_ends_while_it_is_open_changes_nothing() {
    let mut breaker = open();
    let before = breaker.clone();
    breaker.succeed(START);
    assert!(!breaker.fail(Fault::Failure, START));
    breaker.withdraw(START);
    assert_eq!(breaker, before);
    breaker.reset();
    assert!(breaker.admit(START));
}

#[test]
fn a_clock_that_goes_back_closes_nothing() {
    let mut breaker = open();
    for now in [UnixMs(0), UnixMs(1), UnixMs(START.0 - 1_000_000)] {
        assert!(breaker.is_open(now) && !breaker.admit(now));
    }
    assert!(!breaker.is_open(START.after(BREAKER_COOL_DOWN)));
    let mut failing = Breaker::default();
    failing.fail(Fault::Failure, START);
    failing.fail(Fault::Failure, UnixMs(0));
    assert!(failing.fail(Fault::Failure, later(1)), "a failure of a wrong clock counts all the same");
    let mut behind = Breaker::default();
    behind.admit(START);
    behind.fail(Fault::OutOfFunds, UnixMs(0));
    assert!(behind.is_open(later(299)), "it has not cooled down since the wrong time");
}

#[test]
fn it_survives_being_written_and_read() {
    let mut breaker = open();
    breaker.admit(START.after(BREAKER_COOL_DOWN));
    let json = serde_json::to_string(&breaker).unwrap();
    assert_eq!(serde_json::from_str::<Breaker>(&json).unwrap(), breaker);
}

#[test]
fn in_any_history_no_more_than_three_jobs_fail_before_it_opens_and_one_probes_at_a_time() {
    let mut bits: u64 = 1;
    let mut draw = move |below: u64| {
        // Knuth's MMIX generator; the upper bits are the good ones.
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (bits >> 33) % below
    };
    for _ in 0..200 {
        let (mut breaker, mut now) = (Breaker::default(), START);
        let (mut failed_in_row, mut admitted_while_probing) = (Vec::new(), 0);
        for _ in 0..200 {
            now = UnixMs(now.0 + draw(60_000));
            let told = if draw(10) == 0 { UnixMs(now.0 - draw(now.0.min(1_000_000))) } else { now };
            let was_probing =
                matches!(breaker.state(), BreakerState::Probing { since, .. } if now.since(since) < BREAKER_PROBE_LOST);
            if breaker.admit(told) {
                admitted_while_probing += u32::from(was_probing);
                if draw(3) == 0 {
                    breaker.succeed(now);
                    continue;
                }
                failed_in_row.push(now);
                failed_in_row.retain(|failure| now.since(*failure) < BREAKER_WINDOW);
                if breaker.fail(Fault::Failure, now) {
                    failed_in_row.clear();
                }
                assert!(failed_in_row.len() < BREAKER_FAILURES_MAX, "open by the third failure");
            }
            assert!(breaker.failures.len() < BREAKER_FAILURES_MAX, "what it remembers is bounded");
        }
        assert_eq!(admitted_while_probing, 0);
    }
}
