//! A page's engine without the page: units in, numbers out.

use std::time::Duration;

use protocol::{Unit, tensor};
use xtask::browser::{Browser, Tab};

use crate::site::Site;

/// Compiling every kernel for an adapter that is a processor takes its time.
pub const SLOW: Duration = Duration::from_secs(400);

/// `start` gives a Worker that is ready, `compute` a unit's output.
const HARNESS: &str = r"
globalThis.start = (choice) => new Promise((resolve, reject) => {
  const worker = new Worker('engine/worker.js', { type: 'module' });
  worker.onmessage = ({ data }) => {
    if (data.type === 'ready') resolve({ worker, device: data.device, numericClass: data.numericClass, testError: data.testError });
    if (data.type === 'failed') reject(new Error(data.reason));
  };
  worker.onerror = (event) => reject(new Error(event.message));
  worker.postMessage({ type: 'start', modelUrl: new URL('models/demo/', location.href).href, choice, memoryMib: null });
});
let id = 0;
globalThis.compute = (worker, unit, input, conditioning) => new Promise((resolve, reject) => {
  const [mine, body] = [++id, (list) => Uint8Array.from(list)];
  worker.addEventListener('message', ({ data }) => {
    if (data.type === 'failed') reject(new Error(data.reason));
    if (data.type !== 'result' || data.id !== mine) return;
    if (data.output) resolve([...new Float32Array(data.output.buffer, data.output.byteOffset, data.output.length / 4)]);
    else reject(new Error(data.error));
  });
  worker.postMessage({ type: 'compute', id: mine, unit: body(unit), input: body(input), conditioning: conditioning && body(conditioning) });
});
true";

/// A tab at the page's address, with what talks to engines in it.
pub fn bench(browser: &Browser, site: &Site) -> Tab {
    let tab = browser.tab(&format!("{}/?lend=0", site.url)).expect("a tab opens");
    tab.wait("window.manyhands?.state()").expect("the page starts");
    tab.eval(HARNESS).expect("the harness is sound");
    tab
}

/// Starts an engine and calls it `name` in the tab; what it says of its device.
pub fn load(tab: &Tab, name: &str, choice: &str) -> String {
    let call = format!("start('{choice}').then((engine) => {{ globalThis.{name} = engine; return engine.device; }})");
    let device = tab.eval_within(&call, SLOW).expect("the engine starts");
    device.as_str().expect("a device is described in words").to_owned()
}

/// What the engine called `name` makes of a unit.
pub fn compute(tab: &Tab, name: &str, unit: &Unit, input: &[u8], conditioning: Option<&[u8]>) -> Vec<u8> {
    let mut encoded = Vec::new();
    ciborium::into_writer(unit, &mut encoded).expect("a unit is plain data");
    let conditioning = conditioning.map_or_else(|| "undefined".to_owned(), |bytes| format!("{bytes:?}"));
    let call = format!("compute({name}.worker, {encoded:?}, {input:?}, {conditioning})");
    let values = tab.eval_within(&call, SLOW).expect("the engine computes");
    let values = values.as_array().expect("an output is a list").iter();
    tensor::to_bytes(&values.map(|value| value.as_f64().expect("of numbers") as f32).collect::<Vec<_>>())
}
