//! The PNG: pixels with their recipe inside, readable by the tools people already have.

use protocol::{JobSpec, Size};
use sha2::{Digest, Sha256};

/// Encodes RGB8 `pixels` as a PNG that carries the recipe twice: the `parameters` text that AUTOMATIC1111's web UI reads,
/// and the job as JSON under `manyhands`.
pub fn encode(pixels: &[u8], size: Size, spec: &JobSpec, model: &str) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size.width, size.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // iTXt, because prompts are not Latin-1.
    encoder.add_itxt_chunk("parameters".into(), parameters(spec, model))?;
    let job = serde_json::to_string(spec).expect("a job is plain data");
    encoder.add_itxt_chunk("manyhands".into(), job)?;
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(bytes)
}

/// SHA-256 in hexadecimal, as reports show it.
pub fn sha256_hex(bytes: &[u8]) -> String {
    protocol::Hash::from_bytes(Sha256::digest(bytes).into()).to_string()
}

/// The recipe in AUTOMATIC1111's form: prompt, `Negative prompt:` line, then comma-separated fields.
fn parameters(spec: &JobSpec, model: &str) -> String {
    let negative = match spec.negative.as_str() {
        "" => String::new(),
        text => format!("Negative prompt: {text}\n"),
    };
    let JobSpec { prompt, steps, guidance, seed, size, .. } = spec;
    let (hash, version) = (spec.model, env!("CARGO_PKG_VERSION"));
    let model = serde_json::to_string(model).expect("a string is plain data");
    format!(
        "{prompt}\n{negative}Steps: {steps}, CFG scale: {guidance}, Seed: {seed}, Size: {size}, Model hash: {hash}, \
         Model: {model}, Version: manyhands {version}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{Hash, Layout, ModelId, Tiles, Wire};

    #[test]
    fn the_recipe_comes_back_out_of_the_picture() {
        let size = Size { width: 2, height: 1 };
        let layout = Layout { tiles: Tiles::Whole, decode_tiles: None, wire: Wire::F32 };
        let spec = JobSpec {
            model: ModelId(Hash::of(b"model")),
            prompt: "Zürich – 夜".into(),
            negative: "fog".into(),
            size,
            steps: 8,
            guidance: 3.0,
            seed: 7,
            layout,
        };
        let bytes = encode(&[1, 2, 3, 4, 5, 6], size, &spec, "demo, \"small\"").unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
        let texts: Vec<_> = reader.info().utf8_text.iter().map(|text| text.get_text().unwrap()).collect();
        assert!(texts[0].starts_with("Zürich – 夜\nNegative prompt: fog\nSteps: 8, CFG scale: 3, Seed: 7, Size: 2x1,"));
        assert_eq!(serde_json::from_str::<JobSpec>(&texts[1]).unwrap(), spec);
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, [1, 2, 3, 4, 5, 6]);
    }
}
