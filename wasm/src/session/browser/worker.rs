//! The engine's Worker: starts its script, posts to it, and reads what it says.

use js_sys::{Array, Object, Reflect, Uint8Array};
use protocol::{ModelId, ModelShape, Unit};
use tokio::sync::mpsc;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Blob, BlobPropertyBag, ErrorEvent, Event, MessageEvent, Url, WorkerOptions, WorkerType};

use crate::fetch::words;
use crate::words::EngineChoice;

/// What the Worker says.
pub enum Said {
    /// It fetches, loads or tests.
    Loading {
        what: String,
        done: u64,
        total: u64,
    },
    Ready(Ready),
    /// It still computes.
    Tick,
    /// A unit is done, or not.
    Result {
        id: u32,
        output: Result<Vec<u8>, String>,
        took_ms: f64,
    },
    /// It is of no more use; `is_certain` if another start would end the same way.
    Failed {
        reason: String,
        is_certain: bool,
    },
    Remark(String),
}

/// An engine that is loaded and tested.
pub struct Ready {
    pub numeric_class: String,
    pub device: String,
    pub threads: u32,
    pub models: Vec<(ModelId, ModelShape)>,
    pub remark: Option<String>,
}

/// A running Worker. Dropping it terminates the Worker, whatever it does.
pub struct EngineWorker {
    worker: web_sys::Worker,
    said: mpsc::UnboundedReceiver<Said>,
    _heard: Closure<dyn FnMut(MessageEvent)>,
    _failed: Closure<dyn FnMut(Event)>,
}

impl EngineWorker {
    /// Starts the Worker whose script is at `url`.
    pub fn start(url: &str) -> Result<Self, String> {
        let options = WorkerOptions::new();
        options.set_type(WorkerType::Module);
        options.set_name("engine");
        let worker = script(url).and_then(|script| web_sys::Worker::new_with_options(&script, &options));
        let worker = worker.map_err(|error| format!("its Worker cannot be started: {}", words(&error)))?;
        // Unbounded in type only: the script tells progress ten times a second and one result per task.
        let (tell, said) = mpsc::unbounded_channel();
        let telling = tell.clone();
        let heard = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            if let Some(said) = read(&event.data()) {
                let _ = telling.send(said);
            }
        });
        let failed = Closure::<dyn FnMut(Event)>::new(move |event: Event| {
            let message = event.dyn_ref::<ErrorEvent>().map(ErrorEvent::message).filter(|text| !text.is_empty());
            let reason = message.unwrap_or_else(|| "its script cannot be loaded".into());
            let _ = tell.send(Said::Failed { reason, is_certain: false });
        });
        worker.set_onmessage(Some(heard.as_ref().unchecked_ref()));
        worker.set_onerror(Some(failed.as_ref().unchecked_ref()));
        Ok(Self { worker, said, _heard: heard, _failed: failed })
    }

    /// Loads the model in the folder `model_url`.
    pub fn load(&self, model_url: &str, choice: EngineChoice, memory_mib: Option<u32>) -> Result<(), String> {
        let choice = match choice {
            EngineChoice::Auto => "auto",
            EngineChoice::Cpu => "cpu",
            EngineChoice::Gpu => "gpu",
        };
        let memory = memory_mib.map_or(JsValue::NULL, JsValue::from);
        let fields = [("modelUrl", model_url.into()), ("choice", choice.into()), ("memoryMib", memory)];
        self.post("start", &fields, &Array::new())
    }

    /// Computes a unit; its result comes under `id`.
    pub fn compute(&self, id: u32, unit: &Unit, input: &[u8], conditioning: Option<&[u8]>) -> Result<(), String> {
        let mut encoded = Vec::new();
        ciborium::into_writer(unit, &mut encoded).map_err(|error| error.to_string())?;
        let [unit, input] = [encoded.as_slice(), input].map(Uint8Array::from);
        let conditioning = conditioning.map(Uint8Array::from);
        let bodies = [Some(&unit), Some(&input), conditioning.as_ref()];
        let transfer: Array = bodies.into_iter().flatten().map(Uint8Array::buffer).collect();
        let conditioning = conditioning.clone().map_or(JsValue::NULL, JsValue::from);
        let fields =
            [("id", id.into()), ("unit", unit.into()), ("input", input.into()), ("conditioning", conditioning)];
        self.post("compute", &fields, &transfer)
    }

    /// Nobody wants the result of `id` any more; it comes all the same.
    pub fn cancel(&self, id: u32) {
        let _ = self.post("cancel", &[("id", id.into())], &Array::new());
    }

    /// Makes it lose its device; for tests.
    pub fn lose(&self) {
        let _ = self.post("lose", &[], &Array::new());
    }

    /// What it says next.
    pub async fn next(&mut self) -> Said {
        let ended = || Said::Failed { reason: "it ended".into(), is_certain: false };
        self.said.recv().await.unwrap_or_else(ended)
    }

    fn post(&self, kind: &str, fields: &[(&str, JsValue)], transfer: &Array) -> Result<(), String> {
        let message = Object::new();
        let fields = std::iter::once(("type", kind.into())).chain(fields.iter().cloned());
        for (name, value) in fields {
            Reflect::set(&message, &name.into(), &value).map_err(|error| words(&error))?;
        }
        let posted = self.worker.post_message_with_transfer(&message, transfer);
        posted.map_err(|error| format!("its Worker takes no message: {}", words(&error)))
    }
}

impl Drop for EngineWorker {
    fn drop(&mut self) {
        self.worker.set_onmessage(None);
        self.worker.set_onerror(None);
        self.worker.terminate();
    }
}

/// The address a Worker is started from. Browsers start Workers only from the page's own origin; a script of ours that imports
/// the real one may come from there.
fn script(url: &str) -> Result<String, JsValue> {
    let origin = web_sys::window().and_then(|window| window.location().origin().ok());
    if origin == Some(Url::new(url)?.origin()) {
        return Ok(url.to_owned());
    }
    let quoted = serde_json::to_string(url).expect("a string is plain data");
    let kind = BlobPropertyBag::new();
    kind.set_type("text/javascript");
    let text = Array::of1(&format!("import {quoted};").into());
    Url::create_object_url_with_blob(&Blob::new_with_str_sequence_and_options(&text, &kind)?)
}

fn read(message: &JsValue) -> Option<Said> {
    let field = |name: &str| Reflect::get(message, &name.into()).unwrap_or(JsValue::UNDEFINED);
    let text = |name: &str| field(name).as_string();
    let number = |name: &str| field(name).as_f64().unwrap_or(0.0);
    let bytes = |name: &str| field(name).dyn_into::<Uint8Array>().ok().map(|bytes| bytes.to_vec());
    match text("type")?.as_str() {
        "loading" => Some(Said::Loading {
            what: text("what").unwrap_or_default(),
            done: number("done") as u64,
            total: number("total") as u64,
        }),
        "ready" => {
            let models = protocol::frame::decode_cbor(&bytes("models")?);
            Some(match models {
                Ok(models) => Said::Ready(Ready {
                    numeric_class: text("numericClass").unwrap_or_default(),
                    device: text("device").unwrap_or_default(),
                    threads: number("threads") as u32,
                    models,
                    remark: text("remark"),
                }),
                Err(error) => Said::Failed { reason: format!("its models: {error}"), is_certain: true },
            })
        }
        "result" => {
            let why = || text("error").unwrap_or_else(|| "it gave neither a result nor a reason".into());
            let output = bytes("output").ok_or_else(why);
            Some(Said::Result { id: number("id") as u32, output, took_ms: number("tookMs") })
        }
        "failed" => {
            let reason = text("reason").unwrap_or_else(|| "it gave no reason".into());
            Some(Said::Failed { reason, is_certain: field("fatal").is_truthy() })
        }
        "tick" => Some(Said::Tick),
        "remark" => text("text").map(Said::Remark),
        _ => None,
    }
}
