//! RunPod's contract, both sides of it: unmodified clients use a room by another base URL, unmodified workers join one by four
//! variables of their environment.
//!
//! ```text
//! clients   /v2/{room}/run, runsync, status, stream, cancel, retry, health, purge-queue, requests
//! workers   /v2/{room}/job-take, job-done, job-stream, job-stop, ping
//! ```

mod client;
mod deadline;
mod dialect;
mod keeper;
pub mod limits;
mod request;
mod status;
mod worker;

pub use self::keeper::Keeper;

use axum::routing::{get, post};

use crate::access::Right::{Read, Submit, Work};
use crate::guard::Need;
use crate::limits::DELIVERY_BYTES_MAX;
use crate::routes::Route;

/// The facade's part of the table.
pub(crate) fn routes() -> Vec<Route> {
    let of = Route::new;
    vec![
        of("POST", "/v2/{room}/run", Need::Room(Submit), post(client::run)).says("Queues a job of a RunPod client"),
        of("POST", "/v2/{room}/runsync", Need::Room(Submit), post(client::run_sync))
            .waits()
            .says("As /run, and waits for the job's end up to ?wait= milliseconds"),
        of("GET", "/v2/{room}/status/{id}", Need::Job(Read), get(client::status))
            .says("A job in RunPod's words, its output included"),
        of("POST", "/v2/{room}/status/{id}", Need::Job(Read), post(client::status))
            .says("A job in RunPod's words, its output included"),
        of("GET", "/v2/{room}/status-sync/{id}", Need::Job(Read), get(client::status_sync))
            .waits()
            .says("As /status, and waits for the job's end up to ?wait= milliseconds"),
        of("POST", "/v2/{room}/status-sync/{id}", Need::Job(Read), post(client::status_sync))
            .waits()
            .says("As /status, and waits for the job's end up to ?wait= milliseconds"),
        of("GET", "/v2/{room}/stream/{id}", Need::Job(Read), get(client::stream))
            .waits()
            .says("What a job has yielded since it was last asked"),
        of("POST", "/v2/{room}/stream/{id}", Need::Job(Read), post(client::stream))
            .waits()
            .says("What a job has yielded since it was last asked"),
        of("POST", "/v2/{room}/cancel/{id}", Need::Job(Submit), post(client::cancel)).says("Calls a job off"),
        of("POST", "/v2/{room}/retry/{id}", Need::Job(Submit), post(client::retry))
            .says("Has a job that failed or timed out wait again"),
        of("GET", "/v2/{room}/health", Need::Room(Read), get(client::health))
            .says("How many jobs and workers a room has, in RunPod's words"),
        of("POST", "/v2/{room}/purge-queue", Need::Room(Submit), post(client::purge))
            .says("Calls off one's own waiting jobs; everybody's for who operates"),
        of("GET", "/v2/{room}/requests", Need::Room(Read), get(client::requests))
            .says("One's own jobs, the unfinished first"),
        of("GET", "/v2/{room}/job-take/{worker}", Need::Room(Work), get(worker::take))
            .waits()
            .says("Gives a RunPod worker a job, or 204 after a while; ?models= it has, ?dialect= it reads"),
        of("GET", "/v2/{room}/job-take-batch/{worker}", Need::Room(Work), get(worker::take_batch))
            .waits()
            .says("As /job-take, for several jobs: ?batch_size= at most"),
        of("POST", "/v2/{room}/job-done/{worker}/{id}", Need::Room(Work), post(worker::done))
            .body(DELIVERY_BYTES_MAX)
            .says("A worker's progress, output, error or hand-back"),
        of("POST", "/v2/{room}/job-stream/{worker}/{id}", Need::Room(Work), post(worker::stream))
            .body(limits::CHUNK_BYTES_MAX)
            .says("An item that a worker yields"),
        of("GET", "/v2/{room}/job-stop/{worker}", Need::Room(Work), get(worker::stop))
            .waits()
            .says("Which of its jobs a worker is to stop; held until there is one"),
        of("GET", "/v2/{room}/ping/{worker}", Need::Room(Work), get(worker::ping))
            .says("That a worker is there, and which jobs it has"),
    ]
}
