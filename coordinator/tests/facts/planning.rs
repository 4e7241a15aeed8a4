//! What is planned for whom, and how it is explained.

use coordinator::{Cut, Exactness, Plan, PlanError, Roster, StageKind, plan};
use protocol::limits::STAGE_UNITS_MAX;
use protocol::{Capabilities, JobRequest, JobSpec, ModelShape, PlanChoice, PlanKind, Size, SpecError, Tiles, Tiling};

use crate::toy::{at, capabilities, model, peer};

/// The demo model's shape.
const SHAPE: ModelShape =
    ModelShape { latent_channels: 8, factor: 8, native_cells: 16, tokens: 32, embedding_width: 96 };
const WIDE: Size = Size { width: 384, height: 128 };
const NATIVE: Size = Size { width: 128, height: 128 };

/// A cut of the twenty steps into as many tiles each.
fn cut(tiles: usize) -> Cut {
    Cut { tiles: vec![tiles; 20], decode_tiles: 1 }
}

fn spec(size: Size, guidance: f32, choice: PlanChoice) -> JobSpec {
    let (prompt, negative) = ("mountains".to_owned(), String::new());
    JobSpec::new(JobRequest { prompt, negative, size, steps: 20, guidance, seed: 1, plan: choice }, model(), &SHAPE)
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
    let cut = cut(if spec.layout.tiles.is_whole() { 1 } else { 5 });
    plan(&spec, &SHAPE, choice, cut, &room(workers)).unwrap()
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
        (WIDE, 5.0, Choice::Tiles, 1, Kind::CfgTiles),
        (WIDE, 1.0, Choice::Tiles, 9, Kind::Tiles),
        (NATIVE, 5.0, Choice::Tiles, 2, Kind::Cfg),
        (NATIVE, 1.0, Choice::Tiles, 2, Kind::Tiles),
    ] {
        let plan = planned(size, guidance, choice, workers);
        assert_eq!(plan.kind, kind, "{size} {guidance} {choice:?} {workers}");
        assert_eq!(plan.workers.len(), workers, "the idler does not lend this model");
    }
}

#[test]
fn the_room_never_changes_what_the_pixels_depend_on() {
    for choice in [PlanChoice::Auto, PlanChoice::Whole, PlanChoice::Tiles, PlanChoice::Cfg] {
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
    let plan = planned(WIDE, 5.0, PlanChoice::Auto, 3);
    let counts: Vec<_> = plan.stages.iter().map(|stage| (stage.kind, stage.times, stage.units)).collect();
    assert_eq!(counts, [(StageKind::Encode, 1, 1), (StageKind::Denoise, 20, 10), (StageKind::Decode, 1, 1)]);
    assert_eq!(plan.units(), 1 + 20 * 10 + 1);
    let (conditioning, tile, pixels) = (2 * 32 * 96 * 4, 8 * 16 * 16 * 4, 3 * 384 * 128 * 4);
    let latent = 8 * 16 * 48 * 4;
    assert_eq!(plan.bytes(), conditioning + 20 * 10 * 2 * tile + latent + pixels + 3 * conditioning);
    assert_eq!(plan.cost(), 64 + 20 * 10 * 256 + 16 * 48);
    let whole = planned(WIDE, 5.0, PlanChoice::Whole, 3);
    assert_eq!((whole.units(), whole.bytes()), (1, latent + pixels));
}

#[test]
fn a_plan_is_explained_in_plain_words() {
    assert_eq!(
        planned(WIDE, 5.0, PlanChoice::Auto, 3).explain(),
        "Plan: each step is 10 units, one for each guidance branch of 5 tiles, because several workers share the tiles and \
         their guidance branches.\n\
         Workers: 3 lend this model.\n\
         Units: 1 to read the prompt, 10 in each of 20 steps, 1 to make pixels; 202 in all, about 3.8 MiB over the network.\n\
         Exactness: E0 \"identical\" to the same plan on one machine of the same numeric class,\n\
         \x20 and E2 \"plan-different\" to the same job without tiles.\n\
         Not chosen: one unit for each tile, because units of one branch share out more evenly."
    );
    let alone = planned(NATIVE, 1.0, PlanChoice::Cfg, 0).explain();
    assert!(alone.contains("nobody lends this model yet"), "{alone}");
    assert!(alone.contains("Not chosen: the guidance branches on two workers, because there are no two"), "{alone}");
}

#[test]
fn mixed_numeric_classes_are_named() {
    let mut roster = room(2);
    let gpu = Capabilities { numeric_class: "gpu".into(), ..capabilities(vec![model()]) };
    roster.admit(peer("gamer"), gpu, at(0)).unwrap();
    let plan = plan(&spec(NATIVE, 5.0, PlanChoice::Auto), &SHAPE, PlanChoice::Auto, cut(1), &roster).unwrap();
    assert_eq!(plan.numeric_classes, 2);
    assert!(plan.explain().contains("2 numeric classes"));
}

#[test]
fn names_of_peers_are_not_in_the_explanation() {
    let mut roster = room(0);
    let rude = Capabilities { name: "<script>".into(), numeric_class: "<b>".into(), ..capabilities(vec![model()]) };
    roster.admit(peer("rude"), rude, at(0)).unwrap();
    let plan = plan(&spec(NATIVE, 5.0, PlanChoice::Auto), &SHAPE, PlanChoice::Auto, cut(1), &roster).unwrap();
    assert!(!plan.explain().contains('<'));
}

#[test]
fn too_many_units_are_refused_whoever_is_there() {
    for workers in [0, 1, 4] {
        let planned = |guidance, tiles| {
            let spec = spec(WIDE, guidance, PlanChoice::Auto);
            plan(&spec, &SHAPE, PlanChoice::Auto, cut(tiles), &room(workers)).map(|_| ())
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
    let planned = |spec: &JobSpec, cut| plan(spec, &SHAPE, PlanChoice::Auto, cut, &room(1)).map(|plan| plan.kind);
    for cut in [cut(2), Cut { decode_tiles: 2, ..cut(1) }, cut(0), Cut { tiles: vec![1; 19], decode_tiles: 1 }] {
        assert_eq!(planned(&auto, cut), Err(PlanError::Cut));
    }
    assert_eq!(planned(&spec(WIDE, 5.0, PlanChoice::Auto), cut(0)), Err(PlanError::Cut));
    assert_eq!(planned(&JobSpec { steps: 0, ..auto.clone() }, cut(1)), Err(PlanError::Spec(SpecError::Steps(0))));
    let mut odd = auto;
    odd.layout.tiles = Tiles::Blended(Tiling { tile: 8, overlap: 8 });
    assert_eq!(planned(&odd, cut(5)), Err(PlanError::Spec(SpecError::Layout)));
}
