//! Damaged, incomplete and foreign model folders are refused, naming the file and what is wrong in it.

#![allow(clippy::unwrap_used, reason = "what tests share is test code too")]

use std::fs;
use std::path::{Path, PathBuf};

use compute::{Diffusion, LoadError, ModelFolder};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// A copy of a fixture that a test may damage.
struct Scratch(TempDir);

impl Scratch {
    fn new(name: &str) -> Self {
        let scratch = Self(tempfile::tempdir().unwrap());
        copy(&fixture(name), scratch.0.path());
        scratch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self) -> Result<Diffusion, LoadError> {
        Diffusion::load(&ModelFolder::open(self.0.path())?, 1)
    }

    /// What loading says; `kind` is the variant it must be.
    fn complaint(&self, kind: fn(&LoadError) -> bool) -> String {
        let error = self.load().err().expect("the folder is damaged");
        assert!(kind(&error), "{error:?}");
        error.to_string()
    }

    fn edit_json(&self, name: &str, edit: impl FnOnce(&mut serde_json::Value)) {
        let path = self.path(name);
        let mut value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        edit(&mut value);
        fs::write(path, value.to_string()).unwrap();
    }

    /// Writes the weights of `component` anew, each tensor as `edit` gives it back, or not at all.
    fn edit_weights(&self, component: &str, edit: impl Fn(&str, Stored) -> Option<Stored>) {
        let path = self.path(component);
        let bytes = fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let stored = |view: TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        let tensors: Vec<(String, Stored)> =
            file.iter().filter_map(|(name, view)| Some((name.to_owned(), edit(name, stored(view))?))).collect();
        let views = tensors
            .iter()
            .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
        fs::write(path, serialize(views, None).unwrap()).unwrap();
    }
}

type Stored = (Dtype, Vec<usize>, Vec<u8>);

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const TEXT: &str = "text_encoder/model.safetensors";

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::write(target, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

fn malformed(error: &LoadError) -> bool {
    matches!(error, LoadError::Malformed { .. })
}

fn tensor(error: &LoadError) -> bool {
    matches!(error, LoadError::Tensor { .. })
}

fn unsupported(error: &LoadError) -> bool {
    matches!(error, LoadError::Unsupported { .. })
}

fn unread(error: &LoadError) -> bool {
    matches!(error, LoadError::Read { .. })
}

fn assert_says(complaint: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| complaint.contains(part)), "{complaint:?} does not say {parts:?}");
}

#[test]
fn an_undamaged_folder_loads() {
    Scratch::new("sd-turbo-tiny").load().unwrap();
}

#[test]
fn a_truncated_file_is_named() {
    let length = fs::metadata(fixture("sd-turbo-tiny").join(UNET)).unwrap().len();
    for kept in [0, 7, 8, 1000, length - 1] {
        let scratch = Scratch::new("sd-turbo-tiny");
        let file = fs::OpenOptions::new().write(true).open(scratch.path(UNET)).unwrap();
        file.set_len(kept).unwrap();
        let complaint = scratch.complaint(malformed);
        assert_says(&complaint, &[UNET, "truncated"]);
    }
}

#[test]
fn a_corrupt_or_endless_header_is_named() {
    for (at, bytes, says) in [
        (0, u64::MAX.to_le_bytes().to_vec(), "the header claims 18446744073709551615 bytes"),
        (8, b"nonsense".to_vec(), "the header is corrupt"),
        (8, vec![0xff; 4], "the header is corrupt"),
    ] {
        let scratch = Scratch::new("sd-turbo-tiny");
        let mut file = fs::read(scratch.path(VAE)).unwrap();
        file[at..at + bytes.len()].copy_from_slice(&bytes);
        fs::write(scratch.path(VAE), file).unwrap();
        assert_says(&scratch.complaint(malformed), &[VAE, says]);
    }
}

#[test]
fn a_missing_file_is_named_with_what_was_looked_for() {
    let scratch = Scratch::new("sd-turbo-tiny");
    fs::remove_file(scratch.path(TEXT)).unwrap();
    assert_says(&scratch.complaint(unread), &["model.safetensors", "fp16", "index"]);
    let scratch = Scratch::new("sd-turbo-tiny");
    fs::remove_file(scratch.path("model_index.json")).unwrap();
    assert_says(&scratch.complaint(unread), &["model_index.json"]);
}

#[test]
fn a_missing_tensor_is_named() {
    let name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight";
    let scratch = Scratch::new("sd-turbo-tiny");
    scratch.edit_weights(UNET, |tensor, stored| (tensor != name).then_some(stored));
    assert_says(&scratch.complaint(tensor), &[UNET, name, "is missing"]);
}

#[test]
fn a_tensor_of_another_dtype_shape_or_without_sense_is_named() {
    let name = "decoder.conv_in.bias";
    let edit = |change: fn(Stored) -> Stored| {
        let scratch = Scratch::new("sd-turbo-tiny");
        scratch.edit_weights(VAE, |tensor, stored| Some(if tensor == name { change(stored) } else { stored }));
        scratch.complaint(tensor)
    };
    let integers = edit(|(_, shape, data)| (Dtype::I32, shape, data));
    assert_says(&integers, &[VAE, name, "dtype I32", "F32, F16 and BF16"]);
    let reshaped = edit(|(dtype, shape, data)| (dtype, vec![shape[0], 1], data));
    assert_says(&reshaped, &[VAE, name, "shape [16, 1] where [16] is needed"]);
    let infinite = edit(|(dtype, shape, mut data)| {
        data[8..12].copy_from_slice(&f32::INFINITY.to_le_bytes());
        (dtype, shape, data)
    });
    assert_says(&infinite, &[VAE, name, "not finite at index 2"]);
}

#[test]
fn half_precision_weights_in_shards_load_and_a_shard_outside_the_folder_does_not() {
    let scratch = Scratch::new("sd-turbo-tiny");
    let halved = |(_, shape, data): Stored| {
        let floats = data.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap()));
        (Dtype::BF16, shape, floats.flat_map(|value| half::bf16::from_f32(value).to_le_bytes()).collect())
    };
    scratch.edit_weights(VAE, |_, stored| Some(halved(stored)));
    let shard = |index: usize| format!("vae/diffusion_pytorch_model-0000{index}-of-00002.safetensors");
    for index in [1, 2] {
        fs::copy(scratch.path(VAE), scratch.path(&shard(index))).unwrap();
        let first = |tensor: &str| tensor.starts_with("decoder") == (index == 1);
        scratch.edit_weights(&shard(index), |tensor, stored| first(tensor).then_some(stored));
    }
    fs::remove_file(scratch.path(VAE)).unwrap();
    let index = "vae/diffusion_pytorch_model.safetensors.index.json";
    let write = |second: &str| {
        let map = serde_json::json!({ "weight_map": {
            "decoder.conv_in.bias": shard(1).trim_start_matches("vae/"), "encoder.conv_in.bias": second,
        } });
        fs::write(scratch.path(index), map.to_string()).unwrap();
    };
    write(shard(2).trim_start_matches("vae/"));
    scratch.load().unwrap();
    for outside in ["../unet/diffusion_pytorch_model.safetensors", "/etc/passwd", "C:\\x.safetensors", "config.json"] {
        write(outside);
        assert_says(&scratch.complaint(malformed), &[index, "not a safetensors file beside it"]);
    }
}

#[test]
fn other_pipelines_classes_and_options_are_refused_by_name() {
    let refused = |file: &str, key: &str, value: serde_json::Value| {
        let scratch = Scratch::new("sd-turbo-tiny");
        scratch.edit_json(file, |json| json[key] = value);
        let complaint = scratch.complaint(unsupported);
        assert_says(&complaint, &[file]);
        complaint
    };
    use serde_json::json;
    let complaint = refused("model_index.json", "_class_name", json!("StableDiffusionXLPipeline"));
    assert_says(&complaint, &["StableDiffusionXLPipeline", "only StableDiffusionPipeline is supported"]);
    let complaint = refused("model_index.json", "vae", json!(["diffusers", "AutoencoderTiny"]));
    assert_says(&complaint, &["AutoencoderTiny", "only AutoencoderKL is supported"]);
    let complaint = refused("model_index.json", "controlnet", json!(["diffusers", "ControlNetModel"]));
    assert_says(&complaint, &["controlnet"]);
    for (key, value) in [
        ("class_embed_type", json!("timestep")),
        ("encoder_hid_dim_type", json!("text_proj")),
        ("addition_embed_type", json!("text_time")),
        ("time_cond_proj_dim", json!(256)),
        ("num_attention_heads", json!(4)),
        ("dual_cross_attention", json!(true)),
        ("time_embedding_type", json!("fourier")),
        ("resnet_time_scale_shift", json!("scale_shift")),
        ("mid_block_type", json!("UNetMidBlock2D")),
        ("down_block_types", json!(["CrossAttnDownBlock2D", "AttnDownBlock2D"])),
        ("in_channels", json!(9)),
        ("conv_in_kernel", json!(2)),
    ] {
        assert_says(&refused("unet/config.json", key, value), &[key]);
    }
    assert_says(&refused("vae/config.json", "latents_mean", json!([0.0])), &["latents_mean"]);
    assert_says(&refused("text_encoder/config.json", "hidden_act", json!("relu")), &["hidden_act", "relu"]);
    let complaint = refused("scheduler/scheduler_config.json", "_class_name", json!("PNDMScheduler"));
    assert_says(&complaint, &["PNDMScheduler", "EulerDiscreteScheduler"]);
}

#[test]
fn impossible_configurations_are_refused_before_anything_is_computed() {
    for (file, key, value) in [
        ("unet/config.json", "attention_head_dim", serde_json::json!(3)),
        ("unet/config.json", "norm_num_groups", serde_json::json!(5)),
        ("unet/config.json", "sample_size", serde_json::json!(0)),
        ("unet/config.json", "block_out_channels", serde_json::json!([])),
        ("unet/config.json", "cross_attention_dim", serde_json::json!(64)),
        ("text_encoder/config.json", "layer_norm_eps", serde_json::json!(0)),
    ] {
        let scratch = Scratch::new("sd-turbo-tiny");
        scratch.edit_json(file, |json| json[key] = value);
        scratch.complaint(malformed);
    }
}

#[test]
fn a_models_id_follows_what_it_computes_and_nothing_else() {
    let scratch = Scratch::new("sd-turbo-tiny");
    let id = || ModelFolder::open(scratch.0.path()).unwrap().id();
    let first = id();
    assert_eq!(first, ModelFolder::open(&fixture("sd-turbo-tiny")).unwrap().id());
    fs::remove_dir_all(scratch.path("golden")).unwrap();
    fs::write(scratch.path("README.md"), "words").unwrap();
    assert_eq!(first, id());
    scratch.edit_json("scheduler/scheduler_config.json", |json| json["steps_offset"] = 0.into());
    assert_ne!(first, id());
}
