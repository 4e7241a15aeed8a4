//! What a client asks for, and its check against the catalogue: a job is queued only if a worker can know what to do.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use data_encoding::HEXLOWER;
use protocol::limits::{GUIDANCE_MAX, SIDE_PIXELS_MAX};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::capability::CLOUD_ALONE;
use crate::catalogue::{Catalogue, Engine, JobType};
use crate::job::{Deadlines, Mode, NewJob, Quality};
use crate::limits::{FILE_NAME_BYTES_MAX, PRIORITY_MAX, SIDE_PIXELS_MIN, SIDE_PIXELS_STEP};
use crate::names::{Ask, BucketName, IdempotencyKey, Model, QueueName, RoomName, UserName};
use crate::order::{Order, Task};

/// What a client posts: a job type and words are enough.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The job type.
    #[serde(rename = "type")]
    pub ask: Ask,
    /// What is to be seen.
    #[serde(default)]
    pub prompt: String,
    /// What is not to be seen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub negative_prompt: String,
    /// Seed of the noise; drawn if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Instead of the type's, as the following.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// See [`Self::steps`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f32>,
    /// See [`Self::steps`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// See [`Self::steps`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// See [`Self::steps`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f32>,
    /// The first picture, in the result store as `bucket/user/file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_image: Option<String>,
    /// Who may do it.
    #[serde(default)]
    pub mode: Mode,
    /// How good it must be.
    #[serde(default)]
    pub quality: Quality,
    /// Higher goes first; 0 is usual.
    #[serde(default)]
    pub priority: i32,
    /// So that asking again is no second job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<IdempotencyKey>,
    /// How many pictures, each with a seed and job of its own.
    #[serde(default = "one")]
    pub images: u32,
    /// How long it is wanted; RunPod's clients say so beside their input.
    #[serde(skip)]
    pub deadlines: Deadlines,
}

/// A submission that can be queued.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// Its type.
    pub ask: Ask,
    /// What is to be done, for the first picture.
    pub order: Order,
    /// What a worker must have.
    pub model: Model,
    /// Which endpoints serve it.
    pub queue: QueueName,
    /// Where its results are kept.
    pub bucket: BucketName,
    /// How long one picture takes.
    pub expected: Duration,
    /// Who may do it: the cloud alone, whatever was asked, where nobody else can.
    pub mode: Mode,
    /// How good it must be.
    pub quality: Quality,
    /// Its priority.
    pub priority: i32,
    /// So that asking again is no second job.
    pub key: Option<IdempotencyKey>,
    /// How many pictures.
    pub images: u32,
    /// How long it is wanted.
    pub deadlines: Deadlines,
}

/// Why a submission is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No such type.
    #[error("there is no job type {0}; GET /api/job-types lists those that exist")]
    UnknownType(Ask),
    /// The type begins with a picture, and none is named.
    #[error("{0} needs an init image: upload one with POST /api/uploads and give what it answers as init_image")]
    NeedsInitImage(Ask),
    /// Nobody who may do it can.
    #[error("{ask}: {CLOUD_ALONE}; {remedy}")]
    NoEngine {
        /// The type.
        ask: Ask,
        /// What to do.
        remedy: &'static str,
    },
    /// A field is not what the type allows.
    #[error("{field} {problem}")]
    Field {
        /// Which, as in the JSON.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// A file of the result store, `bucket/user/file`. No other text names one: no address, no way out of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// The bucket.
    pub bucket: BucketName,
    /// Whose.
    pub user: UserName,
    /// Its name there.
    pub file: String,
}

impl StoredFile {
    /// Reads `bucket/user/file`.
    pub fn parse(path: &str) -> Option<Self> {
        let mut parts = path.split('/');
        let (bucket, user, file) = (parts.next()?, parts.next()?, parts.next()?);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let fits = (1..=FILE_NAME_BYTES_MAX).contains(&file.len()) && file.bytes().all(is_plain);
        if !fits || file.starts_with('.') || parts.next().is_some() {
            return None;
        }
        let (bucket, user) = (BucketName::new(bucket).ok()?, UserName::new(user).ok()?);
        Some(Self { bucket, user, file: file.to_owned() })
    }
}

impl fmt::Display for StoredFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.bucket, self.user, self.file)
    }
}

impl Catalogue {
    /// Checks a submission against its type; `seed` is its seed if it brings none. Whether its user may read the first
    /// picture it names is asked by whoever knows the user.
    pub fn check(&self, submission: &Submission, seed: u64) -> Result<Checked, OrderError> {
        let ask = &submission.ask;
        let job_type = self.find(ask).ok_or_else(|| OrderError::UnknownType(ask.clone()))?;
        let limits = &job_type.limits;
        let init_image = check_init_image(submission, job_type)?;
        check_words(submission, job_type)?;
        let mode = check_mode(submission, job_type)?;
        let priority = i64::from(submission.priority);
        within("priority", priority, -i64::from(PRIORITY_MAX)..=i64::from(PRIORITY_MAX))?;
        within("images", submission.images.into(), 1..=limits.images.into())?;
        let steps = submission.steps.unwrap_or(job_type.steps);
        within("steps", steps.into(), 1..=limits.steps.into())?;
        let width = check_side("width", submission.width.unwrap_or(job_type.width))?;
        let height = check_side("height", submission.height.unwrap_or(job_type.height))?;
        let pixels = width * height;
        if pixels > limits.pixels {
            let problem = format!("and height are {pixels} pixels and may be {} together", limits.pixels);
            return Err(OrderError::Field { field: "width", problem });
        }
        let guidance = submission.guidance.unwrap_or(job_type.guidance);
        if !(0.0..=GUIDANCE_MAX).contains(&guidance) {
            return Err(field("guidance", format!("must be 0 to {GUIDANCE_MAX}")));
        }
        let order = Order {
            task: job_type.task,
            model: job_type.model.clone(),
            prompt: submission.prompt.clone(),
            negative_prompt: submission.negative_prompt.clone(),
            width,
            height,
            steps,
            guidance,
            strength: check_strength(submission, job_type)?,
            seed: submission.seed.unwrap_or(seed),
            seconds: job_type.seconds,
            init_image,
        };
        Ok(Checked {
            ask: ask.clone(),
            order,
            model: job_type.model.clone(),
            queue: job_type.queue.clone(),
            bucket: job_type.bucket.clone(),
            expected: job_type.expected_of(steps, pixels),
            mode,
            quality: submission.quality,
            priority: submission.priority,
            key: submission.idempotency_key.clone(),
            images: submission.images,
            deadlines: submission.deadlines,
        })
    }
}

impl Checked {
    /// Its jobs: one a picture, with seeds in a row from the order's. None of them may spend: whoever knows the submitter's
    /// rights says otherwise.
    pub fn jobs(&self, room: &RoomName, user: &UserName) -> Vec<NewJob> {
        let job = |index: u32| {
            let order = Order { seed: self.order.seed.wrapping_add(index.into()), ..self.order.clone() };
            NewJob {
                room: room.clone(),
                user: user.clone(),
                key: self.key.as_ref().map(|key| key_of(key, index)),
                ask: Some(self.ask.clone()),
                model: Some(self.model.clone()),
                input: serde_json::to_string(&order).expect("an order is plain data"),
                mode: self.mode,
                quality: self.quality,
                priority: self.priority,
                expected: self.expected,
                webhook: None,
                deadlines: self.deadlines,
                may_spend: false,
            }
        };
        (0..self.images).map(job).collect()
    }
}

/// The key of one picture: the first one's is the client's own, and no client can hit upon another's by accident.
fn key_of(key: &IdempotencyKey, index: u32) -> IdempotencyKey {
    if index == 0 {
        return key.clone();
    }
    let digest = Sha256::digest(format!("{key}\n{index}"));
    IdempotencyKey::new(HEXLOWER.encode(&digest)).expect("64 hexadecimal digits are a key")
}

fn check_words(submission: &Submission, job_type: &JobType) -> Result<(), OrderError> {
    for (name, text) in [("prompt", &submission.prompt), ("negative_prompt", &submission.negative_prompt)] {
        let bytes_max = job_type.limits.prompt_bytes;
        if text.len() > bytes_max {
            let problem = format!("has {} bytes and at most {bytes_max} are read; shorten it", text.len());
            return Err(field(name, problem));
        }
    }
    let needs_words = match job_type.task {
        Task::Txt2img | Task::Video => true,
        Task::Img2img | Task::Upscale => false,
    };
    if needs_words && submission.prompt.trim().is_empty() {
        return Err(field("prompt", "is empty; say what is to be seen".to_owned()));
    }
    Ok(())
}

fn check_mode(submission: &Submission, job_type: &JobType) -> Result<Mode, OrderError> {
    let no_engine = |remedy| Err(OrderError::NoEngine { ask: job_type.id.clone(), remedy });
    match (job_type.engine, submission.mode, submission.quality) {
        (Engine::OverflowOnly, Mode::Local, _) => no_engine("ask for it with mode auto or cloud"),
        (Engine::OverflowOnly, Mode::Auto, Quality::Draft) => {
            no_engine("a draft never goes there: ask for quality final, or mode cloud")
        }
        (Engine::OverflowOnly, Mode::Auto, Quality::Final) => Ok(Mode::Cloud),
        (Engine::OverflowOnly, Mode::Cloud, _) | (Engine::Native, _, _) => Ok(submission.mode),
    }
}

fn check_init_image(submission: &Submission, job_type: &JobType) -> Result<Option<String>, OrderError> {
    match (&submission.init_image, job_type.needs_init_image) {
        (None, true) => Err(OrderError::NeedsInitImage(job_type.id.clone())),
        (None, false) => Ok(None),
        (Some(_), false) => {
            Err(field("init_image", format!("is nothing that {} begins with; leave it out", job_type.id)))
        }
        (Some(path), true) => match StoredFile::parse(path) {
            Some(file) => Ok(Some(file.to_string())),
            None => {
                Err(field("init_image", "must be bucket/user/file as an upload answers; no address is read".to_owned()))
            }
        },
    }
}

fn check_strength(submission: &Submission, job_type: &JobType) -> Result<Option<f32>, OrderError> {
    match submission.strength.or(job_type.strength) {
        Some(_) if job_type.strength.is_none() => {
            Err(field("strength", format!("is nothing that {} has; leave it out", job_type.id)))
        }
        Some(strength) if !(strength > 0.0 && strength <= 1.0) => {
            Err(field("strength", "must be above 0, to 1".to_owned()))
        }
        strength => Ok(strength),
    }
}

fn check_side(name: &'static str, pixels: u32) -> Result<u32, OrderError> {
    within(name, pixels.into(), SIDE_PIXELS_MIN.into()..=SIDE_PIXELS_MAX.into())?;
    if pixels.is_multiple_of(SIDE_PIXELS_STEP) {
        return Ok(pixels);
    }
    let nearest = pixels.next_multiple_of(SIDE_PIXELS_STEP);
    Err(field(name, format!("must be a multiple of {SIDE_PIXELS_STEP}; the next is {nearest}")))
}

fn within(name: &'static str, number: i64, range: RangeInclusive<i64>) -> Result<(), OrderError> {
    if range.contains(&number) {
        return Ok(());
    }
    Err(field(name, format!("is {number} and must be {} to {}", range.start(), range.end())))
}

fn field(field: &'static str, problem: String) -> OrderError {
    OrderError::Field { field, problem }
}

fn one() -> u32 {
    1
}

#[cfg(test)]
mod tests;
