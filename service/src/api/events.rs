//! Follows a job: an event for every version of it, as Server-Sent Events or over a WebSocket.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use axum::extract::{State, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::unfold;
use queue::{Job, JobId};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio::time::{Instant, interval_at, timeout_at};
use tracing::warn;

use crate::error::ApiError;
use crate::guard::{Caller, OwnJob};
use crate::limits::{SOCKET_MESSAGE_BYTES_MAX, STREAM_ALIVE_EVERY, STREAM_LOOK_EVERY, STREAM_TIME_MAX};
use crate::state::App;
use crate::view::{JobView, view_for};

/// One follower of one job.
struct Follow {
    app: App,
    caller: Caller,
    id: JobId,
    changes: broadcast::Receiver<Arc<JobId>>,
    /// The version and the place in the queue that were told last. What a client has from before is told by version alone.
    told: Option<u64>,
    told_position: Option<Option<u64>>,
    is_over: bool,
    end: Instant,
    _place: OwnedSemaphorePermit,
}

/// The job's views as server-sent events named `job`, each with its version as id; the first one at once, and the stream ends
/// after the last. `Last-Event-ID` leaves out what is known. 204 says that there is nothing more to come.
#[utoipa::path(
    get, path = "/api/jobs/{id}/events",
    params(("id" = String, Path), ("Last-Event-ID" = Option<u64>, Header)),
    responses(
        (status = 200, body = JobView, content_type = "text/event-stream"),
        (status = 204, description = "the client has been told how the job ended"),
        (status = 404),
    ),
)]
pub(crate) async fn events(
    State(app): State<App>,
    caller: Caller,
    OwnJob(job): OwnJob,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let told = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    if job.status().is_final() && told == Some(job.version) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let follow = Follow::new(app, caller, &job, told)?;
    let events = unfold(follow, |mut follow| async move {
        let view = follow.next().await?;
        let event = Event::default().event("job").id(view.version.to_string());
        let event = event.json_data(&view).expect("a view is plain data");
        Some((Ok::<_, Infallible>(event), follow))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(STREAM_ALIVE_EVERY)).into_response())
}

/// The same views as text messages over a WebSocket, which closes after the last.
#[utoipa::path(
    get, path = "/api/jobs/{id}/ws", params(("id" = String, Path)),
    responses((status = 101, description = "messages as of /api/jobs/{id}/events"), (status = 404)),
)]
pub(crate) async fn socket(
    State(app): State<App>,
    caller: Caller,
    OwnJob(job): OwnJob,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    let follow = Follow::new(app, caller, &job, None)?;
    let upgrade = upgrade.max_message_size(SOCKET_MESSAGE_BYTES_MAX).max_frame_size(SOCKET_MESSAGE_BYTES_MAX);
    Ok(upgrade.on_upgrade(move |socket| talk(socket, follow)))
}

async fn talk(mut socket: WebSocket, mut follow: Follow) {
    let mut alive = interval_at(Instant::now() + STREAM_ALIVE_EVERY, STREAM_ALIVE_EVERY);
    loop {
        let message = tokio::select! {
            view = follow.next() => match view {
                Some(view) => Message::Text(serde_json::to_string(&view).expect("a view is plain data").into()),
                None => break,
            },
            _ = alive.tick() => Message::Ping(Vec::new().into()),
            heard = socket.recv() => match heard {
                // Clients have nothing to say, and pings are answered by the protocol.
                Some(Ok(Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            },
        };
        if socket.send(message).await.is_err() {
            return;
        }
    }
    // The other end may have gone first.
    let _ = socket.send(Message::Close(None)).await;
}

impl Follow {
    fn new(app: App, caller: Caller, job: &Job, told: Option<u64>) -> Result<Self, ApiError> {
        let full = |_| ApiError::throttled("too many streams are open; ask again with GET /api/jobs/{id}", 5);
        let place = app.streams.clone().try_acquire_owned().map_err(full)?;
        // Listened to before the job is loaded again, so that nothing falls between.
        let changes = app.store.changes();
        Ok(Self {
            app,
            caller,
            id: job.id.clone(),
            changes,
            told,
            told_position: None,
            is_over: false,
            end: Instant::now() + STREAM_TIME_MAX,
            _place: place,
        })
    }

    /// The next view that differs from the last one told, in version or place; `None` when there is none to come. May be
    /// dropped while it waits: nothing is told then.
    async fn next(&mut self) -> Option<JobView> {
        while !self.is_over && Instant::now() < self.end && !self.app.closing.is_closed() {
            match self.look().await {
                Ok(Some(view)) => {
                    let is_news = self.told != Some(view.version)
                        || self.told_position.is_some_and(|position| position != view.position);
                    self.told = Some(view.version);
                    self.told_position = Some(view.position);
                    self.is_over = view.status.is_final();
                    if is_news {
                        return Some(view);
                    }
                }
                // Forgotten meanwhile.
                Ok(None) => return None,
                Err(error) => warn!(code = error.code, "a job's stream could not look at it"),
            }
            self.change().await;
        }
        None
    }

    async fn look(&self) -> Result<Option<JobView>, ApiError> {
        let Some(job) = self.app.store.job(&self.id).await? else { return Ok(None) };
        view_for(&self.app, &self.caller, &job).await.map(Some)
    }

    /// Waits until the job may have changed, or the relay ends.
    async fn change(&mut self) {
        let look = self.end.min(Instant::now() + STREAM_LOOK_EVERY);
        let (id, changes) = (&self.id, &mut self.changes);
        let changed = async {
            loop {
                match changes.recv().await {
                    Ok(changed) if *changed != *id => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => pending().await,
                }
            }
        };
        tokio::select! {
            () = self.app.closing.closed() => {}
            _ = timeout_at(look, changed) => {}
        }
    }
}
