//! What becomes of a result: pictures go into the result store, the rest stays as JSON, and the job's lease ends.

use queue::{BucketName, Job, LeaseError, MicroUsd, Outcome, Output, StoredFile};
use runpod::{Dialect, Picture, read_output};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::state::App;

/// Takes a worker's reply for a job and ends its lease.
pub(crate) async fn accept(app: &App, job: &Job, fence: u64, output: Value, cost: MicroUsd) -> Result<Job, ApiError> {
    let output = keep(app, job, &output, Dialect::Manyhands).await?;
    let outcome = Outcome::Completed { output, cost };
    match app.store.finish(&job.id, fence, outcome, MicroUsd::default(), app.clock.now()).await? {
        Some(Ok(job)) => Ok(job),
        Some(Err(over @ LeaseError::Stale)) => Err(ApiError::conflict(over.to_string())),
        Some(Err(over @ LeaseError::Cancelled)) => {
            Err(ApiError::new(axum::http::StatusCode::GONE, "cancelled", over.to_string()))
        }
        None => Err(ApiError::not_found("there is no such job")),
    }
}

/// Moves pictures into the result store. A wrong request is the worker's fault, anything else is ours.
pub(crate) async fn keep(app: &App, job: &Job, output: &Value, dialect: Dialect) -> Result<Output, ApiError> {
    let pictures = read_output(output, dialect).map_err(|error| ApiError::wrong(error.to_string()))?;
    let job_type = job.order.ask.as_ref().and_then(|ask| app.catalogue.find(ask));
    let raw = || BucketName::new("raw").expect("a constant name is a name");
    let bucket = job_type.map_or_else(raw, |job_type| job_type.bucket.clone());
    let mut files = Vec::new();
    for picture in pictures {
        files.push(match picture {
            Picture::Bytes(_, bytes) => app.results.put(&bucket, &job.order.user, &bytes).await?,
            Picture::Stored(path) => {
                let is_own =
                    StoredFile::parse(&path).is_some_and(|file| file.bucket == bucket && file.user == job.order.user);
                if !is_own {
                    return Err(ApiError::wrong("this names a file that is not this job's"));
                }
                app.results.inspect(&path).await?;
                path
            }
            Picture::Url(_) => return Err(ApiError::wrong("addresses are not fetched; send the picture itself")),
        });
    }
    let rest = json!({ "seed": output.get("seed"), "seconds": output.get("seconds") });
    Ok(Output { json: Some(rest.to_string()), files })
}
