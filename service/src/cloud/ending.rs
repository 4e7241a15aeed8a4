//! How an attempt ends that its endpoint says has ended: its result is kept, its cost is written down.

use std::time::Duration;

use queue::{AttemptState, Fault, Outcome, Output, Step};
use runpod::{CallError, End, JobStatus, RemoteId, backoff};
use serde_json::Value;
use tracing::{debug, warn};

use super::attempt::{Errand, Left};
use super::desk::Desk;
use super::limits::{KEEP_TRIES_MAX, RESULT_LOOKS_MAX};
use crate::delivery;

/// Brings an attempt to the end that the endpoint tells.
pub(crate) async fn conclude(
    errand: &mut Errand,
    desk: &Desk,
    status: &JobStatus,
    end: End,
    is_wanted: bool,
    is_called_off: bool,
) -> Result<Outcome, Left> {
    let app = errand.app.clone();
    let (store, price) = (&*app.store, errand.attempt.price);
    let (kind, reason) = match end {
        End::Completed(output) => {
            let kept = if is_wanted { keep(errand, desk, &output).await? } else { Ok(Output::default()) };
            match kept {
                Ok(output) => {
                    // A time that is not told may have been as long as could be.
                    let cold_start = status.delay.unwrap_or(price.cold_start_max);
                    let execution = status.execution.unwrap_or(price.execution_max);
                    desk.succeed(store, errand.now()).await;
                    errand.step(Step::Finish { cold_start, execution }).await?;
                    return Ok(Outcome::Completed { output, cost: Default::default() });
                }
                Err(reason) => ("result_not_kept", reason),
            }
        }
        End::Failed(failure) => {
            let kind = failure.kind.as_str();
            (kind, format!("{kind}: {}", failure.complaint.message))
        }
        End::Cancelled => ("cancelled", "it was called off".to_owned()),
    };
    let is_unclaimed = errand.attempt.claims && errand.attempt.state != AttemptState::Claimed;
    // A worker that found no relay to ask, while there was none, gave up before it began: the job may be done by another.
    let found_nobody = errand.is_adopted && is_unclaimed;
    // What its user called off is nobody's fault, what this relay called off was too late; and what was under way while there
    // was no relay may have failed because of that.
    if (is_wanted || !is_called_off) && !errand.is_adopted {
        desk.fail(store, Fault::Failure, errand.now()).await;
    }
    // What a worker says may quote the prompt, so it is told to the job's owner, and not logged.
    warn!(job = %errand.attempt.key.job, endpoint = %desk.rules.name, kind, "an attempt of the cloud failed");
    // What was called off before a worker claimed it never ran, and its claim would be refused from now on.
    let never_ran = status.status == runpod::Status::Cancelled && is_called_off && is_unclaimed;
    let execution = status.execution.or(never_ran.then_some(Duration::ZERO));
    errand.step(Step::Fail { reason, execution }).await?;
    Ok(if found_nobody { Outcome::HandedBack } else { errand.failed() })
}

/// The outcome of an attempt that was done when its relay died, before the job was: its result is fetched once more.
pub(crate) async fn recover(errand: &mut Errand) -> Result<Outcome, Left> {
    let remote = errand.attempt.remote.as_deref().and_then(|remote| RemoteId::new(remote).ok());
    let (Some(desk), Some(remote)) = (errand.desk.clone(), remote) else { return Ok(errand.failed()) };
    for tries in 0..RESULT_LOOKS_MAX {
        match desk.rules.client.status(&remote).await.map(|status| status.end()) {
            Ok(Some(End::Completed(output))) => {
                let kept = keep(errand, &desk, &output).await?;
                let completed = |output| Outcome::Completed { output, cost: Default::default() };
                return Ok(kept.map_or_else(|_| errand.failed(), completed));
            }
            Ok(_) | Err(CallError::Gone) => break,
            Err(error) => debug!(%remote, error = error.unquoted(), "a result cannot be fetched yet"),
        }
        if errand.is_leaving() {
            return Err(Left);
        }
        errand.pause(backoff(tries, rand::random(), None)).await;
    }
    warn!(job = %errand.attempt.key.job, "a paid result is lost: the endpoint has forgotten it");
    Ok(errand.failed())
}

/// Keeps a result; an inner error is the endpoint's fault. What fails for our own is tried again: it is paid for.
async fn keep(errand: &mut Errand, desk: &Desk, output: &Value) -> Result<Result<Output, String>, Left> {
    let Some(job) = errand.job().await? else { return Ok(Err("the job was forgotten".to_owned())) };
    let mut tries = 0;
    loop {
        let error = match delivery::keep(&errand.app, &job, output, desk.rules.dialect).await {
            Ok(kept) => return Ok(Ok(kept.output)),
            Err(error) => error,
        };
        tries += 1;
        let is_ours = error.status.is_server_error();
        if !is_ours || tries >= KEEP_TRIES_MAX {
            return Ok(Err(error.message));
        }
        if errand.is_leaving() {
            return Err(Left);
        }
        errand.pause(backoff(tries - 1, rand::random(), None)).await;
    }
}
