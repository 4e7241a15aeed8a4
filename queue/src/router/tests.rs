//! Where jobs go, and what is true of every decision whatever is offered.

use super::*;
use crate::money::{Budget, OverBudget, Price};

const SECOND: Duration = Duration::from_secs(1);

fn job() -> Placement {
    Placement {
        mode: Mode::Auto,
        quality: Quality::Final,
        engine: Engine::Native,
        expected: 5 * SECOND,
        waited: Duration::ZERO,
        target: 20 * SECOND,
        fallback: None,
        is_early: false,
        previous: None,
    }
}

fn workers(able: u32, ahead: Duration) -> Workers {
    Workers { able, unable: 0, ahead, measured: Some(5 * SECOND) }
}

/// An endpoint that needs so long in all, 5 s of it for the job.
fn cloud(eta: Duration) -> RunPod {
    let price =
        Price { per_second: MicroUsd(190), cold_start_max: 60 * SECOND, execution_max: 120 * SECOND, idle: 5 * SECOND };
    let endpoint = Endpoint::new("gpu").unwrap();
    RunPod(Ok(CloudOffer { endpoint, start: eta - 5 * SECOND, expected: 5 * SECOND, price }))
}

fn decide(job: &Placement, peers: Workers, cloud: &RunPod, rules: RouteRules) -> Decision {
    route(job, &[&Local::default(), &Peers(peers), cloud], rules)
}

fn plain(job: &Placement, peers: Workers, cloud: &RunPod) -> Route {
    decide(job, peers, cloud, RouteRules::default()).route
}

fn waits(processor: Source) -> Route {
    Route::Wait { processor }
}

fn overflows() -> Route {
    Route::Overflow { endpoint: Endpoint::new("gpu").unwrap() }
}

fn barred(bar: CloudBar) -> RunPod {
    RunPod(Err(bar))
}

/// Every reason for which the cloud may not be asked.
fn bars() -> Vec<CloudBar> {
    let over = OverBudget { budget: Budget::Day, hold: MicroUsd(3), spent: MicroUsd(2), limit: MicroUsd(4) };
    vec![
        CloudBar::NoEndpoint,
        CloudBar::NoRight,
        CloudBar::Switch,
        CloudBar::Breaker("it failed too often".to_owned()),
        CloudBar::Budget(over),
        CloudBar::Unwell("no workers".to_owned()),
        CloudBar::Attempts,
    ]
}

#[test]
fn workers_in_time_cost_nothing_and_do_it_however_fast_the_cloud_is() {
    assert_eq!(plain(&job(), workers(1, 15 * SECOND), &cloud(5 * SECOND)), waits(Source::Peer));
}

#[test]
fn a_late_job_overflows_only_if_the_cloud_is_faster_by_a_fifth() {
    // 20 s of work and 5 s for itself: 25 s.
    let late = workers(1, 20 * SECOND);
    assert_eq!(plain(&job(), late, &cloud(20 * SECOND)), overflows());
    assert_eq!(plain(&job(), late, &cloud(21 * SECOND)), waits(Source::Peer));
    let waited = Placement { waited: 10 * SECOND, ..job() };
    let short = workers(1, 6 * SECOND);
    assert_eq!(plain(&job(), short, &cloud(6 * SECOND)), waits(Source::Peer));
    assert_eq!(plain(&waited, short, &cloud(6 * SECOND)), overflows(), "what it waited counts");
}

#[test]
fn a_decision_stays_until_the_other_way_is_better_by_a_fifth() {
    let overflowing = Placement { previous: Some(Source::Cloud), ..job() };
    let ahead = |seconds: u32| workers(1, seconds * SECOND - 5 * SECOND);
    for (workers_s, cloud_s, fresh, stays) in [
        (25, 23, waits(Source::Peer), overflows()),
        (19, 15, waits(Source::Peer), overflows()),
        (16, 5, waits(Source::Peer), waits(Source::Peer)),
        (25, 26, waits(Source::Peer), waits(Source::Peer)),
        (25, 20, overflows(), overflows()),
    ] {
        assert_eq!(plain(&job(), ahead(workers_s), &cloud(cloud_s * SECOND)), fresh, "{workers_s} {cloud_s}");
        assert_eq!(plain(&overflowing, ahead(workers_s), &cloud(cloud_s * SECOND)), stays, "{workers_s} {cloud_s}");
    }
}

#[test]
fn several_workers_share_what_is_ahead_and_the_faster_kind_is_named() {
    let peers = Peers(workers(4, 40 * SECOND));
    let local = Local(workers(1, 2 * SECOND));
    let decision = route(&job(), &[&local, &peers, &cloud(6 * SECOND)], RouteRules::default());
    assert_eq!((decision.route.clone(), decision.eta()), (waits(Source::Local), Some(7 * SECOND)));
    assert_eq!(decision.offers[1].answer.as_ref().unwrap().eta, 15 * SECOND);
    let unmeasured = Workers { measured: None, ..workers(1, Duration::ZERO) };
    let decision =
        decide(&Placement { expected: 9 * SECOND, ..job() }, unmeasured, &cloud(6 * SECOND), RouteRules::default());
    assert_eq!(decision.eta(), Some(9 * SECOND), "what the type says, until it is measured");
}

#[test]
fn a_draft_and_a_local_job_never_cost_anything() {
    let slow = workers(1, 1000 * SECOND);
    for peers in [slow, workers(0, Duration::ZERO)] {
        let draft = Placement { quality: Quality::Draft, ..job() };
        assert_eq!(plain(&draft, peers, &cloud(5 * SECOND)), waits(Source::Peer));
        let local = Placement { mode: Mode::Local, ..job() };
        assert_eq!(plain(&local, peers, &cloud(5 * SECOND)), waits(Source::Peer));
    }
    let paid_draft = Placement { quality: Quality::Draft, mode: Mode::Cloud, ..job() };
    assert_eq!(plain(&paid_draft, slow, &cloud(5 * SECOND)), overflows(), "unless the cloud is what was asked for");
}

#[test]
fn the_cloud_mode_knows_no_workers() {
    let asked = Placement { mode: Mode::Cloud, ..job() };
    assert_eq!(plain(&asked, workers(9, Duration::ZERO), &cloud(500 * SECOND)), overflows());
    for bar in bars() {
        match (plain(&asked, workers(9, Duration::ZERO), &barred(bar.clone())), &bar) {
            (Route::Refuse { reason }, CloudBar::NoEndpoint | CloudBar::NoRight | CloudBar::Attempts) => {
                assert!(reason.contains("cloud: "), "{reason}");
            }
            (Route::Wait { processor: Source::Cloud }, _) => {}
            (route, bar) => panic!("{bar:?}: {route:?}"),
        }
    }
}

#[test]
fn prefer_local_overflows_only_what_no_worker_can_do() {
    let rules = RouteRules { prefer_local: true, ..RouteRules::default() };
    let decision = decide(&job(), workers(1, 1000 * SECOND), &cloud(5 * SECOND), rules);
    assert_eq!((decision.route, decision.why), (waits(Source::Peer), "workers come first here"));
    let unable = Workers { unable: 2, ..Workers::default() };
    assert_eq!(decide(&job(), unable, &cloud(5 * SECOND), rules).route, overflows());
}

#[test]
fn what_nobody_can_do_now_waits_or_fails_fast() {
    let nobody = workers(0, Duration::ZERO);
    for bar in bars() {
        let bar = barred(bar);
        assert_eq!(plain(&job(), nobody, &bar), waits(Source::Peer), "a worker may come");
        let fast = RouteRules { fail_fast: true, ..RouteRules::default() };
        let decision = decide(&job(), nobody, &bar, fast);
        let Route::Refuse { reason } = &decision.route else { panic!("{decision:?}") };
        assert!(
            reason.starts_with("nobody can do it now; ") && reason.contains("no worker serves this room"),
            "{reason}"
        );
        assert_eq!((decision.source(), decision.eta()), (None, None));
        assert_eq!(
            decide(&job(), workers(1, 999 * SECOND), &bar, fast).route,
            waits(Source::Peer),
            "late is not never"
        );
    }
}

#[test]
fn before_workers_can_have_been_heard_of_nothing_is_paid_refused_or_made_another_type() {
    let early = Placement { is_early: true, ..job() };
    let falling = Placement { fallback: Some(Ask::new("image_fast").unwrap()), ..early.clone() };
    let (nobody, late) = (Workers::default(), workers(1, 1000 * SECOND));
    let fast = RouteRules { fail_fast: true, ..RouteRules::default() };
    for job in [&early, &falling] {
        for peers in [nobody, late] {
            assert_eq!(decide(job, peers, &cloud(5 * SECOND), fast).route, waits(Source::Peer));
        }
        assert_eq!(decide(job, nobody, &barred(CloudBar::NoEndpoint), fast).route, waits(Source::Peer));
    }
    // What no worker can do need not wait for one.
    let asked = Placement { mode: Mode::Cloud, ..early.clone() };
    let clip = Placement { engine: Engine::OverflowOnly, ..early };
    for job in [asked, clip] {
        assert_eq!(plain(&job, nobody, &cloud(5 * SECOND)), overflows());
        assert!(matches!(plain(&job, nobody, &barred(CloudBar::NoEndpoint)), Route::Refuse { .. }));
    }
}

#[test]
fn a_clip_goes_to_the_cloud_and_is_refused_where_there_is_none() {
    let clip = Placement { engine: Engine::OverflowOnly, ..job() };
    assert_eq!(plain(&clip, workers(9, Duration::ZERO), &cloud(100 * SECOND)), overflows());
    let Route::Refuse { reason } = plain(&clip, workers(9, Duration::ZERO), &barred(CloudBar::NoEndpoint)) else {
        panic!("it would wait for ever")
    };
    assert!(reason.contains("until a native engine exists"), "{reason}");
    assert_eq!(plain(&clip, Workers::default(), &barred(CloudBar::Switch)), waits(Source::Peer));
}

#[test]
fn a_job_falls_back_once_it_is_late_or_nobody_will_ever_come() {
    let to = Ask::new("image_fast").unwrap();
    let falls = Route::FallBack { to: to.clone() };
    let early = Placement { fallback: Some(to), ..job() };
    let late = Placement { waited: early.target, ..early.clone() };
    let (nobody, none) = (Workers { unable: 1, ..Workers::default() }, barred(CloudBar::NoEndpoint));
    assert_eq!(plain(&early, nobody, &none), waits(Source::Peer));
    assert_eq!(plain(&late, nobody, &none), falls);
    assert_eq!(decide(&early, nobody, &none, RouteRules { fail_fast: true, ..RouteRules::default() }).route, falls);
    let ever = Placement { mode: Mode::Cloud, ..early };
    assert_eq!(plain(&ever, nobody, &none), falls);
    assert_eq!(plain(&late, nobody, &cloud(9 * SECOND)), overflows(), "another type is the last resort");
    assert_eq!(plain(&late, workers(1, 900 * SECOND), &none), waits(Source::Peer));
}

#[test]
fn a_decision_explains_itself_and_stays_the_same_text_while_nothing_happens() {
    let unable = Workers { unable: 3, ..Workers::default() };
    let explained = |ahead| {
        let peers = Peers(workers(1, ahead));
        route(&job(), &[&Local(unable), &peers, &cloud(12 * SECOND)], RouteRules::default()).explain()
    };
    let text = "overflows to gpu: workers would be late, and the cloud is faster (target 20 s); the relay's machine: none of \
                its 3 workers has the model; peers: 60 s, free; cloud: 15 s, about $0.003230";
    assert_eq!(explained(55 * SECOND), text);
    assert_eq!(explained(54 * SECOND), text);
    let refused =
        decide(&job(), workers(1, Duration::ZERO), &barred(bars().remove(4)), RouteRules::default()).explain();
    assert!(refused.starts_with("waits for peers: workers do it (target 20 s); "), "{refused}");
    assert!(
        refused
            .ends_with("cloud: $0.000003 more would exceed the budget Day: $0.000002 of $0.000004 are spent or held")
    );
}

#[test]
fn times_are_rough_and_never_too_short() {
    let times = [(0, "0 s"), (9, "9 s"), (11, "15 s"), (60, "60 s"), (61, "90 s"), (121, "3 min"), (601, "15 min")];
    for (seconds, text) in times {
        assert_eq!(Rough(seconds * SECOND).to_string(), text);
    }
    assert!(Rough(Duration::MAX).to_string().ends_with(" min"), "the longest time is no panic");
}

/// Every combination of a few values of everything.
fn worlds() -> impl Iterator<Item = (Placement, Workers, Workers, RunPod, RouteRules)> {
    let times = [Duration::ZERO, 19 * SECOND, 22 * SECOND, 300 * SECOND, Duration::MAX];
    let crews: Vec<Workers> = [0, 1, 3]
        .into_iter()
        .flat_map(|able| times.map(|ahead| Workers { able, unable: 1, ahead, measured: None }))
        .collect();
    let mut clouds: Vec<RunPod> = bars().into_iter().map(barred).collect();
    clouds.extend([5 * SECOND, 20 * SECOND, 200 * SECOND].map(cloud));
    let mut jobs = Vec::new();
    for mode in [Mode::Auto, Mode::Local, Mode::Cloud] {
        for quality in [Quality::Draft, Quality::Final] {
            for engine in [Engine::Native, Engine::OverflowOnly] {
                for waited in [Duration::ZERO, 15 * SECOND, Duration::MAX] {
                    for fallback in [None, Some(Ask::new("image_fast").unwrap())] {
                        for previous in [None, Some(Source::Peer), Some(Source::Cloud)] {
                            let fallback = fallback.clone();
                            jobs.push(Placement { mode, quality, engine, waited, fallback, previous, ..job() });
                        }
                    }
                }
            }
        }
    }
    let rules = [(false, false), (true, false), (false, true), (true, true)]
        .map(|(prefer_local, fail_fast)| RouteRules { prefer_local, fail_fast });
    jobs.into_iter().flat_map(move |job| {
        let (crews, clouds) = (crews.clone(), clouds.clone());
        crews.into_iter().enumerate().flat_map(move |(index, peers)| {
            let job = job.clone();
            // One local crew for each of the room's: the other way round they are the same to the rules.
            let local = if index % 2 == 0 { Workers::default() } else { workers(1, 25 * SECOND) };
            let clouds = clouds.clone();
            clouds.into_iter().flat_map(move |cloud| {
                let job = job.clone();
                rules.into_iter().map(move |rules| (job.clone(), local, peers, cloud.clone(), rules))
            })
        })
    })
}

#[test]
fn whatever_is_offered_money_is_spent_only_where_it_may_be_and_a_decision_confirms_itself() {
    let mut seen = [0_u32; 4];
    for (job, local, peers, cloud, rules) in worlds() {
        let ask = |job: &Placement| route(job, &[&Local(local), &Peers(peers), &cloud], rules);
        let decision = ask(&job);
        let able = job.mode != Mode::Cloud && job.engine == Engine::Native && local.able + peers.able > 0;
        match &decision.route {
            Route::Overflow { endpoint } => {
                seen[0] += 1;
                assert_eq!(cloud.0.as_ref().map(|offer| &offer.endpoint), Ok(endpoint), "{job:?}");
                assert_ne!(job.mode, Mode::Local);
                assert!(job.mode == Mode::Cloud || job.quality == Quality::Final, "{job:?}");
                assert!(!(rules.prefer_local && able), "{job:?}");
            }
            Route::Wait { processor } => {
                seen[1] += 1;
                assert!(able || !rules.fail_fast, "{decision:?}");
                assert_eq!(*processor == Source::Cloud, job.mode == Mode::Cloud, "{decision:?}");
            }
            Route::FallBack { to } => {
                seen[2] += 1;
                assert!(Some(to) == job.fallback.as_ref() && !able, "{decision:?}");
            }
            Route::Refuse { reason } => {
                seen[3] += 1;
                assert!(!able && job.fallback.is_none() && !reason.is_empty(), "{decision:?}");
            }
        }
        let again = Placement { previous: decision.source(), ..job.clone() };
        assert_eq!(ask(&again).route, decision.route, "to and fro: {job:?}");
        assert!(decision.explain().len() < 600, "{}", decision.explain());
    }
    assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
}
