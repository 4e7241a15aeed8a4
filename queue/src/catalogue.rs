//! Job types as data: what may be asked for by name, and what such a job is made of.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{OVERFLOW_AFTER_MIN, OVERFLOW_AFTER_TIMES};
use crate::names::{Ask, BucketName, Model, QueueName};
use crate::order::{Order, Task};

pub use self::parse::CatalogueError;

mod parse;

/// How much work a picture gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Soon.
    Fast,
    /// Good.
    High,
    /// As good as it gets.
    Premium,
}

/// Which processors can do a type at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// Workers of the room and of the relay's machine that have its model, and the cloud.
    Native,
    /// The cloud alone, until a native engine exists.
    OverflowOnly,
}

/// What a job becomes if nobody can do its type.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Fallback {
    /// Nothing else.
    Never,
    /// One of this type.
    To(Ask),
}

impl TryFrom<String> for Fallback {
    type Error = crate::names::NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == "never" { Ok(Self::Never) } else { Ask::new(text).map(Self::To) }
    }
}

/// The most that a submission of a type may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeLimits {
    /// Bytes of the prompt, and of the negative one.
    pub prompt_bytes: usize,
    /// Denoising steps.
    pub steps: u32,
    /// Pixels of a picture.
    pub pixels: u32,
    /// Pictures of a submission.
    pub images: u32,
}

/// A job type.
#[derive(Clone, Debug, PartialEq)]
pub struct JobType {
    /// What a submission calls it.
    pub id: Ask,
    /// What people call it.
    pub label: String,
    /// A word or two beside the label.
    pub badge: String,
    /// How much work a picture gets.
    pub tier: Tier,
    /// Which endpoints serve it.
    pub queue: QueueName,
    /// What a worker must have.
    pub model: Model,
    /// What is to be done.
    pub task: Task,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Denoising steps.
    pub steps: u32,
    /// Weight of classifier-free guidance.
    pub guidance: f32,
    /// How much of the first picture is painted over; only with one.
    pub strength: Option<f32>,
    /// Length of a clip in seconds; only for clips.
    pub seconds: Option<f32>,
    /// How long it takes, until rates are measured.
    pub expected: Duration,
    /// A job that is not done so long after its submission may overflow.
    pub overflow_after: Duration,
    /// Where its results are kept.
    pub bucket: BucketName,
    /// Whether a submission must name a first picture; if not, it must not.
    pub needs_init_image: bool,
    /// Who can do it.
    pub engine: Engine,
    /// What a submission may ask for instead of these numbers.
    pub limits: TypeLimits,
    /// What it becomes if nobody can do it.
    pub fallback: Fallback,
}

impl JobType {
    /// How long a job with so many steps and pixels takes as this type says: in proportion to both.
    pub fn expected_of(&self, steps: u32, pixels: u32) -> Duration {
        let usual = f64::from(self.steps) * f64::from(self.width * self.height);
        self.expected.mul_f64(f64::from(steps) * f64::from(pixels) / usual)
    }

    fn overflow_after(expected: Duration) -> Duration {
        (expected * OVERFLOW_AFTER_TIMES).max(OVERFLOW_AFTER_MIN)
    }
}

/// All job types of a relay, checked: every fallback exists and ends, and nothing is beyond a limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalogue {
    types: Vec<JobType>,
}

impl Catalogue {
    /// The catalogue that comes with the program.
    pub fn shipped() -> Self {
        Self::parse(Self::SHIPPED).expect("a test reads the shipped catalogue")
    }

    /// The shipped catalogue's text, for operators who want to change it.
    pub const SHIPPED: &str = include_str!("catalogue.toml");

    /// The type of this name.
    pub fn find(&self, ask: &Ask) -> Option<&JobType> {
        self.types.iter().find(|job_type| job_type.id == *ask)
    }

    /// All types, in the order of their text.
    pub fn types(&self) -> impl Iterator<Item = &JobType> {
        self.types.iter()
    }

    /// The same words and seed as a job of the type that `from` falls back to: its name, order and expected time. `None`
    /// if it falls back to nothing, or the order is of no type that does.
    pub fn fall_back(&self, order: &Order, from: &Ask) -> Option<(Ask, Order, Duration)> {
        let Fallback::To(to) = &self.find(from)?.fallback else { return None };
        let to = self.find(to).expect("a catalogue's fallbacks exist");
        if order.task != to.task || order.init_image.is_some() {
            return None;
        }
        let order = Order {
            task: to.task,
            model: to.model.clone(),
            prompt: order.prompt.clone(),
            negative_prompt: order.negative_prompt.clone(),
            width: to.width,
            height: to.height,
            steps: to.steps,
            guidance: to.guidance,
            strength: None,
            seed: order.seed,
            seconds: to.seconds,
            init_image: None,
        };
        Some((to.id.clone(), order, to.expected))
    }
}

#[cfg(test)]
mod tests;
