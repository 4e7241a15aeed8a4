//! What onnxruntime-web needs to compute the demo model's UNet: itself, from npm, and the network, exported by PyTorch.
//!
//! Both are kept in the target folder. PyTorch's packages are gigabytes, so they are removed once the network is exported.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::build::{root, target_folder};
use crate::web::cache::Cache;

/// The package and its version.
const RUNTIME: &str = "onnxruntime-web@1.30.0";

/// Those of its files that run networks on the processor.
const RUNTIME_FILES: [&str; 3] = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];

/// What exports the network; newer PyTorch may drop the exporter that `export.py` asks for.
const PACKAGES: [&str; 4] = ["torch>=2.5,<2.16", "diffusers>=0.30,<1", "onnx>=1.16,<2", "numpy"];

/// Exports a UNet.
const EXPORT: &str = include_str!("export.py");

/// Puts the runtime and `unet.onnx` into `folder`; an error is a reason to do without.
pub fn put_into(folder: &Path) -> Result<()> {
    let mut cache = Cache::open(&target_folder()?.join("bench-cache"))?;
    let runtime = cache.take(&[RUNTIME.as_bytes()], install_runtime)?;
    for name in RUNTIME_FILES {
        fs::copy(runtime.join(name), folder.join(name)).with_context(|| format!("copying {name}"))?;
    }
    let model = root().join("models/demo/unet");
    let weights = fs::read(model.join("diffusion_pytorch_model.safetensors")).context("reading the demo model")?;
    let config = fs::read(model.join("config.json")).context("reading the demo model")?;
    let packages = PACKAGES.join(" ");
    let inputs = [&weights, &config, EXPORT.as_bytes(), packages.as_bytes()];
    let exported = cache.take(&inputs, |out| export(&model, out))?;
    fs::copy(exported, folder.join("unet.onnx")).context("copying the exported network")?;
    cache.forget_unused();
    Ok(())
}

fn install_runtime(out: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]).arg(folder.path()).arg(RUNTIME);
    quietly("npm", &mut npm)?;
    let dist = folder.path().join("node_modules/onnxruntime-web/dist");
    fs::create_dir(out)?;
    for name in RUNTIME_FILES {
        fs::copy(dist.join(name), out.join(name)).with_context(|| format!("{RUNTIME} has no {name}"))?;
    }
    Ok(())
}

fn export(model: &Path, out: &Path) -> Result<()> {
    eprintln!("== install PyTorch for a moment, and export the demo model's UNet");
    let beside = out.parent().context("a result lies in a folder")?;
    let packages = beside.join("python");
    quietly("python3", Command::new("python3").args(["-m", "venv"]).arg(&packages))?;
    let python = packages.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let mut install = Command::new(&python);
    quietly("pip", install.args(["-m", "pip", "install", "--quiet", "--no-cache-dir"]).args(PACKAGES))?;
    let script: PathBuf = beside.join("export.py");
    fs::write(&script, EXPORT)?;
    quietly("the export", Command::new(&python).arg(&script).arg(model).arg(out))
}

/// Runs a command that may well fail here; its last line is the reason.
fn quietly(name: &str, command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{name} is not here"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("{name} failed: {}", said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given"))
}
