//! Stands before every route: who asks, and whether their token allows it. No handler runs without it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Query, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use queue::{Job, JobId, RoomName, UserName};
use tokio::time::timeout;

use crate::access::{Allowed, Right, TokenError};
use crate::cors::Origin;
use crate::error::ApiError;
use crate::limits::HANDLER_TIME_MAX;
use crate::rates::Client;
use crate::routes::Line;
use crate::state::App;
use crate::{body, cors, rates};

/// What a route asks of whoever calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it tells what everybody may know.
    Nothing,
    /// This right in the room of the path.
    Room(Right),
    /// This right in the room of the path's job, and that the job is one's own, unless one operates. Where the path names a
    /// room as well, the job must be one of that room.
    Job(Right),
    /// This right in the token's own room, for clients whose paths name none. A token of every room names one in
    /// [`ROOM_HEADER`].
    TokenRoom(Right),
    /// The right to work in the room of the path's job: for whoever holds, or held, its lease.
    Worker,
    /// The right to operate, everywhere.
    Operator,
    /// A secret in the path or body, which the handler checks itself: a signed address, a nonce, a proof of membership.
    Signed,
}

/// Where a token of every room says which one it means, for [`Need::TokenRoom`].
pub const ROOM_HEADER: &str = "x-manyhands-room";

/// Who called, after the guard. Extractor of every handler behind a token.
#[derive(Clone, Debug)]
pub struct Caller(pub Arc<Allowed>);

impl Caller {
    /// Whose budget and whose jobs.
    pub fn user(&self) -> &UserName {
        &self.0.user
    }

    /// Whether they may also do this, in the same room.
    pub fn may(&self, right: Right) -> bool {
        self.0.rights.contains(&right) || self.0.rights.contains(&Right::Operate)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let missing = || ApiError::ours("this route forgot to ask for a token");
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

/// The job that the path names, loaded by the guard: extractor of handlers behind [`Need::Job`].
#[derive(Clone, Debug)]
pub struct OwnJob(pub Job);

impl<S: Sync> FromRequestParts<S> for OwnJob {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let missing = || ApiError::ours("this route forgot to ask for a job");
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

/// The room that the token means: extractor of handlers behind [`Need::TokenRoom`].
#[derive(Clone, Debug)]
pub struct OwnRoom(pub RoomName);

impl<S: Sync> FromRequestParts<S> for OwnRoom {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let missing = || ApiError::ours("this route forgot to ask for a room");
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

/// The guard of one route: everything that is checked before a handler runs, and what every answer has in common.
pub(crate) async fn stand(
    State((app, line)): State<(App, Arc<Line>)>,
    path: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let origin = Origin::of(&app.settings, request.headers());
    let mut response = match front(&app, &line, &origin, &request) {
        Ok(()) if cors::is_preflight(&request) => cors::preflight(),
        Ok(()) => enter(&app, &line, &path, request, next).await,
        Err(error) => error.into_response(),
    };
    origin.stamp(response.headers_mut());
    app.metrics.answered(line.method, line.path, response.status());
    response
}

/// What is asked of everybody, before any token is looked at.
fn front(app: &App, line: &Line, origin: &Origin, request: &Request) -> Result<(), ApiError> {
    cors::check_host(&app.settings, request.headers())?;
    origin.check()?;
    let client = client_of(app, request);
    let throttled = |seconds| ApiError::throttled("too many requests from this address; slow down", seconds);
    app.rates.take(line.rate, client, app.clock.now()).map_err(throttled)
}

/// Where the request comes from; all those are one client of which nobody knows.
pub(crate) fn client_of(app: &App, request: &Request) -> Client {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip());
    rates::client(&app.settings, peer.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), request.headers())
}

async fn enter(app: &App, line: &Line, path: &RawPathParams, mut request: Request, next: Next) -> Response {
    if let Err(error) = pass(app, line.need, path, &mut request).await {
        return error.into_response();
    }
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > line.body_bytes_max as u64) {
        return body::too_large().into_response();
    }
    let answer = next.run(request.map(body::in_time));
    if line.waits {
        return answer.await;
    }
    match timeout(HANDLER_TIME_MAX, answer).await {
        Ok(response) => response,
        Err(_) => ApiError::ours("this took too long; try again later").into_response(),
    }
}

async fn pass(app: &App, need: Need, path: &RawPathParams, request: &mut Request) -> Result<(), ApiError> {
    let named = |name| path.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    let now = app.clock.now();
    let allowed = match need {
        Need::Nothing | Need::Signed => return Ok(()),
        Need::Operator => app.mint.check(&token(request)?, Right::Operate, None, now)?,
        Need::Room(right) => {
            let room = named("room").unwrap_or_default();
            let room = RoomName::new(room).map_err(|error| ApiError::wrong(error.to_string()))?;
            app.mint.check(&token(request)?, right, Some(&room), now)?
        }
        Need::Job(right) => {
            let token = token(request)?;
            let (job, allowed) = own_job(app, &token, right, named("id").unwrap_or_default()).await?;
            if named("room").is_some_and(|room| room != job.order.room.as_str()) {
                return Err(no_job());
            }
            request.extensions_mut().insert(OwnJob(job));
            allowed
        }
        Need::Worker => {
            let token = token(request)?;
            let (job, allowed) = room_job(app, &token, Right::Work, named("id").unwrap_or_default()).await?;
            request.extensions_mut().insert(OwnJob(job));
            allowed
        }
        Need::TokenRoom(right) => {
            let token = token(request)?;
            let room = token_room(app, &token, request)?;
            let allowed = app.mint.check(&token, right, Some(&room), now)?;
            request.extensions_mut().insert(OwnRoom(room));
            allowed
        }
    };
    request.extensions_mut().insert(Caller(Arc::new(allowed)));
    Ok(())
}

/// The job, if the token allows `right` in its room and it is the holder's own. A job of others is no different from none.
async fn own_job(app: &App, token: &str, right: Right, id: String) -> Result<(Job, Allowed), ApiError> {
    let (job, allowed) = room_job(app, token, right, id).await?;
    let is_own = allowed.user == job.order.user || allowed.rights.contains(&Right::Operate);
    if is_own { Ok((job, allowed)) } else { Err(no_job()) }
}

/// The job, if the token allows `right` in its room.
async fn room_job(app: &App, token: &str, right: Right, id: String) -> Result<(Job, Allowed), ApiError> {
    let now = app.clock.now();
    // A token that is not one must not learn even whether there is a job, nor have the store asked for it.
    app.mint.read_only(token, now)?;
    let job = match JobId::new(id) {
        Ok(id) => app.store.job(&id).await?,
        Err(_) => None,
    };
    let job = job.ok_or_else(no_job)?;
    match app.mint.check(token, right, Some(&job.order.room), now) {
        Ok(allowed) => Ok((job, allowed)),
        Err(TokenError::NotAllowed) => Err(no_job()),
        Err(error) => Err(error.into()),
    }
}

fn no_job() -> ApiError {
    ApiError::not_found("there is no such job")
}

/// The room that a token is bound to, or the one that the request names; if both do, they must be the same.
fn token_room(app: &App, token: &str, request: &Request) -> Result<RoomName, ApiError> {
    let wrong = || ApiError::wrong(format!("{ROOM_HEADER} names no room"));
    let asked = request.headers().get(ROOM_HEADER).map(|header| header.to_str().map_err(|_| wrong()));
    let asked = asked.transpose()?.map(|name| RoomName::new(name).map_err(|_| wrong())).transpose()?;
    match (app.mint.room(token, app.clock.now())?, asked) {
        (Some(own), Some(asked)) if own != asked => Err(TokenError::NotAllowed.into()),
        (Some(room), _) | (None, Some(room)) => Ok(room),
        (None, None) => Err(ApiError::wrong(format!("this token is for every room: say which one by {ROOM_HEADER}"))),
    }
}

/// The token of a request: `Authorization: Bearer T`; or `Authorization: T` as RunPod's workers send it; or as the password of
/// `Authorization: Basic`, all that clients of A1111 have; or `?access_token=T` where a browser's `EventSource` and `WebSocket`
/// cannot set headers.
pub(crate) fn token(request: &Request) -> Result<String, ApiError> {
    let missing = || ApiError::unauthorised("a token is missing; send it as `Authorization: Bearer TOKEN`");
    if let Some(header) = request.headers().get(header::AUTHORIZATION) {
        let text = header.to_str().map_err(|_| missing())?.trim();
        if let Some(pair) = text.strip_prefix("Basic ") {
            let pair = BASE64.decode(pair.trim().as_bytes()).map_err(|_| missing())?;
            let pair = String::from_utf8(pair).map_err(|_| missing())?;
            return pair.split_once(':').map(|(_, password)| password.to_owned()).ok_or_else(missing);
        }
        return Ok(text.strip_prefix("Bearer ").unwrap_or(text).trim().to_owned());
    }
    if request.method() != Method::GET {
        return Err(missing());
    }
    // A token may end in `=`, which browsers write as `%3D`.
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()).map_err(|_| missing())?;
    pairs.into_iter().find_map(|(name, value)| (name == "access_token").then_some(value)).ok_or_else(missing)
}
