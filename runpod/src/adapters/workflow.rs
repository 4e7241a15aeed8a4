//! Stored workflows of ComfyUI, whose marked values an order fills in.

use queue::Order;
use serde_json::{Map, Value, json};

use crate::adapters::input::number;
use crate::limits::{WORKFLOW_BYTES_MAX, WORKFLOW_DEPTH_MAX};

/// What the first picture is called among the worker's input files.
pub(crate) const INIT_IMAGE: &str = "init.png";

/// A mark, and whether a workflow must have it.
const MARKS: [(&str, bool); 10] = [
    ("prompt", true),
    ("seed", true),
    ("negative_prompt", false),
    ("width", false),
    ("height", false),
    ("steps", false),
    ("guidance", false),
    ("strength", false),
    ("model", false),
    ("init_image", false),
];

/// A graph of nodes in ComfyUI's API format, with marks such as `{{prompt}}` where an order's values go.
#[derive(Clone, Debug, PartialEq)]
pub struct Workflow {
    nodes: Map<String, Value>,
    reads_image: bool,
}

/// A text is no workflow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkflowError {
    /// It is not JSON.
    #[error("a workflow is JSON: {0}")]
    NotJson(String),
    /// It is not a map of nodes.
    #[error("a workflow is a JSON object of nodes, each with a class_type (ComfyUI's \"Export (API)\")")]
    NotNodes,
    /// It is too large or too deep.
    #[error("a workflow has at most {WORKFLOW_BYTES_MAX} bytes and {WORKFLOW_DEPTH_MAX} levels")]
    TooLarge,
    /// It holds a mark that nothing fills.
    #[error("nothing fills {{{{{0}}}}} of this workflow")]
    UnknownMark(String),
    /// It lacks a mark without which every picture would be the same.
    #[error("this workflow has no {{{{{0}}}}}")]
    NoMark(&'static str),
}

impl Workflow {
    /// Reads JSON text.
    pub fn parse(text: &str) -> Result<Self, WorkflowError> {
        if text.len() > WORKFLOW_BYTES_MAX {
            return Err(WorkflowError::TooLarge);
        }
        Self::new(serde_json::from_str(text).map_err(|error| WorkflowError::NotJson(error.to_string()))?)
    }

    /// Checks a workflow, also one that was read from a table of TOML.
    pub fn new(value: Value) -> Result<Self, WorkflowError> {
        let Value::Object(nodes) = value else { return Err(WorkflowError::NotNodes) };
        let is_node = |node: &Value| node.get("class_type").is_some_and(Value::is_string);
        if nodes.is_empty() || !nodes.values().all(is_node) {
            return Err(WorkflowError::NotNodes);
        }
        let mut marks = Vec::new();
        for node in nodes.values() {
            collect(node, 1, &mut marks)?;
        }
        let unknown = marks.iter().find(|mark| !MARKS.iter().any(|(name, _)| name == *mark));
        if let Some(mark) = unknown {
            return Err(WorkflowError::UnknownMark(mark.clone()));
        }
        let has = |name: &str| marks.iter().any(|mark| mark == name);
        let reads_image = has("init_image");
        for (name, is_needed) in MARKS {
            // A picture may be enlarged without words or chance.
            if is_needed && !reads_image && !has(name) {
                return Err(WorkflowError::NoMark(name));
            }
        }
        Ok(Self { nodes, reads_image })
    }

    /// The usual graph of a picture from words; `model` is a checkpoint's file name without `.safetensors`.
    pub fn txt2img() -> Self {
        Self::parse(include_str!("../../workflows/txt2img.json")).expect("a test has read it")
    }

    /// The usual graph of a picture from words and a picture.
    pub fn img2img() -> Self {
        Self::parse(include_str!("../../workflows/img2img.json")).expect("a test has read it")
    }

    /// Whether it begins with a picture.
    pub fn reads_image(&self) -> bool {
        self.reads_image
    }

    /// The graph of an order. A value that is one mark takes the type of what fills it; a mark inside a text is filled in as
    /// text. What is filled in is never read again, so a prompt may hold anything.
    pub fn fill(&self, order: &Order) -> Value {
        Value::Object(self.nodes.iter().map(|(name, node)| (name.clone(), filled(node, order))).collect())
    }
}

fn filled(value: &Value, order: &Order) -> Value {
    match value {
        Value::String(text) => filled_text(text, order),
        Value::Array(values) => values.iter().map(|value| filled(value, order)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), filled(value, order))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn filled_text(text: &str, order: &Order) -> Value {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, name, after)) = split_at_mark(rest) {
        if before.is_empty() && after.is_empty() && pieces.is_empty() {
            return value_of(name, order);
        }
        pieces.push(before.to_owned());
        pieces.push(match value_of(name, order) {
            Value::String(text) => text,
            other => other.to_string(),
        });
        rest = after;
    }
    pieces.push(rest.to_owned());
    Value::String(pieces.concat())
}

/// What stands before the first mark of a text, its name, and what stands behind it.
fn split_at_mark(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("{{")?;
    let (name, after) = rest.split_once("}}")?;
    Some((before, name.trim(), after))
}

fn value_of(mark: &str, order: &Order) -> Value {
    match mark {
        "prompt" => json!(order.prompt),
        "negative_prompt" => json!(order.negative_prompt),
        "seed" => json!(order.seed),
        "width" => json!(order.width),
        "height" => json!(order.height),
        "steps" => json!(order.steps),
        "guidance" => number(order.guidance),
        "strength" => number(order.strength.unwrap_or(1.0)),
        "model" => json!(order.model.as_str()),
        "init_image" => json!(INIT_IMAGE),
        _ => unreachable!("every mark of a workflow is known"),
    }
}

fn collect(value: &Value, depth: usize, marks: &mut Vec<String>) -> Result<(), WorkflowError> {
    if depth > WORKFLOW_DEPTH_MAX {
        return Err(WorkflowError::TooLarge);
    }
    match value {
        Value::String(text) => {
            let mut rest = text.as_str();
            while let Some((_, name, after)) = split_at_mark(rest) {
                marks.push(name.to_owned());
                rest = after;
            }
        }
        Value::Array(values) => {
            for value in values {
                collect(value, depth + 1, marks)?;
            }
        }
        Value::Object(fields) => {
            for value in fields.values() {
                collect(value, depth + 1, marks)?;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use queue::Task;

    use super::*;
    use crate::adapters::input::tests::order;

    #[test]
    fn the_shipped_workflows_can_be_read_and_filled() {
        assert!(!Workflow::txt2img().reads_image());
        assert!(Workflow::img2img().reads_image());
        let filled = Workflow::img2img().fill(&order(Task::Img2img));
        assert_eq!(filled["3"]["inputs"]["denoise"], json!(0.75));
        assert!(!filled.to_string().replace("a \\\"boat\\\" {{seed}}", "").contains("{{"), "{filled}");
    }

    #[test]
    fn a_value_takes_the_type_of_what_fills_it() {
        let filled = Workflow::txt2img().fill(&order(Task::Txt2img));
        assert_eq!(filled["3"]["inputs"]["seed"], json!(5_000_000_000_u64));
        assert_eq!(filled["3"]["inputs"]["cfg"], json!(7.1));
        assert_eq!(filled["3"]["inputs"]["model"], json!(["4", 0]), "links stay");
        assert_eq!(filled["4"]["inputs"]["ckpt_name"], json!("sdxl.safetensors"));
    }

    #[test]
    fn a_prompt_may_hold_quotes_and_marks_and_stays_itself() {
        let workflow = json!({"1": {"class_type": "T", "inputs": {"text": "best {{prompt}}, {{ seed }} {{"}}});
        let filled = Workflow::new(workflow).unwrap().fill(&order(Task::Txt2img));
        assert_eq!(filled["1"]["inputs"]["text"], json!("best a \"boat\" {{seed}}, 5000000000 {{"));
    }

    #[test]
    fn what_could_not_work_is_refused_when_it_is_read() {
        let node = |text: &str| json!({"1": {"class_type": "T", "inputs": {"text": text}}});
        assert_eq!(Workflow::new(node("{{promt}}")), Err(WorkflowError::UnknownMark("promt".to_owned())));
        assert_eq!(Workflow::new(node("{{prompt}}")), Err(WorkflowError::NoMark("seed")));
        assert!(Workflow::new(node("{{init_image}}")).is_ok(), "an upscaler needs no words");
        assert_eq!(Workflow::new(json!({"nodes": [], "links": []})), Err(WorkflowError::NotNodes));
        assert_eq!(Workflow::new(json!([])), Err(WorkflowError::NotNodes));
        assert!(matches!(Workflow::parse("{"), Err(WorkflowError::NotJson(_))));
        assert_eq!(Workflow::parse(&" ".repeat(WORKFLOW_BYTES_MAX + 1)), Err(WorkflowError::TooLarge));
        let deep = (0..WORKFLOW_DEPTH_MAX).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(Workflow::new(json!({"1": {"class_type": "T", "x": deep}})), Err(WorkflowError::TooLarge));
        assert_eq!(WorkflowError::NoMark("seed").to_string(), "this workflow has no {{seed}}");
    }
}
