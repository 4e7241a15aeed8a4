//! How far honest answers of different numeric classes lie apart, and how far wrong ones: what two answers may differ by.
//!
//! Every unit of two small pictures is computed natively, by the page's engine on the processor (WebAssembly SIMD), and by the
//! same through WebGPU on a software adapter; and natively in wrong ways. The table is in docs/verification.md.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use compute::{Diffusion, Engine, Files, ModelFolder};
use half::f16;
use protocol::limits::AGREEMENT_RELATIVE;
use protocol::{Hash, JobId, JobRequest, JobSpec, PlanChoice, PlanKind, Size, Unit, Work, tensor};
use sampler::{Painter, paint};
use tests::engine::{bench, compute, load};
use tests::site::{Site, browser};
use tests::tidy::root;
use xtask::browser::SOFTWARE_GPU;

/// Honest answers stay below the bound by this factor, and the attacks that it is for above it.
const MARGIN: f64 = 3.0;

/// A unit, its bodies, and what this machine's processor makes of it.
struct Asked {
    unit: Unit,
    input: Vec<u8>,
    conditioning: Option<Vec<u8>>,
    honest: Vec<u8>,
}

fn engine(folder: &ModelFolder) -> Diffusion {
    Diffusion::load(folder, 2).unwrap()
}

/// All units of a picture.
fn units(folder: &ModelFolder, engine: &mut Diffusion, size: Size, steps: u32) -> Vec<Asked> {
    let shape = folder.shape();
    let request = JobRequest {
        prompt: "mountains at sunset with a lake".into(),
        negative: String::new(),
        size,
        steps,
        guidance: 3.0,
        seed: 7,
        plan: PlanChoice::Whole,
    };
    let spec = JobSpec::new(request, folder.id(), &shape).unwrap();
    let mut painter = Painter::new(JobId([1; 16]), spec, shape, folder.scheduler(), PlanKind::Cfg).unwrap();
    let mut asked = Vec::new();
    paint(&mut painter, |unit, input, conditioning| {
        let honest = engine.compute(unit, input, conditioning, &|| false)?;
        let conditioning = conditioning.map(<[u8]>::to_vec);
        asked.push(Asked { unit: unit.clone(), input: input.to_vec(), conditioning, honest: honest.clone() });
        Ok::<_, compute::EngineError>(honest)
    })
    .unwrap();
    asked
}

/// The model with every weight rounded to this many bits behind the binary point, of the ten that its halves have.
fn coarse(folder: &ModelFolder, bits: u32) -> ModelFolder {
    let path = root().join("models/demo");
    let files = folder.used().iter().map(|used| {
        let mut bytes = std::fs::read(path.join(&used.name)).unwrap();
        if used.name.ends_with(".safetensors") {
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            for half in bytes[8 + header..].chunks_exact_mut(2) {
                let lost = 10 - bits;
                let exact = u16::from_le_bytes([half[0], half[1]]);
                let rounded = exact.saturating_add(1 << (lost - 1)) >> lost << lost;
                half.copy_from_slice(&rounded.to_le_bytes());
            }
        }
        (used.name.clone(), bytes)
    });
    ModelFolder::from_files(Files::in_memory(files.collect()), "coarse").unwrap()
}

/// The same unit for another model.
fn with_model(unit: &Unit, folder: &ModelFolder) -> Unit {
    Unit { model: folder.id(), ..unit.clone() }
}

/// The values rounded to half precision.
fn halved(bytes: &[u8]) -> Vec<u8> {
    let values = tensor::from_bytes(bytes, bytes.len() / 4).unwrap();
    tensor::to_bytes(&values.iter().map(|value| f16::from_f32(*value).to_f32()).collect::<Vec<_>>())
}

/// The values with noise of a hundredth of their size, which only looks random.
fn perturbed(bytes: &[u8]) -> Vec<u8> {
    let mut values = tensor::from_bytes(bytes, bytes.len() / 4).unwrap();
    let size = (values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32).sqrt();
    for (index, value) in values.iter_mut().enumerate() {
        *value += if index * 7919 % 13 < 6 { 0.01 } else { -0.01 } * size;
    }
    tensor::to_bytes(&values)
}

/// What the engine makes of the unit under another prompt; `None` where it has none.
fn of_another_prompt(engine: &mut Diffusion, asked: &Asked) -> Option<Vec<u8>> {
    let text = Work::Encode { prompt: "a red circle".into(), negative: Some(String::new()) };
    let text = Unit { work: text, ..asked.unit.clone() };
    let other = engine.compute(&text, &[], None, &|| false).unwrap();
    let mut unit = asked.unit.clone();
    match &mut unit.work {
        Work::Encode { .. } => Some(other),
        Work::Denoise { conditioning, branches: protocol::Branches::Prompt, .. } => {
            *conditioning = Hash::of(&other);
            Some(engine.compute(&unit, &asked.input, Some(&other), &|| false).unwrap())
        }
        Work::Denoise { .. } | Work::Run { .. } | Work::Decode { .. } | Work::Paint { .. } => None,
    }
}

/// What the engine makes of the unit one of `steps` steps further on; `None` where there are no steps.
fn of_another_step(engine: &mut Diffusion, asked: &Asked, steps: u32) -> Option<Vec<u8>> {
    let mut unit = asked.unit.clone();
    let Work::Denoise { timestep, .. } = &mut unit.work else { return None };
    let step = 1000.0 / steps as f32;
    *timestep = if *timestep > step { *timestep - step } else { *timestep + step };
    Some(engine.compute(&unit, &asked.input, asked.conditioning.as_deref(), &|| false).unwrap())
}

/// Relative L2 difference, and the largest difference of a value.
fn differ(honest: &[u8], other: &[u8]) -> (f64, f64) {
    let values = |bytes: &[u8]| tensor::from_bytes(bytes, bytes.len() / 4).unwrap();
    let (honest, other) = (values(honest), values(other));
    assert_eq!(honest.len(), other.len());
    let (mut difference, mut norm, mut largest) = (0.0_f64, 0.0_f64, 0.0_f64);
    for (a, b) in honest.iter().zip(&other) {
        let [a, b] = [a, b].map(|value| f64::from(*value));
        difference += (a - b) * (a - b);
        norm += a * a;
        largest = largest.max((a - b).abs());
    }
    ((difference / norm).sqrt(), largest)
}

/// What a unit does, as a row of the table; the step of a denoising one does not matter.
fn pass(work: &Work) -> &'static str {
    match work {
        Work::Encode { .. } => "encode",
        Work::Denoise { .. } => "denoise",
        Work::Run { .. } => "run",
        Work::Decode { .. } => "decode",
        Work::Paint { .. } => "paint",
    }
}

/// Relative and absolute differences by what was done and by pass.
#[derive(Default)]
struct Table(BTreeMap<(&'static str, &'static str), Vec<(f64, f64)>>);

impl Table {
    fn add(&mut self, what: &'static str, asked: &Asked, answer: Option<Vec<u8>>) {
        let Some(answer) = answer else { return };
        self.0.entry((what, pass(&asked.unit.work))).or_default().push(differ(&asked.honest, &answer));
    }

    fn print(&self) {
        println!("| against native | pass | units | relative, least | relative, most | a value, most |");
        println!("|---|---|--:|--:|--:|--:|");
        for ((what, pass), all) in &self.0 {
            let relative = || all.iter().map(|(relative, _)| *relative);
            let (least, most) = (relative().fold(f64::INFINITY, f64::min), relative().fold(0.0, f64::max));
            let value = all.iter().map(|(_, value)| *value).fold(0.0, f64::max);
            println!("| {what} | {pass} | {} | {least:.1e} | {most:.1e} | {value:.1e} |", all.len());
        }
    }

    /// The relative differences of what was done.
    fn relative<'a>(&'a self, what: &'a str) -> impl Iterator<Item = f64> + 'a {
        let of = self.0.iter().filter(move |((of, _), _)| *of == what);
        of.flat_map(|(_, all)| all.iter().map(|(relative, _)| *relative))
    }
}

#[test]
fn the_bound_lies_between_honest_and_wrong_answers() {
    let folder = ModelFolder::open(&root().join("models/demo")).unwrap();
    let mut native = engine(&folder);
    let jobs = [(Size { width: 128, height: 128 }, 4), (Size { width: 192, height: 128 }, 2)];
    let mut table = Table::default();
    let coarser = [("weights of 7 bits", 7), ("weights of 3 bits", 3)].map(|(what, bits)| {
        let folder = coarse(&folder, bits);
        (what, engine(&folder), folder)
    });
    let mut coarser = coarser;
    let all: Vec<(u32, Asked)> = jobs
        .into_iter()
        .flat_map(|(size, steps)| units(&folder, &mut native, size, steps).into_iter().map(move |asked| (steps, asked)))
        .collect();
    for (steps, asked) in &all {
        for (what, engine, folder) in &mut coarser {
            let unit = with_model(&asked.unit, folder);
            let answer = engine.compute(&unit, &asked.input, asked.conditioning.as_deref(), &|| false).unwrap();
            table.add(what, asked, Some(answer));
        }
        table.add("rounded to halves", asked, Some(halved(&asked.honest)));
        table.add("1 % of noise", asked, Some(perturbed(&asked.honest)));
        table.add("another prompt", asked, of_another_prompt(&mut native, asked));
        table.add("another step", asked, of_another_step(&mut native, asked, *steps));
    }
    let wrong = [
        "rounded to halves",
        "weights of 7 bits",
        "weights of 3 bits",
        "1 % of noise",
        "another prompt",
        "another step",
    ];
    let nearest = wrong.iter().flat_map(|what| table.relative(what)).fold(f64::INFINITY, f64::min);
    let mut farthest: f64 = 0.0;
    if let Some(browser) = browser(&SOFTWARE_GPU) {
        let site = Site::open();
        let tab = bench(&browser, &site);
        for (what, choice) in [("WebAssembly", "cpu"), ("WebGPU in software", "gpu")] {
            println!("{what}: {}", load(&tab, choice, choice));
            for (_, asked) in &all {
                let answer = compute(&tab, choice, &asked.unit, &asked.input, asked.conditioning.as_deref());
                table.add(what, asked, Some(answer));
            }
            farthest = table.relative(what).fold(farthest, f64::max);
        }
    }
    table.print();
    let bound = f64::from(AGREEMENT_RELATIVE);
    println!(
        "honest answers differ by up to {farthest:.1e}, wrong ones by {nearest:.1e} at least; the bound is {bound:.1e}"
    );
    assert!(farthest * MARGIN <= bound, "honest answers come too close to the bound: {farthest:.1e}");
    assert!(bound * MARGIN <= nearest, "wrong answers come too close to the bound: {nearest:.1e}");
}
