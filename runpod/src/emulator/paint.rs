//! What a simulated worker paints: a small PNG that only size and seed decide.

use serde_json::{Value, json};

use crate::adapters::{Dialect, Mime, Painted, from_input, to_output};

/// No side is longer, whatever is asked for.
const SIDE_MAX: u32 = 1536;

/// What a worker gives for an input, in the words that the input is in.
pub(crate) struct Work {
    pub(crate) picture: Vec<u8>,
    pub(crate) output: Value,
}

pub(crate) fn work(input: &Value) -> Work {
    let number = |name: &str, default: u64| input.get(name).and_then(Value::as_u64).unwrap_or(default);
    let (dialect, width, height, seed) = match from_input(input) {
        Some(asked) => (asked.dialect, asked.width, asked.height, asked.seed.unwrap_or(0)),
        None => {
            let dialect = if input.get("workflow").is_some() { Dialect::ComfyUi } else { Dialect::Manyhands };
            let side = |name: &str| u32::try_from(number(name, 64)).unwrap_or(SIDE_MAX);
            (dialect, side("width"), side("height"), number("seed", 0))
        }
    };
    let picture = png(width.clamp(1, SIDE_MAX), height.clamp(1, SIDE_MAX), seed);
    let painted = [Painted { mime: Mime::Png, bytes: picture.clone() }];
    let mut output = to_output(&painted, seed, dialect);
    if dialect == Dialect::Manyhands {
        output["seconds"] = json!(1.0);
    }
    Work { picture, output }
}

/// Stripes of eight rows, so that it compresses well.
fn png(width: u32, height: u32, seed: u64) -> Vec<u8> {
    let mut rows = Vec::with_capacity(3 * width as usize * height as usize);
    for row in 0..height {
        let mixed = (seed ^ u64::from(row / 8)).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let [red, green, blue, ..] = mixed.to_be_bytes();
        for _ in 0..width {
            rows.extend([red, green, blue]);
        }
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().expect("a vector takes everything");
    writer.write_image_data(&rows).expect("the rows are as many as the header says");
    drop(writer);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_the_size_asked_for_and_depends_on_the_seed() {
        let picture = work(&json!({"prompt": "a", "width": 96, "height": 40, "seed": 5})).picture;
        let decoder = png::Decoder::new(std::io::Cursor::new(&picture));
        let reader = decoder.read_info().unwrap();
        assert_eq!((reader.info().width, reader.info().height), (96, 40));
        assert_eq!(picture, work(&json!({"prompt": "b", "width": 96, "height": 40, "seed": 5})).picture);
        assert_ne!(picture, work(&json!({"prompt": "a", "width": 96, "height": 40, "seed": 6})).picture);
    }

    #[test]
    fn the_answer_is_in_the_words_of_the_question() {
        let has = |input: Value, path: &str| work(&input).output.pointer(path).is_some();
        assert!(has(json!({"prompt": "a", "width": 8, "height": 8}), "/image_url"));
        assert!(has(json!({"prompt": "a", "steps": 5, "width": 8, "height": 8}), "/info"));
        assert!(has(json!({"workflow": {}}), "/images/0/filename"));
        assert!(has(json!({"task": "txt2img", "width": 8, "height": 8}), "/seconds"));
    }
}
