//! The engine in a page's Worker: files in, units in, numbers out. `worker.js` is its only caller.

mod device;
mod turns;

use std::collections::BTreeMap;
use std::rc::Rc;

use compute::{Diffusion, Engine as _, Files, ModelFolder, Pace as _, SelfTest};
use protocol::{Hash, Unit};
use serde::Deserialize;
use wasm_bindgen::prelude::{JsError, JsValue, wasm_bindgen};

use self::device::{Choice, Chosen};
use self::turns::Turns;

/// Longest unit believed: a prompt and its negative, with room for the rest.
const UNIT_BYTES_MAX: usize = 64 * 1024;

/// What of the model card is needed here.
#[derive(Deserialize)]
struct Card {
    name: String,
    #[serde(rename = "selfTest")]
    self_test: SelfTest,
}

#[wasm_bindgen]
extern "C" {
    /// Where a panic leaves its message for `worker.js`.
    #[wasm_bindgen(js_namespace = globalThis, js_name = notePanic)]
    fn note_panic(message: &str);
}

/// Makes panics tell what they are: the Worker is of no more use, and its page says why.
#[wasm_bindgen(start)]
pub fn begin() {
    std::panic::set_hook(Box::new(|panic| note_panic(&panic.to_string())));
}

/// SHA-256 of `bytes` in hexadecimal.
#[wasm_bindgen]
pub fn sha256(bytes: &[u8]) -> String {
    Hash::of(bytes).to_string()
}

/// Collects a model's files, then becomes an [`Engine`].
#[wasm_bindgen]
#[derive(Default)]
pub struct Loader {
    files: BTreeMap<String, Vec<u8>>,
}

/// A loaded and tested model.
#[wasm_bindgen]
pub struct Engine {
    diffusion: Diffusion,
    chosen: Chosen,
    turns: Rc<Turns>,
    /// The error of the self-test's answer, over its largest value.
    test_error: f64,
}

#[wasm_bindgen]
impl Loader {
    /// No files.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the file `name` (`unet/config.json`).
    pub fn add(&mut self, name: String, bytes: Vec<u8>) {
        self.files.insert(name, bytes);
    }

    /// Loads the networks onto the device chosen and tests them. `card` is the model card; `choice` is `auto`, `cpu` or
    /// `gpu`; `adapter` describes the GPU the browser has, or is `null`; `lost` is called with a sentence if the device is
    /// lost.
    ///
    /// # Errors
    /// With a sentence, if a file is not what it should be, there is no such device, or the answer is wrong.
    pub async fn start(
        self,
        card: String,
        choice: String,
        adapter: JsValue,
        lost: js_sys::Function,
    ) -> Result<Engine, JsError> {
        let card: Card = serde_json::from_str(&card).map_err(|error| failure("the model card", error))?;
        let choice = Choice::parse(&choice).ok_or_else(|| JsError::new("the choice is not auto, cpu or gpu"))?;
        let chosen = device::choose(choice, adapter, lost).await.map_err(|error| JsError::new(&error))?;
        let folder = ModelFolder::from_files(Files::in_memory(self.files), &card.name);
        let folder = folder.map_err(|error| failure("the model", error))?;
        let diffusion = Diffusion::load_on(&folder, chosen.device.clone(), chosen.numeric_class.clone(), 1);
        let diffusion = diffusion.map_err(|error| failure("the model", error))?;
        let turns = Rc::new(Turns::new(chosen.is_gpu()));
        let judged = card.self_test.judge(&diffusion, &*turns).await;
        let test_error = judged.map_err(|error| failure("the engine fails its test on this device", error))?;
        Ok(Engine { diffusion, chosen, turns, test_error })
    }
}

#[wasm_bindgen]
impl Engine {
    /// Engines of one class give equal bits.
    #[wasm_bindgen(getter, js_name = numericClass)]
    pub fn numeric_class(&self) -> String {
        self.diffusion.numeric_class()
    }

    /// What computes, in words.
    #[wasm_bindgen(getter)]
    pub fn device(&self) -> String {
        self.chosen.words.clone()
    }

    /// Why it is not the device one might expect, if so.
    #[wasm_bindgen(getter)]
    pub fn remark(&self) -> Option<String> {
        self.chosen.remark.clone()
    }

    /// How far the self-test's answer was off, over its largest value.
    #[wasm_bindgen(getter, js_name = testError)]
    pub fn test_error(&self) -> f64 {
        self.test_error
    }

    /// CBOR of the models and their shapes.
    #[wasm_bindgen(getter)]
    pub fn models(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(&self.diffusion.models(), &mut bytes).expect("ids and shapes are plain data");
        bytes
    }

    /// Computes the unit whose CBOR is `unit`.
    ///
    /// # Errors
    /// With a sentence, if the unit is not sound, was cancelled, or the device failed.
    pub async fn compute(
        &self,
        unit: Vec<u8>,
        input: Vec<u8>,
        conditioning: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, JsError> {
        if unit.len() > UNIT_BYTES_MAX {
            return Err(JsError::new("the unit is longer than any unit"));
        }
        let unit: Unit = ciborium::from_reader(unit.as_slice()).map_err(|error| failure("the unit", error))?;
        self.turns.begin();
        let output = self.diffusion.run(&unit, &input, conditioning.as_deref(), &*self.turns).await;
        // The last read waited for all that was given.
        self.turns.settled();
        output.map_err(|error| JsError::new(&error.to_string()))
    }

    /// Gives the running unit up at its next turn.
    pub fn cancel(&self) {
        self.turns.cancel();
    }

    /// Destroys the GPU device, as a driver that fails would; for tests.
    pub fn lose(&self) {
        self.chosen.lose();
    }
}

fn failure(what: &str, error: impl std::fmt::Display) -> JsError {
    JsError::new(&format!("{what}: {error}"))
}
