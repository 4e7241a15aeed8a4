//! One job from its claim to its reply.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::contract::Queue;
use super::courier::{Answer, Courier};
use super::ending::Ending;
use super::input::{Refusal, read_input};
use super::limits::{CLAIM_TRIES_MAX, PUT_TRIES_MAX, RETRY_AFTER_MAX, RETRY_AFTER_MIN};
use super::output::{self, Claim, Delivery, Place, read_claim, read_places};
use super::reporter::{Delivered, Progress, Reporter, deliver, is_passing};
use super::studio::{Commission, Studio};
use crate::backoff::Backoff;
use crate::job::Painted;

/// A job as the queue gave it.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// What it asks for.
    pub input: Value,
}

/// How a job ended here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its pictures were delivered.
    Done {
        /// How many.
        images: u32,
        /// How long it took.
        milliseconds: u64,
    },
    /// It asks for what is not done here; the queue was told why.
    Refused,
    /// The queue was told that it fails, and why.
    Failed(String),
    /// The queue wanted it no more; nothing was told.
    Stopped,
    /// Another worker has it; nothing was told.
    Elsewhere,
    /// This worker ends, and gave it back.
    HandedBack,
    /// The queue could not be told how it ended, which was so.
    Lost(String),
}

/// What doing a job needs.
pub struct Errand<'a> {
    /// To whom its end is told.
    pub courier: &'a Courier,
    /// Where it is painted.
    pub studio: &'a mut Studio,
    /// The job that the queue wants stopped.
    pub stopped: watch::Receiver<Option<String>>,
    /// Whether this worker is to end.
    pub ending: &'a mut Ending,
    /// Who is told how far it is.
    pub told: &'a (dyn Fn(Progress) + Send + Sync),
}

/// What came of painting.
enum Outcome {
    Painted(Result<Vec<Painted>, String>),
    Stopped,
    Due,
}

impl Errand<'_> {
    /// Does the job.
    pub async fn run(mut self, job: &Job) -> Ended {
        match self.begin(job).await {
            Err(Refused::Elsewhere) => Ended::Elsewhere,
            Err(Refused::With(Refusal(reason))) => {
                let told = deliver(self.courier, &job.id, &output::error(&reason)).await;
                ended(told, Ended::Refused)
            }
            Ok((commission, places)) => self.paint(job, commission, places).await,
        }
    }

    /// Claims the job where that is asked for, and reads what it asks for.
    async fn begin(&self, job: &Job) -> Result<(Commission, Vec<Place>), Refused> {
        if let Some(claim) = read_claim(&job.input)? {
            claim_it(self.courier, &job.id, claim).await?;
        }
        let commission = self.studio.commission(&read_input(&job.input)?)?;
        Ok((commission, read_places(&job.input)?))
    }

    async fn paint(&mut self, job: &Job, commission: Commission, places: Vec<Place>) -> Ended {
        let began = Instant::now();
        let (seed, images) = (commission.seed(), commission.images());
        let model = self.studio.model_of(&commission).to_owned();
        let reporter = Reporter::begin(self.courier, &job.id, commission.beginning());
        let told = |progress: Progress| {
            reporter.note(progress);
            (self.told)(progress);
        };
        let outcome = tokio::select! {
            painted = self.studio.paint(commission, told) => Outcome::Painted(painted),
            _ = self.stopped.wait_for(|stopped| stopped.as_deref() == Some(&job.id)) => Outcome::Stopped,
            () = reporter.unwanted() => Outcome::Stopped,
            () = self.ending.is_due() => Outcome::Due,
        };
        let painted = match outcome {
            Outcome::Painted(painted) => painted,
            Outcome::Stopped => {
                self.studio.give_up().await;
                reporter.abandon().await;
                return Ended::Stopped;
            }
            Outcome::Due => {
                self.studio.give_up().await;
                reporter.abandon().await;
                return self.hand_back(job).await;
            }
        };
        let courier = self.courier;
        let delivery = async {
            let body = match painted {
                Ok(painted) => bring(courier, painted, model, places).await,
                Err(reason) => Err(reason),
            };
            let (body, end) = match body {
                Ok(deliveries) => {
                    let took = began.elapsed();
                    let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                    (output::reply(&deliveries, seed, took.as_secs_f64()), Ended::Done { images, milliseconds })
                }
                Err(reason) => (output::error(&reason), Ended::Failed(reason)),
            };
            ended(reporter.finish(&body).await, end)
        };
        tokio::select! {
            ended = delivery => ended,
            () = self.ending.is_due() => Ended::Lost("the worker was to end before its result was taken".into()),
        }
    }

    /// Gives the job back. Once only: a queue that does not hear it will miss this worker soon enough.
    async fn hand_back(&self, job: &Job) -> Ended {
        let body = match self.courier.contract().queue {
            Queue::Relay => output::hand_back(),
            Queue::RunPod => output::stopped(),
        };
        match self.courier.tell(&job.id, &body).await {
            Ok(Answer { status, .. }) if status.is_success() => Ended::HandedBack,
            Ok(Answer { status, .. }) => Ended::Lost(format!("the queue does not take it back ({status})")),
            Err(reason) => Ended::Lost(format!("the queue does not take it back ({reason})")),
        }
    }
}

/// Why a job is not begun.
enum Refused {
    Elsewhere,
    With(Refusal),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::With(refusal)
    }
}

/// Asks whether this worker may begin.
async fn claim_it(courier: &Courier, job: &str, claim: Claim) -> Result<(), Refused> {
    let body = json!({ "nonce": claim.nonce, "id": job });
    let mut backoff = Backoff::new(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
    loop {
        let trouble = match courier.post_elsewhere(claim.address.clone(), &body).await {
            Ok(Answer { status, .. }) if status.is_success() => return Ok(()),
            Ok(Answer { status, .. }) if status.as_u16() == 409 => return Err(Refused::Elsewhere),
            Ok(Answer { status, .. }) => format!("answers {status}"),
            Err(reason) => reason,
        };
        let wait = backoff.fail_with_jitter(rand::random());
        if backoff.failures() >= CLAIM_TRIES_MAX {
            let reason = format!("the relay that pays for this job could not be asked whether to begin: {trouble}");
            return Err(Refusal(reason).into());
        }
        tokio::time::sleep(wait).await;
    }
}

/// Puts pictures to their places; those without one go into the reply.
async fn bring(
    courier: &Courier,
    painted: Vec<Painted>,
    model: String,
    places: Vec<Place>,
) -> Result<Vec<Delivery>, String> {
    let encode = move || painted.iter().map(|painted| output::encode(painted, &model)).collect::<Result<Vec<_>, _>>();
    let pictures = tokio::task::spawn_blocking(encode).await.map_err(|error| error.to_string())??;
    let mut places = places.into_iter();
    let mut deliveries = Vec::new();
    for png in pictures {
        deliveries.push(match places.next() {
            Some(place) => put(courier, place, png.into()).await,
            None => Delivery::Inside(png),
        });
    }
    Ok(deliveries)
}

/// Puts a picture to its place, or into the reply if that cannot be: it is painted, and perhaps paid for.
async fn put(courier: &Courier, place: Place, png: Arc<[u8]>) -> Delivery {
    let mut backoff = Backoff::new(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
    loop {
        let (trouble, may_pass) = match courier.put_elsewhere(place.address.clone(), png.clone()).await {
            Ok(Answer { status, .. }) if status.is_success() => return Delivery::Stored(place.path),
            // The place is this picture's alone: one that is taken was taken by a try whose answer was lost.
            Ok(Answer { status, .. }) if backoff.failures() > 0 && matches!(status.as_u16(), 409 | 412) => {
                return Delivery::Stored(place.path);
            }
            Ok(Answer { status, .. }) => (format!("it answers {status}"), is_passing(status.as_u16())),
            Err(reason) => (reason, true),
        };
        let wait = backoff.fail_with_jitter(rand::random());
        if !may_pass || backoff.failures() >= PUT_TRIES_MAX {
            tracing::warn!(trouble, "a picture cannot be put to its place, and goes into the reply");
            return Delivery::Inside(png.to_vec());
        }
        tokio::time::sleep(wait).await;
    }
}

fn ended(told: Delivered, end: Ended) -> Ended {
    match told {
        Delivered::Taken => end,
        Delivered::Unwanted => Ended::Stopped,
        Delivered::Lost(reason) => Ended::Lost(reason),
    }
}
