//! The queue's own API: jobs, their events, files, tokens, helpers; what it says of itself.

mod docs;
mod events;
mod files;
mod health;
mod jobs;
mod membership;
mod queue;
mod work;

use axum::routing::{delete, get, post, put};

pub use self::docs::document;
pub use self::health::{QueueStats, stats};
pub use self::membership::ProofBody;
pub use self::queue::SubmissionBody;

use crate::access::Right;
use crate::guard::Need;
use crate::limits::{CLIP_BYTES_MAX, DELIVERY_BYTES_MAX};
use crate::rates::Rate;
use crate::routes::Route;

/// Its part of the table.
pub(crate) fn routes() -> Vec<Route> {
    let room = |right| Need::Room(right);
    vec![
        Route::new("GET", "/api/health", Need::Nothing, get(health::health)).documented::<health::__path_health>(),
        Route::new("GET", "/api/docs", Need::Nothing, get(docs::docs)).documented::<docs::__path_docs>(),
        Route::new("GET", "/metrics", Need::Nothing, get(health::metrics)).documented::<health::__path_metrics>(),
        Route::new("GET", "/api/job-types", Need::Nothing, get(queue::job_types))
            .documented::<queue::__path_job_types>(),
        Route::new("GET", "/api/job-types/{room}", room(Right::Read), get(queue::room_job_types))
            .documented::<queue::__path_room_job_types>(),
        Route::new("GET", "/api/queue/{room}", room(Right::Read), get(queue::list)).documented::<queue::__path_list>(),
        Route::new("POST", "/api/queue/{room}", room(Right::Submit), post(queue::submit))
            .documented::<queue::__path_submit>(),
        Route::new("POST", "/api/token/{room}", Need::Signed, post(membership::token))
            .rated(Rate::Tokens)
            .documented::<membership::__path_token>(),
        Route::new("GET", "/api/jobs/{id}", Need::Job(Right::Read), get(jobs::show)).documented::<jobs::__path_show>(),
        Route::new("DELETE", "/api/jobs/{id}", Need::Job(Right::Submit), delete(jobs::cancel))
            .documented::<jobs::__path_cancel>(),
        Route::new("GET", "/api/jobs/{id}/events", Need::Job(Right::Read), get(events::events))
            .documented::<events::__path_events>(),
        Route::new("GET", "/api/jobs/{id}/ws", Need::Job(Right::Read), get(events::socket))
            .documented::<events::__path_socket>(),
        Route::new("POST", "/api/uploads/{room}", room(Right::Submit), post(files::upload))
            .rated(Rate::Uploads)
            .documented::<files::__path_upload>(),
        Route::new("GET", "/api/files/{bucket}/{user}/{file}", Need::Signed, get(files::read))
            .documented::<files::__path_read>(),
        Route::new("PUT", "/api/files/{bucket}/{user}/{file}", Need::Signed, put(files::write))
            .rated(Rate::Uploads)
            .body(CLIP_BYTES_MAX)
            .documented::<files::__path_write>(),
        Route::new("POST", "/api/join/{room}", room(Right::Work), post(work::join))
            .waits()
            .documented::<work::__path_join>(),
        Route::new("POST", "/api/jobs/{id}/beat", Need::Worker, post(work::beat)).documented::<work::__path_beat>(),
        Route::new("POST", "/api/jobs/{id}/deliver", Need::Worker, post(work::deliver))
            .body(DELIVERY_BYTES_MAX)
            .documented::<work::__path_deliver>(),
    ]
}
