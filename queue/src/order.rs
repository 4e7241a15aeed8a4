//! What a job of a type asks for: the input that our own workers read, and adapters turn into that of others.

use serde::{Deserialize, Serialize};

use crate::names::Model;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// A picture from words.
    Txt2img,
    /// A picture from words and a picture.
    Img2img,
    /// A larger picture.
    Upscale,
    /// A clip from words.
    Video,
}

/// A checked order. As JSON it is the `input` of a job: `{"task":"txt2img","model":"demo","prompt":"…","width":128,…}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// What is to be done.
    pub task: Task,
    /// By which model.
    pub model: Model,
    /// What is to be seen.
    pub prompt: String,
    /// What is not to be seen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub negative_prompt: String,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Denoising steps.
    pub steps: u32,
    /// Weight of classifier-free guidance.
    pub guidance: f32,
    /// How much of the first picture is painted over, 0 to 1; only with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f32>,
    /// Seed of the noise; always there, so that a job done again gives the same picture.
    pub seed: u64,
    /// Length of a clip in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f32>,
    /// The first picture, in the result store as `bucket/user/file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_image: Option<String>,
}
