//! Compares schedules and their steps with a folder of recorded scheduler runs on a stand-in for a model.

use std::path::Path;

use sampler::{Schedule, SchedulerConfig, schedule};
use serde_json::{Value, json};

use super::golden::Golden;
use super::report::{GoldenReport, Outcome, TensorReport};
use super::{LATENT, MODULE};
use crate::files::Files;
use crate::weights::LoadError;

/// Runs every configuration of `schedulers.json`, each with every recorded number of steps.
pub(super) fn run(folder: &Path) -> Result<Vec<GoldenReport>, LoadError> {
    let files = Files::on_disk(folder);
    let path = files.path("schedulers.json");
    let configs = schedule::json::parse(&files.read_text("schedulers.json")?)
        .map_err(|error| LoadError::malformed(&path, error))?;
    let Value::Object(configs) = configs else { return Err(LoadError::malformed(&path, "not a JSON object")) };
    let golden = Golden::open(&folder.join("golden/schedulers.safetensors"))?;
    Ok(configs.iter().map(|(name, recorded)| compare(name, recorded, &golden)).collect())
}

fn compare(name: &str, recorded: &Value, golden: &Golden) -> GoldenReport {
    let mut config = recorded["config"].clone();
    config["_class_name"] = json!(recorded["cls"]);
    let report = |outcome| GoldenReport { name: name.to_owned(), outcome };
    let config = match SchedulerConfig::try_from(config) {
        Ok(config) => config,
        Err(error) => return report(Outcome::Skipped { reason: error.to_string() }),
    };
    let runs = recorded["runs"].as_object().into_iter().flatten().filter(|(_, run)| run["ok"] == json!(true));
    let steps = runs.filter_map(|(steps, _)| steps.parse::<usize>().ok());
    report(Outcome::Compared { tensors: steps.flat_map(|steps| compare_run(name, &config, steps, golden)).collect() })
}

fn compare_run(name: &str, config: &SchedulerConfig, steps: usize, golden: &Golden) -> Vec<TensorReport> {
    let key = |end: &str| format!("{name}/{steps}/{end}");
    let Ok(mut schedule) = Schedule::new(config, steps) else {
        return vec![TensorReport::different_shape(&key("timesteps"), MODULE)];
    };
    let mut tensors = Vec::new();
    tensors.extend(golden.compare(&key("timesteps"), &[schedule.steps()], schedule.timesteps(), MODULE));
    if !schedule.sigmas().is_empty() {
        tensors.extend(golden.compare(&key("sigmas"), &[schedule.sigmas().len()], schedule.sigmas(), MODULE));
    }
    tensors.extend(golden.compare(&key("init_noise_sigma"), &[1], &[schedule.init_noise_sigma()], MODULE));
    let Some(start) = golden.tensor(&key("x0")) else { return tensors };
    let mut latent = start.values.clone();
    for step in 0..schedule.steps() {
        let mut input = latent.clone();
        schedule.scale_model_input(step, &mut input);
        let timestep = schedule.timesteps()[step];
        let predicted: Vec<f32> = input.iter().map(|&x| stand_in(x, timestep)).collect();
        schedule.step(step, &predicted, &mut latent);
        tensors.extend(golden.compare(&key(&format!("x.{step}")), &start.shape, &latent, LATENT));
    }
    tensors
}

/// What the runs were recorded with in place of a model.
fn stand_in(x: f32, timestep: f32) -> f32 {
    0.5 * x + 0.1 * (3.0 * x + timestep / 1000.0).sin()
}
