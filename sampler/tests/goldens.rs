//! Replays the scheduler runs recorded from diffusers and compares every number.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing to compare has failed")]

use std::path::Path;

use safetensors::SafeTensors;
use sampler::schedule::json;
use sampler::{Schedule, SchedulerConfig};
use serde_json::Value;

/// f32 steps in another order of rounding differ by some units in the last place, a few more after 20 steps.
const TOLERANCE: f32 = 1e-5;

const FAMILIES: [&str; 3] = ["EulerDiscreteScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"];

/// Recorded runs of a supported class with an option that is not.
const REFUSED: [&str; 1] = ["dpmpp2m_sde_karras_eps"];

#[test]
fn schedules_and_steps_equal_those_of_diffusers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/schedulers");
    let index = json::parse(&std::fs::read_to_string(folder.join("schedulers.json")).unwrap()).unwrap();
    let bytes = std::fs::read(folder.join("golden/schedulers.safetensors")).unwrap();
    let goldens = SafeTensors::deserialize(&bytes).unwrap();
    let mut runs = 0;
    let mut worst = (0.0, String::new());
    for (name, recorded) in index.as_object().unwrap() {
        let class = recorded["cls"].as_str().unwrap();
        let mut config = recorded["config"].clone();
        config["_class_name"] = Value::from(class);
        let config = SchedulerConfig::try_from(config);
        if !FAMILIES.contains(&class) || REFUSED.contains(&name.as_str()) {
            config.unwrap_err();
            continue;
        }
        let config = config.unwrap();
        for steps in [1, 4, 8, 20] {
            let golden = |tensor: &str| tensor_values(&goldens, &format!("{name}/{steps}/{tensor}"));
            let difference = replay(&config, steps, &golden);
            assert!(difference <= TOLERANCE, "{name} with {steps} steps differs by {difference}");
            if difference > worst.0 {
                worst = (difference, format!("{name} with {steps} steps"));
            }
            runs += 1;
        }
    }
    println!("{runs} runs, largest relative difference {} ({})", worst.0, worst.1);
    assert_eq!(runs, 13 * 4);
}

/// Runs the recording's model from the recorded start. Returns the largest difference, relative to the largest recorded
/// value of the same tensor.
fn replay(config: &SchedulerConfig, steps: usize, golden: &dyn Fn(&str) -> Option<Vec<f32>>) -> f32 {
    let mut schedule = Schedule::new(config, steps).unwrap();
    let mut worst = difference(schedule.timesteps(), &golden("timesteps").unwrap());
    let sigma = [schedule.init_noise_sigma()];
    worst = worst.max(difference(&sigma, &golden("init_noise_sigma").unwrap()));
    if let Some(sigmas) = golden("sigmas") {
        worst = worst.max(difference(schedule.sigmas(), &sigmas));
        let each = schedule.sigmas().iter().zip(&sigmas).map(|(ours, theirs)| difference(&[*ours], &[*theirs]));
        worst = each.fold(worst, f32::max);
    }
    let mut latent = golden("x0").unwrap();
    for step in 0..steps {
        let mut input = latent.clone();
        schedule.scale_model_input(step, &mut input);
        let time = (f64::from(schedule.timesteps()[step]) / 1000.0) as f32;
        let output: Vec<f32> = input.iter().map(|x| 0.5 * x + 0.1 * libm::sinf(3.0 * x + time)).collect();
        schedule.step(step, &output, &mut latent);
        worst = worst.max(difference(&latent, &golden(&format!("x.{step}")).unwrap()));
    }
    worst
}

fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let apart = ours.iter().zip(theirs).fold(0.0_f32, |apart, (ours, theirs)| apart.max((ours - theirs).abs()));
    if apart == 0.0 { 0.0 } else { apart / largest }
}

fn tensor_values(goldens: &SafeTensors, name: &str) -> Option<Vec<f32>> {
    let view = goldens.tensor(name).ok()?;
    assert_eq!(view.dtype(), safetensors::Dtype::F32);
    Some(view.data().chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect())
}
