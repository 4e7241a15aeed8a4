//! What a page needs of a model: its files in memory, a cheap look at its latents, and an engine that tests itself.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use compute::{
    Cancelled, Diffusion, Engine, EngineError, Files, Free, ModelFolder, Pace, Pause, SelfTest, SelfTestError,
};
use protocol::{JobId, JobRequest, JobSpec, PlanChoice, Size, Unit, UnitId, Work, tensor};

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/sd-turbo-tiny")
}

fn on_disk() -> ModelFolder {
    ModelFolder::open(&path()).unwrap()
}

fn in_memory() -> BTreeMap<String, Vec<u8>> {
    let read = |name: &str| std::fs::read(path().join(name)).unwrap();
    on_disk().used().iter().map(|file| (file.name.clone(), read(&file.name))).collect()
}

fn unit(model: &ModelFolder, work: Work) -> Unit {
    Unit { job: JobId([0; 16]), id: UnitId { stage: 0, index: 0 }, model: model.id(), work }
}

/// The result of a future that does not wait.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn a_model_in_memory_is_the_model_on_disk() {
    let disk = on_disk();
    let memory = ModelFolder::from_files(Files::in_memory(in_memory()), disk.name()).unwrap();
    assert_eq!((memory.id(), memory.shape()), (disk.id(), disk.shape()));
    let encode = unit(&disk, Work::Encode { prompt: "a lake".into(), negative: None });
    let outputs = [disk, memory]
        .map(|folder| Diffusion::load(&folder, 1).unwrap().compute(&encode, &[], None, &|| false).unwrap());
    assert_eq!(outputs[0], outputs[1]);
}

#[test]
fn a_file_that_is_missing_or_short_in_memory_is_named() {
    for name in ["unet/config.json", "vae/diffusion_pytorch_model.safetensors"] {
        let mut files = in_memory();
        files.remove(name);
        let error = ModelFolder::from_files(Files::in_memory(files), "tiny").err().unwrap();
        assert!(error.to_string().contains(name), "{error}");
    }
    let mut files = in_memory();
    files.get_mut("unet/diffusion_pytorch_model.safetensors").unwrap().truncate(1000);
    let folder = ModelFolder::from_files(Files::in_memory(files), "tiny").unwrap();
    let error = Diffusion::load(&folder, 1).err().unwrap().to_string();
    assert!(error.contains("unet/diffusion_pytorch_model.safetensors") && error.contains("truncated"), "{error}");
}

#[test]
fn an_engine_that_gives_the_known_answer_passes_and_one_that_does_not_is_found_out() {
    let engine = Diffusion::load(&on_disk(), 1).unwrap();
    let recorded = serde_json::to_value(SelfTest::record_here(&engine).unwrap()).unwrap();
    let judge = |answer: &serde_json::Value| {
        let answer: SelfTest = serde_json::from_value(answer.clone()).unwrap();
        now(answer.judge(&engine, &Free(&|| false)))
    };
    assert_eq!(judge(&recorded), Ok(0.0));
    for (key, part) in [("denoised", "denoising"), ("decoded", "decoding")] {
        let mut wrong = recorded.clone();
        wrong[key][3] = (wrong[key][3].as_f64().unwrap() + 0.1).into();
        assert!(matches!(judge(&wrong), Err(SelfTestError::Wrong { part: found, .. }) if found == part), "{key}");
        for bad in [serde_json::json!([]), serde_json::json!([0.0]), vec![0.0; 100_000].into()] {
            let mut other = recorded.clone();
            other[key] = bad;
            assert_eq!(judge(&other), Err(SelfTestError::Answer), "{key}");
        }
    }
    let cancelled = serde_json::from_value::<SelfTest>(recorded).unwrap();
    let cancelled = now(cancelled.judge(&engine, &Free(&|| true)));
    assert_eq!(cancelled, Err(SelfTestError::Engine(EngineError::Cancelled)));
}

/// Counts the pauses, and gives up at one of them.
struct Count {
    pauses: AtomicUsize,
    last: usize,
}

impl Pace for Count {
    fn pause(&self) -> Pause<'_> {
        let count = self.pauses.fetch_add(1, Ordering::Relaxed) + 1;
        Box::pin(async move { if count < self.last { Ok(()) } else { Err(Cancelled) } })
    }
}

#[test]
fn a_unit_pauses_after_every_layer_and_can_be_given_up_at_each() {
    let folder = on_disk();
    let engine = Diffusion::load(&folder, 1).unwrap();
    let decode = unit(&folder, Work::Decode { rows: 8, columns: 8 });
    let latent = tensor::to_bytes(&vec![0.5; decode.work.input_values(&folder.shape())]);
    let run = |last| {
        let pace = Count { pauses: AtomicUsize::new(0), last };
        (now(engine.run(&decode, &latent, None, &pace)).map(|_| ()), pace.pauses.into_inner())
    };
    let (whole, layers) = run(usize::MAX);
    assert_eq!(whole, Ok(()));
    assert!(layers > 8, "{layers} layers");
    for last in 1..=layers {
        assert_eq!(run(last), (Err(EngineError::Cancelled), last));
    }
}

#[test]
fn a_preview_of_a_latent_looks_like_its_picture() {
    let folder = ModelFolder::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo")).unwrap();
    let factors = compute::preview_factors(&folder).unwrap();
    let (bias, factors) = factors.split_last().unwrap();
    assert_eq!(factors.len(), folder.shape().latent_channels as usize);

    let size = Size { width: 128, height: 128 };
    let prompt = "mountains at sunset with a lake".into();
    let request =
        JobRequest { prompt, negative: String::new(), size, steps: 8, guidance: 3.0, seed: 1, plan: PlanChoice::Auto };
    let spec = Box::new(JobSpec::new(request, folder.id(), &folder.shape()).unwrap());
    let mut engine = Diffusion::load(&folder, 0).unwrap();
    let painted = engine.compute(&unit(&folder, Work::Paint { spec }), &[], None, &|| false).unwrap();
    let painted = tensor::from_bytes(&painted, painted.len() / 4).unwrap();
    let (latent, pixels) = painted.split_at(factors.len() * 256);

    let (mut shown, mut seen) = (Vec::new(), Vec::new());
    for (part, cell) in (0..3 * 256).map(|at| (at / 256, at % 256)) {
        let channels = factors.iter().enumerate();
        shown.push(bias[part] + channels.map(|(at, factor)| latent[at * 256 + cell] * factor[part]).sum::<f32>());
        let pixel = |at: usize| pixels[(part * 128 + cell / 16 * 8 + at / 8) * 128 + cell % 16 * 8 + at % 8];
        seen.push((0..64).map(pixel).sum::<f32>() / 64.0);
    }
    let likeness = correlation(&shown, &seen);
    let off = shown.iter().zip(&seen).map(|(a, b)| (a - b).abs()).sum::<f32>() / shown.len() as f32;
    assert!(likeness > 0.9 && off < 0.2, "correlation {likeness}, mean difference {off}");
}

/// Pearson's correlation.
fn correlation(a: &[f32], b: &[f32]) -> f32 {
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let product = |a: &[f32], mean_a: f32, b: &[f32], mean_b: f32| -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - mean_a) * (b - mean_b)).sum()
    };
    product(a, mean_a, b, mean_b) / (product(a, mean_a, a, mean_a) * product(b, mean_b, b, mean_b)).sqrt()
}
