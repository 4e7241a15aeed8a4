//! Compares this engine with tensors recorded from HuggingFace diffusers: the golden files of a model folder.

mod golden;
mod modules;
mod report;
mod schedulers;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use sampler::{Schedule, SchedulerConfig, guidance, schedule};
use serde_json::Value;

use self::golden::Golden;
use self::modules::Networks;
pub use self::report::{Bound, GoldenReport, Outcome, ParityReport, TensorReport};
use crate::files::Files;
use crate::folder::check_pipeline;
use crate::pace::{Free, finish};
use crate::weights::LoadError;

/// Largest difference of a pixel in [0, 1]: 40 times what f32 and f64 differ by in diffusers itself.
const IMAGE: Bound = Bound::Absolute(1e-4);

/// Largest difference of one module's output, over the largest value of it.
const MODULE: Bound = Bound::Relative(1e-5);

/// Largest difference of a latent after some steps, over the largest value of it: guidance multiplies the modules' own.
const LATENT: Bound = Bound::Relative(1e-4);

/// Token ids are equal or wrong.
const EXACT: Bound = Bound::Absolute(0.0);

/// Runs every golden of the model folder, or of the folder of scheduler runs, at `folder`.
///
/// # Errors
/// If the folder or one of its goldens cannot be loaded. A golden that needs what this engine does not have (another
/// scheduler, another pipeline) is no error: the report names it as skipped.
pub fn run(folder: &Path) -> Result<ParityReport, LoadError> {
    let goldens = match folder.join("schedulers.json").is_file() {
        true => schedulers::run(folder)?,
        false => run_model(folder)?,
    };
    Ok(ParityReport { folder: folder.display().to_string(), goldens })
}

fn run_model(folder: &Path) -> Result<Vec<GoldenReport>, LoadError> {
    let files = Files::on_disk(folder);
    check_pipeline(&files)?;
    let paths = golden_files(&folder.join("golden"))?;
    let networks = Networks::load(&files, &Device::flex())?;
    paths.iter().map(|path| compare(&files, &networks, path)).collect()
}

fn golden_files(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let fail = |source| LoadError::read(folder, source);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|kind| kind == "safetensors") {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(LoadError::malformed(folder, "there is no golden file to compare with"));
    }
    paths.sort_by_key(|path| path.file_stem().map(ToOwned::to_owned));
    Ok(paths)
}

/// How a golden was made, from the `.json` beside it.
struct Run {
    prompt: String,
    negative: String,
    guidance: f32,
    schedule: Schedule,
}

fn compare(files: &Files, networks: &Networks, path: &Path) -> Result<GoldenReport, LoadError> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let run = match read_run(files, &name)? {
        Ok(run) => run,
        Err(reason) => return Ok(GoldenReport { name, outcome: Outcome::Skipped { reason } }),
    };
    let golden = Golden::open(path)?;
    let mut tensors = Vec::new();
    compare_text(networks, &golden, &run, &mut tensors);
    compare_pipeline(networks, &golden, run, &mut tensors)?;
    compare_encoder(networks, &golden, &mut tensors);
    for module in golden.names().filter_map(modules::path_of).collect::<BTreeSet<_>>() {
        tensors.extend(networks.compare(&golden, module));
    }
    Ok(GoldenReport { name, outcome: Outcome::Compared { tensors } })
}

/// The run, or the reason why this engine cannot repeat it.
fn read_run(files: &Files, name: &str) -> Result<Result<Run, String>, LoadError> {
    let file = format!("golden/{name}.json");
    let malformed = |error| LoadError::malformed(&files.path(&file), error);
    let recorded = schedule::json::parse(&files.read_text(&file)?).map_err(malformed)?;
    let meta = &recorded["meta"];
    let text = |key: &str| meta.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let pipeline = text("pipeline");
    if pipeline != "StableDiffusionPipeline" {
        return Ok(Err(format!("{pipeline} is not supported")));
    }
    let own = format!("schedulers/{name}/scheduler_config.json");
    let config = if files.has(&own) { own } else { "scheduler/scheduler_config.json".into() };
    let steps = meta.get("steps").and_then(Value::as_u64).unwrap_or_default() as usize;
    let schedule = SchedulerConfig::parse(&files.read_text(&config)?).and_then(|config| Schedule::new(&config, steps));
    let guidance = meta.get("guidance").and_then(Value::as_f64).unwrap_or_default() as f32;
    let run = |schedule| Run { prompt: text("prompt"), negative: text("negative"), guidance, schedule };
    Ok(schedule.map(run).map_err(|error| error.to_string()))
}

/// Token ids and embeddings of both prompts.
fn compare_text(networks: &Networks, golden: &Golden, run: &Run, tensors: &mut Vec<TensorReport>) {
    let both =
        [(&run.prompt, "tokens.prompt", "prompt_embeds"), (&run.negative, "tokens.neg", "negative_prompt_embeds")];
    for (text, tokens, embedding) in both {
        let ids = networks.tokenizer.ids(text).unwrap_or_default();
        let numbers: Vec<f32> = ids.iter().map(|&id| id as f32).collect();
        tensors.extend(golden.compare(tokens, &[1, numbers.len()], &numbers, EXACT));
        if let Some(text) = networks.clip.forward(&ids) {
            tensors.extend(golden.compare_tensor(embedding, text.hidden, MODULE));
        }
    }
}

/// The whole way from noise to picture, on our own embeddings, every step from the one before.
fn compare_pipeline(
    networks: &Networks,
    golden: &Golden,
    run: Run,
    tensors: &mut Vec<TensorReport>,
) -> Result<(), LoadError> {
    let Run { prompt, negative, guidance, mut schedule } = run;
    tensors.extend(golden.compare("timesteps", &[schedule.steps()], schedule.timesteps(), MODULE));
    if !schedule.sigmas().is_empty() {
        tensors.extend(golden.compare("sigmas", &[schedule.sigmas().len()], schedule.sigmas(), MODULE));
    }
    tensors.extend(golden.compare("init_noise_sigma", &[1], &[schedule.init_noise_sigma()], MODULE));

    let (shape, noise) = golden.picture("noise")?;
    let sigma = schedule.init_noise_sigma();
    let mut latent: Vec<f32> = noise.iter().map(|value| value * sigma).collect();
    let embed = |text: &str| networks.clip.forward(&networks.tokenizer.ids(text).unwrap_or_default());
    let unembedded = || golden.malformed("its prompts do not fit this model");
    let prompt = embed(&prompt).ok_or_else(unembedded)?.hidden;
    let negative = if guidance > 1.0 { Some(embed(&negative).ok_or_else(unembedded)?.hidden) } else { None };
    for step in 0..schedule.steps() {
        let mut input = latent.clone();
        schedule.scale_model_input(step, &mut input);
        let timestep = schedule.timesteps()[step];
        let evaluate = |text: &Tensor<3>| {
            let input = Tensor::from_data(TensorData::new(input.clone(), shape), &networks.device);
            let output = finish(networks.unet.forward(input, timestep, text.clone(), &Free(&|| false)));
            output
                .expect("nothing cancels a comparison")
                .into_data()
                .try_into_vec::<f32>()
                .expect("all tensors are f32")
        };
        let predicted = evaluate(&prompt);
        let predicted = match &negative {
            Some(negative) => guidance::combine(&evaluate(negative), &predicted, guidance),
            None => predicted,
        };
        schedule.step(step, &predicted, &mut latent);
        tensors.extend(golden.compare(&format!("step.{step}.latents"), &shape, &latent, LATENT));
    }
    let latent = Tensor::from_data(TensorData::new(latent, shape), &networks.device);
    let pixels = finish(networks.vae.decode(latent, &Free(&|| false))).expect("nothing cancels a comparison");
    let picture = pixels.div_scalar(2.0).add_scalar(0.5).clamp(0.0, 1.0);
    tensors.extend(golden.compare_tensor("image", picture, IMAGE));
    Ok(())
}

fn compare_encoder(networks: &Networks, golden: &Golden, tensors: &mut Vec<TensorReport>) {
    let Ok((shape, pixels)) = golden.picture("vae_enc.in") else { return };
    let pixels = Tensor::from_data(TensorData::new(pixels, shape), &networks.device);
    let encoded = finish(networks.vae.encode(pixels, &Free(&|| false)));
    let Some(Ok((mean, log_variance))) = encoded else { return };
    tensors.extend(golden.compare_tensor("vae_enc.mean", mean, MODULE));
    tensors.extend(golden.compare_tensor("vae_enc.logvar", log_variance, MODULE));
}
