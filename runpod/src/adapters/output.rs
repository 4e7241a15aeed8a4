//! Finds the pictures in what a worker gave back, in all shapes that are seen, and believes none of it.

use data_encoding::{BASE64, BASE64_NOPAD};
use serde_json::Value;

use crate::adapters::Dialect;
use crate::contract::Complaint;
use crate::limits::{PICTURE_BYTES_MAX, PICTURES_MAX, URL_BYTES_MAX};

/// What a picture is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mime {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// WebP.
    Webp,
}

impl Mime {
    /// Looks at the first bytes; `None` if it is no picture that we show.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::Webp),
            _ => None,
        }
    }

    /// As HTTP writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }

    /// The end of a file's name.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
        }
    }

    /// `data:image/png;base64,…`
    pub fn data_uri(self, bytes: &[u8]) -> String {
        format!("data:{};base64,{}", self.as_str(), BASE64.encode(bytes))
    }
}

/// A picture, or where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Picture {
    /// Itself.
    Bytes(Mime, Vec<u8>),
    /// At a URL of somebody's choosing: the caller may look whether it is one of his own, and must not fetch it otherwise.
    Url(String),
    /// In our own result store, as `bucket/user/file`: only our own worker may say so, and the caller looks whether it is
    /// where this job's were to be put.
    Stored(String),
}

/// There are no pictures to be had from a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// The worker says that it failed.
    #[error("the worker failed: {0}")]
    Worker(String),
    /// It succeeded, and there is no picture.
    #[error("the worker gave no picture")]
    NoPictures,
    /// More than [`PICTURES_MAX`].
    #[error("the worker gave more than {PICTURES_MAX} pictures")]
    TooMany,
    /// One is larger than [`PICTURE_BYTES_MAX`].
    #[error("a picture of the worker has more than {PICTURE_BYTES_MAX} bytes")]
    TooLarge,
    /// One is neither base64, nor a data URI, nor a URL.
    #[error("a picture of the worker cannot be read")]
    Unreadable,
    /// One is neither PNG, JPEG nor WebP.
    #[error("a picture of the worker is neither PNG, JPEG nor WebP")]
    NoPicture,
    /// One is at an address that is not `https`, or too long.
    #[error("a picture of the worker is at an address that is not https")]
    UnsafeUrl,
}

/// The pictures of a result.
pub fn read_output(output: &Value, dialect: Dialect) -> Result<Vec<Picture>, OutputError> {
    let found = candidates(output);
    if found.is_empty() {
        return Err(nothing(output));
    }
    if found.len() > PICTURES_MAX {
        return Err(OutputError::TooMany);
    }
    found.into_iter().map(|candidate| read(candidate, dialect)).collect()
}

/// The seed that a worker says it used.
pub fn read_seed(output: &Value) -> Option<u64> {
    let seed = |value: &Value| value.get("seed").and_then(Value::as_u64);
    seed(output).or_else(|| {
        // A1111 says it in a JSON text.
        let info: Value = serde_json::from_str(output.get("info")?.as_str()?).ok()?;
        seed(&info)
    })
}

/// Where pictures may stand: `images`, `image_url`, `image`, `message` of worker-comfyui before 5.0.0, or the output itself.
fn candidates(output: &Value) -> Vec<&Value> {
    let is_text = |value: &&Value| value.as_str().is_some_and(|text| !text.is_empty());
    match output {
        Value::String(_) => Some(output).filter(is_text).into_iter().collect(),
        Value::Array(list) => list.iter().collect(),
        Value::Object(fields) => {
            if let Some(Value::Array(images)) = fields.get("images") {
                return images.iter().collect();
            }
            let single = ["image_url", "image", "message"].into_iter().find_map(|name| fields.get(name));
            single.filter(is_text).into_iter().collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

/// Why there is no picture.
fn nothing(output: &Value) -> OutputError {
    let said = ["error", "errors"].into_iter().find_map(|name| output.get(name));
    let is_said = |value: &&Value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty());
    match said.filter(is_said) {
        Some(error) => OutputError::Worker(Complaint::read(error).message),
        None => OutputError::NoPictures,
    }
}

fn read(candidate: &Value, dialect: Dialect) -> Result<Picture, OutputError> {
    if let Value::String(text) = candidate {
        return read_text(text);
    }
    let text = |name: &str| candidate.get(name).and_then(Value::as_str);
    if text("type") == Some("stored") {
        let file = text("data").filter(|file| dialect == Dialect::Manyhands && is_stored_name(file));
        return file.map(|file| Picture::Stored(file.to_owned())).ok_or(OutputError::Unreadable);
    }
    ["data", "image", "url"].into_iter().find_map(text).ok_or(OutputError::Unreadable).and_then(read_text)
}

fn read_text(text: &str) -> Result<Picture, OutputError> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("data:") {
        let (head, data) = rest.split_once(',').ok_or(OutputError::Unreadable)?;
        // What it is called does not matter: the bytes say what it is.
        return if head.ends_with(";base64") { decode(data) } else { Err(OutputError::Unreadable) };
    }
    if text.contains("://") {
        let is_plain = text.len() <= URL_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        let is_safe = text.starts_with("https://") && is_plain;
        return if is_safe { Ok(Picture::Url(text.to_owned())) } else { Err(OutputError::UnsafeUrl) };
    }
    decode(text)
}

fn decode(text: &str) -> Result<Picture, OutputError> {
    if text.len() / 4 * 3 > PICTURE_BYTES_MAX + 2 {
        return Err(OutputError::TooLarge);
    }
    let bytes = BASE64.decode(text.as_bytes()).or_else(|_| BASE64_NOPAD.decode(text.as_bytes()));
    // Python's encodebytes breaks lines.
    let bytes = bytes.or_else(|error| {
        if !text.contains('\n') {
            return Err(error);
        }
        let joined: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        BASE64.decode(&joined)
    });
    let bytes = bytes.map_err(|_| OutputError::Unreadable)?;
    if bytes.len() > PICTURE_BYTES_MAX {
        return Err(OutputError::TooLarge);
    }
    let mime = Mime::of(&bytes).ok_or(OutputError::NoPicture)?;
    Ok(Picture::Bytes(mime, bytes))
}

/// `bucket/user/file`, of plain characters.
fn is_stored_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    let is_part = |part: &str| {
        (1..=128).contains(&part.len()) && part.bytes().all(is_plain) && !part.bytes().all(|byte| byte == b'.')
    };
    text.split('/').count() == 3 && text.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\nrest";

    fn read_all(output: &Value) -> Result<Vec<Picture>, OutputError> {
        read_output(output, Dialect::Sdxl)
    }

    fn png() -> Picture {
        Picture::Bytes(Mime::Png, PNG.to_vec())
    }

    #[test]
    fn every_shape_that_is_seen_gives_the_same_picture() {
        let data = BASE64.encode(PNG);
        let uri = Mime::Png.data_uri(PNG);
        let lines = format!("{}\n{}\n", &data[..4], &data[4..]);
        let shapes = [
            json!({"images": [uri], "image_url": uri, "seed": 1}),
            json!({"images": [{"filename": "a.png", "type": "base64", "data": data}]}),
            json!({"images": [{"name": "a.png", "image": data}], "generation_time": 0.1}),
            json!({"images": [data], "parameters": {}, "info": "{}"}),
            json!({"message": data, "status": "success"}),
            json!({"image_url": uri}),
            json!({"images": [lines]}),
            json!([uri]),
            json!(data),
            json!([data.replace("=", "")]),
        ];
        for shape in shapes {
            assert_eq!(read_all(&shape), Ok(vec![png()]), "{shape}");
        }
    }

    #[test]
    fn a_mime_is_what_the_bytes_say() {
        let uri = Mime::Jpeg.data_uri(PNG);
        assert_eq!(read_all(&json!([uri])), Ok(vec![png()]));
        assert_eq!(Mime::of(b"\xff\xd8\xff\xe0"), Some(Mime::Jpeg));
        assert_eq!(Mime::of(b"RIFF\x01\x02\x03\x04WEBPVP8 "), Some(Mime::Webp));
        for other in [b"GIF89a".as_slice(), b"<svg>", b"", b"\x89PNG"] {
            assert_eq!(read_all(&json!([BASE64.encode(other)])), Err(OutputError::NoPicture), "{other:?}");
        }
    }

    #[test]
    fn a_url_is_handed_back_and_never_anything_but_https() {
        let url = "https://bucket.s3.amazonaws.com/a.png?X-Amz-Signature=1";
        let found = read_all(&json!({"images": [{"filename": "a.png", "type": "s3_url", "data": url}]}));
        assert_eq!(found, Ok(vec![Picture::Url(url.to_owned())]));
        for wrong in [
            "http://169.254.169.254/",
            "file:///etc/passwd",
            "https://a b/",
            &format!("https://{}", "a".repeat(URL_BYTES_MAX)),
        ] {
            assert_eq!(read_all(&json!([wrong])), Err(OutputError::UnsafeUrl), "{wrong}");
        }
        assert_eq!(read_all(&json!(["simulated_uploaded/a.png"])), Err(OutputError::Unreadable));
    }

    #[test]
    fn only_our_own_worker_may_name_files_of_our_store() {
        let output = json!({"images": [{"filename": "0.png", "type": "stored", "data": "bucket/user/0.png"}]});
        let stored = Picture::Stored("bucket/user/0.png".to_owned());
        assert_eq!(read_output(&output, Dialect::Manyhands), Ok(vec![stored]));
        assert_eq!(read_output(&output, Dialect::ComfyUi), Err(OutputError::Unreadable));
        for wrong in ["a/../b", "a/b", "/a/b", "a/b/c/d", "a//b", "a/b/c d"] {
            let output = json!({"images": [{"type": "stored", "data": wrong}]});
            assert_eq!(read_output(&output, Dialect::Manyhands), Err(OutputError::Unreadable), "{wrong}");
        }
    }

    #[test]
    fn a_result_without_pictures_says_why() {
        let nothing =
            [json!({"status": "success_no_images", "images": []}), json!({}), json!(true), json!({"errors": []})];
        for output in nothing {
            assert_eq!(read_all(&output), Err(OutputError::NoPictures), "{output}");
        }
        let failed = |text: &str| Err(OutputError::Worker(text.to_owned()));
        assert_eq!(read_all(&json!({"error": "Unknown task: dance"})), failed("Unknown task: dance"));
        assert_eq!(read_all(&json!({"error": ["prompt is missing"]})), failed("prompt is missing"));
        assert_eq!(read_all(&json!({"images": [], "errors": ["node 9 failed", "b"]})), failed("node 9 failed; b"));
    }

    #[test]
    fn pictures_are_counted_and_measured_before_they_are_kept() {
        let data = BASE64.encode(PNG);
        assert_eq!(read_all(&json!(vec![data.clone(); PICTURES_MAX])).unwrap().len(), PICTURES_MAX);
        assert_eq!(read_all(&json!(vec![data; PICTURES_MAX + 1])), Err(OutputError::TooMany));
        let mut bytes = PNG.to_vec();
        bytes.resize(PICTURE_BYTES_MAX, 0);
        assert!(read_all(&json!([BASE64.encode(&bytes)])).is_ok());
        bytes.push(0);
        assert_eq!(read_all(&json!([BASE64.encode(&bytes)])), Err(OutputError::TooLarge));
        assert_eq!(read_all(&json!([42])), Err(OutputError::Unreadable));
        assert_eq!(read_all(&json!(["data:image/png,raw"])), Err(OutputError::Unreadable));
    }

    #[test]
    fn the_seed_is_where_each_worker_says_it() {
        assert_eq!(read_seed(&json!({"seed": 7})), Some(7));
        assert_eq!(read_seed(&json!({"info": "{\"seed\": 7}"})), Some(7));
        assert_eq!(read_seed(&json!({"info": "{", "seed": -1})), None);
        assert_eq!(read_seed(&json!("x")), None);
    }
}
