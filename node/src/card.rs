//! The model card: all that a peer without an engine must know of a model, and what a page must fetch to have one.

use protocol::{ModelId, ModelShape};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A model, without its weights. Served as `model.json` beside the model's files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelCard {
    /// What it is called.
    pub name: String,
    /// Its id.
    #[serde(with = "id_text")]
    pub id: ModelId,
    /// The shapes of its tensors.
    pub shape: ModelShape,
    /// Its `scheduler_config.json`.
    pub scheduler: Value,
    /// For each latent channel the colour one unit of it adds, then the colour of an empty latent; red, green and blue in
    /// about [-1, 1].
    pub preview: Vec<[f32; 3]>,
    /// The files that decide what it computes.
    pub files: Vec<CardFile>,
    /// The known answer by which an engine tests itself; the engine knows its form.
    pub self_test: Value,
}

/// A file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardFile {
    /// Its name below the model's folder.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
}

/// A model id as 64 hexadecimal digits.
mod id_text {
    use protocol::{Hash, ModelId};
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub fn serialize<S: Serializer>(id: &ModelId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&id.0.to_string())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ModelId, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |at: usize| text.as_bytes().get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let mut digest = [0; 32];
        for (index, byte) in digest.iter_mut().enumerate() {
            let digits = digit(2 * index).zip(digit(2 * index + 1)).filter(|_| text.len() == 64);
            let (high, low) = digits.ok_or_else(|| D::Error::custom("a model id is 64 hexadecimal digits"))?;
            *byte = (high * 16 + low) as u8;
        }
        Ok(ModelId(Hash::from_bytes(digest)))
    }
}

#[cfg(test)]
mod tests {
    use protocol::Hash;

    use super::*;

    fn card() -> ModelCard {
        ModelCard {
            name: "demo".into(),
            id: ModelId(Hash::of(b"weights")),
            shape: ModelShape { latent_channels: 4, factor: 8, native_cells: 8, tokens: 16, embedding_width: 8 },
            scheduler: serde_json::json!({ "_class_name": "DDIMScheduler" }),
            preview: vec![[0.1, 0.2, 0.3]; 5],
            files: vec![CardFile { path: "unet/config.json".into(), bytes: 7, sha256: "00".repeat(32) }],
            self_test: Value::Null,
        }
    }

    #[test]
    fn a_card_survives_json() {
        let text = serde_json::to_string(&card()).unwrap();
        assert!(text.contains(&format!("\"id\":\"{}\"", Hash::of(b"weights"))), "{text}");
        assert!(text.contains("\"selfTest\":null"), "{text}");
        assert_eq!(serde_json::from_str::<ModelCard>(&text).unwrap(), card());
    }

    #[test]
    fn an_id_of_another_length_or_with_other_letters_is_refused() {
        let text = serde_json::to_string(&card()).unwrap();
        let id = Hash::of(b"weights").to_string();
        for bad in [id[1..].to_owned(), format!("{id}0"), id.replace(&id[..1], "g"), "\u{e9}".repeat(32)] {
            assert!(serde_json::from_str::<ModelCard>(&text.replace(&id, &bad)).is_err(), "{bad}");
        }
    }
}
