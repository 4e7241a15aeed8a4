//! The other way round: what clients of other workers ask for, read so that our own can do it, and answered in their shape.

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::adapters::{Dialect, Mime};

/// A picture from words, as a client of another worker asks for it. Nothing is checked but types: the queue's own limits do
/// the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Whose words it used; the answer is given in the same.
    pub dialect: Dialect,
    /// What is to be seen.
    pub prompt: String,
    /// What is not to be seen.
    pub negative_prompt: String,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Denoising steps.
    pub steps: u32,
    /// Weight of classifier-free guidance.
    pub guidance: f32,
    /// The seed, unless any will do.
    pub seed: Option<u64>,
}

/// A picture as it goes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Painted {
    /// What it is.
    pub mime: Mime,
    /// Itself.
    pub bytes: Vec<u8>,
}

/// Fields that ask for more than a picture from words.
const BEYOND: [&str; 8] =
    ["workflow", "task", "image_url", "init_images", "image", "mask", "enable_hr", "alwayson_scripts"];

/// Fields that count pictures.
const COUNTS: [&str; 3] = ["num_images", "batch_size", "n_iter"];

/// Fields that only A1111's API has.
const OF_A1111: [&str; 5] = ["cfg_scale", "steps", "sampler_name", "n_iter", "batch_size"];

/// Reads an input in the words of worker-sdxl or worker-a1111; `None` if it is neither, or asks for what a picture from words
/// is not: ComfyUI's workflows, a first picture, several pictures at once.
pub fn from_input(input: &Value) -> Option<Asked> {
    let fields = input.as_object()?;
    let prompt = fields.get("prompt")?.as_str()?.to_owned();
    let is_set = |name: &&str| fields.get(*name).is_some_and(|value| !value.is_null() && *value != json!(false));
    let is_several = |name: &&str| fields.get(*name).and_then(Value::as_u64).is_some_and(|count| count > 1);
    if BEYOND.iter().any(is_set) || COUNTS.iter().any(is_several) {
        return None;
    }
    let is_a1111 = OF_A1111.iter().any(|name| fields.contains_key(*name));
    // The defaults of either, so that a client gets the size it would have had there.
    let (dialect, side, steps, steps_name, guidance, guidance_name) = if is_a1111 {
        (Dialect::A1111, 512, 50, "steps", 7.0, "cfg_scale")
    } else {
        (Dialect::Sdxl, 1024, 25, "num_inference_steps", 7.5, "guidance_scale")
    };
    let whole = |name: &str, default: u32| match fields.get(name) {
        None | Some(Value::Null) => Some(default),
        Some(value) => value.as_u64().and_then(|number| u32::try_from(number).ok()),
    };
    let guidance = match fields.get(guidance_name) {
        None | Some(Value::Null) => guidance,
        Some(value) => value.as_f64()? as f32,
    };
    Some(Asked {
        dialect,
        prompt,
        negative_prompt: fields.get("negative_prompt").and_then(Value::as_str).unwrap_or_default().to_owned(),
        width: whole("width", side)?,
        height: whole("height", side)?,
        steps: whole(steps_name, steps)?,
        guidance: Some(guidance).filter(|guidance| guidance.is_finite())?,
        // A1111 writes -1 for any.
        seed: fields.get("seed").and_then(Value::as_u64),
    })
}

/// Pictures in the shape that a worker of this dialect gives.
pub fn to_output(pictures: &[Painted], seed: u64, dialect: Dialect) -> Value {
    let base64 = |picture: &Painted| BASE64.encode(&picture.bytes);
    let named = || {
        let name = |(index, picture): (usize, &Painted)| {
            let filename = format!("{index}.{}", picture.mime.extension());
            json!({"filename": filename, "type": "base64", "data": base64(picture)})
        };
        pictures.iter().enumerate().map(name).collect::<Vec<Value>>()
    };
    match dialect {
        Dialect::Manyhands => json!({"images": named(), "seed": seed}),
        Dialect::ComfyUi => json!({"images": named()}),
        Dialect::Sdxl => {
            let images: Vec<String> = pictures.iter().map(|picture| picture.mime.data_uri(&picture.bytes)).collect();
            json!({"image_url": images.first(), "images": images, "seed": seed})
        }
        Dialect::A1111 => {
            let images: Vec<String> = pictures.iter().map(base64).collect();
            json!({"images": images, "parameters": {}, "info": json!({"seed": seed}).to_string()})
        }
    }
}

#[cfg(test)]
mod tests {
    use queue::Task;

    use super::*;
    use crate::adapters::input::tests::order;
    use crate::adapters::{Extras, Picture, read_output, read_seed, to_input};

    #[test]
    fn what_we_would_send_to_a_worker_is_what_we_read_from_its_clients() {
        for dialect in [Dialect::Sdxl, Dialect::A1111] {
            let order = order(Task::Txt2img);
            let asked = from_input(&to_input(&order, dialect, &Extras::default()).unwrap()).unwrap();
            let seed = if dialect == Dialect::A1111 { order.seed & u64::from(u32::MAX) } else { order.seed };
            let expected = Asked {
                dialect,
                prompt: order.prompt,
                negative_prompt: order.negative_prompt,
                width: order.width,
                height: order.height,
                steps: order.steps,
                guidance: order.guidance,
                seed: Some(seed),
            };
            assert_eq!(asked, expected);
        }
    }

    #[test]
    fn what_is_not_said_is_as_that_worker_would_have_it() {
        let asked = from_input(&json!({"prompt": "a"})).unwrap();
        assert_eq!((asked.dialect, asked.width, asked.steps, asked.guidance), (Dialect::Sdxl, 1024, 25, 7.5));
        let asked = from_input(&json!({"prompt": "a", "sampler_name": "Euler", "seed": -1})).unwrap();
        assert_eq!((asked.dialect, asked.width, asked.steps, asked.seed), (Dialect::A1111, 512, 50, None));
    }

    #[test]
    fn what_is_more_than_a_picture_from_words_is_left_to_who_knows_it() {
        let others = [
            json!({"workflow": {}, "prompt": "a"}),
            json!({"prompt": "a", "image_url": "https://s/x"}),
            json!({"prompt": "a", "num_images": 2}),
            json!({"prompt": "a", "batch_size": 4}),
            json!({"prompt": "a", "width": -1}),
            json!({"prompt": "a", "width": 1.5}),
            json!({"prompt": "a", "guidance_scale": "7"}),
            json!({"task": "txt2img", "prompt": "a"}),
            json!({"prompt": 5}),
            json!({}),
            json!("a"),
        ];
        for input in others {
            assert_eq!(from_input(&input), None, "{input}");
        }
    }

    #[test]
    fn every_client_gets_the_shape_it_knows() {
        let bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        let pictures = [Painted { mime: Mime::Png, bytes: bytes.clone() }];
        for dialect in [Dialect::Manyhands, Dialect::Sdxl, Dialect::ComfyUi, Dialect::A1111] {
            let output = to_output(&pictures, 7, dialect);
            assert_eq!(read_output(&output, dialect), Ok(vec![Picture::Bytes(Mime::Png, bytes.clone())]), "{dialect}");
            assert_eq!(read_seed(&output), (dialect != Dialect::ComfyUi).then_some(7), "{dialect}");
        }
        let output = to_output(&pictures, 7, Dialect::Sdxl);
        assert_eq!(output["image_url"], output["images"][0]);
    }
}
