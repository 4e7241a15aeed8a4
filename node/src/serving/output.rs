//! What a job's reply holds, and what its input says about how to reply: a claim before it begins, places for its pictures.

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use super::input::Refusal;
use crate::job::Painted;
use crate::picture;

/// Asks whether this worker may begin: so that nobody pays twice for one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whom to ask.
    pub address: String,
    /// Names the one attempt that may begin.
    pub nonce: String,
}

/// Where a picture is to be put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A presigned address.
    pub address: String,
    /// What the queue calls it: `bucket/user/file`.
    pub path: String,
}

/// A picture as it is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// In the reply itself.
    Inside(Vec<u8>),
    /// At this path of the queue's.
    Stored(String),
}

/// The input's claim, if it has one.
pub fn read_claim(input: &Value) -> Result<Option<Claim>, Refusal> {
    match input.get("_claim") {
        None | Some(Value::Null) => Ok(None),
        Some(claim) => {
            let text = |name: &str| claim[name].as_str().map(str::to_owned);
            let wrong = || Refusal("the input's _claim needs url and nonce".into());
            let (Some(address), Some(nonce)) = (text("url"), text("nonce")) else { return Err(wrong()) };
            if is_web(&address) { Ok(Some(Claim { address, nonce })) } else { Err(wrong()) }
        }
    }
}

/// Where the input says that pictures are to be put; those that have no place go into the reply.
pub fn read_places(input: &Value) -> Result<Vec<Place>, Refusal> {
    let read = |place: &Value| {
        let text = |name: &str| place[name].as_str().map(str::to_owned);
        let place = text("put").zip(text("path")).map(|(address, path)| Place { address, path });
        place
            .filter(|place| is_web(&place.address))
            .ok_or_else(|| Refusal("a place in the input's _output.put needs put and path".into()))
    };
    let list = input["_output"]["put"].as_array();
    list.map_or(Ok(Vec::new()), |list| list.iter().map(read).collect())
}

/// The PNG of a picture, its recipe inside.
pub fn encode(painted: &Painted, model: &str) -> Result<Vec<u8>, String> {
    let Painted { spec, pixels, .. } = painted;
    picture::encode(pixels, spec.size, spec, model).map_err(|error| format!("the picture cannot be written: {error}"))
}

/// The reply of a job that is done.
pub fn reply(deliveries: &[Delivery], seed: u64, seconds: f64) -> Value {
    let images: Vec<Value> = deliveries
        .iter()
        .enumerate()
        .map(|(index, delivery)| match delivery {
            Delivery::Inside(png) => {
                json!({ "filename": format!("{index}.png"), "type": "base64", "data": BASE64.encode(png) })
            }
            Delivery::Stored(path) => {
                let name = path.rsplit('/').next().unwrap_or_default();
                json!({ "filename": name, "type": "stored", "data": path })
            }
        })
        .collect();
    json!({ "output": { "images": images, "seed": seed, "seconds": (seconds * 1000.0).round() / 1000.0 } })
}

/// The reply of a job that cannot be done.
pub fn error(reason: &str) -> Value {
    json!({ "error": reason })
}

/// What a worker of a relay tells that stops in the middle: the job waits again, and no try is lost.
pub fn hand_back() -> Value {
    json!({ "handBack": true })
}

/// The same on RunPod, whose queue takes no job back: it fails, and whoever asked tries again. `refresh_worker` is what
/// handlers say and `stopPod` what becomes of it on the way; both, so that whoever listens ends the pod.
pub fn stopped() -> Value {
    let mut body = Map::new();
    body.insert("error".into(), "worker stopped".into());
    body.insert("refresh_worker".into(), true.into());
    body.insert("stopPod".into(), true.into());
    Value::Object(body)
}

fn is_web(address: &str) -> bool {
    address.starts_with("https://") || address.starts_with("http://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_whole_or_refused() {
        let claim = |claim: Value| read_claim(&json!({ "_claim": claim }));
        let whole = Claim { address: "https://r/claim".into(), nonce: "n".into() };
        assert_eq!(claim(json!({ "url": "https://r/claim", "nonce": "n" })), Ok(Some(whole)));
        assert_eq!((claim(Value::Null), read_claim(&json!({}))), (Ok(None), Ok(None)));
        for wrong in [json!({ "url": "https://r" }), json!({ "url": "file:///etc", "nonce": "n" }), json!("x")] {
            assert!(claim(wrong).is_err());
        }
    }

    #[test]
    fn places_are_a_list_of_addresses_with_their_paths() {
        let place = Place { address: "https://s/x?sig".into(), path: "bucket/user/x.png".into() };
        let list = json!([{ "put": "https://s/x?sig", "path": "bucket/user/x.png" }]);
        assert_eq!(read_places(&json!({ "_output": { "put": list } })), Ok(vec![place]));
        assert_eq!(read_places(&json!({})), Ok(Vec::new()));
        for wrong in [json!([{ "put": "https://s" }]), json!([{ "put": "ftp://s", "path": "x" }]), json!(["x"])] {
            assert!(read_places(&json!({ "_output": { "put": wrong } })).is_err());
        }
    }

    #[test]
    fn a_reply_names_its_pictures() {
        let deliveries = [Delivery::Inside(vec![1, 2, 3]), Delivery::Stored("bucket/user/x.png".into())];
        let images = json!([
            { "filename": "0.png", "type": "base64", "data": "AQID" },
            { "filename": "x.png", "type": "stored", "data": "bucket/user/x.png" },
        ]);
        let whole = json!({ "output": { "images": images, "seed": 7, "seconds": 1.235 } });
        assert_eq!(reply(&deliveries, 7, 1.234_6), whole);
    }
}
