//! What a comparison found, for people and programs.

use std::fmt;

use serde::Serialize;

/// A whole comparison.
#[derive(Clone, Debug, Serialize)]
pub struct ParityReport {
    /// The folder compared.
    pub folder: String,
    /// One report for each golden, in order of their names.
    pub goldens: Vec<GoldenReport>,
}

/// What one golden file showed.
#[derive(Clone, Debug, Serialize)]
pub struct GoldenReport {
    /// The golden's name.
    pub name: String,
    /// Compared or skipped.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Whether a golden could be repeated.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was.
    Compared {
        /// One report for each tensor.
        tensors: Vec<TensorReport>,
    },
    /// This engine does not have what it needs.
    Skipped {
        /// What that is.
        reason: String,
    },
}

/// How far one tensor may be off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Largest difference.
    Absolute(f64),
    /// Largest difference over the largest recorded value.
    Relative(f64),
}

/// How far one tensor is off. Errors of `null` in JSON are infinite: another shape, or not a number.
#[derive(Clone, Debug, Serialize)]
pub struct TensorReport {
    /// Its name in the golden file.
    pub name: String,
    /// Largest difference.
    pub absolute: f64,
    /// Largest difference over the largest recorded value.
    pub relative: f64,
    /// How much was allowed.
    pub bound: Bound,
    /// Whether it was within the bound.
    pub passed: bool,
}

impl ParityReport {
    /// Whether every tensor compared is within its bound, and at least one was compared.
    pub fn passed(&self) -> bool {
        let mut tensors = self.goldens.iter().flat_map(GoldenReport::tensors).peekable();
        tensors.peek().is_some() && tensors.all(|tensor| tensor.passed)
    }
}

impl GoldenReport {
    /// The tensors compared; none if the golden was skipped.
    pub fn tensors(&self) -> &[TensorReport] {
        match &self.outcome {
            Outcome::Compared { tensors } => tensors,
            Outcome::Skipped { .. } => &[],
        }
    }
}

impl TensorReport {
    pub(super) fn new(name: &str, ours: &[f32], recorded: &[f32], bound: Bound) -> Self {
        let largest = recorded.iter().fold(0.0, |largest: f64, &value| largest.max(f64::from(value).abs()));
        let difference = |(&a, &b): (&f32, &f32)| (f64::from(a) - f64::from(b)).abs();
        // A difference that is not a number must not hide behind `max`, which would drop it.
        let finite = |difference: f64| if difference.is_nan() { f64::INFINITY } else { difference };
        let absolute = ours.iter().zip(recorded).map(difference).map(finite).fold(0.0, f64::max);
        Self::judge(name, absolute, if absolute == 0.0 { 0.0 } else { absolute / largest }, bound)
    }

    pub(super) fn different_shape(name: &str, bound: Bound) -> Self {
        Self::judge(name, f64::INFINITY, f64::INFINITY, bound)
    }

    fn judge(name: &str, absolute: f64, relative: f64, bound: Bound) -> Self {
        let passed = match bound {
            Bound::Absolute(most) => absolute <= most,
            Bound::Relative(most) => relative <= most,
        };
        Self { name: name.to_owned(), absolute, relative, bound, passed }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absolute(most) => write!(formatter, "{most:.0e} abs"),
            Self::Relative(most) => write!(formatter, "{most:.0e} rel"),
        }
    }
}

impl fmt::Display for ParityReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for golden in &self.goldens {
            if let Outcome::Skipped { reason } = &golden.outcome {
                writeln!(formatter, "{}: skipped: {reason}", golden.name)?;
                continue;
            }
            let width = golden.tensors().iter().map(|tensor| tensor.name.len()).max().unwrap_or_default();
            writeln!(formatter, "{}", golden.name)?;
            writeln!(formatter, "  {:width$}  {:>9}  {:>9}  {:>9}", "tensor", "abs", "rel", "bound")?;
            for TensorReport { name, absolute, relative, bound, passed } in golden.tensors() {
                let verdict = if *passed { "" } else { "  TOO FAR" };
                let bound = bound.to_string();
                writeln!(formatter, "  {name:width$}  {absolute:>9.2e}  {relative:>9.2e}  {bound:>9}{verdict}")?;
            }
        }
        let tensors = || self.goldens.iter().flat_map(GoldenReport::tensors);
        let (all, passed) = (tensors().count(), tensors().filter(|tensor| tensor.passed).count());
        let verdict = if self.passed() { "parity" } else { "NO PARITY" };
        write!(formatter, "{verdict}: {passed} of {all} tensors within their bounds ({})", self.folder)
    }
}
