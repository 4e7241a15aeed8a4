//! Chooses what computes: a real GPU if the browser has one, else the processor.

use burn::tensor::Device;
use burn::tensor::wgpu::WgpuSetup;
use compute::AdapterInfo;
use wasm_bindgen::prelude::{JsCast, JsValue};

/// Raised whenever a change to the processor's kernels for browsers changes the bits of any result.
const CPU_CLASS: &str = "burn-flex 0.22.1, kernels 1, wasm32 simd128";

/// Raised whenever a change to the GPU's kernels changes the bits of any result.
const GPU_CLASS: &str = "burn-wgpu 0.22.1, kernels 1";

/// Which processor was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A real GPU, else the processor.
    Auto,
    /// The processor.
    Cpu,
    /// The GPU, even a software adapter.
    Gpu,
}

impl Choice {
    /// `None` unless `text` is one of the three.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "gpu" => Some(Self::Gpu),
            _ => None,
        }
    }
}

/// What was chosen.
pub struct Chosen {
    /// Where tensors live.
    pub device: Device,
    /// Names kernels and device.
    pub numeric_class: String,
    /// For people.
    pub words: String,
    /// Why it is not what one might expect.
    pub remark: Option<String>,
    gpu: Option<WgpuSetup>,
}

impl Chosen {
    /// Whether it is a GPU, or pretends to be.
    pub fn is_gpu(&self) -> bool {
        self.gpu.is_some()
    }

    /// Destroys the GPU device.
    pub fn lose(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.device.destroy();
        }
    }
}

/// Follows `choice`. `adapter` is what the browser says of its GPU (`GPUAdapterInfo`), or `null` if it has none. `lost` is
/// called with a sentence when the GPU fails later.
///
/// # Errors
/// With a sentence, if the GPU was asked for and there is none that can be used.
pub async fn choose(choice: Choice, adapter: JsValue, lost: js_sys::Function) -> Result<Chosen, String> {
    let adapter = read_adapter(&adapter);
    match (choice, adapter) {
        (Choice::Cpu, _) => Ok(processor(None)),
        (Choice::Auto, None) => Ok(processor(Some("This browser offers no GPU here; the processor computes.".into()))),
        (Choice::Auto, Some(adapter)) if adapter.is_software() => {
            let name = adapter.name();
            Ok(processor(Some(format!("The GPU offered ({name}) is a program; the processor itself is faster."))))
        }
        (Choice::Auto, Some(adapter)) => match gpu(&adapter, lost).await {
            Ok(chosen) => Ok(chosen),
            Err(reason) => Ok(processor(Some(format!("{reason}; the processor computes.")))),
        },
        (Choice::Gpu, None) => Err("this browser offers no GPU here".into()),
        (Choice::Gpu, Some(adapter)) => gpu(&adapter, lost).await,
    }
}

fn processor(remark: Option<String>) -> Chosen {
    Chosen {
        device: Device::flex(),
        numeric_class: CPU_CLASS.into(),
        words: "CPU of this device (SIMD, 1 thread)".into(),
        remark,
        gpu: None,
    }
}

async fn gpu(adapter: &AdapterInfo, lost: js_sys::Function) -> Result<Chosen, String> {
    let name = adapter.name();
    let setup = Device::wgpu_options().init_with_setup_async().await;
    let (device, setup) = setup.map_err(|error| format!("the GPU ({name}) cannot be used: {error}"))?;
    listen(&setup, lost);
    Ok(Chosen {
        device,
        numeric_class: format!("{GPU_CLASS}, {} {}", adapter.vendor, adapter.architecture),
        words: format!("GPU: {name}"),
        remark: None,
        gpu: Some(setup),
    })
}

/// Reports the loss of the device and what it says went wrong. After either, no result of it is believed.
fn listen(setup: &WgpuSetup, lost: js_sys::Function) {
    let report = Report(lost);
    let again = report.clone();
    setup.device.set_device_lost_callback(move |reason, message| {
        report.tell(&format!("the GPU was lost ({reason:?}): {message}"));
    });
    setup.device.on_uncaptured_error(std::sync::Arc::new(move |error| {
        again.tell(&format!("the GPU failed: {error}"));
    }));
}

#[derive(Clone)]
struct Report(js_sys::Function);

impl Report {
    fn tell(&self, sentence: &str) {
        // The Worker's function does not throw; if it did, nobody would be left to tell.
        let _ = self.0.call1(&JsValue::NULL, &JsValue::from_str(sentence));
    }
}

fn read_adapter(info: &JsValue) -> Option<AdapterInfo> {
    let info: &js_sys::Object = info.dyn_ref()?;
    let read = |key: &str| js_sys::Reflect::get(info, &key.into()).ok();
    let text = |key: &str| read(key).and_then(|value| value.as_string()).unwrap_or_default();
    Some(AdapterInfo {
        vendor: text("vendor"),
        architecture: text("architecture"),
        device: text("device"),
        description: text("description"),
        fallback: read("isFallbackAdapter").is_some_and(|value| value.is_truthy()),
    })
}
