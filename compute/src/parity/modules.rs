//! Feeds a recorded input to the module of the same path, and compares what comes out.

use burn::tensor::{Device, Tensor, TensorData};

use super::MODULE;
use super::golden::Golden;
use super::report::TensorReport;
use crate::attention::{Attention, Transformer};
use crate::clip::{Clip, ClipConfig};
use crate::files::Files;
use crate::pace::{Free, Pace, finish};
use crate::resnet::{Downsample, Resnet, Upsample};
use crate::tokenizer::Tokenizer;
use crate::unet::{Conditions, Unet};
use crate::vae::{Coder, Resize, Vae};
use crate::weights::LoadError;

/// Nothing cancels a comparison.
const FREE: &dyn Pace = &Free(&|| false);

/// All networks of a pipeline.
pub(super) struct Networks {
    pub device: Device,
    pub tokenizer: Tokenizer,
    pub clip: Clip,
    pub unet: Unet,
    pub vae: Vae,
}

/// What a module gave, as it was recorded: under `out`, or `out` and a field.
enum Output {
    Cells(Tensor<3>),
    Picture(Tensor<4>),
}

/// The module path of a recorded tensor's name, `mod.<path>.in...` or `mod.<path>.out...`.
pub(super) fn path_of(name: &str) -> Option<&str> {
    let name = name.strip_prefix("mod.")?;
    let end = [name.rfind(".in."), name.rfind(".out")].into_iter().flatten().max()?;
    Some(&name[..end])
}

impl Networks {
    pub(super) fn load(files: &Files, device: &Device) -> Result<Self, LoadError> {
        let text_encoder = files.at("text_encoder");
        let tokens = ClipConfig::open(&text_encoder)?.tokens;
        Ok(Self {
            device: device.clone(),
            tokenizer: Tokenizer::open(&files.at("tokenizer"), tokens)?,
            clip: Clip::load(&text_encoder, device)?,
            unet: Unet::load(&files.at("unet"), device)?,
            vae: Vae::load_both(&files.at("vae"), device)?,
        })
    }

    /// Compares the module at `path`; nothing if this engine has no such module, or its input was not recorded.
    pub(super) fn compare(&self, golden: &Golden, path: &str) -> Vec<TensorReport> {
        let inputs = Inputs { golden, path, device: &self.device };
        let parts: Vec<&str> = path.split('.').collect();
        match parts.as_slice() {
            ["text_encoder"] => self.compare_text_encoder(&inputs).unwrap_or_default(),
            ["unet", "time_embedding"] => self.compare_time_embedding(&inputs).unwrap_or_default(),
            ["unet", rest @ ..] => inputs.judge(self.unet(rest, &inputs)),
            ["vae", rest @ ..] => inputs.judge(self.vae(rest, &inputs)),
            _ => Vec::new(),
        }
    }

    fn compare_text_encoder(&self, inputs: &Inputs<'_>) -> Option<Vec<TensorReport>> {
        let ids = inputs.golden.tensor(&inputs.name("in.0"))?;
        let ids: Vec<u32> = ids.values.iter().map(|&id| id as u32).collect();
        let text = self.clip.forward(&ids)?;
        let hidden = inputs.golden.compare_tensor(&inputs.name("out.last_hidden_state"), text.hidden, MODULE);
        let pooled = inputs.golden.compare_tensor(&inputs.name("out.pooler_output"), text.pooled, MODULE);
        Some(hidden.into_iter().chain(pooled).collect())
    }

    /// The timestep's sinusoids, which are this module's input, are compared too.
    fn compare_time_embedding(&self, inputs: &Inputs<'_>) -> Option<Vec<TensorReport>> {
        let sinusoids = inputs.tensor::<2>("in.0")?;
        let output = self.unet.time_embedding.forward(sinusoids.clone());
        let embedded = inputs.golden.compare_tensor(&inputs.name("out"), output, MODULE);
        let timestep = inputs.golden.tensor("mod.unet.in.1")?.values[0];
        let ours = self.unet.sinusoids(timestep, sinusoids.dims()[0]);
        let sines = inputs.golden.compare_tensor(&inputs.name("in.0"), ours, MODULE);
        Some(sines.into_iter().chain(embedded).collect())
    }

    fn unet(&self, path: &[&str], inputs: &Inputs<'_>) -> Option<Output> {
        let unet = &self.unet;
        let block = |index: &str| index.parse::<usize>().ok();
        match path {
            [] => {
                let timestep = inputs.golden.tensor(&inputs.name("in.1"))?.values[0];
                let text = inputs.tensor::<3>("in.encoder_hidden_states")?;
                let output = finish(unet.forward(inputs.tensor("in.0")?, timestep, text, FREE));
                output.ok().map(Output::Picture)
            }
            ["conv_in"] => Some(Output::Picture(unet.conv_in.forward(inputs.tensor("in.0")?))),
            ["conv_out"] => Some(Output::Picture(unet.conv_out.forward(inputs.tensor("in.0")?))),
            ["mid_block"] => {
                let (time, text) = (inputs.tensor("in.1")?, inputs.tensor("in.encoder_hidden_states")?);
                let conditions = Conditions { time, text };
                let output = finish(unet.mid_block.forward(inputs.tensor("in.0")?, &conditions, FREE));
                output.ok().map(Output::Picture)
            }
            ["mid_block", rest @ ..] => layer(&unet.mid_block.resnets, &unet.mid_block.attentions, rest, inputs),
            ["down_blocks", index, "downsamplers", "0"] => {
                inputs.downsample(unet.down_blocks.get(block(index)?)?.downsample.as_ref()?)
            }
            ["down_blocks", index, rest @ ..] => {
                let block = unet.down_blocks.get(block(index)?)?;
                layer(&block.resnets, &block.attentions, rest, inputs)
            }
            ["up_blocks", index, "upsamplers", "0"] => {
                inputs.upsample(unet.up_blocks.get(block(index)?)?.upsample.as_ref()?)
            }
            ["up_blocks", index, rest @ ..] => {
                let block = unet.up_blocks.get(block(index)?)?;
                layer(&block.resnets, &block.attentions, rest, inputs)
            }
            _ => None,
        }
    }

    fn vae(&self, path: &[&str], inputs: &Inputs<'_>) -> Option<Output> {
        match path {
            ["post_quant_conv"] => Some(Output::Picture(self.vae.post_quant.as_ref()?.forward(inputs.tensor("in.0")?))),
            ["quant_conv"] => {
                Some(Output::Picture(self.vae.encoder()?.quant.as_ref()?.forward(inputs.tensor("in.0")?)))
            }
            ["decoder", rest @ ..] => coder(&self.vae.decoder, rest, inputs),
            ["encoder", rest @ ..] => coder(&self.vae.encoder()?.coder, rest, inputs),
            _ => None,
        }
    }
}

fn coder(coder: &Coder, path: &[&str], inputs: &Inputs<'_>) -> Option<Output> {
    let x = inputs.tensor::<4>("in.0")?;
    let output = match path {
        [] => finish(coder.forward(x, FREE)).ok()?,
        ["mid_block"] => finish(coder.mid_block.forward(x, FREE)).ok()?,
        ["mid_block", "attentions", "0"] => coder.mid_block.attention.as_ref()?.forward(x),
        ["mid_block", "resnets", index] => coder.mid_block.resnets.get(index.parse::<usize>().ok()?)?.forward(x, None),
        ["up_blocks" | "down_blocks", index, rest @ ..] => {
            let block = coder.blocks.get(index.parse::<usize>().ok()?)?;
            match (rest, &block.resize) {
                ([], _) => finish(block.forward(x, FREE)).ok()?,
                (["upsamplers", "0"], Resize::Up(upsample)) => upsample.forward(x, None),
                (["downsamplers", "0"], Resize::Down(downsample)) => downsample.forward(x),
                (["resnets", index], _) => block.resnets.get(index.parse::<usize>().ok()?)?.forward(x, None),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(Output::Picture(output))
}

/// A residual block, a transformer, or a part of one.
fn layer(resnets: &[Resnet], transformers: &[Transformer], path: &[&str], inputs: &Inputs<'_>) -> Option<Output> {
    let [kind, index, rest @ ..] = path else { return None };
    let index: usize = index.parse().ok()?;
    let text = || inputs.tensor::<3>("in.encoder_hidden_states");
    match (*kind, rest) {
        ("resnets", []) => {
            let time = inputs.tensor::<2>("in.1")?;
            Some(Output::Picture(resnets.get(index)?.forward(inputs.tensor("in.0")?, Some(&time))))
        }
        ("attentions", []) => Some(Output::Picture(transformers.get(index)?.forward(inputs.tensor("in.0")?, &text()?))),
        ("attentions", ["transformer_blocks", block, rest @ ..]) => {
            let block = transformers.get(index)?.blocks.get(block.parse::<usize>().ok()?)?;
            let x = inputs.tensor::<3>("in.0")?;
            let attend = |attention: &Attention, x: Tensor<3>| {
                let context = text().unwrap_or_else(|| x.clone());
                attention.forward(x, context, false)
            };
            Some(Output::Cells(match rest {
                [] => block.forward(x, &text()?),
                ["attn1"] => attend(&block.attention1, x),
                ["attn2"] => attend(&block.attention2, x),
                ["ff"] => block.feed_forward.forward(x),
                _ => return None,
            }))
        }
        _ => None,
    }
}

/// The recorded inputs of one module.
struct Inputs<'a> {
    golden: &'a Golden,
    path: &'a str,
    device: &'a Device,
}

impl Inputs<'_> {
    fn name(&self, end: &str) -> String {
        format!("mod.{}.{end}", self.path)
    }

    fn tensor<const D: usize>(&self, end: &str) -> Option<Tensor<D>> {
        let recorded = self.golden.tensor(&self.name(end))?;
        let shape: [usize; D] = recorded.shape.as_slice().try_into().ok()?;
        Some(Tensor::from_data(TensorData::new(recorded.values.clone(), shape), self.device))
    }

    fn downsample(&self, downsample: &Downsample) -> Option<Output> {
        Some(Output::Picture(downsample.forward(self.tensor("in.0")?)))
    }

    fn upsample(&self, upsample: &Upsample) -> Option<Output> {
        Some(Output::Picture(upsample.forward(self.tensor("in.0")?, None)))
    }

    fn judge(&self, output: Option<Output>) -> Vec<TensorReport> {
        let Some(output) = output else { return Vec::new() };
        // A module that returns a tuple was recorded as `out.0`.
        let plain = self.name("out");
        let name = if self.golden.tensor(&plain).is_some() { plain } else { self.name("out.0") };
        let report = match output {
            Output::Cells(tensor) => self.golden.compare_tensor(&name, tensor, MODULE),
            Output::Picture(tensor) => self.golden.compare_tensor(&name, tensor, MODULE),
        };
        report.into_iter().collect()
    }
}
