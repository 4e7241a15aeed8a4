//! OpenAI's picture API: `POST /v1/images/generations` answers when the pictures are there.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use queue::{Ask, JobType, RoomName, Submission, Tier};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::Sent;
use crate::compat::pictures::{Made, NoPictures, make, plain, types, usual_type, wait_of};
use crate::error::ApiError;
use crate::facade::limits::PICTURES_WAIT;
use crate::guard::{Caller, OwnRoom};
use crate::limits::FILE_SIGNATURE_TIME;
use crate::state::App;

/// Names that clients hold for OpenAI's own models; here they mean whichever type is usual.
const THEIR_MODELS: [&str; 3] = ["dall-e", "gpt-image", "chatgpt-image"];

/// What a client posts. What is not named here has no effect.
#[derive(Debug, Deserialize)]
struct Wanted {
    prompt: String,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    n: Option<u32>,
    #[serde(default)]
    size: Option<String>,
    #[serde(default)]
    quality: Option<String>,
    #[serde(default)]
    response_format: Option<String>,
    #[serde(default)]
    stream: Option<bool>,
}

/// An error in OpenAI's shape.
pub(crate) struct OpenAiError {
    error: ApiError,
    param: Option<&'static str>,
}

/// How pictures are given back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Inside.
    Base64,
    /// By address.
    Url,
    /// Either, because OpenAI's models differ in what is usual.
    Both,
}

/// `POST /v1/images/generations`
pub(crate) async fn generate(
    State(app): State<App>,
    caller: Caller,
    OwnRoom(room): OwnRoom,
    Query(query): Query<Vec<(String, String)>>,
    body: Result<Sent<Value>, ApiError>,
) -> Result<Json<Value>, OpenAiError> {
    let wanted = serde_json::from_value::<Wanted>(body?.0);
    let wanted = wanted.map_err(|error| ApiError::wrong(error.to_string()))?;
    let format = wanted.format()?;
    let submission = wanted.submission(&app, &room)?;
    let made = make(&app, &caller, &room, submission, wait_of(&query, PICTURES_WAIT)).await?;
    let mut data = Vec::new();
    for picture in &made {
        data.push(shown(&app, picture, format).await?);
    }
    Ok(Json(json!({ "created": app.clock.now().0 / 1000, "data": data })))
}

/// `GET /v1/models`: the types that can be named as a model.
pub(crate) async fn models(State(app): State<App>) -> Json<Value> {
    let model =
        |job_type: &JobType| json!({ "id": job_type.id, "object": "model", "created": 0, "owned_by": "manyhands" });
    let models: Vec<Value> = types(&app).map(model).collect();
    Json(json!({ "object": "list", "data": models }))
}

impl Wanted {
    fn format(&self) -> Result<Format, OpenAiError> {
        match self.response_format.as_deref() {
            None => Ok(Format::Both),
            Some("b64_json") => Ok(Format::Base64),
            Some("url") => Ok(Format::Url),
            Some(_) => Err(OpenAiError::of("response_format", "response_format is b64_json or url")),
        }
    }

    fn submission(self, app: &App, room: &RoomName) -> Result<Submission, OpenAiError> {
        if self.stream == Some(true) {
            return Err(OpenAiError::of("stream", "pictures are not streamed here; leave stream out"));
        }
        let job_type = self.job_type(app, room)?;
        let mut submission = plain(job_type.id.clone(), self.prompt);
        submission.images = self.n.unwrap_or(1);
        if let Some(size) = self.size.as_deref().filter(|size| *size != "auto") {
            let sides =
                size.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
            let wrong = || OpenAiError::of("size", "size is like 512x512, or auto for the model's own");
            let (width, height) = sides.ok_or_else(wrong)?;
            (submission.width, submission.height) = (Some(width), Some(height));
        }
        Ok(submission)
    }

    fn job_type<'a>(&self, app: &'a App, room: &RoomName) -> Result<&'a JobType, OpenAiError> {
        let named = self.model.as_deref().filter(|model| !THEIR_MODELS.iter().any(|theirs| model.starts_with(theirs)));
        let none = |message: String| OpenAiError {
            error: ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message),
            param: Some("model"),
        };
        let Some(named) = named else {
            let tier = match self.quality.as_deref() {
                Some("hd" | "high") => Some(Tier::High),
                Some("low" | "medium" | "standard") => Some(Tier::Fast),
                None | Some("auto") => None,
                Some(_) => {
                    return Err(OpenAiError::of("quality", "quality is low, medium, high, standard, hd or auto"));
                }
            };
            return usual_type(app, room, tier)
                .ok_or_else(|| none("this relay makes no pictures from words".to_owned()));
        };
        let found = Ask::new(named).ok().and_then(|ask| types(app).find(|job_type| job_type.id == ask));
        found.ok_or_else(|| {
            let known: Vec<&str> = types(app).map(|job_type| job_type.id.as_str()).collect();
            none(format!("there is no model of this name; there are {}", known.join(", ")))
        })
    }
}

async fn shown(app: &App, picture: &Made, format: Format) -> Result<Value, ApiError> {
    let mut item = json!({});
    if format != Format::Url {
        item["b64_json"] = json!(BASE64.encode(&picture.bytes));
    }
    if format != Format::Base64 {
        item["url"] = json!(app.results.sign_get(&picture.path, FILE_SIGNATURE_TIME, app.clock.now()).await?);
    }
    Ok(item)
}

impl OpenAiError {
    fn of(param: &'static str, message: &str) -> Self {
        Self { error: ApiError::wrong(message), param: Some(param) }
    }
}

impl<E: Into<ApiError>> From<E> for OpenAiError {
    fn from(error: E) -> Self {
        let error = error.into();
        // The queue names its own fields; each is one of these.
        let fields = [("width", "size"), ("height", "size"), ("images", "n"), ("prompt", "prompt")];
        let param = fields.into_iter().find(|(field, _)| error.message.starts_with(field)).map(|(_, param)| param);
        Self { error, param }
    }
}

impl From<NoPictures> for OpenAiError {
    fn from(why: NoPictures) -> Self {
        match why {
            NoPictures::Refused(error) => error.into(),
            NoPictures::Failed(reason) => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "job_failed", reason).into(),
            NoPictures::Cancelled => ApiError::conflict("the job was called off").into(),
            NoPictures::Late(ids) => {
                let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
                let ids = ids.join(", ");
                let message =
                    format!("not done yet; it goes on as {ids}: ask GET /api/jobs/ID, or cancel it by DELETE");
                ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message).into()
            }
        }
    }
}

impl IntoResponse for OpenAiError {
    fn into_response(self) -> Response {
        let ApiError { status, code, message, .. } = &self.error;
        let kind = match *status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::FORBIDDEN => "permission_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        let body = json!({ "error": { "message": message, "type": kind, "param": self.param, "code": code } });
        // Its status and headers, with another body.
        let (mut parts, _) = self.error.clone().into_response().into_parts();
        parts.headers.remove(axum::http::header::CONTENT_LENGTH);
        Response::from_parts(parts, body.to_string().into())
    }
}
