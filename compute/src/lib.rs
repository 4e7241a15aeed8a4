//! Turns a unit of work into numbers: text encoder, UNet and VAE on burn.

mod activation;
mod adapter;
mod attention;
mod clip;
mod config;
mod conv;
mod device;
mod engine;
mod files;
mod folder;
#[cfg(feature = "gpu")]
pub mod gpu;
mod group_norm;
mod layers;
mod pace;
pub mod parity;
mod preview;
mod resnet;
mod self_test;
mod threads;
mod tokenizer;
mod unet;
mod vae;
pub mod weights;

pub use adapter::AdapterInfo;
pub use clip::{Clip, TextEmbedding};
pub use engine::{Diffusion, Engine, EngineError, Fake};
pub use files::{Files, JSON_BYTES_MAX};
pub use folder::{ModelFolder, UsedFile};
pub use pace::{Cancelled, Free, Pace, Pause, Stop};
pub use preview::preview_factors;
pub use self_test::{SelfTest, SelfTestError};
pub use tokenizer::{PromptError, Tokenizer};
pub use unet::Unet;
pub use vae::Vae;
pub use weights::{LoadError, Weights};
