//! `manyhands card`: the model card of a folder, as pages need it beside the model's files.

use std::process::ExitCode;

use clap::Args;
use compute::{Diffusion, SelfTest};
use node::card::{CardFile, ModelCard};
use node::models;

use super::Ended;

/// Options of `manyhands card`.
#[derive(Args)]
pub struct Arguments {
    /// The model.
    #[arg(value_name = "DIR|NAME")]
    model: String,
}

/// Prints the card as JSON.
pub fn run(arguments: &Arguments) -> Ended {
    let folder = models::open(&arguments.model)?;
    let engine = Diffusion::load(&folder, 0)?;
    let used = folder.used().iter();
    let file = |file: &compute::UsedFile| CardFile {
        path: file.name.clone(),
        bytes: file.bytes,
        sha256: file.sha256.to_string(),
    };
    let card = ModelCard {
        name: folder.name().to_owned(),
        id: folder.id(),
        shape: folder.shape(),
        scheduler: sampler::schedule::json::parse(&folder.files().read_text("scheduler/scheduler_config.json")?)?,
        preview: compute::preview_factors(&folder)?,
        files: used.map(file).collect(),
        self_test: serde_json::to_value(SelfTest::record_here(&engine)?)?,
    };
    println!("{}", serde_json::to_string(&card)?);
    Ok(ExitCode::SUCCESS)
}
