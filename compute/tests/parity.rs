//! Our networks and schedules give what HuggingFace diffusers gives.

use std::path::{Path, PathBuf};

use compute::parity::{self, Outcome, ParityReport};
use safetensors::SafeTensors;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn run(folder: &Path) -> ParityReport {
    let report = parity::run(folder).unwrap_or_else(|error| panic!("{error}"));
    println!("{report}");
    assert!(report.passed(), "{report}");
    report
}

fn compared(report: &ParityReport) -> Vec<&str> {
    let compared = |outcome: &Outcome| matches!(outcome, Outcome::Compared { .. });
    report.goldens.iter().filter(|golden| compared(&golden.outcome)).map(|golden| golden.name.as_str()).collect()
}

#[test]
fn sd_turbo_matches_diffusers() {
    let report = run(&fixture("sd-turbo-tiny"));
    assert_eq!(compared(&report), ["sd-turbo-tiny", "sd-turbo-tiny-4step"]);
}

#[test]
fn sd_2_1_with_v_prediction_matches_diffusers() {
    assert_eq!(compared(&run(&fixture("sd21-v-ddim-tiny"))), ["sd21-v-ddim-tiny"]);
}

#[test]
fn sd_1_5_matches_diffusers_and_names_what_it_skips() {
    let report = run(&fixture("sd15-tiny"));
    assert_eq!(compared(&report), ["sd15-ddim-tiny", "sd15-dpmpp2m-karras-tiny"]);
    let text = report.to_string();
    assert!(text.contains("sd15-img2img-tiny: skipped: StableDiffusionImg2ImgPipeline is not supported"), "{text}");
    assert!(text.contains("sd15-lcm-tiny: skipped: scheduler LCMScheduler is not supported"), "{text}");
}

#[test]
fn checkpoints_with_the_names_of_2022_match_diffusers() {
    let report = run(&fixture("sd15-tiny-legacy"));
    assert_eq!(compared(&report), ["sd15-ddim-tiny", "sd15-dpmpp2m-karras-tiny"]);
}

#[test]
fn the_demo_model_matches_diffusers() {
    let report = run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo"));
    assert_eq!(compared(&report), ["demo"]);
}

#[test]
fn every_recorded_module_is_compared() {
    let folder = fixture("sd21-v-ddim-tiny");
    let bytes = std::fs::read(folder.join("golden/sd21-v-ddim-tiny.safetensors")).expect("the fixture is there");
    let golden = SafeTensors::deserialize(&bytes).expect("the fixture is sound");
    let report = run(&folder);
    let compared: Vec<&str> = report.goldens[0].tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    let outputs: Vec<&str> = golden.names().into_iter().filter(|name| name.contains(".out")).collect();
    assert_eq!(outputs.len(), 20);
    let left_out: Vec<&&str> = outputs.iter().filter(|name| !compared.contains(name)).collect();
    assert!(left_out.is_empty(), "{left_out:?}");
}

#[test]
fn every_supported_schedule_matches_diffusers() {
    let report = run(&fixture("schedulers"));
    assert!(compared(&report).len() >= 12, "{report}");
}
