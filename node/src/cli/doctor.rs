//! `manyhands doctor`: what this machine can do, and why not.

use std::fmt::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use compute::{Diffusion, Engine};
use node::models;
use protocol::{Branches, Hash, JobId, Unit, UnitId, Work};
use serde::Serialize;

use super::{Complaint, Ended};

/// Options of `manyhands doctor`.
#[derive(Args)]
pub struct Arguments {
    /// The model to try.
    #[arg(long, default_value = "demo", value_name = "DIR|NAME")]
    model: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    /// What.
    name: &'static str,
    /// Whether it is as it should be; a limit that is by design is still fine.
    ok: bool,
    /// What was found, and what to do if it is not fine.
    detail: String,
}

/// Looks at the machine; exit code 1 if it can neither lend nor paint.
pub fn run(arguments: &Arguments) -> Ended {
    let findings = [processor(), memory(), gpu(), ports(), model(&arguments.model)];
    let able = findings.iter().all(|finding| finding.ok);
    if arguments.json {
        let version = env!("CARGO_PKG_VERSION");
        println!("{}", serde_json::json!({ "version": version, "able": able, "findings": findings }));
    } else {
        let mut text = String::new();
        for Finding { name, ok, detail } in &findings {
            let mark = if *ok { "ok " } else { "NO " };
            writeln!(text, "{mark} {name:<10} {detail}")?;
        }
        let verdict = if able { "This machine can lend and paint." } else { "This machine cannot lend or paint yet." };
        println!("{text}{verdict}");
    }
    Ok(if able { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn processor() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut detail = format!("{cores} cores, {}", std::env::consts::ARCH);
    #[cfg(target_arch = "x86_64")]
    for (name, there) in [
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
    ] {
        let sign = if there { "" } else { "no " };
        write!(detail, ", {sign}{name}").expect("writing to memory cannot fail");
    }
    Finding { name: "processor", ok: true, detail }
}

fn memory() -> Finding {
    /// The demo model, its activations and the network together stay below this.
    const NEEDED_MIB: u64 = 512;
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available_mib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).map(|kib| kib / 1024);
    match available_mib {
        Some(mib) if mib < NEEDED_MIB => Finding {
            name: "memory",
            ok: false,
            detail: format!("{mib} MiB free and the demo model needs about {NEEDED_MIB}; close something"),
        },
        Some(mib) => Finding { name: "memory", ok: true, detail: format!("{mib} MiB free") },
        None => Finding { name: "memory", ok: true, detail: "unknown on this system".into() },
    }
}

fn gpu() -> Finding {
    let detail = "not used: this build computes on the CPU (burn-flex)".into();
    Finding { name: "gpu", ok: true, detail }
}

fn ports() -> Finding {
    let bound = UdpSocket::bind("0.0.0.0:0").map(drop).and(TcpListener::bind("0.0.0.0:0").map(drop));
    match bound {
        Ok(()) => Finding { name: "network", ok: true, detail: "can listen on UDP (QUIC) and TCP".into() },
        Err(error) => Finding {
            name: "network",
            ok: false,
            detail: format!("cannot listen ({error}); allow this program to open sockets"),
        },
    }
}

fn model(name: &str) -> Finding {
    match try_model(name) {
        Ok(detail) => Finding { name: "model", ok: true, detail },
        Err(Complaint(detail)) => Finding { name: "model", ok: false, detail },
    }
}

/// Loads the model and computes one step at its native size twice: how fast, and whether twice is the same.
fn try_model(name: &str) -> Result<String, Complaint> {
    let folder = models::open(name)?;
    let began = Instant::now();
    let mut engine = Diffusion::load(&folder, std::thread::available_parallelism().map_or(1, usize::from))?;
    let loading = began.elapsed();
    let shape = folder.shape();
    let unit = |work| Unit { job: JobId([0; 16]), id: UnitId { stage: 0, index: 0 }, model: folder.id(), work };
    let prompt = Work::Encode { prompt: "a lake".into(), negative: None };
    let conditioning = engine.compute(&unit(prompt), &[], None, &|| false)?;
    let side = shape.native_cells;
    let step = Work::Denoise {
        conditioning: Hash::of(&conditioning),
        conditioning_rows: 1,
        branches: Branches::Prompt,
        timestep: 500.0,
        rows: side,
        columns: side,
    };
    let noise = sampler::noise::field(0, sampler::noise::Purpose::Initial, 0, shape.latent_channels, side, side);
    let input = protocol::tensor::to_bytes(&noise);
    let mut run = || -> Result<(Vec<u8>, Duration), Complaint> {
        let began = Instant::now();
        let output = engine.compute(&unit(step.clone()), &input, Some(&conditioning), &|| false)?;
        protocol::tensor::from_bytes(&output, noise.len())?;
        Ok((output, began.elapsed()))
    };
    let (first, _) = run()?;
    let (second, took) = run()?;
    if first != second {
        return Err(Complaint(
            "the same step gave two different results; this machine's arithmetic is not sound".into(),
        ));
    }
    let (id, pixels) = (folder.id(), side * shape.factor);
    Ok(format!(
        "{} ({id}) loads in {} ms, one pass at {pixels}x{pixels} takes {} ms, repeatable",
        folder.name(),
        loading.as_millis(),
        took.as_millis()
    ))
}
