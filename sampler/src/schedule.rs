//! Noise schedules and their steps: what a diffusers scheduler computes, from its `scheduler_config.json`.
//!
//! The rules, down to their order of rounding, are those of diffusers 0.42 (`diffusers/schedulers/scheduling_*.py`); the
//! golden runs under `tests/fixtures/schedulers` were recorded from it.

mod config;
mod ddim;
mod dpm_solver;
mod euler;
pub mod json;
mod tables;

use config::Family;
pub use config::SchedulerConfig;
use ddim::Ddim;
use dpm_solver::DpmSolver;
use euler::Euler;

/// Why a scheduler cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not JSON, or not an object with a `_class_name`.
    #[error("the scheduler config is malformed: {0}")]
    Malformed(String),
    /// A class that is not implemented.
    #[error(
        "scheduler {0} is not supported; supported are EulerDiscreteScheduler, DDIMScheduler and DPMSolverMultistepScheduler"
    )]
    Class(String),
    /// An option of a supported class that is not implemented, or a value out of range.
    #[error("{class} with {option} = {value} is not supported; supported: {supported}")]
    Option {
        /// The scheduler's class.
        class: &'static str,
        /// The option's key in the config.
        option: &'static str,
        /// Its value, as JSON.
        value: String,
        /// What can stand there.
        supported: &'static str,
    },
    /// More steps than the schedule has distinct noise levels, or none.
    #[error("{class} cannot take {steps} steps with this config")]
    Steps {
        /// The scheduler's class.
        class: &'static str,
        /// The number asked for.
        steps: usize,
    },
}

/// The noise levels of one job, and the rule that takes a latent from one to the next.
#[derive(Clone, Debug)]
pub struct Schedule {
    timesteps: Vec<f32>,
    sigmas: Vec<f32>,
    start_sigma: f32,
    solver: Solver,
    /// The previous step's prediction of the final latent, which multistep solvers extrapolate from.
    previous: Option<Vec<f32>>,
}

#[derive(Clone, Debug)]
enum Solver {
    Euler(Euler),
    Ddim(Ddim),
    DpmSolver(DpmSolver),
}

/// What a scheduler's family computes when the number of steps is known.
struct Plan {
    timesteps: Vec<f32>,
    sigmas: Vec<f32>,
    start_sigma: f32,
    solver: Solver,
}

impl Schedule {
    /// The schedule of `steps` steps.
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Self, ScheduleError> {
        let error = ScheduleError::Steps { class: config.class(), steps };
        if steps == 0 || steps > config.training.timesteps {
            return Err(error);
        }
        let Plan { timesteps, sigmas, start_sigma, solver } = match &config.family {
            Family::Euler(options) => euler::plan(&config.training, options, steps),
            Family::Ddim(options) => ddim::plan(&config.training, options, steps).ok_or_else(|| error.clone())?,
            Family::DpmSolver(options) => dpm_solver::plan(&config.training, options, steps),
        };
        // Equal or rising noise levels divide by zero in a solver; times outside the training are not in any model.
        let falling = sigmas[..sigmas.len().saturating_sub(1)].is_sorted_by(|before, after| before > after);
        let known = timesteps.iter().all(|time| (0.0..=config.training.timesteps as f32).contains(time));
        if !falling || !known || !sigmas.iter().all(|sigma| sigma.is_finite()) {
            return Err(error);
        }
        Ok(Self { timesteps, sigmas, start_sigma, solver, previous: None })
    }

    /// Takes `latent` from noise level `step` to the next, given the model's output for it (eps, v or flow, of the same
    /// shape). Steps are taken in order, each once.
    pub fn step(&mut self, step: usize, model_output: &[f32], latent: &mut [f32]) {
        assert_eq!(model_output.len(), latent.len(), "the model's output has the latent's shape");
        match &self.solver {
            Solver::Euler(euler) => euler.step(self.sigmas[step], self.sigmas[step + 1], model_output, latent),
            Solver::Ddim(ddim) => ddim.step(step, model_output, latent),
            Solver::DpmSolver(solver) => {
                let previous = self.previous.take();
                self.previous = Some(solver.step(&self.sigmas, step, previous, model_output, latent));
            }
        }
    }

    /// Goes on where a schedule of the same job stopped that remembered `history`.
    pub fn remember(&mut self, history: Option<Vec<f32>>) {
        self.previous = history;
    }

    /// What the last step left for the next one, of the latent's shape.
    pub fn history(&self) -> Option<&[f32]> {
        self.previous.as_deref()
    }

    /// Tensors of the latent's shape that are remembered between the steps, from the first step on.
    pub fn history_tensors(&self) -> usize {
        match self.solver {
            Solver::Euler(_) | Solver::Ddim(_) => 0,
            Solver::DpmSolver(_) => 1,
        }
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// The time given to the model in each step.
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// The noise level before each step, then the level after the last: one more than there are steps. Empty for DDIM,
    /// which is not written in noise levels.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// What standard normal noise is multiplied with to be the latent before the first step.
    pub fn init_noise_sigma(&self) -> f32 {
        self.start_sigma
    }

    /// Turns the latent before `step` into the model's input, in place.
    pub fn scale_model_input(&self, step: usize, latent: &mut [f32]) {
        match &self.solver {
            Solver::Euler(_) => euler::scale_model_input(self.sigmas[step], latent),
            Solver::Ddim(_) | Solver::DpmSolver(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [&str; 3] = ["EulerDiscreteScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"];

    fn schedule(config: &str, steps: usize) -> Result<Schedule, ScheduleError> {
        Schedule::new(&SchedulerConfig::parse(config).unwrap(), steps)
    }

    #[test]
    fn a_schedule_has_as_many_steps_as_asked() {
        for class in CLASSES {
            for spacing in ["leading", "trailing", "linspace"] {
                let config = format!(r#"{{"_class_name": "{class}", "timestep_spacing": "{spacing}"}}"#);
                for steps in 1..=200 {
                    let schedule = schedule(&config, steps).unwrap();
                    assert_eq!(schedule.steps(), steps, "{config} {steps}");
                    assert!(schedule.sigmas().is_empty() || schedule.sigmas().len() == steps + 1);
                    assert!(schedule.timesteps().is_sorted_by(|a, b| a > b), "{config} {steps}");
                }
                assert!(schedule(&config, 0).is_err());
                assert!(schedule(&config, 1001).is_err());
            }
        }
    }

    #[test]
    fn flow_and_karras_schedules_have_as_many_steps_as_asked() {
        for options in [
            r#""_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": true, "prediction_type": "flow_prediction""#,
            r#""_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": true"#,
            r#""_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true"#,
        ] {
            for steps in 1..=200 {
                assert_eq!(schedule(&format!("{{{options}}}"), steps).unwrap().steps(), steps, "{options} {steps}");
            }
        }
    }

    #[test]
    fn noise_levels_that_coincide_are_refused() {
        let config = r#"{"_class_name": "DPMSolverMultistepScheduler", "num_train_timesteps": 10}"#;
        assert!(schedule(config, 4).is_ok());
        assert_eq!(
            schedule(config, 10).unwrap_err().to_string(),
            "DPMSolverMultistepScheduler cannot take 10 steps with this config"
        );
        let far = r#"{"_class_name": "DDIMScheduler", "steps_offset": 900}"#;
        assert!(schedule(far, 10).is_err());
    }

    #[test]
    fn steps_give_the_same_bits_on_every_platform() {
        let mut latent = crate::noise::field(5, crate::noise::Purpose::Initial, 0, 4, 8, 8);
        for options in [
            r#""_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true"#,
            r#""_class_name": "DDIMScheduler", "prediction_type": "v_prediction""#,
            r#""_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": true"#,
            r#""_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": true, "prediction_type": "flow_prediction""#,
        ] {
            let mut schedule = schedule(&format!("{{{options}}}"), 6).unwrap();
            for step in 0..schedule.steps() {
                let mut output = latent.clone();
                schedule.scale_model_input(step, &mut output);
                output.iter_mut().for_each(|value| *value *= 0.75);
                schedule.step(step, &output, &mut latent);
            }
        }
        let bytes = protocol::tensor::to_bytes(&latent);
        assert_eq!(
            protocol::Hash::of(&bytes).to_string(),
            "9e764748b2def170a5194cdfa8eb55985de907efd7a4b9a3717f5a5d4c416ec5"
        );
    }

    #[test]
    fn every_prediction_of_the_same_latent_takes_the_same_step() {
        // With x = alpha x0 + sigma eps, v = alpha eps - sigma x0 is the same knowledge as eps.
        for class in CLASSES {
            let config = |prediction: &str| {
                format!(r#"{{"_class_name": "{class}", "prediction_type": "{prediction}", "clip_sample": false}}"#)
            };
            let run = |prediction: &str| {
                let mut schedule = schedule(&config(prediction), 5).unwrap();
                let mut latent = vec![0.3 * schedule.init_noise_sigma(), -1.1 * schedule.init_noise_sigma()];
                // All but the last step, which leaves nothing of it.
                for step in 0..4 {
                    // The exact prediction of x0 = 0: all of the latent is noise.
                    let mut input = latent.clone();
                    schedule.scale_model_input(step, &mut input);
                    let output: Vec<f32> = match prediction {
                        "epsilon" => input.iter().map(|x| x / noise_share(&schedule, step)).collect(),
                        _ => input
                            .iter()
                            .map(|x| x * signal_share(&schedule, step) / noise_share(&schedule, step))
                            .collect(),
                    };
                    schedule.step(step, &output, &mut latent);
                }
                latent
            };
            for (epsilon, v) in run("epsilon").iter().zip(run("v_prediction")) {
                assert!((epsilon - v).abs() < 1e-3, "{class}: {epsilon} {v}");
            }
        }
    }

    fn noise_share(schedule: &Schedule, step: usize) -> f32 {
        match &schedule.solver {
            Solver::Ddim(ddim) => (1.0 - ddim.alpha(step)).sqrt(),
            Solver::Euler(_) | Solver::DpmSolver(_) => {
                schedule.sigmas[step] / (schedule.sigmas[step].powi(2) + 1.0).sqrt()
            }
        }
    }

    fn signal_share(schedule: &Schedule, step: usize) -> f32 {
        (1.0 - noise_share(schedule, step).powi(2)).max(0.0).sqrt()
    }
}
