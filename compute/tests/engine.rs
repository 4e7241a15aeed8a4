//! Engines refuse what their model cannot do, and give the same bits however the work is cut and run.

#![allow(clippy::unwrap_used, reason = "what tests share is test code too")]

use std::path::Path;
use std::time::{Duration, Instant};

use compute::{Diffusion, Engine, EngineError, Fake, ModelFolder};
use protocol::{
    Branches, Hash, JobId, JobRequest, JobSpec, ModelId, ModelShape, PlanChoice, PlanKind, Size, Tiles, Unit, UnitId,
    Work, tensor,
};
use sampler::Painter;

fn folder() -> ModelFolder {
    ModelFolder::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/sd21-v-ddim-tiny")).unwrap()
}

fn engine(threads: usize) -> Diffusion {
    Diffusion::load(&folder(), threads).unwrap()
}

fn unit(model: ModelId, work: Work) -> Unit {
    Unit { job: JobId([7; 16]), id: UnitId { stage: 0, index: 0 }, model, work }
}

fn encode(prompt: &str) -> Work {
    Work::Encode { prompt: prompt.into(), negative: Some("blurry".into()) }
}

fn denoise(conditioning: &[u8], branches: Branches, rows: u32, columns: u32) -> Work {
    let (conditioning, timestep) = (Hash::of(conditioning), 321.5);
    Work::Denoise { conditioning, conditioning_rows: 2, branches, timestep, rows, columns }
}

fn spec(model: ModelId, shape: &ModelShape, size: Size) -> JobSpec {
    let (prompt, negative) = ("a red fox in the snow".into(), "blurry".into());
    let request = JobRequest { prompt, negative, size, steps: 2, guidance: 5.0, seed: 3, plan: PlanChoice::Auto };
    JobSpec::new(request, model, shape).unwrap()
}

/// Latent, then pixels, of a picture painted unit by unit.
fn paint_by_units(engine: &mut dyn Engine, painter: &mut Painter) -> Vec<f32> {
    sampler::paint(painter, |unit, input, conditioning| engine.compute(unit, input, conditioning, &|| false)).unwrap();
    [painter.latent(), painter.image().unwrap()].concat()
}

#[test]
fn a_picture_has_the_same_bits_in_one_unit_and_in_many_and_on_one_thread_and_on_two() {
    let (folder, mut one, mut two) = (folder(), engine(1), engine(2));
    let shape = folder.shape();
    let spec = spec(folder.id(), &shape, Size { width: 96, height: 64 });
    let whole = unit(folder.id(), Work::Paint { spec: Box::new(spec.clone()) });
    let first = one.compute(&whole, &[], None, &|| false).unwrap();
    assert_eq!(first, one.compute(&whole, &[], None, &|| false).unwrap(), "run to run");
    assert_eq!(first, two.compute(&whole, &[], None, &|| false).unwrap(), "one thread and two");
    for kind in [PlanKind::Cfg, PlanKind::Tiles, PlanKind::CfgTiles] {
        let mut painter = Painter::new(JobId([1; 16]), spec.clone(), shape, folder.scheduler(), kind).unwrap();
        assert_eq!(first, tensor::to_bytes(&paint_by_units(&mut two, &mut painter)), "{kind:?}");
    }
}

#[test]
fn runs_of_steps_have_the_bits_of_single_steps_also_where_the_scheduler_remembers() {
    // The second one's scheduler remembers a tensor.
    for name in ["tests/fixtures/sd21-v-ddim-tiny", "models/demo"] {
        let folder = ModelFolder::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)).unwrap();
        let mut engine = Diffusion::load(&folder, 2).unwrap();
        let spec = spec(folder.id(), &folder.shape(), Size { width: 64, height: 64 });
        let spec = JobSpec { steps: 5, ..spec };
        let mut painted = |kind| {
            let painter = Painter::new(JobId([1; 16]), spec.clone(), folder.shape(), folder.scheduler(), kind);
            tensor::to_bytes(&paint_by_units(&mut engine, &mut painter.unwrap()))
        };
        let by_steps = painted(PlanKind::Cfg);
        for steps in [1, 2, 5] {
            assert_eq!(by_steps, painted(PlanKind::Runs { steps }), "{name} {steps}");
        }
    }
}

#[test]
fn the_two_branches_have_the_same_bits_together_and_apart() {
    let (model, mut engine) = (folder().id(), engine(2));
    let conditioning = engine.compute(&unit(model, encode("a lake")), &[], None, &|| false).unwrap();
    let latent = tensor::to_bytes(&(0..4 * 64).map(|index| (index as f32).sin()).collect::<Vec<_>>());
    let mut branch = |branches| {
        let unit = unit(model, denoise(&conditioning, branches, 8, 8));
        engine.compute(&unit, &latent, Some(&conditioning), &|| false).unwrap()
    };
    let apart = [branch(Branches::Negative), branch(Branches::Prompt)].concat();
    assert_eq!(branch(Branches::Both), apart);
}

#[test]
fn latents_of_any_size_are_denoised_and_decoded() {
    let (model, mut engine) = (folder().id(), engine(2));
    let conditioning = engine.compute(&unit(model, encode("a lake")), &[], None, &|| false).unwrap();
    for (rows, columns) in [(1, 1), (1, 7), (5, 8), (7, 3), (9, 9)] {
        let latent = tensor::to_bytes(&vec![0.5; 4 * (rows * columns) as usize]);
        let step = unit(model, denoise(&conditioning, Branches::Both, rows, columns));
        engine.compute(&step, &latent, Some(&conditioning), &|| false).unwrap();
        engine.compute(&unit(model, Work::Decode { rows, columns }), &latent, None, &|| false).unwrap();
    }
}

#[test]
fn units_outside_the_models_shape_are_refused() {
    let (model, mut engine) = (folder().id(), engine(1));
    let mut refuse = |work: Work, input: &[u8], conditioning: Option<&[u8]>| {
        engine.compute(&unit(model, work), input, conditioning, &|| false).unwrap_err()
    };
    let conditioning = tensor::to_bytes(&[0.0; 2 * 77 * 32]);
    let step = |rows, columns| denoise(&conditioning, Branches::Both, rows, columns);
    let latent = tensor::to_bytes(&[0.0; 4 * 64]);
    for (rows, columns) in [(0, 8), (8, 0), (u32::MAX, 1), (1, 600), (200, 200)] {
        assert!(matches!(refuse(step(rows, columns), &latent, Some(&conditioning)), EngineError::Unit(_)));
        assert!(matches!(refuse(Work::Decode { rows, columns }, &latent, None), EngineError::Unit(_)));
    }
    assert!(matches!(refuse(step(8, 8), &latent[4..], Some(&conditioning)), EngineError::Input(_)));
    assert!(matches!(refuse(step(8, 8), &latent, None), EngineError::Conditioning("is missing")));
    let other = tensor::to_bytes(&[1.0; 2 * 77 * 32]);
    assert!(matches!(refuse(step(8, 8), &latent, Some(&other)), EngineError::Conditioning(_)));
    let short = tensor::to_bytes(&[0.0; 77 * 32]);
    let named = denoise(&short, Branches::Both, 8, 8);
    assert_eq!(refuse(named, &latent, Some(&short)), EngineError::Conditioning("has another shape"));
    let mut nan = latent.clone();
    nan[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(matches!(refuse(step(8, 8), &nan, Some(&conditioning)), EngineError::Input(_)));
    let foreign = unit(ModelId(Hash::of(b"another")), encode("a lake"));
    assert!(matches!(engine.compute(&foreign, &[], None, &|| false), Err(EngineError::Model(_))));
}

#[test]
fn a_prompt_over_the_limit_is_refused_with_what_would_be_lost() {
    let (folder, mut engine) = (folder(), engine(1));
    assert_eq!(folder.excess("mountains at sunset"), None);
    let long = format!("{}\u{e9}\u{1f98a} and the last words", "snow ".repeat(70));
    let lost = folder.excess(&long).unwrap();
    assert!(long.ends_with(&lost) && lost.ends_with("and the last words"), "{lost:?}");
    match engine.compute(&unit(folder.id(), encode(&long)), &[], None, &|| false) {
        Err(error @ EngineError::Prompt(_)) => assert!(error.to_string().contains(&lost), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cancelled_unit_is_given_up() {
    let (model, mut engine) = (folder().id(), engine(1));
    let cancelled = engine.compute(&unit(model, encode("a lake")), &[], None, &|| true);
    assert_eq!(cancelled, Err(EngineError::Cancelled));
    let latent = tensor::to_bytes(&[0.0; 4 * 64]);
    let cancelled = engine.compute(&unit(model, Work::Decode { rows: 8, columns: 8 }), &latent, None, &|| true);
    assert_eq!(cancelled, Err(EngineError::Cancelled));
}

const SHAPE: ModelShape = ModelShape { latent_channels: 4, factor: 8, native_cells: 8, tokens: 16, embedding_width: 8 };

#[test]
fn a_fake_engine_takes_its_time_and_gives_the_same_bits_in_one_unit_and_in_many() {
    let model = ModelId(Hash::of(b"fake"));
    let mut fake = Fake::new(model, SHAPE, Duration::from_millis(1));
    let spec = spec(model, &SHAPE, Size { width: 96, height: 64 });
    let whole = unit(model, Work::Paint { spec: Box::new(spec.clone()) });
    let began = Instant::now();
    let first = fake.compute(&whole, &[], None, &|| false).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(10), "a text, two steps of two branches and tiles, and a decode");
    let scheduler = fake.scheduler().clone();
    let painted = |spec: &JobSpec, kind| {
        let mut painter = Painter::new(JobId([1; 16]), spec.clone(), SHAPE, &scheduler, kind).unwrap();
        tensor::to_bytes(&paint_by_units(&mut Fake::new(model, SHAPE, Duration::ZERO), &mut painter))
    };
    for kind in [PlanKind::Cfg, PlanKind::Tiles, PlanKind::CfgTiles] {
        assert_eq!(first, painted(&spec, kind), "{kind:?}");
    }
    let mut untiled = spec;
    untiled.layout.tiles = Tiles::Whole;
    assert_eq!(painted(&untiled, PlanKind::Runs { steps: 2 }), painted(&untiled, PlanKind::Tiles));
}

#[test]
fn a_fake_engines_output_follows_every_byte_it_is_given() {
    let model = ModelId(Hash::of(b"fake"));
    let mut fake = Fake::new(model, SHAPE, Duration::ZERO);
    let mut run = |prompt: &str| fake.compute(&unit(model, encode(prompt)), &[], None, &|| false).unwrap();
    let first = run("one");
    assert_eq!(first, run("one"));
    assert_ne!(first, run("two"));
    assert_eq!(first.len(), 2 * 16 * 8 * 4);
    let mut fake = Fake::new(model, SHAPE, Duration::from_secs(3600));
    assert_eq!(fake.compute(&unit(model, encode("one")), &[], None, &|| true), Err(EngineError::Cancelled));
}
