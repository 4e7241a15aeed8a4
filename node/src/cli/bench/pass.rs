//! One pass over the demo model's UNet on one thread: how long it takes, and its bytes, so that other engines can do the same.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use compute::{Diffusion, Engine};
use node::models;
use protocol::{Branches, Hash, JobId, Unit, UnitId, Work, tensor};
use sampler::noise::{self, Purpose};
use serde_json::{Value, json};

use crate::cli::Complaint;

/// Passes that are timed.
const PASSES: usize = 20;

/// Somewhere in the middle of the noise schedule.
const TIMESTEP: f32 = 321.5;

/// Options of `manyhands bench pass`.
#[derive(Args)]
pub struct Arguments {
    /// The folder for the files `unit` (CBOR), `input`, `conditioning` and `output` (little-endian f32).
    #[arg(long)]
    out: PathBuf,
}

/// Computes one branch of a step over the model's native square, again and again.
pub fn run(arguments: &Arguments) -> Result<Value, Complaint> {
    let folder = models::open("demo")?;
    let mut engine = Diffusion::load(&folder, 1)?;
    let shape = folder.shape();
    let unit = |work| Unit { job: JobId([0; 16]), id: UnitId { stage: 0, index: 0 }, model: folder.id(), work };
    let text = unit(Work::Encode { prompt: "mountains at sunset with a lake".into(), negative: None });
    let conditioning = engine.compute(&text, &[], None, &|| false)?;
    let (rows, columns) = (shape.native_cells, shape.native_cells);
    let pass = unit(Work::Denoise {
        conditioning: Hash::of(&conditioning),
        conditioning_rows: 1,
        branches: Branches::Prompt,
        timestep: TIMESTEP,
        rows,
        columns,
    });
    let input = tensor::to_bytes(&noise::field(7, Purpose::Initial, 0, shape.latent_channels, rows, columns));
    // The first pass finds cold caches and is not timed.
    let output = engine.compute(&pass, &input, Some(&conditioning), &|| false)?;
    let mut seconds = Vec::new();
    for _ in 0..PASSES {
        let began = Instant::now();
        engine.compute(&pass, &input, Some(&conditioning), &|| false)?;
        seconds.push(began.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let mut encoded = Vec::new();
    ciborium::into_writer(&pass, &mut encoded)?;
    for (name, bytes) in [("unit", &encoded), ("input", &input), ("conditioning", &conditioning), ("output", &output)] {
        let path = arguments.out.join(name);
        std::fs::write(&path, bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(json!({
        "best_s": seconds[0],
        "median_s": seconds[PASSES / 2],
        "channels": shape.latent_channels,
        "cells": shape.native_cells,
        "tokens": shape.tokens,
        "width": shape.embedding_width,
        "timestep": TIMESTEP,
    }))
}
