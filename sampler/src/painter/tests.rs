//! A fake model painted in every way gives the same bits, and nothing untrusted changes a painting.

use protocol::job::{PlanChoice, Tiles, Tiling};
use protocol::{Branches, JobRequest, Layout, ModelId, Size, Wire};

use super::*;
use crate::noise::{self, Purpose};

mod resuming;

const SHAPE: ModelShape = ModelShape { latent_channels: 4, factor: 2, native_cells: 8, tokens: 3, embedding_width: 5 };

const SCHEDULER: &str = r#"{"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction",
    "use_flow_sigmas": true, "flow_shift": 3.0, "lambda_min_clipped": -Infinity}"#;

const SPLIT_KINDS: [PlanKind; 3] = [PlanKind::Cfg, PlanKind::Tiles, PlanKind::CfgTiles];

fn spec(guidance: f32, tiled: bool, wire: Wire) -> JobSpec {
    let request = JobRequest {
        prompt: "a lake".into(),
        negative: "fog".into(),
        size: Size { width: 38, height: 22 },
        steps: 4,
        guidance,
        seed: 11,
        plan: PlanChoice::Whole,
    };
    let mut spec = JobSpec::new(request, ModelId(Hash::of(b"model")), &SHAPE).unwrap();
    let tiling = tiled.then_some(Tiling { tile: 8, overlap: 3 });
    spec.layout = Layout {
        tiles: tiling.map_or(Tiles::Whole, Tiles::Blended),
        decode_tiles: tiling.map(|_| Tiling { tile: 9, overlap: 2 }),
        wire,
    };
    spec
}

/// The same job on shifted tiles.
fn shifted(guidance: f32) -> JobSpec {
    let spec = spec(guidance, true, Wire::F32);
    JobSpec { layout: Layout { tiles: Tiles::Shifted { tile: 8 }, ..spec.layout }, ..spec }
}

fn scheduler() -> SchedulerConfig {
    SchedulerConfig::parse(SCHEDULER).unwrap()
}

fn painter(spec: &JobSpec, kind: PlanKind) -> Painter {
    Painter::new(JobId([1; 16]), spec.clone(), SHAPE, &scheduler(), kind).unwrap()
}

/// A network of additions and products alone, whose outputs depend on all of its inputs, neighbours included.
fn compute(unit: &Unit, input: &[u8], conditioning: Option<&[u8]>) -> Result<Vec<u8>, String> {
    let values = tensor::from_bytes(input, unit.work.input_values(&SHAPE)).map_err(|error| error.to_string())?;
    let output = match &unit.work {
        Work::Encode { prompt, negative } => {
            let texts = negative.iter().chain([prompt]);
            let row = |text: &String| {
                let text = text.clone().into_bytes();
                (0..15).map(move |index| f32::from(text[index % text.len()]) / 128.0 - 0.8).collect::<Vec<_>>()
            };
            texts.flat_map(row).collect()
        }
        Work::Denoise { conditioning_rows, branches, timestep, .. } => {
            let bytes = conditioning.ok_or("no conditioning")?;
            let rows =
                tensor::from_bytes(bytes, 15 * *conditioning_rows as usize).map_err(|error| error.to_string())?;
            let pass = |row: usize| {
                let bias = rows[row * 15..][..15].iter().sum::<f32>() / 15.0 + timestep / 4000.0;
                let next = values.iter().cycle().skip(1);
                values.iter().zip(next).map(move |(x, next)| 0.7 * x - 0.1 * next + bias).collect::<Vec<_>>()
            };
            let rows = branches.rows(*conditioning_rows as usize).ok_or("no such row")?;
            rows.into_iter().flat_map(pass).collect()
        }
        Work::Run { .. } => {
            let mut run = Run::new(unit, &SHAPE, &scheduler(), values).map_err(|error| error.to_string())?;
            while let Some((unit, input)) = run.next_pass() {
                run.accept(&compute(&unit, &input, conditioning)?).map_err(|error| error.to_string())?;
            }
            run.output()
        }
        Work::Decode { rows, columns } => {
            let (rows, columns) = (*rows as usize, *columns as usize);
            let pixel = |index: usize| {
                let (channel, row, column) =
                    (index / (4 * rows * columns), index / (2 * columns), index % (2 * columns));
                0.6 * values[(channel * rows + row % (2 * rows) / 2) * columns + column / 2]
            };
            (0..12 * rows * columns).map(pixel).collect()
        }
        Work::Paint { spec } => {
            let mut painter = painter(spec, PlanKind::CfgTiles);
            paint(&mut painter, compute).map_err(|error| error.to_string())?;
            [painter.latent(), painter.image().unwrap()].concat()
        }
    };
    Ok(tensor::to_bytes(&output))
}

fn painted(spec: &JobSpec, kind: PlanKind) -> Painter {
    let mut painter = painter(spec, kind);
    paint(&mut painter, compute).unwrap();
    painter
}

/// Everything that a painting gives, as bits.
fn bits(painter: &Painter) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    (tensor::to_bytes(painter.latent()), tensor::to_bytes(painter.image().unwrap()), painter.pixels().unwrap())
}

#[test]
fn every_kind_of_plan_gives_the_same_bits() {
    for guidance in [1.0, 3.5] {
        for tiled in [false, true] {
            for wire in [Wire::F32, Wire::F16] {
                let spec = spec(guidance, tiled, wire);
                let whole = bits(&painted(&spec, PlanKind::Whole));
                for kind in SPLIT_KINDS {
                    assert_eq!(bits(&painted(&spec, kind)), whole, "{kind:?} {guidance} {tiled} {wire:?}");
                }
            }
        }
    }
}

#[test]
fn shifted_tiles_give_the_same_bits_under_every_kind_and_other_bits_than_blended_ones() {
    for guidance in [1.0, 3.5] {
        let whole = painted(&shifted(guidance), PlanKind::Whole);
        for kind in SPLIT_KINDS {
            let painter = painted(&shifted(guidance), kind);
            assert_eq!(bits(&painter), bits(&whole), "{kind:?} {guidance}");
            assert_eq!(painter.progress().0, painter.progress().1);
        }
        assert_ne!(bits(&whole), bits(&painted(&spec(guidance, true, Wire::F32), PlanKind::Tiles)));
    }
    let mut painter = painter(&shifted(3.5), PlanKind::Tiles);
    let mut counts = Vec::new();
    while painter.stage() != Stage::Done {
        counts.push(painter.units().len());
        for unit in painter.units() {
            let conditioning = painter.conditioning().map(|(_, bytes)| bytes.to_vec());
            let output = compute(&unit, &painter.input(unit.id), conditioning.as_deref()).unwrap();
            painter.accept(unit.id, &output).unwrap();
        }
        painter.advance();
    }
    let canvas = canvas::step_tile_counts(11, 19, Tiles::Shifted { tile: 8 }, 11, 4);
    assert_eq!(counts[1..5], canvas);
}

#[test]
fn runs_of_any_number_of_steps_give_the_same_bits() {
    for guidance in [1.0, 3.5] {
        for wire in [Wire::F32, Wire::F16] {
            let spec = spec(guidance, false, wire);
            let whole = bits(&painted(&spec, PlanKind::Whole));
            for steps in 0..7 {
                assert_eq!(bits(&painted(&spec, PlanKind::Runs { steps })), whole, "{guidance} {wire:?} {steps}");
            }
        }
    }
    let tiled =
        Painter::new(JobId([1; 16]), spec(3.5, true, Wire::F32), SHAPE, &scheduler(), PlanKind::Runs { steps: 2 });
    assert_eq!(tiled.unwrap_err(), PainterError::Runs);
}

#[test]
fn layout_rounding_guidance_and_seed_do_change_the_picture() {
    let base = bits(&painted(&spec(3.5, true, Wire::F32), PlanKind::Tiles));
    assert_ne!(bits(&painted(&spec(3.5, false, Wire::F32), PlanKind::Tiles)), base);
    assert_ne!(bits(&painted(&spec(3.5, true, Wire::F16), PlanKind::Tiles)), base);
    assert_ne!(bits(&painted(&spec(2.0, true, Wire::F32), PlanKind::Tiles)), base);
    assert_ne!(bits(&painted(&JobSpec { seed: 12, ..spec(3.5, true, Wire::F32) }, PlanKind::Tiles)), base);
}

#[test]
fn the_order_of_arrival_and_repeated_deliveries_change_nothing() {
    let spec = spec(3.5, true, Wire::F32);
    let reference = bits(&painted(&spec, PlanKind::Tiles));
    for round in 0..8 {
        for kind in SPLIT_KINDS {
            let mut painter = painter(&spec, kind);
            let mut late: Option<(UnitId, Vec<u8>)> = None;
            while painter.stage() != Stage::Done {
                let mut units = painter.units();
                units.sort_by_key(|unit| noise::philox4x32([unit.id.index, unit.id.stage, round, 0], [0; 2]));
                for unit in units {
                    let conditioning = painter.conditioning().map(|(_, bytes)| bytes.to_vec());
                    let output = compute(&unit, &painter.input(unit.id), conditioning.as_deref()).unwrap();
                    painter.advance(); // Too early: nothing happens.
                    painter.accept(unit.id, &output).unwrap();
                    let other = vec![0; output.len()];
                    painter.accept(unit.id, &other).unwrap();
                    if let Some((id, output)) = late.replace((unit.id, output)) {
                        painter.accept(id, &output).unwrap();
                    }
                }
                assert!(painter.is_stage_complete());
                painter.advance();
            }
            assert_eq!(bits(&painter), reference, "{kind:?} {round}");
        }
    }
}

#[test]
fn rounding_at_the_sender_or_at_home_gives_the_same_bits() {
    let spec = spec(3.5, true, Wire::F16);
    let mut painter = painter(&spec, PlanKind::CfgTiles);
    paint(&mut painter, |unit, input, conditioning| {
        let output = compute(unit, input, conditioning)?;
        if !matches!(unit.work, Work::Denoise { .. }) {
            return Ok(output);
        }
        let mut values = tensor::from_bytes(&output, output.len() / 4).map_err(|error| error.to_string())?;
        wire::round(&mut values, Wire::F16);
        Ok::<_, String>(tensor::to_bytes(&values))
    })
    .unwrap();
    assert_eq!(bits(&painter), bits(&painted(&spec, PlanKind::CfgTiles)));
}

#[test]
fn kinds_cut_stages_into_the_units_they_promise() {
    let count = |kind, guidance, tiled| {
        let mut painter = painter(&spec(guidance, tiled, Wire::F32), kind);
        let encode = painter.units();
        assert!(kind == PlanKind::Whole || matches!(encode[0].work, Work::Encode { .. }));
        let output = compute(&encode[0], &[], None).unwrap();
        painter.accept(encode[0].id, &output).unwrap();
        painter.advance();
        painter.units().len()
    };
    assert_eq!(count(PlanKind::Whole, 3.0, true), 0);
    assert_eq!(count(PlanKind::Cfg, 3.0, false), 2);
    assert_eq!(count(PlanKind::Cfg, 1.0, false), 1);
    // 11 x 19 cells in tiles of 8 that start every 5 cells: 2 rows of 4.
    assert_eq!(count(PlanKind::Tiles, 3.0, true), 8);
    assert_eq!(count(PlanKind::Cfg, 3.0, true), 16);
    assert_eq!(count(PlanKind::CfgTiles, 3.0, true), 16);
    assert_eq!(count(PlanKind::CfgTiles, 1.0, true), 8);
}

#[test]
fn a_guided_tile_comes_negative_first_with_the_conditioning_it_names() {
    let mut painter = painter(&spec(3.0, true, Wire::F32), PlanKind::CfgTiles);
    let encode = painter.units().remove(0);
    assert_eq!(painter.conditioning(), None);
    painter.accept(encode.id, &compute(&encode, &[], None).unwrap()).unwrap();
    painter.advance();
    let (hash, bytes) = painter.conditioning().unwrap();
    assert_eq!(Hash::of(bytes), hash);
    assert_eq!(bytes.len(), 2 * 15 * 4);
    for (index, unit) in painter.units().iter().enumerate() {
        assert_eq!(unit.id, UnitId { stage: 1, index: index as u32 });
        let Work::Denoise { conditioning, conditioning_rows, branches, timestep, .. } = unit.work else { panic!() };
        assert_eq!((conditioning, conditioning_rows), (hash, 2));
        assert_eq!(branches, [Branches::Negative, Branches::Prompt][index % 2]);
        assert_eq!(timestep, 999.0);
        assert_eq!(painter.input(unit.id).len(), 4 * unit.work.input_values(&SHAPE));
    }
}

#[test]
fn an_output_that_lies_is_refused_and_changes_nothing() {
    let mut painter = painter(&spec(3.0, false, Wire::F32), PlanKind::Tiles);
    let unit = painter.units().remove(0);
    let good = compute(&unit, &[], None).unwrap();
    let short = painter.accept(unit.id, &good[1..]);
    assert_eq!(short, Err(TensorError::Length { expected: good.len(), found: good.len() - 1 }));
    let mut infinite = good.clone();
    infinite[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    assert_eq!(painter.accept(unit.id, &infinite), Err(TensorError::Value { index: 0 }));
    assert!(painter.is_wanted(unit.id));
    for id in
        [UnitId { stage: 0, index: 1 }, UnitId { stage: 1, index: 0 }, UnitId { stage: u32::MAX, index: u32::MAX }]
    {
        painter.accept(id, &good).unwrap();
        assert!(painter.input(id).is_empty() && !painter.is_wanted(id));
    }
    painter.advance();
    assert_eq!((painter.stage(), painter.progress().0), (Stage::Encode, 0));
    painter.accept(unit.id, &good).unwrap();
    painter.advance();
    assert_eq!(painter.stage(), Stage::Denoise { step: 0, steps: 4 });
}

#[test]
fn progress_grows_to_its_total() {
    let kinds = [PlanKind::Whole, PlanKind::Cfg, PlanKind::Tiles, PlanKind::CfgTiles, PlanKind::Runs { steps: 3 }];
    for kind in kinds {
        let is_tiled = !matches!(kind, PlanKind::Runs { .. });
        let mut painter = painter(&spec(3.0, is_tiled, Wire::F32), kind);
        let total = painter.progress().1;
        let mut before = None;
        while painter.stage() != Stage::Done {
            assert!(painter.stage_index() < painter.stages());
            assert!(painter.pixels().is_none());
            for unit in painter.units() {
                let (done, all) = painter.progress();
                assert!(before < Some(done) && all == total, "{kind:?}");
                before = Some(done);
                let conditioning = painter.conditioning().map(|(_, bytes)| bytes.to_vec());
                let output = compute(&unit, &painter.input(unit.id), conditioning.as_deref()).unwrap();
                painter.accept(unit.id, &output).unwrap();
            }
            painter.advance();
        }
        assert_eq!(painter.progress(), (total, total), "{kind:?}");
        assert_eq!(painter.stage_index(), painter.stages());
        assert!(painter.units().is_empty());
    }
}

#[test]
fn recorded_noise_replaces_the_seed() {
    let spec = spec(3.0, false, Wire::F32);
    let sigma = painter(&spec, PlanKind::Tiles).denoiser.schedule().init_noise_sigma();
    let own = noise::field(spec.seed, Purpose::Initial, 0, 4, 11, 19);
    let given = painter(&spec, PlanKind::Tiles).with_noise(&own).unwrap();
    assert_eq!(given.latent(), painter(&spec, PlanKind::Tiles).latent());
    assert_eq!(given.latent()[7], own[7] * sigma);
    let wrong = painter(&spec, PlanKind::Tiles).with_noise(&own[1..]).unwrap_err();
    assert_eq!(wrong, PainterError::Noise { expected: own.len(), found: own.len() - 1 });
    assert!(painter(&spec, PlanKind::Whole).with_noise(&own).is_err());
}

#[test]
fn a_job_that_cannot_be_cut_is_refused_before_it_costs_memory() {
    let new = |spec: JobSpec, shape| Painter::new(JobId([1; 16]), spec, shape, &scheduler(), PlanKind::Tiles);
    let base = spec(3.0, false, Wire::F32);
    for shape in [ModelShape { factor: 0, ..SHAPE }, ModelShape { latent_channels: u32::MAX, ..SHAPE }] {
        assert_eq!(new(base.clone(), shape).unwrap_err(), PainterError::Shape);
    }
    let mut fine = JobSpec { size: Size { width: 1024, height: 1024 }, ..base.clone() };
    fine.layout.tiles = Tiles::Blended(Tiling { tile: 8, overlap: 7 });
    assert_eq!(new(fine, SHAPE).unwrap_err(), PainterError::Units { units: 2 * 505 * 505 });
    let large = ModelShape { latent_channels: 64, ..SHAPE };
    let mut wide = JobSpec { size: Size { width: 1024, height: 1024 }, ..base.clone() };
    assert!(matches!(new(wide.clone(), large).unwrap_err(), PainterError::Unit(_)));
    // Each tile would fit a body, but not the latent that all tiles are cut from.
    wide.layout.tiles = Tiles::Blended(Tiling { tile: 64, overlap: 0 });
    wide.layout.decode_tiles = Some(Tiling { tile: 64, overlap: 0 });
    assert!(matches!(new(wide, large).unwrap_err(), PainterError::Unit(_)));
    assert!(matches!(new(JobSpec { steps: 0, ..base }, SHAPE).unwrap_err(), PainterError::Spec(_)));
}

#[test]
fn pixels_are_rounded_and_clamped() {
    let mut painter = painted(&spec(1.0, false, Wire::F32), PlanKind::Tiles);
    painter.image = Some(vec![-1.0, 2.0, 0.0, 1.0, -7.0, 0.5]);
    // Two pixels: red, green and blue planes follow each other in the image.
    assert_eq!(painter.pixels().unwrap(), [0, 128, 0, 255, 255, 191]);
}

#[test]
fn a_painting_has_the_same_bits_on_every_platform() {
    let painter = painted(&spec(3.5, true, Wire::F16), PlanKind::CfgTiles);
    let (latent, image, pixels) = bits(&painter);
    assert_eq!(
        Hash::of(&[latent, image, pixels].concat()).to_string(),
        "5ed80301768ffa77bd20430149dd2cb71c3a585288bd23a8f2cef0a32abb9ffa"
    );
    let (latent, image, pixels) = bits(&painted(&shifted(3.5), PlanKind::CfgTiles));
    assert_eq!(
        Hash::of(&[latent, image, pixels].concat()).to_string(),
        "ec348a369bebc0ced2c10e0a9e981210d2e2e5bd7fabeeae367609a12c8d0da8"
    );
}
