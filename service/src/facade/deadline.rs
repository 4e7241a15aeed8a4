//! Ends jobs whose submitters do not want them any more: whoever looks at one does it.

use queue::{Job, MicroUsd, Outcome, Overdue, TOO_SLOW};

use crate::delivery;
use crate::error::ApiError;
use crate::state::App;

/// The job as it is when its deadlines are heeded; `None` if its time is over and nobody knows it any more.
pub(crate) async fn enforce(app: &App, job: Job) -> Result<Option<Job>, ApiError> {
    match job.overdue(app.clock.now()) {
        None => Ok(Some(job)),
        Some(Overdue::Gone) => {
            if !job.status().is_final() {
                app.store.cancel(&job.id, app.clock.now()).await?;
            }
            Ok(None)
        }
        Some(Overdue::TooSlow) => {
            let cost = MicroUsd::default();
            let outcome = Outcome::Failed { reason: TOO_SLOW.to_owned(), is_final: true, cost };
            match delivery::finish(app, &job, job.fence, outcome).await {
                Ok(job) => Ok(Some(job)),
                // It has ended by itself meanwhile.
                Err(_) => Ok(app.store.job(&job.id).await?),
            }
        }
    }
}

/// The same, where such a job is none.
pub(crate) async fn wanted(app: &App, job: Job) -> Result<Job, ApiError> {
    enforce(app, job).await?.ok_or_else(|| ApiError::not_found("there is no such job"))
}
