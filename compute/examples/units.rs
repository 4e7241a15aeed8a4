//! Computes three units of a model on one thread, says how long a UNet step takes, and writes units and results into a
//! folder, so that another engine's can be compared: `cargo run -p compute --example units -- models/demo out`.

#![allow(clippy::unwrap_used, reason = "an example that fails says where")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use compute::{Diffusion, Engine, ModelFolder};
use protocol::{Branches, Hash, JobId, Unit, UnitId, Work, tensor};
use sampler::noise::{self, Purpose};

/// Steps timed, unless a third argument says how many.
const STEPS: usize = 20;

fn main() {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [model, out, rest @ ..] = arguments.as_slice() else { panic!("give a model folder and a folder to write to") };
    let steps: usize = rest.first().map_or(STEPS, |steps| steps.to_str().unwrap().parse().unwrap());
    let folder = ModelFolder::open(model).unwrap();
    let mut engine = Diffusion::load(&folder, 1).unwrap();
    println!("{}", engine.numeric_class());
    let (id, shape) = engine.model();
    let unit = |work| Unit { job: JobId([0; 16]), id: UnitId { stage: 0, index: 0 }, model: id, work };
    let (rows, columns) = (shape.native_cells, shape.native_cells);

    let encode = unit(Work::Encode { prompt: "mountains at sunset with a lake".into(), negative: None });
    let conditioning = engine.compute(&encode, &[], None, &|| false).unwrap();
    write(out, "encode", &encode, &[], None, &conditioning);

    let latent = tensor::to_bytes(&noise::field(7, Purpose::Initial, 0, shape.latent_channels, rows, columns));
    let (named, branches) = (Hash::of(&conditioning), Branches::Prompt);
    let denoise =
        unit(Work::Denoise { conditioning: named, conditioning_rows: 1, branches, timestep: 321.5, rows, columns });
    let mut compute = || engine.compute(&denoise, &latent, Some(&conditioning), &|| false).unwrap();
    let denoised = compute();
    let mut took_ms: Vec<f64> = (0..steps)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(compute(), denoised, "run to run");
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    took_ms.sort_by(f64::total_cmp);
    println!(
        "one UNet step of {rows} x {columns} cells: best {:.2} ms, median {:.2} ms",
        took_ms[0],
        took_ms[steps / 2]
    );
    write(out, "denoise", &denoise, &latent, Some(&conditioning), &denoised);

    let decode = unit(Work::Decode { rows, columns });
    let began = Instant::now();
    let decoded = engine.compute(&decode, &denoised, None, &|| false).unwrap();
    println!("decoding {rows} x {columns} cells: {:.2} ms", began.elapsed().as_secs_f64() * 1e3);
    write(out, "decode", &decode, &denoised, None, &decoded);
}

fn write(out: &Path, name: &str, unit: &Unit, input: &[u8], conditioning: Option<&[u8]>, output: &[u8]) {
    let mut bytes = Vec::new();
    ciborium::into_writer(unit, &mut bytes).unwrap();
    std::fs::create_dir_all(out).unwrap();
    let file = |end: &str, bytes: &[u8]| std::fs::write(out.join(format!("{name}.{end}")), bytes).unwrap();
    file("unit", &bytes);
    file("input", input);
    file("conditioning", conditioning.unwrap_or_default());
    file("output", output);
    println!("{name}: {}", Hash::of(output));
}
