//! Lets clients and workers of different kinds understand each other: a worker is given what it reads, a client is answered as
//! the worker would have that it wrote for.

use queue::{Job, Model, Order, Task};
use runpod::{
    Asked, Dialect, Extras, InitImage, Painted, Picture, from_input, read_output, read_seed, to_input, to_output,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::ApiError;
use crate::limits::FILE_SIGNATURE_TIME;
use crate::state::App;

/// The dialect of this name, as `dialect=` of a worker has it.
pub(crate) fn named(name: &str) -> Result<Dialect, ApiError> {
    let known = [Dialect::Manyhands, Dialect::Sdxl, Dialect::A1111];
    let found = known.into_iter().find(|dialect| dialect.as_str() == name);
    // A ComfyUI worker needs a stored workflow, which belongs to a configured endpoint.
    found.ok_or_else(|| ApiError::wrong("dialect is manyhands, sdxl or a1111; leave it out to get inputs as they came"))
}

/// The input that a worker is given for a job, or why there is none for it. `dialect` is what it reads; without one it gets an
/// input as it came, and an order of ours as it is. `models` are those it has.
pub(crate) async fn input(
    app: &App,
    job: &Job,
    dialect: Option<Dialect>,
    models: Option<&[Model]>,
) -> Result<Value, String> {
    let input: Value = serde_json::from_str(&job.order.input).map_err(|_| "its input cannot be read".to_owned())?;
    if job.order.ask.is_some() {
        return typed(app, input, dialect.unwrap_or(Dialect::Manyhands)).await;
    }
    match (dialect, from_input(&input)) {
        (Some(Dialect::Manyhands), Some(asked)) => {
            let order = order(asked, job, input.get("model").and_then(Value::as_str), models);
            Ok(order.map_or(input, |order| serde_json::to_value(order).expect("an order is JSON")))
        }
        (Some(_) | None, _) => Ok(input),
    }
}

async fn typed(app: &App, input: Value, dialect: Dialect) -> Result<Value, String> {
    let order: Order = serde_json::from_value(input).map_err(|_| "its order cannot be read".to_owned())?;
    let init_image = match &order.init_image {
        Some(path) => {
            let signed = app.results.sign_get(path, FILE_SIGNATURE_TIME, app.clock.now()).await;
            Some(InitImage::Url(signed.map_err(|error| error.to_string())?))
        }
        None => None,
    };
    let extras = Extras { init_image, ..Extras::default() };
    to_input(&order, dialect, &extras).map_err(|error| error.to_string())
}

/// What a foreign client asks for, as an order for a worker of ours that has these models; `None` if it has none.
fn order(asked: Asked, job: &Job, wanted: Option<&str>, models: Option<&[Model]>) -> Option<Order> {
    let wanted = wanted.and_then(|name| Model::new(name).ok());
    let model = match models {
        Some(models) => wanted.filter(|model| models.contains(model)).or_else(|| models.first().cloned()),
        None => wanted,
    };
    Some(Order {
        task: Task::Txt2img,
        model: model?,
        prompt: asked.prompt,
        negative_prompt: asked.negative_prompt,
        width: asked.width,
        height: asked.height,
        steps: asked.steps,
        guidance: asked.guidance,
        strength: None,
        // The same whenever the job is done again, and exact in every client's JSON.
        seed: asked.seed.unwrap_or_else(|| {
            let digest = Sha256::digest(job.id.as_str());
            u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]).into()
        }),
        seconds: None,
        init_image: None,
    })
}

/// A worker's output as its client expects it: what our own worker gave for a foreign client's input becomes what the worker
/// that the client wrote for would have given. Anything else stays as it is.
pub(crate) fn answer(job: &Job, output: Value) -> Value {
    if job.order.ask.is_some() || !is_ours(&output) {
        return output;
    }
    let asked = serde_json::from_str(&job.order.input).ok().and_then(|input: Value| from_input(&input));
    let pictures = asked.and_then(|asked| Some((asked, read_output(&output, Dialect::Manyhands).ok()?)));
    let Some((asked, pictures)) = pictures else { return output };
    let painted = pictures.into_iter().map(|picture| match picture {
        Picture::Bytes(mime, bytes) => Some(Painted { mime, bytes }),
        Picture::Url(_) | Picture::Stored(_) => None,
    });
    let Some(painted) = painted.collect::<Option<Vec<_>>>() else { return output };
    let seed = read_seed(&output).or(asked.seed).unwrap_or_default();
    to_output(&painted, seed, asked.dialect)
}

/// Whether an output is in the shape that our own worker gives.
fn is_ours(output: &Value) -> bool {
    let is_named = |image: &Value| image.get("filename").is_some() && image.get("data").is_some();
    let images = output.get("images").and_then(Value::as_array);
    output.get("seconds").is_some() && images.is_some_and(|images| !images.is_empty() && images.iter().all(is_named))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use data_encoding::BASE64;
    use queue::{Ask, Deadlines, JobId, Mode, NewJob, Quality, RoomName, UnixMs, UserName};
    use serde_json::json;

    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

    fn job(input: &Value) -> Job {
        let order = NewJob {
            room: RoomName::new("room").unwrap(),
            user: UserName::new("ada").unwrap(),
            key: None,
            ask: None,
            model: None,
            input: input.to_string(),
            mode: Mode::Local,
            quality: Quality::Final,
            priority: 0,
            expected: Duration::from_secs(1),
            webhook: None,
            deadlines: Deadlines::default(),
            may_spend: false,
        };
        Job::new(JobId::from_random([1; 16]), order, UnixMs(0))
    }

    fn models(names: &[&str]) -> Vec<Model> {
        names.iter().map(|name| Model::new(*name).unwrap()).collect()
    }

    fn ours() -> Value {
        let image = json!({"filename": "0.png", "type": "base64", "data": BASE64.encode(PNG)});
        json!({"images": [image], "seed": 7, "seconds": 0.5})
    }

    #[test]
    fn a_foreign_input_is_an_order_for_a_worker_of_ours() {
        let input = json!({"prompt": "a", "num_inference_steps": 3, "width": 64, "height": 64, "model": "b"});
        let job = job(&input);
        let read = |wanted: Option<&str>, models: Option<&[Model]>| {
            order(from_input(&input).unwrap(), &job, wanted, models).map(|order| (order.model.to_string(), order.seed))
        };
        let (model, seed) = read(Some("b"), Some(&models(&["a", "b"]))).unwrap();
        assert_eq!(model, "b", "the one that was asked for");
        assert_eq!(read(Some("c"), Some(&models(&["a"]))), Some(("a".to_owned(), seed)), "else the one there is");
        assert_eq!(read(None, None), None, "nobody knows by what");
    }

    #[test]
    fn a_client_is_answered_as_the_worker_it_wrote_for_would() {
        let sdxl = answer(&job(&json!({"prompt": "a"})), ours());
        assert_eq!(sdxl["image_url"], json!(format!("data:image/png;base64,{}", BASE64.encode(PNG))));
        assert_eq!(sdxl["seed"], 7);
        let a1111 = answer(&job(&json!({"prompt": "a", "steps": 3})), ours());
        assert_eq!(a1111["images"][0], json!(BASE64.encode(PNG)));
        assert!(a1111["info"].is_string());
    }

    #[test]
    fn everything_else_is_answered_as_it_is() {
        let foreign = json!({"images": ["data:image/png;base64,iVBORw0KGgo="], "seed": 7});
        assert_eq!(answer(&job(&json!({"prompt": "a"})), foreign.clone()), foreign);
        assert_eq!(answer(&job(&json!({"workflow": {}})), ours()), ours());
        let mut typed = job(&json!({"prompt": "a"}));
        typed.order.ask = Some(Ask::new("demo_fast").unwrap());
        assert_eq!(answer(&typed, ours()), ours());
    }

    #[test]
    fn a_worker_says_which_dialect_it_reads_or_is_told_the_names() {
        assert_eq!(named("manyhands").unwrap(), Dialect::Manyhands);
        assert!(named("comfyui").is_err() && named("").is_err());
    }
}
