//! Takes in what a worker gave: pictures go into the result store, the rest stays with the job as JSON.
//!
//! Where a picture stood in the JSON there is a placeholder afterwards, from which [`whole`] makes the worker's own words again
//! for clients that expect them.

use std::mem;

use data_encoding::{BASE64, BASE64_NOPAD};
use queue::{
    Ask, BucketName, Catalogue, Job, JobState, LeaseError, MicroUsd, Outcome, Output, Price, QueueName, StoredFile,
    UserName,
};
use runpod::Dialect;
use serde_json::{Map, Value, json};
use tracing::debug;

use crate::error::ApiError;
use crate::limits::{FILE_SIGNATURE_TIME, FILES_MAX, KEPT_JSON_BYTES_MAX, WHOLE_BYTES_MAX};
use crate::results::{FileKind, ResultsError};
use crate::state::App;

/// The field that only a placeholder has: the number of its file among the job's.
const FILE: &str = "$manyhands_file";

/// Shorter texts are no pictures.
const ENCODED_BYTES_MIN: usize = 32;

/// So much of a text's beginning tells whether it is one: what [`FileKind::of`] looks at, in base64.
const ENCODED_BYTES_SEEN: usize = 96;

/// The bucket of jobs without a type.
const RAW_BUCKET: &str = "raw";

/// What the cloud would charge, for the report of savings: the price of every configured endpoint, by the queues it serves.
#[derive(Clone, Debug, Default)]
pub struct CloudPrices(pub Vec<(QueueName, Price)>);

impl CloudPrices {
    /// What the cheapest endpoint would have charged for a warm run of a job; nothing if none would take it.
    fn saving(&self, catalogue: &Catalogue, job: &Job) -> MicroUsd {
        let Some(job_type) = job.order.ask.as_ref().and_then(|ask| catalogue.find(ask)) else {
            return MicroUsd::default();
        };
        let prices = self.0.iter().filter(|(queue, _)| *queue == job_type.queue);
        prices.map(|(_, price)| price.measured(Default::default(), job.order.expected)).min().unwrap_or_default()
    }
}

/// Ends the lease with this fence by the worker's output. Where that cannot be a result, the lease ends without one: the job as
/// it is then says why. A lease that has ended already is a conflict.
pub async fn accept(app: &App, job: &Job, fence: u64, output: Value, cost: MicroUsd) -> Result<Job, ApiError> {
    // What a worker says that it has stored is looked at, so that everybody may say so.
    let (outcome, put) = match keep(app, job, &output, Dialect::Manyhands).await {
        Ok(Kept { output, put }) => (Outcome::Completed { output, cost }, put),
        // Ours to mend: the worker says it again, and nothing is lost.
        Err(error) if error.status.is_server_error() => return Err(error),
        Err(error) => (Outcome::Failed { reason: error.message, is_final: false, cost }, Vec::new()),
    };
    let finished = finish(app, job, fence, outcome).await;
    if finished.is_err() {
        // Nobody will ever name these. What the worker has stored itself may be a result that counts already: of this very
        // delivery, said twice, or of another job.
        for file in put {
            if let Err(error) = app.results.delete(&file).await {
                debug!(job = %job.id, %error, "a picture that nobody wants stays");
            }
        }
    }
    finished
}

/// Ends the lease with this fence.
pub async fn finish(app: &App, job: &Job, fence: u64, outcome: Outcome) -> Result<Job, ApiError> {
    let saving = app.prices.saving(&app.catalogue, job);
    match app.store.finish(&job.id, fence, outcome, saving, app.clock.now()).await? {
        Some(Ok(job)) => Ok(job),
        Some(Err(error @ (LeaseError::Stale | LeaseError::Cancelled))) => Err(ApiError::conflict(error.to_string())),
        None => Err(ApiError::not_found("there is no such job")),
    }
}

/// An output of which everything is kept.
#[derive(Debug)]
pub struct Kept {
    /// It.
    pub output: Output,
    /// Those of its files that were not in the result store before.
    put: Vec<String>,
}

/// Moves pictures into the result store. A wrong request is the worker's fault, anything else is ours. Only workers of our
/// own dialect may have stored pictures themselves.
pub async fn keep(app: &App, job: &Job, output: &Value, dialect: Dialect) -> Result<Kept, ApiError> {
    let bucket = bucket_of(&app.catalogue, job.order.ask.as_ref());
    let stored = (dialect == Dialect::Manyhands).then_some((&bucket, &job.order.user));
    let mut found = Found { stored, pictures: Vec::new(), excess: false };
    let json = found.take_out(output);
    if found.excess {
        return Err(ApiError::wrong(format!("the worker gave more than {FILES_MAX} pictures")));
    }
    let text = (!json.is_null()).then(|| json.to_string());
    if text.as_ref().is_some_and(|text| text.len() > KEPT_JSON_BYTES_MAX) {
        let reason = format!("the worker gave more than {KEPT_JSON_BYTES_MAX} bytes beside its pictures");
        return Err(ApiError::wrong(reason));
    }
    if job.order.ask.is_some() && found.pictures.is_empty() {
        return Err(ApiError::wrong("the worker gave no picture"));
    }
    let (mut files, mut put) = (Vec::new(), Vec::new());
    for picture in found.pictures {
        let kept = match picture {
            Picture::Bytes(bytes) => {
                let kept = app.results.put(&bucket, &job.order.user, &bytes).await;
                put.extend(kept.clone().ok());
                kept
            }
            // The worker has put it there itself; whether it has is looked at.
            Picture::Stored(path) => app.results.inspect(&path).await.map(|_| path),
        };
        files.push(kept.map_err(|error| match error {
            ResultsError::Store => error.into(),
            ResultsError::NotFound
            | ResultsError::Exists
            | ResultsError::TooLarge(_)
            | ResultsError::WrongKind
            | ResultsError::Forged
            | ResultsError::Late => ApiError::wrong(format!("a picture of the worker cannot be kept: {error}")),
        })?);
    }
    Ok(Kept { output: Output { json: text, files }, put })
}

/// The output as the worker gave it, pictures inside. Those beyond [`WHOLE_BYTES_MAX`] are addresses instead.
pub async fn whole(app: &App, output: &Output) -> Result<Option<Value>, ApiError> {
    let Some(text) = &output.json else { return Ok(None) };
    let json: Value = serde_json::from_str(text).map_err(|_| ApiError::ours("this job's output cannot be read"))?;
    let mut pictures = Vec::new();
    let mut bytes_left = WHOLE_BYTES_MAX;
    for path in &output.files {
        let kept = match app.results.get(path).await {
            Ok(kept) => kept,
            Err(ResultsError::NotFound) => {
                pictures.push(Shown::Nothing);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        pictures.push(if kept.bytes.len() <= bytes_left {
            bytes_left -= kept.bytes.len();
            Shown::Bytes(kept.bytes.to_vec())
        } else {
            Shown::Url(app.results.sign_get(path, FILE_SIGNATURE_TIME, app.clock.now()).await?)
        });
    }
    Ok(Some(put_back(json, &mut pictures)))
}

/// The output of a job that has one.
pub fn output_of(job: &Job) -> Option<&Output> {
    match &job.state {
        JobState::Completed(output) => Some(output),
        JobState::Queued | JobState::Leased(_) | JobState::Failed(_) | JobState::Cancelled => None,
    }
}

/// Where pictures of a type are kept, and those of jobs without one.
pub fn bucket_of(catalogue: &Catalogue, ask: Option<&Ask>) -> BucketName {
    let job_type = ask.and_then(|ask| catalogue.find(ask));
    let raw = || BucketName::new(RAW_BUCKET).expect("a plain name");
    job_type.map_or_else(raw, |job_type| job_type.bucket.clone())
}

/// A picture in an output.
enum Picture {
    Bytes(Vec<u8>),
    Stored(String),
}

/// A picture as it goes back.
enum Shown {
    Bytes(Vec<u8>),
    Url(String),
    Nothing,
}

/// Pictures found in an output.
struct Found<'a> {
    /// Where pictures are that the worker may have stored itself.
    stored: Option<(&'a BucketName, &'a UserName)>,
    pictures: Vec<Picture>,
    excess: bool,
}

impl Found<'_> {
    /// The same JSON with placeholders, of which each picture has one.
    fn take_out(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => match read_picture(text) {
                Some((prefix, is_padded, bytes)) => {
                    let mut place = self.place(Picture::Bytes(bytes));
                    if !prefix.is_empty() {
                        place["prefix"] = json!(prefix);
                    }
                    if !is_padded {
                        place["unpadded"] = json!(true);
                    }
                    place
                }
                None => value.clone(),
            },
            Value::Array(list) => list.iter().map(|item| self.take_out(item)).collect(),
            // A placeholder is ours to make: one that a worker made up would have a picture shown where there was none.
            Value::Object(fields) if fields.contains_key(FILE) => Value::Null,
            Value::Object(fields) => {
                let place = self.stored(fields).map(|path| self.place(Picture::Stored(path)));
                let told = |name: &str| place.is_none() || !["type", "data"].contains(&name);
                let rest = fields.iter().filter(|(name, _)| told(name));
                let mut fields: Map<_, _> = rest.map(|(name, value)| (name.clone(), self.take_out(value))).collect();
                if let Some(place) = place {
                    // Who asked sees the picture itself.
                    fields.insert("type".to_owned(), json!("base64"));
                    fields.insert("data".to_owned(), place);
                }
                Value::Object(fields)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    /// What our own worker says of a picture that it has put into the result store: believed only of this job's bucket and user.
    fn stored(&self, fields: &Map<String, Value>) -> Option<String> {
        let (bucket, user) = self.stored?;
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let file = text("type").filter(|kind| *kind == "stored").and_then(|_| StoredFile::parse(text("data")?))?;
        (file.bucket == *bucket && file.user == *user).then(|| file.to_string())
    }

    fn place(&mut self, picture: Picture) -> Value {
        if self.pictures.len() >= FILES_MAX {
            self.excess = true;
            return Value::Null;
        }
        self.pictures.push(picture);
        json!({ FILE: self.pictures.len() - 1 })
    }
}

/// A picture in base64, bare or as a data URI: what stands before it, whether it is padded, and itself.
fn read_picture(text: &str) -> Option<(&str, bool, Vec<u8>)> {
    if text.len() < ENCODED_BYTES_MIN {
        return None;
    }
    let at = if text.starts_with("data:") { text.find(";base64,")? + ";base64,".len() } else { 0 };
    let (prefix, encoded) = text.split_at(at);
    // A look at its beginning spares decoding long texts that are none.
    let seen = encoded.len().min(ENCODED_BYTES_SEEN) / 4 * 4;
    FileKind::of(&BASE64.decode(&encoded.as_bytes()[..seen]).ok()?)?;
    let (is_padded, bytes) = match BASE64.decode(encoded.as_bytes()) {
        Ok(bytes) => (true, bytes),
        Err(_) => (false, BASE64_NOPAD.decode(encoded.as_bytes()).ok()?),
    };
    Some((prefix, is_padded, bytes))
}

/// Every picture goes to one place, so that an answer is no longer than its pictures, whatever was kept in the database.
fn put_back(value: Value, pictures: &mut [Shown]) -> Value {
    match value {
        Value::Array(list) => list.into_iter().map(|item| put_back(item, pictures)).collect(),
        Value::Object(mut fields) => {
            if let Some(picture) = placed(&fields, pictures) {
                return shown(&fields, &mem::replace(picture, Shown::Nothing));
            }
            let data = fields.get("data").and_then(Value::as_object);
            if data.and_then(|place| placed(place, pictures)).is_some_and(|picture| matches!(picture, Shown::Url(_))) {
                // What worker-comfyui calls it.
                fields.insert("type".to_owned(), json!("s3_url"));
            }
            fields.into_iter().map(|(name, value)| (name, put_back(value, pictures))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

fn placed<'a>(fields: &Map<String, Value>, pictures: &'a mut [Shown]) -> Option<&'a mut Shown> {
    pictures.get_mut(usize::try_from(fields.get(FILE)?.as_u64()?).ok()?)
}

fn shown(place: &Map<String, Value>, picture: &Shown) -> Value {
    match picture {
        Shown::Bytes(bytes) => {
            let prefix = place.get("prefix").and_then(Value::as_str).unwrap_or_default();
            let is_padded = !place.contains_key("unpadded");
            let encoded = if is_padded { BASE64.encode(bytes) } else { BASE64_NOPAD.encode(bytes) };
            Value::String(format!("{prefix}{encoded}"))
        }
        Shown::Url(url) => Value::String(url.clone()),
        Shown::Nothing => Value::Null,
    }
}

#[cfg(test)]
mod tests;
