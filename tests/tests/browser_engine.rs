//! The engine in a real browser: the GPU path on a software adapter, the loss of its device, loading and unloading.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use protocol::{Branches, Hash, JobId, ModelId, Unit, UnitId, Work, tensor};
use serde_json::Value;
use tests::engine::{SLOW, bench, compute, load};
use tests::page::Page;
use tests::programs::{LOOPBACK, worker};
use tests::site::{Site, browser, page};
use xtask::browser::{SOFTWARE_GPU, Tab};

/// Values between -1 and 1 that look like noise, the same every time.
fn noise(count: usize, salt: u32) -> Vec<f32> {
    let mut state = salt;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// A step of the demo model: its unit, input and conditioning.
struct Step {
    unit: Unit,
    input: Vec<u8>,
    conditioning: Vec<u8>,
}

impl Step {
    fn new() -> Self {
        let card = std::fs::read(page().join("models/demo/model.json")).unwrap();
        let card: Value = serde_json::from_slice(&card).unwrap();
        let number = |name: &str| card["shape"][name].as_u64().unwrap() as u32;
        let cells = number("native_cells");
        let text = noise((number("tokens") * number("embedding_width")) as usize, 1);
        let conditioning = tensor::to_bytes(&text);
        let work = Work::Denoise {
            conditioning: Hash::of(&conditioning),
            conditioning_rows: 1,
            branches: Branches::Prompt,
            timestep: 500.0,
            rows: cells,
            columns: cells,
        };
        let model = card["id"].as_str().unwrap();
        let bytes = (0..32).map(|at| u8::from_str_radix(&model[2 * at..2 * at + 2], 16).unwrap());
        let model = ModelId(Hash::from_bytes(bytes.collect::<Vec<_>>().try_into().unwrap()));
        let unit = Unit { job: JobId([7; 16]), id: UnitId { stage: 1, index: 0 }, model, work };
        let input = noise((number("latent_channels") * cells * cells) as usize, 2);
        Self { unit, input: tensor::to_bytes(&input), conditioning }
    }

    fn compute(&self, tab: &Tab, engine: &str) -> Vec<f32> {
        let output = compute(tab, engine, &self.unit, &self.input, Some(&self.conditioning));
        tensor::from_bytes(&output, output.len() / 4).unwrap()
    }
}

#[test]
fn a_step_on_the_gpu_path_equals_the_processors() {
    let Some(browser) = browser(&SOFTWARE_GPU) else { return };
    let site = Site::open();
    let tab = bench(&browser, &site);
    let step = Step::new();
    let [cpu, gpu, auto] = ["cpu", "gpu", "auto"].map(|choice| load(&tab, choice, choice));
    eprintln!("cpu: {cpu}; gpu: {gpu}; auto: {auto}");
    assert!(gpu.contains("GPU"), "{gpu}");
    assert_eq!(auto, cpu, "a GPU that is a processor in disguise is not chosen");
    let (cpu, gpu) = (step.compute(&tab, "cpu"), step.compute(&tab, "gpu"));
    assert_eq!(cpu.len(), gpu.len());
    let largest = cpu.iter().map(|value| value.abs()).fold(0.0, f32::max);
    let worst = cpu.iter().zip(&gpu).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    eprintln!("{} values up to {largest:.3}; largest difference {worst:.2e}", cpu.len());
    assert!(largest > 0.1 && worst <= 1e-4, "{worst} of {largest}");
    assert_eq!(step.compute(&tab, "cpu"), cpu, "the same unit again gives the same bits");
    assert!(tab.uncaught().is_empty(), "{:?}", tab.testimony());
}

#[test]
fn a_lost_device_costs_its_unit_and_nothing_else() {
    let Some(browser) = browser(&SOFTWARE_GPU) else { return };
    let site = Site::open();
    let link = site.room();
    let tab = browser.tab(&format!("{}/?lend=0", site.url)).unwrap();
    tab.wait("window.manyhands?.state()").unwrap();
    let join = format!(
        "import('./manyhands.js').then(async ({{ Manyhands }}) => {{ globalThis.told = []; \
         globalThis.room = await Manyhands.join({link:?}, {{ engine: 'gpu', lend: true, name: 'loser' }}); \
         room.addEventListener('engine', ({{ detail }}) => told.push(detail.state)); }})"
    );
    tab.eval(&join).unwrap();
    tab.wait_within("room.engine.state === 'ready'", SLOW).unwrap();
    let paint = "globalThis.painting = room.paint({ prompt: 'a red circle', width: 256, height: 128, steps: 8, seed: 5 }); \
                 globalThis.units = 0; (async () => { for await (const news of painting) if (news.type === 'progress') units = news.units; })(); true";
    tab.eval(paint).unwrap();
    // Nobody else is there: it is always computing.
    tab.wait_within("units >= 1", SLOW).unwrap();
    tab.eval("told.length = 0; room.loseEngine()").unwrap();
    let (_native, native_peer) = worker(&link, &LOOPBACK);
    tab.wait_within("told.some((state) => state !== 'ready')", SLOW).unwrap();
    let told = "painting.then(({ workers, retries }) => \
                ({ units: workers.map(({ name, units }) => [name, units]), retries }))";
    let told = tab.eval_within(told, SLOW).unwrap();
    eprintln!("{told}");
    assert!(told["retries"].as_u64().unwrap() >= 1, "the unit it was computing is handed back");
    assert_eq!(told["units"].as_array().unwrap().len(), 2, "{native_peer} does what is left: {told}");
    // It comes again by itself.
    tab.wait_within("room.engine.state === 'ready'", SLOW).unwrap();
    eprintln!("after the loss: {}", tab.eval("[told, room.engine.text]").unwrap());
    assert_eq!(tab.eval("document.querySelector('[data-testid=paint]').disabled").unwrap(), false);
    assert!(tab.violations().is_empty(), "{:?}", tab.violations());
}

#[test]
fn loads_and_unloads_leave_no_memory_behind() {
    /// By then what a browser keeps for good is there.
    const WARM: usize = 10;
    /// A browser gives the memory of ended Workers back about every fifth time, so means are taken over twice as many.
    const WINDOW: usize = 10;

    let Some(browser) = browser(&[]) else { return };
    let site = Site::open();
    let tab = bench(&browser, &site);
    let step = Step::new();
    let mut resident = Vec::new();
    for _ in 0..WARM + 2 * WINDOW {
        load(&tab, "engine", "cpu");
        step.compute(&tab, "engine");
        tab.eval("engine.worker.terminate(); delete globalThis.engine; true").unwrap();
        tab.call("HeapProfiler.collectGarbage", serde_json::json!({})).unwrap();
        match browser.resident_kib() {
            Some(kib) => resident.push(kib / 1024),
            None => return eprintln!("SKIPPED: this system does not tell a process's memory"),
        }
    }
    eprintln!("MiB after each unloading: {resident:?}");
    let mean = |values: &[u64]| values.iter().sum::<u64>() as f64 / values.len() as f64;
    let (early, late) = (mean(&resident[WARM..WARM + WINDOW]), mean(&resident[WARM + WINDOW..]));
    eprintln!("means: {early} MiB, then {late} MiB");
    assert!(late <= early * 1.1, "{early} to {late}");
}

#[test]
fn without_storage_or_webgpu_the_page_says_so_and_paints() {
    let Some(browser) = browser(&[]) else { return };
    let site = Site::open();
    let link = site.room();
    let visitor = browser.visitor().unwrap();
    let bare = Page::of(&visitor, &link, "lend=0");
    let missing = "for (const name of ['caches', 'indexedDB']) Object.defineProperty(self, name, { get() { throw new DOMException('denied', 'SecurityError'); } }); \
                   delete Navigator.prototype.gpu; delete self.WebTransport; delete self.RTCPeerConnection; \
                   for (const name of ['localStorage', 'sessionStorage']) Object.defineProperty(self, name, { get() { throw new DOMException('denied', 'SecurityError'); } });";
    bare.tab.before_every_page(missing).unwrap();
    bare.tab.reload().unwrap();
    bare.tab.wait("window.manyhands?.state() && !self.RTCPeerConnection").unwrap();
    bare.tab.wait("document.querySelector('[data-testid=status]').dataset.state === 'connected'").unwrap();
    let said = bare.tab.eval("document.querySelector('[data-testid=status]').textContent").unwrap();
    eprintln!("without WebTransport, WebRTC and storage: {said}");
    let wish = tests::page::Wish { prompt: "a red circle", size: "128x128", steps: 2, seed: 1 };
    bare.paint(wish);
    assert!(bare.tab.uncaught().is_empty(), "{:?}", bare.tab.testimony());
}
