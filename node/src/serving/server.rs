//! A worker of a queue: asks for jobs, one at a time, until it is told to end.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::contract::{Contract, Queue};
use super::courier::{Answer, Courier};
use super::ending::Ending;
use super::errand::{Ended, Errand, Job};
use super::limits::{
    ASK_EVERY_MIN, HEARTBEAT_EVERY, JOB_ID_BYTES_MAX, RETRY_AFTER_MAX, RETRY_AFTER_MIN, TOO_OFTEN_PAUSE,
};
use super::reporter::Progress;
use super::studio::Studio;
use crate::backoff::Backoff;
use crate::memory::{self, Budget};

/// What a worker tells its owner. Nothing of what is painted.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// The queue does not answer as it should; it is asked again and again. Told once.
    Trouble(String),
    /// It does again.
    TroubleOver,
    /// A job begins.
    Took {
        /// Its id.
        job: String,
    },
    /// A job is so far.
    Progress {
        /// Its id.
        job: String,
        /// How far.
        progress: Progress,
    },
    /// A job has ended.
    Ended {
        /// Its id.
        job: String,
        /// How.
        how: Ended,
    },
    /// The models were freed, because this process holds so much memory.
    Freed {
        /// What it held.
        bytes: u64,
    },
}

/// Who is told.
pub type Tell = Arc<dyn Fn(News) + Send + Sync>;

/// A worker of a queue.
pub struct Server {
    courier: Courier,
    studio: Studio,
    budget: Budget,
    tell: Tell,
}

/// The answer to the question for a job.
enum Taken {
    Job(Job),
    Nothing,
    TooOften,
    Refused(String),
    Trouble(String),
}

impl Server {
    /// A worker that paints in `studio`, whose models are freed after a job if this process holds more than half of
    /// `budget` then.
    pub fn new(contract: Contract, studio: Studio, budget: Budget, tell: Tell) -> Self {
        Self { courier: Courier::new(contract), studio, budget, tell }
    }

    /// Does jobs until asked to end; a running one has the time `drain` then, and is handed back after it, or when asked
    /// again.
    ///
    /// # Errors
    /// If the queue refuses this worker.
    pub async fn run(mut self, asks: mpsc::Receiver<()>, drain: Duration) -> Result<(), String> {
        let mut ending = Ending::new(asks, drain);
        let (holds, held) = watch::channel(None);
        let (stop, stopped) = watch::channel(None);
        let beside = [
            tokio::spawn(say_that_it_lives(self.courier.clone(), held.clone())),
            tokio::spawn(hear_what_to_stop(self.courier.clone(), held, stop)),
        ];
        let ended = self.take_jobs(&mut ending, &holds, &stopped).await;
        beside.iter().for_each(tokio::task::JoinHandle::abort);
        self.studio.close().await;
        ended
    }

    async fn take_jobs(
        &mut self,
        ending: &mut Ending,
        holds: &watch::Sender<Option<String>>,
        stopped: &watch::Receiver<Option<String>>,
    ) -> Result<(), String> {
        let mut backoff = Backoff::new(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
        while !ending.is_asked() {
            let asked_at = Instant::now();
            // A question that is given up ends with the process: the queue sees that nobody hears its answer.
            let taken = tokio::select! {
                answer = self.courier.take() => read(answer),
                () = ending.asked() => break,
            };
            if matches!(taken, Taken::Job(_) | Taken::Nothing | Taken::TooOften) && backoff.succeed() {
                (self.tell)(News::TroubleOver);
            }
            let wait = match taken {
                Taken::Job(job) => {
                    self.do_job(job, ending, holds, stopped).await;
                    continue;
                }
                Taken::Nothing => ASK_EVERY_MIN.saturating_sub(asked_at.elapsed()),
                Taken::TooOften => TOO_OFTEN_PAUSE,
                Taken::Refused(reason) => return Err(reason),
                Taken::Trouble(reason) => {
                    if backoff.failures() == 0 {
                        (self.tell)(News::Trouble(reason));
                    }
                    backoff.fail_with_jitter(rand::random())
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = ending.asked() => {}
            }
        }
        Ok(())
    }

    async fn do_job(
        &mut self,
        job: Job,
        ending: &mut Ending,
        holds: &watch::Sender<Option<String>>,
        stopped: &watch::Receiver<Option<String>>,
    ) {
        (self.tell)(News::Took { job: job.id.clone() });
        holds.send_replace(Some(job.id.clone()));
        let tell = self.tell.clone();
        let id = job.id.clone();
        let told = move |progress| tell(News::Progress { job: id.clone(), progress });
        let errand =
            Errand { courier: &self.courier, studio: &mut self.studio, stopped: stopped.clone(), ending, told: &told };
        let how = errand.run(&job).await;
        holds.send_replace(None);
        (self.tell)(News::Ended { job: job.id, how });
        let resident = memory::resident_bytes(std::process::id());
        if let Some(bytes) = resident.filter(|&bytes| self.budget.half().is_exceeded_by(bytes)) {
            self.studio.free().await;
            (self.tell)(News::Freed { bytes });
        }
    }
}

fn read(answer: Result<Answer, String>) -> Taken {
    let Answer { status, body } = match answer {
        Ok(answer) => answer,
        Err(reason) => return Taken::Trouble(reason),
    };
    match status.as_u16() {
        200 => {}
        // RunPod answers 400 where there is nothing.
        204 | 400 => return Taken::Nothing,
        429 => return Taken::TooOften,
        401 | 403 => {
            return Taken::Refused(format!(
                "the queue refuses this worker ({status}); give a token with the right to work by --token or MANYHANDS_TOKEN"
            ));
        }
        404 => return Taken::Trouble("it knows no such queue (404); check --queue".into()),
        421 => {
            let advice = "its operator may add that to hosts, or call it as its public_url does";
            return Taken::Trouble(format!("it is not known by the name in its address (421); {advice}"));
        }
        _ => return Taken::Trouble(format!("it answers {status}")),
    }
    let job = serde_json::from_slice::<Value>(&body).ok().and_then(|mut job| {
        let id = job["id"].as_str().filter(|id| (1..=JOB_ID_BYTES_MAX).contains(&id.len()))?.to_owned();
        Some(Job { id, input: job["input"].take() })
    });
    job.map_or_else(|| Taken::Trouble("it gives what is no job".into()), Taken::Job)
}

/// Tells the queue that this worker lives, and which job it has, as long as it does.
async fn say_that_it_lives(courier: Courier, mut held: watch::Receiver<Option<String>>) {
    let mut due = Instant::now();
    let mut told_at = due;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due) => {
                told_at = Instant::now();
                let job = held.borrow().clone();
                match courier.ping(job.as_deref()).await {
                    None => return,
                    Some(Ok(answer)) => tracing::trace!(status = %answer.status, "pinged"),
                    Some(Err(reason)) => tracing::debug!(reason, "not pinged"),
                }
            }
            changed = held.changed() => if changed.is_err() { return },
        }
        let contract = courier.contract();
        // A relay's lease lives by being heard of.
        let every = match contract.queue {
            Queue::Relay if held.borrow().is_some() => HEARTBEAT_EVERY,
            Queue::Relay | Queue::RunPod => contract.ping_every,
        };
        due = told_at + every;
    }
}

/// Asks the queue which jobs to stop, while there is one.
async fn hear_what_to_stop(
    courier: Courier,
    mut held: watch::Receiver<Option<String>>,
    stop: watch::Sender<Option<String>>,
) {
    let mut backoff = Backoff::new(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
    while held.wait_for(Option::is_some).await.is_ok() {
        let asked_at = Instant::now();
        let Some(answer) = courier.stops().await else { return };
        let wait = match answer {
            Ok(Answer { status, body }) if status.is_success() => {
                backoff.succeed();
                let said: Value = serde_json::from_slice(&body).unwrap_or_default();
                let ids = said["jobsToStop"].as_array().map(Vec::as_slice).unwrap_or_default();
                let held = held.borrow().clone();
                if held.as_deref().is_some_and(|held| ids.iter().any(|id| id.as_str() == Some(held))) {
                    stop.send_replace(held);
                }
                ASK_EVERY_MIN.saturating_sub(asked_at.elapsed())
            }
            Ok(_) | Err(_) => backoff.fail_with_jitter(rand::random()),
        };
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::StatusCode;

    fn taken(status: u16, body: &str) -> Taken {
        read(Ok(Answer { status: StatusCode::from_u16(status).unwrap(), body: body.into() }))
    }

    #[test]
    fn a_job_is_an_id_and_an_input() {
        let Taken::Job(job) = taken(200, r#"{"id":"a-u1","input":{"prompt":"x"},"more":1}"#) else { panic!("a job") };
        assert_eq!((job.id.as_str(), &job.input["prompt"]), ("a-u1", &Value::from("x")));
        let long = format!(r#"{{"id":"{}","input":{{}}}}"#, "x".repeat(JOB_ID_BYTES_MAX + 1));
        for nonsense in ["", "null", "[]", r#"{"input":{}}"#, r#"{"id":"","input":{}}"#, &long] {
            assert!(matches!(taken(200, nonsense), Taken::Trouble(_)), "{nonsense}");
        }
    }

    #[test]
    fn statuses_mean_what_they_mean_to_runpod_s_own_worker() {
        assert!(matches!(taken(204, ""), Taken::Nothing));
        assert!(matches!(taken(400, "nothing"), Taken::Nothing));
        assert!(matches!(taken(429, ""), Taken::TooOften));
        assert!(matches!(taken(500, ""), Taken::Trouble(_)));
        assert!(matches!(taken(302, ""), Taken::Trouble(_)));
        let Taken::Trouble(reason) = taken(421, "") else { panic!("it may pass") };
        assert!(reason.contains("hosts"), "{reason}");
        let Taken::Refused(reason) = taken(401, "") else { panic!("it is refused") };
        assert!(reason.contains("--token"), "{reason}");
    }
}
