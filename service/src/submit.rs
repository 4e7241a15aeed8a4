//! Queues what clients ask for: typed by the catalogue, or with a foreign client's own input.

use queue::{Deadlines, JobId, Mode, NewJob, OrderError, Quality, RoomName, StoredFile, Submission};
use serde_json::Value;
use store::Submitted;

use crate::access::Right;
use crate::error::ApiError;
use crate::guard::Caller;
use crate::limits::{JSON_BYTES_MAX, RAW_EXPECTED};
use crate::state::App;

/// Fields of an input with which a relay speaks to its workers: what asks whether it may begin, where its pictures go (under
/// both names that there have been), whose it is. A worker believes them, so a client never says them.
pub(crate) const OF_THE_RELAY: [&str; 4] = ["_claim", "_output", "_put", "_client_ref"];

impl From<OrderError> for ApiError {
    fn from(error: OrderError) -> Self {
        Self::wrong(error.to_string())
    }
}

/// Checks a submission against its type and queues one job a picture; the caller has the right to submit in this room. Either
/// all of them are queued or none.
pub async fn typed(
    app: &App,
    caller: &Caller,
    room: &RoomName,
    submission: Submission,
) -> Result<Vec<Submitted>, ApiError> {
    let checked = app.catalogue.check(&submission, rand::random::<u32>().into())?;
    let may_spend = caller.may(Right::Spend);
    if checked.mode == Mode::Cloud && !may_spend {
        return Err(ApiError::forbidden("this goes to the cloud, and this token may not spend; ask for mode local"));
    }
    if let Some(path) = &checked.order.init_image {
        check_init_image(app, caller, path).await?;
    }
    let orders = checked.jobs(room, caller.user()).into_iter();
    let orders = orders.map(|job| (new_id(), NewJob { may_spend, ..job })).collect();
    Ok(app.store.submit_all(orders, app.clock.now()).await?)
}

/// Queues a foreign client's input as it came, but for what only a relay says; any worker of the room may take it.
pub async fn raw(
    app: &App,
    caller: &Caller,
    room: &RoomName,
    mut input: Value,
    webhook: Option<String>,
    priority: i32,
    deadlines: Deadlines,
) -> Result<Submitted, ApiError> {
    if let Value::Object(fields) = &mut input {
        fields.retain(|name, _| !OF_THE_RELAY.contains(&name.as_str()));
    }
    let input = input.to_string();
    if input.len() > JSON_BYTES_MAX {
        return Err(ApiError::wrong(format!("the input has more than {JSON_BYTES_MAX} bytes; upload pictures first")));
    }
    let job = NewJob {
        room: room.clone(),
        user: caller.user().clone(),
        key: None,
        ask: None,
        model: None,
        input,
        mode: Mode::Auto,
        quality: Quality::Final,
        priority: priority.clamp(-queue::limits::PRIORITY_MAX, queue::limits::PRIORITY_MAX),
        expected: RAW_EXPECTED,
        webhook,
        deadlines,
        may_spend: caller.may(Right::Spend),
    };
    Ok(app.store.submit(new_id(), job, app.clock.now()).await?)
}

/// A first picture must be there, be a picture, and be the submitter's own.
async fn check_init_image(app: &App, caller: &Caller, path: &str) -> Result<(), ApiError> {
    let none = || ApiError::wrong("init_image names no picture of yours; upload it first, and within the time given");
    let file = StoredFile::parse(path).ok_or_else(none)?;
    if file.user != *caller.user() && !caller.may(Right::Operate) {
        return Err(none());
    }
    let kind = app.results.inspect(path).await.map_err(|error| match error.into() {
        ApiError { status: axum::http::StatusCode::NOT_FOUND, .. } => none(),
        other => other,
    })?;
    if kind.is_clip() { Err(ApiError::wrong("init_image is a clip; a picture is needed")) } else { Ok(()) }
}

fn new_id() -> JobId {
    JobId::from_random(rand::random())
}
