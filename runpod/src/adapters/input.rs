//! Turns an order into the input of a worker.

use data_encoding::BASE64;
use queue::{Order, Task};
use serde_json::{Map, Value, json};

use crate::adapters::workflow::{INIT_IMAGE, Workflow};
use crate::adapters::{Dialect, Mime};

/// The first picture of an order, as a worker can get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitImage {
    /// By a URL that the worker can read: a presigned one.
    Url(String),
    /// As it is.
    Bytes(Mime, Vec<u8>),
}

/// What an order does not hold and some workers need.
#[derive(Clone, Debug, Default)]
pub struct Extras<'a> {
    /// The graph that a ComfyUI worker runs.
    pub workflow: Option<&'a Workflow>,
    /// The first picture.
    pub init_image: Option<InitImage>,
    /// What the operator adds to every input, such as a scheduler; the order's own words win.
    pub defaults: Option<&'a Map<String, Value>>,
}

/// A worker cannot be asked for an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// It knows no such task.
    #[error("a {dialect} worker cannot do {}", task_name(*.task))]
    Unsupported {
        /// Which worker.
        dialect: Dialect,
        /// Which task.
        task: Task,
    },
    /// A ComfyUI worker runs a stored workflow, and there is none.
    #[error("a comfyui worker needs a stored workflow")]
    NoWorkflow,
    /// The order is for a picture from a picture, and that is not there in a way this worker reads.
    #[error("a {dialect} worker needs the first picture {}", if *.by_url { "by URL" } else { "itself" })]
    NoInitImage {
        /// Which worker.
        dialect: Dialect,
        /// How it reads it.
        by_url: bool,
    },
}

/// The input that has a worker of this dialect do the order.
pub fn to_input(order: &Order, dialect: Dialect, extras: &Extras<'_>) -> Result<Value, InputError> {
    let input = match dialect {
        Dialect::Manyhands => manyhands(order, extras),
        Dialect::Sdxl => sdxl(order, extras)?,
        Dialect::ComfyUi => comfyui(order, extras)?,
        Dialect::A1111 => a1111(order)?,
    };
    let mut fields = extras.defaults.cloned().unwrap_or_default();
    if let Value::Object(own) = input {
        fields.extend(own);
    }
    Ok(Value::Object(fields))
}

/// The order itself, with the first picture beside it.
fn manyhands(order: &Order, extras: &Extras<'_>) -> Value {
    let mut input = serde_json::to_value(order).expect("an order is JSON");
    match &extras.init_image {
        Some(InitImage::Url(url)) => input["init_image_url"] = json!(url),
        Some(InitImage::Bytes(mime, bytes)) => input["init_image_data"] = json!(mime.data_uri(bytes)),
        None => {}
    }
    input
}

fn sdxl(order: &Order, extras: &Extras<'_>) -> Result<Value, InputError> {
    let dialect = Dialect::Sdxl;
    let mut input = json!({
        "prompt": order.prompt,
        "negative_prompt": order.negative_prompt,
        "width": order.width,
        "height": order.height,
        "num_inference_steps": order.steps,
        "guidance_scale": number(order.guidance),
        "seed": order.seed,
        "num_images": 1,
    });
    match order.task {
        Task::Txt2img => {}
        Task::Img2img => {
            let Some(InitImage::Url(url)) = &extras.init_image else {
                return Err(InputError::NoInitImage { dialect, by_url: true });
            };
            input["image_url"] = json!(url);
            // The refiner paints over the first picture, so these are its steps.
            input["refiner_inference_steps"] = json!(order.steps);
            if let Some(strength) = order.strength {
                input["strength"] = number(strength);
            }
        }
        task @ (Task::Upscale | Task::Video) => return Err(InputError::Unsupported { dialect, task }),
    }
    Ok(input)
}

fn comfyui(order: &Order, extras: &Extras<'_>) -> Result<Value, InputError> {
    let dialect = Dialect::ComfyUi;
    let workflow = extras.workflow.ok_or(InputError::NoWorkflow)?;
    let (task, reads_image) = (order.task, workflow.reads_image());
    match task {
        Task::Txt2img if !reads_image => Ok(json!({"workflow": workflow.fill(order)})),
        Task::Img2img | Task::Upscale if reads_image => {
            let Some(InitImage::Bytes(_, bytes)) = &extras.init_image else {
                return Err(InputError::NoInitImage { dialect, by_url: false });
            };
            let images = json!([{"name": INIT_IMAGE, "image": BASE64.encode(bytes)}]);
            Ok(json!({"workflow": workflow.fill(order), "images": images}))
        }
        Task::Txt2img | Task::Img2img | Task::Upscale | Task::Video => Err(InputError::Unsupported { dialect, task }),
    }
}

fn a1111(order: &Order) -> Result<Value, InputError> {
    let task = order.task;
    match task {
        Task::Txt2img => {}
        Task::Img2img | Task::Upscale | Task::Video => {
            return Err(InputError::Unsupported { dialect: Dialect::A1111, task });
        }
    }
    Ok(json!({
        "prompt": order.prompt,
        "negative_prompt": order.negative_prompt,
        "width": order.width,
        "height": order.height,
        "steps": order.steps,
        "cfg_scale": number(order.guidance),
        // It seeds numpy too, which takes 32 bits.
        "seed": order.seed & u64::from(u32::MAX),
        "batch_size": 1,
        "n_iter": 1,
    }))
}

/// A number as people wrote it: 7.1 and not 7.099999904632568.
pub(crate) fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

fn task_name(task: Task) -> &'static str {
    match task {
        Task::Txt2img => "txt2img",
        Task::Img2img => "img2img",
        Task::Upscale => "upscale",
        Task::Video => "video",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use queue::Model;

    use super::*;

    pub(crate) fn order(task: Task) -> Order {
        Order {
            task,
            model: Model::new("sdxl").unwrap(),
            prompt: "a \"boat\" {{seed}}".to_owned(),
            negative_prompt: "fog".to_owned(),
            width: 1024,
            height: 768,
            steps: 25,
            guidance: 7.1,
            strength: (task == Task::Img2img).then_some(0.75),
            seed: 5_000_000_000,
            seconds: None,
            init_image: None,
        }
    }

    fn input(task: Task, dialect: Dialect, extras: &Extras<'_>) -> Result<Value, InputError> {
        to_input(&order(task), dialect, extras)
    }

    #[test]
    fn our_own_worker_gets_the_order_as_it_is() {
        let extras = Extras { init_image: Some(InitImage::Url("https://s/x".to_owned())), ..Extras::default() };
        let mut value = input(Task::Img2img, Dialect::Manyhands, &extras).unwrap();
        assert_eq!(value.as_object_mut().unwrap().remove("init_image_url"), Some(json!("https://s/x")));
        assert_eq!(serde_json::from_value::<Order>(value).unwrap(), order(Task::Img2img));
    }

    #[test]
    fn the_sdxl_worker_gets_its_words() {
        let expected = json!({
            "prompt": "a \"boat\" {{seed}}", "negative_prompt": "fog", "width": 1024, "height": 768,
            "num_inference_steps": 25, "guidance_scale": 7.1, "seed": 5_000_000_000_u64, "num_images": 1,
            "scheduler": "K_EULER",
        });
        let defaults = json!({"scheduler": "K_EULER", "num_images": 2});
        let extras = Extras { defaults: defaults.as_object(), ..Extras::default() };
        assert_eq!(input(Task::Txt2img, Dialect::Sdxl, &extras).unwrap(), expected);
        let wrong = input(Task::Img2img, Dialect::Sdxl, &Extras::default());
        assert_eq!(wrong, Err(InputError::NoInitImage { dialect: Dialect::Sdxl, by_url: true }));
        let extras = Extras { init_image: Some(InitImage::Url("https://s/x".to_owned())), ..Extras::default() };
        let value = input(Task::Img2img, Dialect::Sdxl, &extras).unwrap();
        let over = [&value["image_url"], &value["strength"], &value["refiner_inference_steps"]];
        assert_eq!(over, [&json!("https://s/x"), &json!(0.75), &json!(25)]);
    }

    #[test]
    fn the_a1111_worker_gets_a_body_of_its_api() {
        let value = input(Task::Txt2img, Dialect::A1111, &Extras::default()).unwrap();
        assert_eq!((&value["cfg_scale"], &value["steps"]), (&json!(7.1), &json!(25)));
        assert_eq!(value["seed"], json!(5_000_000_000_u64 % (1 << 32)));
    }

    #[test]
    fn the_comfyui_worker_gets_a_filled_workflow_and_the_first_picture() {
        assert_eq!(input(Task::Txt2img, Dialect::ComfyUi, &Extras::default()), Err(InputError::NoWorkflow));
        let (words, picture) = (Workflow::txt2img(), Workflow::img2img());
        let extras = Extras { workflow: Some(&words), ..Extras::default() };
        let value = input(Task::Txt2img, Dialect::ComfyUi, &extras).unwrap();
        assert_eq!(value["workflow"]["6"]["inputs"]["text"], json!("a \"boat\" {{seed}}"));
        let init_image = Some(InitImage::Bytes(Mime::Png, b"png".to_vec()));
        let extras = Extras { workflow: Some(&picture), init_image, defaults: None };
        let value = input(Task::Img2img, Dialect::ComfyUi, &extras).unwrap();
        assert_eq!(value["workflow"]["10"]["inputs"]["image"], value["images"][0]["name"]);
        assert_eq!(value["images"][0]["image"], json!("cG5n"));
    }

    #[test]
    fn what_a_worker_cannot_do_is_refused_by_name() {
        let refused = |task, dialect| input(task, dialect, &Extras::default()).unwrap_err().to_string();
        assert_eq!(refused(Task::Img2img, Dialect::A1111), "a a1111 worker cannot do img2img");
        assert_eq!(refused(Task::Video, Dialect::Sdxl), "a sdxl worker cannot do video");
        let picture = Workflow::img2img();
        let extras = Extras { workflow: Some(&picture), ..Extras::default() };
        let wrong = input(Task::Txt2img, Dialect::ComfyUi, &extras);
        assert_eq!(wrong, Err(InputError::Unsupported { dialect: Dialect::ComfyUi, task: Task::Txt2img }));
    }
}
