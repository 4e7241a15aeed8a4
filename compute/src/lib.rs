//! Turns a unit of work into numbers: text encoder, UNet and VAE on burn.
