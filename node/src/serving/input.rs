//! What a job asks for: an order of the queue's catalogue, or a plain input as clients of other workers write it.
//!
//! [`read_input`] is the one place where inputs are understood; another kind of input is read here.

use queue::Task;
use serde_json::{Map, Value};

use super::limits::IMAGES_MAX;

/// Names that a first picture has in inputs: ours, worker-sdxl's, AUTOMATIC1111's, and a common one.
const FIRST_PICTURES: [&str; 4] = ["init_image", "image_url", "init_images", "image"];

/// A job in this worker's words. What is not given is the model's or the worker's to choose.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What is to be done.
    pub task: Task,
    /// By which model.
    pub model: Option<String>,
    /// What is to be seen.
    pub prompt: String,
    /// What is not to be seen.
    pub negative: String,
    /// Pixels per row.
    pub width: Option<u32>,
    /// Rows.
    pub height: Option<u32>,
    /// Denoising steps.
    pub steps: Option<u32>,
    /// Guidance scale.
    pub guidance: Option<f32>,
    /// Seed of the noise.
    pub seed: Option<u64>,
    /// Pictures, of this seed and the following ones.
    pub images: u32,
}

/// Why a job is not done, for whoever asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// Reads a job's input.
pub fn read_input(input: &Value) -> Result<Request, Refusal> {
    let fields = input.as_object().ok_or_else(|| Refusal("the input is not a JSON object".into()))?;
    if given(fields, "workflow").is_some() {
        let advice = "send prompt, width, height and steps instead";
        return Err(Refusal(format!("this worker runs no ComfyUI workflows; {advice}")));
    }
    let task = read_task(fields)?;
    let images = whole(fields, &["num_images", "batch_size"])?.unwrap_or(1);
    if !(1..=u64::from(IMAGES_MAX)).contains(&images) {
        return Err(Refusal(format!("{images} pictures were asked for; one job gives 1 to {IMAGES_MAX}")));
    }
    let small = |names: &[&str]| whole(fields, names).map(|number| number.map(saturated));
    Ok(Request {
        task,
        model: text(fields, "model")?,
        // Only a new picture needs words; whether it has any is checked with the rest of its order.
        prompt: text(fields, "prompt")?.unwrap_or_default(),
        negative: text(fields, "negative_prompt")?.unwrap_or_default(),
        width: small(&["width"])?,
        height: small(&["height"])?,
        steps: small(&["steps", "num_inference_steps"])?,
        guidance: number(fields, &["guidance", "guidance_scale", "cfg_scale"])?.map(|(_, number)| number as f32),
        seed: read_seed(fields)?,
        images: saturated(images),
    })
}

fn read_task(fields: &Map<String, Value>) -> Result<Task, Refusal> {
    match text(fields, "task")? {
        Some(name) => {
            serde_json::from_value(Value::from(name.as_str())).map_err(|_| Refusal(format!("Unknown task: {name}")))
        }
        None if FIRST_PICTURES.iter().any(|name| given(fields, name).is_some()) => Ok(Task::Img2img),
        None => Ok(Task::Txt2img),
    }
}

/// A seed; -1 asks for any, as AUTOMATIC1111 has it.
fn read_seed(fields: &Map<String, Value>) -> Result<Option<u64>, Refusal> {
    let Some(seed) = given(fields, "seed") else { return Ok(None) };
    if let Some(seed) = seed.as_u64() {
        return Ok(Some(seed)); // All 64 bits, which no float holds.
    }
    match seed.as_f64() {
        Some(seed) if seed < 0.0 => Ok(None),
        _ => whole(fields, &["seed"]),
    }
}

/// The first of these fields that is given, as a number, and its name.
fn number<'a>(fields: &Map<String, Value>, names: &[&'a str]) -> Result<Option<(&'a str, f64)>, Refusal> {
    let Some(name) = names.iter().find(|name| given(fields, name).is_some()) else { return Ok(None) };
    match fields[*name].as_f64() {
        Some(number) => Ok(Some((name, number))),
        None => Err(Refusal(format!("{name} is not a number"))),
    }
}

/// The first of these fields that is given, as a whole number, which some clients write with a decimal point.
fn whole(fields: &Map<String, Value>, names: &[&str]) -> Result<Option<u64>, Refusal> {
    let Some((name, number)) = number(fields, names)? else { return Ok(None) };
    // Up to here floats count one by one.
    let most = (1_u64 << f64::MANTISSA_DIGITS) as f64;
    if (0.0..=most).contains(&number) && number.fract() == 0.0 {
        Ok(Some(number as u64))
    } else {
        Err(Refusal(format!("{name} is not a whole number from 0 on")))
    }
}

fn text(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    match given(fields, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Refusal(format!("{name} is not a text"))),
    }
}

/// A field that says something: null, an empty text and an empty list are the same as none.
fn given<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
    })
}

fn saturated(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use queue::{Model, Order};
    use serde_json::json;

    fn refused(input: Value) -> String {
        read_input(&input).unwrap_err().0
    }

    #[test]
    fn an_order_of_the_catalogue_is_read_as_it_is() {
        let order = Order {
            task: Task::Txt2img,
            model: Model::new("demo").unwrap(),
            prompt: "the sea by day".into(),
            negative_prompt: "fog".into(),
            width: 192,
            height: 128,
            steps: 3,
            guidance: 3.1,
            strength: None,
            seed: u64::MAX,
            seconds: None,
            init_image: None,
        };
        let request = Request {
            task: Task::Txt2img,
            model: Some("demo".into()),
            prompt: "the sea by day".into(),
            negative: "fog".into(),
            width: Some(192),
            height: Some(128),
            steps: Some(3),
            guidance: Some(3.1),
            seed: Some(u64::MAX),
            images: 1,
        };
        assert_eq!(read_input(&serde_json::to_value(order).unwrap()), Ok(request));
    }

    #[test]
    fn inputs_of_other_workers_say_the_same_in_other_words() {
        let plain =
            read_input(&json!({ "prompt": "a", "steps": 25, "guidance": 7.5, "seed": 5, "width": 64 })).unwrap();
        let sdxl = json!({ "prompt": "a", "num_inference_steps": 25, "guidance_scale": 7.5, "seed": 5, "width": 64, "num_images": 1 });
        let a1111 = json!({ "prompt": "a", "steps": 25.0, "cfg_scale": 7.5, "seed": 5.0, "width": 64.0, "negative_prompt": "", "batch_size": 1 });
        assert_eq!(read_input(&sdxl), Ok(plain.clone()));
        assert_eq!(read_input(&a1111), Ok(plain));
    }

    #[test]
    fn what_is_not_given_is_left_to_the_worker() {
        let request = read_input(&json!({ "prompt": "a", "width": null, "seed": -1, "image_url": null })).unwrap();
        assert_eq!((request.width, request.steps, request.guidance, request.seed), (None, None, None, None));
        assert_eq!((request.task, request.model, request.images), (Task::Txt2img, None, 1));
    }

    #[test]
    fn tasks_are_known_or_refused_by_name() {
        for (name, task) in [("txt2img", Task::Txt2img), ("img2img", Task::Img2img), ("upscale", Task::Upscale)] {
            assert_eq!(read_input(&json!({ "task": name, "prompt": "a" })).unwrap().task, task);
        }
        assert_eq!(refused(json!({ "task": "track", "prompt": "a" })), "Unknown task: track");
        assert_eq!(read_input(&json!({ "prompt": "a", "image_url": "https://x" })).unwrap().task, Task::Img2img);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_field_s_name() {
        for (field, value) in [
            ("width", json!("64")),
            ("steps", json!(2.5)),
            ("height", json!(-64)),
            ("guidance_scale", json!(true)),
            ("prompt", json!(7)),
            ("seed", json!(0.5)),
            ("seed", json!("seven")),
        ] {
            let said = refused(json!({ "prompt": "a", field: value }));
            assert!(said.contains(field), "{field}: {said}");
        }
        assert!(refused(json!([])).contains("object"));
        assert!(refused(json!({ "workflow": { "3": {} } })).contains("ComfyUI"));
        assert!(refused(json!({ "prompt": "a", "num_images": 5 })).contains("5 pictures"));
        assert!(refused(json!({ "prompt": "a", "batch_size": 0 })).contains("0 pictures"));
        assert_eq!(read_input(&json!({ "prompt": "a", "width": 1e12 })).unwrap().width, Some(u32::MAX));
    }
}
