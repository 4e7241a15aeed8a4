//! Reads a diffusers `scheduler_config.json`: what a class knows is honoured or refused by name, the rest is ignored.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{ScheduleError, json};

/// Most training steps of a schedule; models are trained on 1000.
const TRAINING_STEPS_MAX: usize = 1000;

/// A supported scheduler with its options.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub struct SchedulerConfig {
    pub(super) training: Training,
    pub(super) family: Family,
}

/// How the model was trained, and which training steps a schedule takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    pub timesteps: usize,
    pub beta_start: f64,
    pub beta_end: f64,
    pub betas: Betas,
    pub zero_terminal_snr: bool,
    pub spacing: Spacing,
    pub steps_offset: usize,
}

/// How noise grows over the training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Betas {
    /// Evenly.
    Linear,
    /// Its root evenly.
    ScaledLinear,
}

/// Which training steps a schedule takes (table 2 of arXiv 2305.08891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// From the last to the first, evenly.
    Linspace,
    /// The beginning of each equal part.
    Leading,
    /// The end of each equal part.
    Trailing,
}

/// What the model of a diffusion scheduler predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The velocity (arXiv 2202.00512).
    V,
}

/// The noise level after the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalSigma {
    /// None.
    Zero,
    /// That of the first training step.
    Lowest,
}

/// A family of schedulers, with the options only it has.
#[derive(Clone, Debug, PartialEq)]
pub enum Family {
    Euler(EulerOptions),
    Ddim(DdimOptions),
    DpmSolver(DpmSolverOptions),
}

#[derive(Clone, Debug, PartialEq)]
pub struct EulerOptions {
    pub prediction: Prediction,
    pub karras: bool,
    pub final_sigma: FinalSigma,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DdimOptions {
    pub prediction: Prediction,
    /// The largest magnitude of a predicted clean latent.
    pub clip: Option<f32>,
    pub end_without_noise: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DpmSolverOptions {
    pub prediction: Prediction,
    pub levels: Levels,
    pub second_order: bool,
    pub lower_order_final: bool,
    pub euler_at_final: bool,
    pub final_sigma: FinalSigma,
}

/// Where the noise levels of DPM-Solver come from; a flow has its own prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Levels {
    Training,
    Karras,
    Flow { shift: f64 },
}

impl SchedulerConfig {
    /// Reads the text of a `scheduler_config.json`, with Python's `-Infinity` where it has one.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let value = json::parse(text).map_err(|error| ScheduleError::Malformed(error.to_string()))?;
        Self::try_from(value)
    }

    /// The diffusers class.
    pub fn class(&self) -> &'static str {
        match self.family {
            Family::Euler(_) => EULER,
            Family::Ddim(_) => DDIM,
            Family::DpmSolver(_) => DPM_SOLVER,
        }
    }
}

impl TryFrom<Value> for SchedulerConfig {
    type Error = ScheduleError;

    fn try_from(value: Value) -> Result<Self, ScheduleError> {
        let malformed = |what: &str| ScheduleError::Malformed(what.into());
        let Value::Object(keys) = value else { return Err(malformed("not a JSON object")) };
        let class = keys.get("_class_name").and_then(Value::as_str).ok_or_else(|| malformed("no _class_name"))?;
        match class {
            EULER => euler(&Options { class: EULER, keys: &keys }),
            DDIM => ddim(&Options { class: DDIM, keys: &keys }),
            DPM_SOLVER => dpm_solver(&Options { class: DPM_SOLVER, keys: &keys }),
            _ => Err(ScheduleError::Class(class.chars().take(CLASS_NAME_SHOWN).collect())),
        }
    }
}

const EULER: &str = "EulerDiscreteScheduler";
const DDIM: &str = "DDIMScheduler";
const DPM_SOLVER: &str = "DPMSolverMultistepScheduler";

/// Characters of an unknown class or value that an error repeats.
const CLASS_NAME_SHOWN: usize = 64;

const PREDICTIONS: &[(&str, Prediction)] = &[("epsilon", Prediction::Epsilon), ("v_prediction", Prediction::V)];
const FINAL_SIGMAS: &[(&str, FinalSigma)] = &[("zero", FinalSigma::Zero), ("sigma_min", FinalSigma::Lowest)];

fn euler(options: &Options) -> Result<SchedulerConfig, ScheduleError> {
    options.absent(&["use_exponential_sigmas", "use_beta_sigmas", "sigma_min", "sigma_max"])?;
    options.choice("interpolation_type", "linear", &[("linear", ())], "linear")?;
    options.choice("timestep_type", "discrete", &[("discrete", ())], "discrete")?;
    let family = Family::Euler(EulerOptions {
        prediction: options.choice("prediction_type", "epsilon", PREDICTIONS, "epsilon, v_prediction")?,
        karras: options.flag("use_karras_sigmas", false)?,
        final_sigma: options.choice("final_sigmas_type", "zero", FINAL_SIGMAS, "zero, sigma_min")?,
    });
    Ok(SchedulerConfig { training: options.training("linspace")?, family })
}

fn ddim(options: &Options) -> Result<SchedulerConfig, ScheduleError> {
    options.absent(&["thresholding"])?;
    let training = options.training("leading")?;
    let prediction = options.choice("prediction_type", "epsilon", PREDICTIONS, "epsilon, v_prediction")?;
    if training.zero_terminal_snr && prediction == Prediction::Epsilon {
        return Err(options.refuse("rescale_betas_zero_snr", "false, or true with v_prediction"));
    }
    let clip_range = options.number("clip_sample_range", 1.0, 0.0..=1e6, "0 to 1e6")?;
    let family = Family::Ddim(DdimOptions {
        prediction,
        clip: options.flag("clip_sample", true)?.then_some(clip_range as f32),
        end_without_noise: options.flag("set_alpha_to_one", true)?,
    });
    Ok(SchedulerConfig { training, family })
}

fn dpm_solver(options: &Options) -> Result<SchedulerConfig, ScheduleError> {
    options.absent(&["thresholding", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"])?;
    options.absent(&["variance_type", "use_dynamic_shifting"])?;
    options.choice("algorithm_type", "dpmsolver++", &[("dpmsolver++", ())], "dpmsolver++")?;
    // diffusers reads the other solvers' types as midpoint.
    let solver_types = [("midpoint", ()), ("logrho", ()), ("bh1", ()), ("bh2", ())];
    options.choice("solver_type", "midpoint", &solver_types, "midpoint")?;
    options.choice("lambda_min_clipped", "-Infinity", &[("-Infinity", ())], "-Infinity")?;
    let predictions =
        [("epsilon", Some(Prediction::Epsilon)), ("v_prediction", Some(Prediction::V)), ("flow_prediction", None)];
    let prediction =
        options.choice("prediction_type", "epsilon", &predictions, "epsilon, v_prediction, flow_prediction")?;
    let karras = options.flag("use_karras_sigmas", false)?;
    let flow = options.flag("use_flow_sigmas", false)?;
    if flow != prediction.is_none() {
        return Err(options.refuse("use_flow_sigmas", "true with flow_prediction, false without"));
    }
    let levels = match (karras, flow) {
        (false, false) => Levels::Training,
        (true, false) => Levels::Karras,
        (false, true) => Levels::Flow { shift: options.number("flow_shift", 1.0, 0.01..=100.0, "0.01 to 100")? },
        (true, true) => return Err(options.refuse("use_karras_sigmas", "false with use_flow_sigmas")),
    };
    let family = Family::DpmSolver(DpmSolverOptions {
        prediction: prediction.unwrap_or(Prediction::Epsilon),
        levels,
        second_order: options.number("solver_order", 2.0, 1.0..=2.0, "1, 2")? == 2.0,
        lower_order_final: options.flag("lower_order_final", true)?,
        euler_at_final: options.flag("euler_at_final", false)?,
        final_sigma: options.choice("final_sigmas_type", "zero", FINAL_SIGMAS, "zero, sigma_min")?,
    });
    Ok(SchedulerConfig { training: options.training("linspace")?, family })
}

/// The keys of a config of a known class.
struct Options<'a> {
    class: &'static str,
    keys: &'a Map<String, Value>,
}

impl Options<'_> {
    fn training(&self, spacing: &str) -> Result<Training, ScheduleError> {
        self.absent(&["trained_betas"])?;
        let spacings =
            [("linspace", Spacing::Linspace), ("leading", Spacing::Leading), ("trailing", Spacing::Trailing)];
        let schedules = [("linear", Betas::Linear), ("scaled_linear", Betas::ScaledLinear)];
        let count = self.whole("num_train_timesteps", 1000, 2..=TRAINING_STEPS_MAX, "2 to 1000")?;
        Ok(Training {
            timesteps: count,
            beta_start: self.number("beta_start", 0.0001, 1e-9..=0.999, "more than 0, less than 1")?,
            beta_end: self.number("beta_end", 0.02, 1e-9..=0.999, "more than 0, less than 1")?,
            betas: self.choice("beta_schedule", "linear", &schedules, "linear, scaled_linear")?,
            zero_terminal_snr: self.flag("rescale_betas_zero_snr", false)?,
            spacing: self.choice("timestep_spacing", spacing, &spacings, "leading, trailing, linspace")?,
            steps_offset: self.whole("steps_offset", 0, 0..=TRAINING_STEPS_MAX, "0 to 1000")?,
        })
    }

    /// Refuses options that are set to anything.
    fn absent(&self, options: &[&'static str]) -> Result<(), ScheduleError> {
        for option in options {
            match self.keys.get(*option) {
                None | Some(Value::Null | Value::Bool(false)) => {}
                Some(_) => return Err(self.refuse(option, "null or false")),
            }
        }
        Ok(())
    }

    fn flag(&self, option: &'static str, default: bool) -> Result<bool, ScheduleError> {
        match self.keys.get(option) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.refuse(option, "true, false")),
        }
    }

    fn number(
        &self,
        option: &'static str,
        default: f64,
        range: std::ops::RangeInclusive<f64>,
        supported: &'static str,
    ) -> Result<f64, ScheduleError> {
        let number = match self.keys.get(option) {
            None | Some(Value::Null) => Some(default),
            Some(value) => value.as_f64(),
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| self.refuse(option, supported))
    }

    fn whole(
        &self,
        option: &'static str,
        default: usize,
        range: std::ops::RangeInclusive<usize>,
        supported: &'static str,
    ) -> Result<usize, ScheduleError> {
        let number = match self.keys.get(option) {
            None | Some(Value::Null) => Some(default),
            Some(value) => value.as_u64().and_then(|number| usize::try_from(number).ok()),
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| self.refuse(option, supported))
    }

    fn choice<T: Copy>(
        &self,
        option: &'static str,
        default: &str,
        choices: &[(&str, T)],
        supported: &'static str,
    ) -> Result<T, ScheduleError> {
        let name = match self.keys.get(option) {
            None | Some(Value::Null) => Some(default),
            Some(value) => value.as_str(),
        };
        let choice = choices.iter().find(|(choice, _)| Some(*choice) == name);
        choice.map(|(_, choice)| *choice).ok_or_else(|| self.refuse(option, supported))
    }

    fn refuse(&self, option: &'static str, supported: &'static str) -> ScheduleError {
        let value = self.keys.get(option).unwrap_or(&Value::Null).to_string();
        let value = value.chars().take(CLASS_NAME_SHOWN).collect();
        ScheduleError::Option { class: self.class, option, value, supported }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(class: &str, options: &str) -> Result<SchedulerConfig, ScheduleError> {
        SchedulerConfig::parse(&format!(r#"{{"_class_name": "{class}"{options}}}"#))
    }

    #[test]
    fn a_class_that_is_not_supported_is_refused_by_name_with_those_that_are() {
        for class in ["PNDMScheduler", "EulerAncestralDiscreteScheduler", "LCMScheduler", "UniPCMultistepScheduler"] {
            let message = parse(class, "").unwrap_err().to_string();
            assert!(message.starts_with(&format!("scheduler {class} is not supported")), "{message}");
            for supported in [EULER, DDIM, DPM_SOLVER] {
                assert!(message.contains(supported), "{message}");
            }
        }
    }

    #[test]
    fn an_option_that_is_not_supported_is_refused_by_name() {
        for (class, option, value) in [
            (EULER, "interpolation_type", r#""log_linear""#),
            (EULER, "timestep_type", r#""continuous""#),
            (EULER, "use_beta_sigmas", "true"),
            (EULER, "sigma_max", "80.0"),
            (EULER, "beta_schedule", r#""squaredcos_cap_v2""#),
            (EULER, "trained_betas", "[0.1,0.2]"),
            (EULER, "num_train_timesteps", "1000000000"),
            (DDIM, "thresholding", "true"),
            (DDIM, "prediction_type", r#""sample""#),
            (DDIM, "rescale_betas_zero_snr", "true"),
            (DDIM, "steps_offset", "-1"),
            (DPM_SOLVER, "algorithm_type", r#""sde-dpmsolver++""#),
            (DPM_SOLVER, "solver_order", "3"),
            (DPM_SOLVER, "solver_type", r#""heun""#),
            (DPM_SOLVER, "lambda_min_clipped", "-5.1"),
            (DPM_SOLVER, "use_flow_sigmas", "true"),
            (DPM_SOLVER, "flow_shift", r#""three""#),
        ] {
            let flow = if option == "flow_shift" {
                r#", "use_flow_sigmas": true, "prediction_type": "flow_prediction""#
            } else {
                ""
            };
            let message = parse(class, &format!(r#"{flow}, "{option}": {value}"#)).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{class} with {option} = {value} is not supported")), "{message}");
        }
    }

    #[test]
    fn keys_of_other_classes_are_ignored() {
        let foreign = r#", "clip_sample": 3, "skip_prk_steps": true, "solver_order": 9, "_diffusers_version": "0.1""#;
        assert_eq!(parse(EULER, foreign), parse(EULER, ""));
    }

    #[test]
    fn a_class_has_its_own_defaults() {
        assert_eq!(parse(EULER, "").unwrap().training.spacing, Spacing::Linspace);
        assert_eq!(parse(DDIM, "").unwrap().training.spacing, Spacing::Leading);
        assert!(matches!(parse(DDIM, "").unwrap().family, Family::Ddim(DdimOptions { clip: Some(1.0), .. })));
        assert_eq!(parse(DPM_SOLVER, ""), parse(DPM_SOLVER, r#", "lambda_min_clipped": -Infinity"#));
    }

    #[test]
    fn what_is_not_a_config_is_refused() {
        for text in ["", "[]", "{}", r#"{"_class_name": 3}"#, "nonsense"] {
            assert!(matches!(SchedulerConfig::parse(text), Err(ScheduleError::Malformed(_))), "{text}");
        }
    }
}
