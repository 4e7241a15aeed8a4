//! One pass over the demo model's UNet, 16 x 16 cells: in a page's engine, natively on one thread, and by onnxruntime-web in
//! the same browser.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::onnx;
use crate::bench::{measure as ask, number};
use crate::browser::{Browser, Tab};
use crate::build::Programs;
use crate::processes::relay_with_page;
use crate::web::folder;

/// The three take turns, so that a machine's moods meet them alike; the best pass of each counts.
const ROUNDS: usize = 3;

/// Passes of a page in one turn; natively it is as many.
const PASSES: usize = 20;

/// How much longer a page may take than one native thread.
const GOAL: f64 = 2.5;

/// Loading, compiling and twenty passes on a busy machine.
const TURN_TIME_MAX: Duration = Duration::from_secs(300);

/// Largest difference from the native output, over its largest value: the engines compute the same network.
const DIFFERENCE_MAX: f64 = 1e-3;

/// Gives a page `load()` and `passes(count)`: our engine in its Worker.
const OURS: &str = include_str!("ours.js");

/// The same of onnxruntime-web.
const THEIRS: &str = include_str!("theirs.js");

/// Measures and compares.
pub fn measure(programs: &Programs, browser: &Browser, page: &Path) -> Result<()> {
    let files = tempfile::tempdir()?;
    let mut native = Fastest::default();
    let out = files.path().to_str().context("a temporary folder's path is text")?;
    let told = ask(programs, &["bench", "pass", "--out", out])?;
    let pass = Pass::read(files.path(), &told)?;

    let data = tempfile::tempdir()?;
    let (_relay, url) = relay_with_page(programs, data.path(), page)?;
    let ours = browser.tab(&format!("{url}/?lend=0"))?;
    ours.wait("window.manyhands?.state()")?;
    begin(&ours, OURS, &pass.ours)?;

    let theirs = tempfile::tempdir()?;
    let theirs = match onnx::put_into(theirs.path()) {
        Ok(()) => Some(Theirs::open(programs, browser, theirs, &pass)?),
        Err(reason) => {
            println!("unet onnxruntime_web SKIPPED: {reason:#}");
            None
        }
    };

    let (mut wasm, mut onnx) = (Fastest::default(), Fastest::default());
    for _ in 0..ROUNDS {
        native.take(number(&ask(programs, &["bench", "pass", "--out", out])?, "best_s")? * 1e3);
        wasm.take(passes(&ours, &pass)?);
        if let Some(theirs) = &theirs {
            onnx.take(passes(&theirs.tab, &pass)?);
        }
    }
    println!("unet native_1_thread_ms {:.2}", native.ms);
    println!("unet wasm_simd_1_thread_ms {:.2}", wasm.ms);
    println!("unet wasm_over_native {:.2} (goal {GOAL})", wasm.ms / native.ms);
    if theirs.is_some() {
        println!("unet onnxruntime_web_1_thread_ms {:.2}", onnx.ms);
        println!("unet wasm_over_onnxruntime_web {:.2}", wasm.ms / onnx.ms);
    }
    Ok(())
}

/// A pass as both engines are asked for it, and what the native one answers.
struct Pass {
    ours: Value,
    theirs: Value,
    output: Vec<f64>,
}

impl Pass {
    fn read(folder: &Path, told: &Value) -> Result<Self> {
        let bytes = |name: &str| fs::read(folder.join(name)).with_context(|| format!("reading the pass's {name}"));
        let (input, conditioning) = (bytes("input")?, bytes("conditioning")?);
        let number = |key: &str| told[key].as_u64().with_context(|| format!("the pass has no {key}"));
        let (channels, cells) = (number("channels")?, number("cells")?);
        let theirs = json!({
            "latent": { "values": values(&input), "shape": [1, channels, cells, cells] },
            "timestep": { "values": [told["timestep"]], "shape": [1] },
            "text": { "values": values(&conditioning), "shape": [1, number("tokens")?, number("width")?] },
        });
        let ours = json!({ "unit": bytes("unit")?, "input": input, "conditioning": conditioning });
        Ok(Self { ours, theirs, output: values(&bytes("output")?) })
    }
}

/// A page with onnxruntime-web and the exported network, and what serves it.
struct Theirs {
    tab: Tab,
    _relay: crate::processes::Process,
    _folders: [tempfile::TempDir; 2],
}

impl Theirs {
    fn open(programs: &Programs, browser: &Browser, site: tempfile::TempDir, pass: &Pass) -> Result<Self> {
        fs::write(site.path().join("index.html"), "<!doctype html><title>onnxruntime-web</title>")?;
        folder::write_list(site.path())?;
        let data = tempfile::tempdir()?;
        // The relay's headers isolate this page as they do ours: both have the same clock and memory.
        let (relay, url) = relay_with_page(programs, data.path(), site.path())?;
        let tab = browser.tab(&url)?;
        tab.wait("document.title === 'onnxruntime-web'")?;
        begin(&tab, THEIRS, &pass.theirs)?;
        Ok(Self { tab, _relay: relay, _folders: [site, data] })
    }
}

fn begin(tab: &Tab, script: &str, pass: &Value) -> Result<()> {
    tab.eval(script)?;
    tab.eval_within(&format!("load({pass})"), TURN_TIME_MAX)?;
    // Browsers compile again what runs often.
    tab.eval_within(&format!("passes({PASSES})"), TURN_TIME_MAX).map(drop)
}

/// Milliseconds of the best of some passes, if they compute what they should.
fn passes(tab: &Tab, pass: &Pass) -> Result<f64> {
    let done = tab.eval_within(&format!("passes({PASSES})"), TURN_TIME_MAX)?;
    let output = done["output"].as_array().context("a pass has an output")?;
    let output: Vec<f64> = output.iter().filter_map(Value::as_f64).collect();
    ensure!(output.len() == pass.output.len(), "{} values where {} are due", output.len(), pass.output.len());
    let largest = pass.output.iter().fold(f64::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    let difference = output.iter().zip(&pass.output).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f64::max);
    ensure!(difference <= DIFFERENCE_MAX, "the output is off by {difference:.1e}: not the same network");
    done["best_ms"].as_f64().context("a pass takes time")
}

/// Little-endian f32.
fn values(bytes: &[u8]) -> Vec<f64> {
    let (values, _) = bytes.as_chunks();
    values.iter().map(|value| f64::from(f32::from_le_bytes(*value))).collect()
}

/// The shortest of what it was given.
struct Fastest {
    ms: f64,
}

impl Default for Fastest {
    fn default() -> Self {
        Self { ms: f64::INFINITY }
    }
}

impl Fastest {
    fn take(&mut self, ms: f64) {
        self.ms = self.ms.min(ms);
    }
}
