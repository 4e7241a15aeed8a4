//! Turns a unit of work into numbers: text encoder, UNet and VAE on burn.

mod attention;
mod clip;
mod config;
mod conv;
mod engine;
mod folder;
mod group_norm;
mod layers;
pub mod parity;
mod resnet;
mod tokenizer;
mod unet;
mod vae;
pub mod weights;

pub use clip::{Clip, TextEmbedding};
pub use engine::{Diffusion, Engine, EngineError, Fake};
pub use folder::ModelFolder;
pub use tokenizer::{PromptError, Tokenizer};
pub use unet::{Cancelled, Stop, Unet};
pub use vae::Vae;
pub use weights::{LoadError, Weights};
