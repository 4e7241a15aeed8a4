//! What is planned for whom, and how it is explained.

use coordinator::plan::{Pace, Peer, Steady, UpscaleTiles, plan_over};
use coordinator::{Cut, Exactness, Plan, PlanError, Roster, StageKind, Task, plan};
use protocol::limits::STAGE_UNITS_MAX;
use protocol::{
    Capabilities, JobRequest, JobSpec, ModelShape, Pilot, PlanChoice, PlanKind, Size, SpecError, Tiles, Tiling, Work,
};

use crate::toy::{Rng, at, capabilities, model, peer};

/// The demo model's shape.
const SHAPE: ModelShape =
    ModelShape { latent_channels: 8, factor: 8, native_cells: 16, tokens: 32, embedding_width: 96 };
const WIDE: Size = Size { width: 384, height: 128 };
const NATIVE: Size = Size { width: 128, height: 128 };
const STEPS: u32 = 20;

/// A cut of the twenty steps into as many tiles each.
fn cut(tiles: usize) -> Cut {
    Cut { tiles: vec![tiles; STEPS as usize], decode_tiles: 1 }
}

/// The cut that belongs to a job of these sizes.
fn cut_of(spec: &JobSpec) -> Cut {
    cut(if spec.layout.tiles.is_whole() { 1 } else { 5 })
}

fn spec(size: Size, guidance: f32, choice: PlanChoice) -> JobSpec {
    let (prompt, negative) = ("mountains".to_owned(), String::new());
    JobSpec::new(JobRequest { prompt, negative, size, steps: STEPS, guidance, seed: 1, plan: choice }, model(), &SHAPE)
        .unwrap()
}

fn room(workers: usize) -> Roster {
    let mut roster = Roster::new();
    roster.admit(peer("idler"), capabilities(vec![]), at(0)).unwrap();
    for number in 0..workers {
        roster.admit(peer(&format!("worker{number}")), capabilities(vec![model()]), at(0)).unwrap();
    }
    roster
}

fn planned(size: Size, guidance: f32, choice: PlanChoice, workers: usize) -> Plan {
    let spec = spec(size, guidance, choice);
    let cut = cut_of(&spec);
    let task = Task { may_do_it_itself: true, ..Task::new(&spec, &SHAPE, choice, &cut) };
    plan(&task, &room(workers), at(0)).unwrap()
}

/// A peer that was measured: seconds for a thousand of cost, and seconds on the way.
fn steady(name: &str, seconds_per_1000: f64, overhead_s: f64) -> Peer<'static> {
    let pace = Steady { seconds_per_cost: Some(seconds_per_1000 / 1000.0), overhead_s, ..Steady::unknown(&SHAPE) };
    Peer { id: peer(name), class: "cpu", pace: Box::new(pace) }
}

fn over(size: Size, guidance: f32, choice: PlanChoice, peers: &[Peer<'_>]) -> Plan {
    let spec = spec(size, guidance, choice);
    plan_over(&Task::new(&spec, &SHAPE, choice, &cut_of(&spec)), peers).unwrap()
}

#[test]
fn the_kind_follows_the_choice_the_guidance_and_the_room() {
    use PlanChoice as Choice;
    use PlanKind as Kind;
    for (size, guidance, choice, workers, kind) in [
        (WIDE, 5.0, Choice::Auto, 2, Kind::CfgTiles),
        (WIDE, 5.0, Choice::Auto, 1, Kind::Tiles),
        (WIDE, 5.0, Choice::Auto, 0, Kind::Tiles),
        (WIDE, 1.0, Choice::Auto, 2, Kind::Tiles),
        (NATIVE, 5.0, Choice::Auto, 2, Kind::Cfg),
        (NATIVE, 5.0, Choice::Auto, 1, Kind::Tiles),
        (NATIVE, 1.0, Choice::Auto, 9, Kind::Tiles),
        (WIDE, 5.0, Choice::Whole, 9, Kind::Whole),
        (WIDE, 5.0, Choice::Cfg, 1, Kind::Cfg),
        (WIDE, 1.0, Choice::Cfg, 9, Kind::Tiles),
        (WIDE, 5.0, Choice::Tiles, 1, Kind::Tiles),
        (WIDE, 5.0, Choice::Tiles, 2, Kind::CfgTiles),
        (WIDE, 5.0, Choice::Shifted, 2, Kind::CfgTiles),
        (WIDE, 1.0, Choice::Tiles, 9, Kind::Tiles),
        (NATIVE, 5.0, Choice::Tiles, 2, Kind::Cfg),
        (NATIVE, 1.0, Choice::Tiles, 2, Kind::Tiles),
    ] {
        let plan = planned(size, guidance, choice, workers);
        assert_eq!(plan.kind, kind, "{size} {guidance} {choice:?} {workers}");
        let lend = plan.workers.len() + plan.left_out.len();
        assert_eq!(lend, workers, "the idler does not lend this model");
    }
}

#[test]
fn the_room_never_changes_what_the_pixels_depend_on() {
    for choice in [PlanChoice::Auto, PlanChoice::Whole, PlanChoice::Tiles, PlanChoice::Shifted, PlanChoice::Cfg] {
        let promise = |workers| {
            let plan = planned(WIDE, 5.0, choice, workers);
            (plan.exactness, plan.untiled)
        };
        for workers in 0..5 {
            assert_eq!(promise(workers), promise(0), "{choice:?}");
        }
    }
}

#[test]
fn both_facts_of_exactness_are_told() {
    let tiled = planned(WIDE, 5.0, PlanChoice::Auto, 3);
    assert_eq!((tiled.exactness, tiled.untiled), (Exactness::Identical, Exactness::PlanDifferent));
    let untiled = planned(WIDE, 5.0, PlanChoice::Cfg, 3);
    assert_eq!((untiled.exactness, untiled.untiled), (Exactness::Identical, Exactness::Identical));
    let text = tiled.explain();
    assert!(text.contains("E0 \"identical\"") && text.contains("E2 \"plan-different\""), "{text}");
}

#[test]
fn units_bytes_and_cost_are_counted() {
    let plan = planned(WIDE, 5.0, PlanChoice::Auto, 4);
    let counts: Vec<_> = plan.stages.iter().map(|stage| (stage.kind, stage.times, stage.units)).collect();
    assert_eq!(counts, [(StageKind::Encode, 1, 1), (StageKind::Denoise, 20, 10), (StageKind::Decode, 1, 1)]);
    assert_eq!(plan.units(), 1 + 20 * 10 + 1);
    let (conditioning, tile, pixels) = (2 * 32 * 96 * 4, 8 * 16 * 16 * 4, 3 * 384 * 128 * 4);
    let latent = 8 * 16 * 48 * 4;
    assert_eq!(plan.bytes(), conditioning + 20 * 10 * 2 * tile + latent + pixels + 4 * conditioning);
    assert_eq!(plan.cost(), 64 + 20 * 10 * 256 + 16 * 48);
    let whole = planned(WIDE, 5.0, PlanChoice::Whole, 3);
    assert_eq!((whole.units(), whole.bytes()), (1, latent + pixels));
}

#[test]
fn a_plan_is_explained_in_plain_words() {
    assert_eq!(
        planned(WIDE, 5.0, PlanChoice::Auto, 4).explain(),
        "Plan: each step is 10 units, one for each guidance branch of 5 tiles, because sharing is expected to take about \
         8.2 s, and the fastest worker alone about 26 s.\n\
         Workers: 4 lend this model; orker0 for the prompt, orker0, orker1, orker2 and orker3 for the steps, orker0 for \
         the pixels.\n\
         Time: about 8.2 s, by a guess: not all of them were measured yet.\n\
         Units: 1 to read the prompt, 10 in each of 20 steps, 1 to make pixels; 202 in all, about 3.8 MiB over the \
         network.\n\
         Exactness: E0 \"identical\" to the same plan on one machine of the same numeric class,\n\
         \x20 and E2 \"plan-different\" to the same job without tiles.\n\
         Not chosen: one unit for each step or tile (about 11 s), because it would take longer.\n\
         Not chosen: the whole picture on one worker (about 26 s), because it would take longer."
    );
    let alone = planned(NATIVE, 1.0, PlanChoice::Cfg, 0).explain();
    assert!(alone.contains("nobody lends this model yet"), "{alone}");
    assert!(alone.contains("Not chosen: the guidance branches on two workers, because there are no two"), "{alone}");
    let measured = over(NATIVE, 5.0, PlanChoice::Auto, &[steady("near", 1.0, 0.002), steady("far", 1.0, 9.0)]);
    assert_eq!(
        measured.explain(),
        "Plan: each step is one unit, the whole canvas, because sharing would not win a tenth, and this way progress shows \
         and a worker that leaves takes one step along.\n\
         Workers: 2 lend this model; near for everything.\n\
         Left out: far, who would not make it faster.\n\
         Time: about 11 s.\n\
         Units: 1 to read the prompt, 1 in each of 20 steps, 1 to make pixels; 22 in all, about 728 KiB over the network.\n\
         Exactness: E0 \"identical\" to the same plan on one machine of the same numeric class,\n\
         \x20 and E0 \"identical\" to the same job without tiles.\n\
         Not chosen: the whole picture on one worker (about 11 s), because nothing would show until the end, and all of it \
         could be lost.\n\
         Not chosen: several steps in one unit (about 11 s), because less would show, and more could be lost.\n\
         Not chosen: the guidance branches on two workers (about 11 s), because one worker would do all of them anyway."
    );
}

#[test]
fn mixed_numeric_classes_are_named() {
    let mut roster = room(2);
    let gpu = Capabilities { numeric_class: "gpu".into(), ..capabilities(vec![model()]) };
    roster.admit(peer("gamer"), gpu, at(0)).unwrap();
    let (spec, cut) = (spec(NATIVE, 5.0, PlanChoice::Auto), cut(1));
    let plan = plan(&Task::new(&spec, &SHAPE, PlanChoice::Auto, &cut), &roster, at(0)).unwrap();
    assert_eq!(plan.numeric_classes, 2);
    assert!(plan.explain().contains("2 numeric classes"));
}

#[test]
fn names_of_peers_are_not_in_the_explanation() {
    let mut roster = room(0);
    let rude = Capabilities { name: "<script>".into(), numeric_class: "<b>".into(), ..capabilities(vec![model()]) };
    roster.admit(peer("rude"), rude, at(0)).unwrap();
    let (spec, cut) = (spec(NATIVE, 5.0, PlanChoice::Auto), cut(1));
    let plan = plan(&Task::new(&spec, &SHAPE, PlanChoice::Auto, &cut), &roster, at(0)).unwrap();
    assert!(!plan.explain().contains('<'));
}

#[test]
fn too_many_units_are_refused_whoever_is_there() {
    for workers in [0, 1, 4] {
        let planned = |guidance, tiles| {
            let spec = spec(WIDE, guidance, PlanChoice::Auto);
            let cut = cut(tiles);
            let task = Task { may_do_it_itself: true, ..Task::new(&spec, &SHAPE, PlanChoice::Auto, &cut) };
            plan(&task, &room(workers), at(0)).map(|_| ())
        };
        assert_eq!(planned(5.0, STAGE_UNITS_MAX / 2), Ok(()));
        assert_eq!(planned(1.0, STAGE_UNITS_MAX), Ok(()));
        let units = STAGE_UNITS_MAX + 2;
        assert_eq!(planned(5.0, units / 2), Err(PlanError::TooManyUnits { units }));
    }
}

#[test]
fn a_cut_or_a_job_that_does_not_fit_is_refused() {
    let auto = spec(NATIVE, 5.0, PlanChoice::Auto);
    let planned = |spec: &JobSpec, cut: Cut| {
        plan(&Task::new(spec, &SHAPE, PlanChoice::Auto, &cut), &room(1), at(0)).map(|plan| plan.kind)
    };
    for cut in [cut(2), Cut { decode_tiles: 2, ..cut(1) }, cut(0), Cut { tiles: vec![1; 19], decode_tiles: 1 }] {
        assert_eq!(planned(&auto, cut), Err(PlanError::Cut));
    }
    assert_eq!(planned(&spec(WIDE, 5.0, PlanChoice::Auto), cut(0)), Err(PlanError::Cut));
    assert_eq!(planned(&JobSpec { steps: 0, ..auto.clone() }, cut(1)), Err(PlanError::Spec(SpecError::Steps(0))));
    let mut odd = auto;
    odd.layout.tiles = Tiles::Blended(Tiling { tile: 8, overlap: 8 });
    assert_eq!(planned(&odd, cut(5)), Err(PlanError::Spec(SpecError::Layout)));
}

#[test]
fn a_model_that_only_others_than_those_here_could_lend_is_named() {
    let (spec, cut) = (spec(NATIVE, 5.0, PlanChoice::Auto), cut(1));
    let task = Task::new(&spec, &SHAPE, PlanChoice::Auto, &cut);
    let refused = plan(&task, &room(0), at(0)).unwrap_err();
    assert_eq!(refused, PlanError::ModelMissing { model: model(), lenders: 1 });
    assert!(refused.to_string().contains(&format!("nobody here lends model {}", model())), "{refused}");
    assert!(plan(&task, &Roster::new(), at(0)).is_ok(), "in an empty room it waits");
    assert!(plan(&Task { may_do_it_itself: true, ..task }, &room(0), at(0)).is_ok());
    let larger = plan(&Task { upscale: 4, ..task }, &room(1), at(0)).unwrap_err();
    assert_eq!(larger, PlanError::UpscalerMissing { factor: 4, tiles: 1 });
    let tiles = UpscaleTiles::of(Size { width: 1024, height: 512 }, 2);
    assert_eq!((tiles.tiles, tiles.tile_bytes), (5 * 3, 12 * 256 * 256 * 5));
}

#[test]
fn what_workers_measured_of_themselves_is_planned_with() {
    let with_pilot = |name: &str, nanoseconds_per_cost| {
        let pilots = vec![Pilot { model: model(), nanoseconds_per_cost }];
        (peer(name), Capabilities { pilots, ..capabilities(vec![model()]) })
    };
    let mut roster = Roster::new();
    for (peer, capabilities) in [with_pilot("slow", 20_000_000), with_pilot("fast", 1_000_000)] {
        roster.admit(peer, capabilities, at(0)).unwrap();
    }
    let (spec, cut) = (spec(NATIVE, 5.0, PlanChoice::Auto), cut(1));
    let task = Task::new(&spec, &SHAPE, PlanChoice::Auto, &cut);
    let known = plan(&task, &roster, at(0)).unwrap();
    assert_eq!((known.workers.as_slice(), known.left_out.as_slice()), (&[peer("fast")][..], &[peer("slow")][..]));
    // Twenty steps of two passes of 256 at a millisecond each, and what is around them.
    assert!((10.4..11.0).contains(&known.eta_s.unwrap()), "{known:?}");
    assert_eq!(known.expected().as_deref(), Some("about 11 s"));
    // A third of whom nothing is known is taken to be like the others, and the time becomes a guess.
    roster.admit(peer("silent"), capabilities(vec![model()]), at(0)).unwrap();
    let guessed = plan(&task, &roster, at(0)).unwrap();
    assert!(guessed.eta_s.is_some());
    assert_eq!(guessed.is_measured, !guessed.workers.contains(&peer("silent")));
}

#[test]
fn a_helper_that_is_slow_or_far_is_left_out() {
    for helper in [steady("helper", 20.0, 0.002), steady("helper", 1.0, 0.5)] {
        let plan = over(NATIVE, 5.0, PlanChoice::Auto, &[helper, steady("fast", 1.0, 0.002)]);
        assert_eq!((plan.kind, plan.workers), (PlanKind::Tiles, vec![peer("fast")]));
        assert_eq!(plan.left_out, [peer("helper")]);
    }
    let equal = over(NATIVE, 5.0, PlanChoice::Auto, &[steady("helper", 1.1, 0.002), steady("fast", 1.0, 0.002)]);
    assert_eq!((equal.kind, equal.workers.len()), (PlanKind::Cfg, 2));
}

#[test]
fn a_room_far_away_pays_its_way_once_for_several_steps() {
    let kind = |overhead_s| over(NATIVE, 5.0, PlanChoice::Auto, &[steady("far", 2.0, overhead_s)]).kind;
    assert_eq!(kind(0.002), PlanKind::Tiles);
    let runs: Vec<u32> = (1..=100)
        .filter_map(|hundredths| match kind(f64::from(hundredths) / 100.0) {
            PlanKind::Runs { steps } => Some(steps),
            _ => None,
        })
        .collect();
    assert!(runs.is_sorted() && runs.contains(&2) && runs.contains(&STEPS), "{runs:?}");
    assert_eq!(kind(30.0), PlanKind::Whole, "then nothing is worth a second way");
    let tiled = over(WIDE, 5.0, PlanChoice::Auto, &[steady("far", 2.0, 0.3)]);
    assert!(!matches!(tiled.kind, PlanKind::Runs { .. }), "runs are of the whole canvas");
}

#[test]
fn each_phase_goes_to_who_is_best_at_it() {
    /// Fast at one kind of work alone.
    struct Specialist(StageKind);
    impl Pace for Specialist {
        fn seconds(&self, work: &Work) -> f64 {
            let kind = match work {
                Work::Encode { .. } => StageKind::Encode,
                Work::Denoise { .. } | Work::Run { .. } => StageKind::Denoise,
                Work::Decode { .. } => StageKind::Decode,
                Work::Paint { .. } => StageKind::Paint,
            };
            if kind == self.0 { 0.1 } else { 10.0 }
        }

        fn way(&self, _: usize) -> f64 {
            0.001
        }

        fn fits(&self, work: &Work) -> bool {
            !matches!(work, Work::Paint { .. })
        }

        fn is_measured(&self) -> bool {
            true
        }
    }
    let peers: Vec<Peer<'_>> =
        [("decoder", StageKind::Decode), ("denoiser", StageKind::Denoise), ("reader", StageKind::Encode)]
            .map(|(name, kind)| Peer { id: peer(name), class: "cpu", pace: Box::new(Specialist(kind)) })
            .into();
    let plan = over(NATIVE, 1.0, PlanChoice::Auto, &peers);
    let who: Vec<_> = plan.stages.iter().map(|stage| stage.peers.clone()).collect();
    assert_eq!(who, [[peer("reader")], [peer("denoiser")], [peer("decoder")]]);
    let text = plan.explain();
    assert!(text.contains("reader for the prompt, noiser for the steps, ecoder for the pixels"), "{text}");
}

#[test]
fn with_no_fewer_pictures_than_workers_each_gets_whole_ones() {
    let peers: Vec<_> = ["a", "b", "c"].map(|name| steady(name, 1.0, 0.01)).into();
    let spec = spec(WIDE, 5.0, PlanChoice::Auto);
    let cut = cut_of(&spec);
    let images =
        |images| plan_over(&Task { images, ..Task::new(&spec, &SHAPE, PlanChoice::Auto, &cut) }, &peers).unwrap();
    assert_ne!(images(1).kind, PlanKind::Whole);
    for count in [3, 6, 30] {
        let plan = images(count);
        assert_eq!((plan.kind, plan.workers.len(), plan.units()), (PlanKind::Whole, 3, count as usize));
        let each = images(3).eta_s.unwrap();
        assert!((plan.eta_s.unwrap() / each - f64::from(count) / 3.0).abs() < 0.05, "{count}");
    }
    assert!(images(6).explain().contains("for each of 6 pictures"));
}

#[test]
fn what_is_left_of_a_job_is_planned_when_it_goes_on() {
    let (spec, cut) = (spec(NATIVE, 5.0, PlanChoice::Auto), cut(1));
    let task = |steps_done| Task { steps_done, ..Task::new(&spec, &SHAPE, PlanChoice::Auto, &cut) };
    let left =
        |steps_done: u32, overhead_s| plan_over(&task(Some(steps_done)), &[steady("only", 1.0, overhead_s)]).unwrap();
    let near = left(13, 0.001);
    let counts: Vec<_> = near.stages.iter().map(|stage| (stage.kind, stage.times)).collect();
    assert_eq!(counts, [(StageKind::Denoise, 7), (StageKind::Decode, 1)]);
    // Runs end where they would have ended: at the sixteenth step and at the last.
    for steps_done in 0..=STEPS {
        let far = left(steps_done, 3.0);
        let steps: u64 = far
            .stages
            .iter()
            .filter(|stage| stage.kind != StageKind::Decode)
            .map(|stage| stage.times as u64 * stage.unit_cost / 512)
            .sum();
        assert_eq!(steps, u64::from(STEPS - steps_done), "{:?}", far.kind);
        assert!(far.rejected.iter().all(|other| other.kind != PlanKind::Whole), "it has begun");
    }
    let past = plan_over(&task(Some(STEPS + 1)), &[]).unwrap_err();
    assert_eq!(past, PlanError::Cut);
}

/// Rooms of 1 to 64 peers with speeds of 1 to 20 and ways of 1 to 400 ms: no plan is expected to finish later than the fastest
/// peer alone, but for the tenth that smaller pieces may cost.
#[test]
fn no_plan_is_expected_to_be_slower_than_the_fastest_alone() {
    let (mut shared, mut gained) = (0, 0.0);
    for seed in 0..2_000 {
        let mut rng = Rng(seed);
        let peers: Vec<_> = (0..1 + rng.below(64))
            .map(|number| {
                let seconds = 0.2 * (1.0 + rng.below(1900) as f64 / 100.0);
                steady(&format!("peer{number:02}"), seconds, 0.001 * (1 + rng.below(400)) as f64)
            })
            .collect();
        let (size, guidance) = ([WIDE, NATIVE][rng.below(2)], [1.0, 5.0][rng.below(2)]);
        let plan = over(size, guidance, PlanChoice::Auto, &peers);
        let alone = |peer: &Peer<'_>| {
            let spec = spec(size, guidance, PlanChoice::Auto);
            let work = Work::Paint { spec: Box::new(spec) };
            peer.pace.seconds(&work) + peer.pace.way(0)
        };
        let fastest = peers.iter().map(alone).fold(f64::INFINITY, f64::min);
        let eta = plan.eta_s.unwrap();
        assert!(eta <= 1.10 * fastest, "seed {seed}: {eta} where {fastest} is the fastest alone\n{}", plan.explain());
        assert_eq!(plan.explain(), over(size, guidance, PlanChoice::Auto, &peers).explain(), "seed {seed}");
        let is_shared = plan.stages.iter().any(|stage| stage.peers.len() > 1);
        assert!(!is_shared || eta <= 0.9 * fastest, "seed {seed}: sharing wins less than a tenth");
        shared += usize::from(is_shared);
        gained += fastest / eta;
    }
    assert!(
        shared > 500 && gained > 2_000.0,
        "{shared} of 2000 plans share, and the mean gain is {}",
        gained / 2_000.0
    );
    println!("{shared} of 2000 plans share; the mean gain over the fastest alone is {:.2}", gained / 2_000.0);
}
