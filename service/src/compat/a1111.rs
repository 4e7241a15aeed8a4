//! A1111's picture API, as much of it as clients need to start and to make pictures from words.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use queue::{Ask, Job, JobType, Order, RoomName, Status, Submission};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::Sent;
use crate::compat::pictures::{Made, NoPictures, make, plain, types, usual_type, wait_of};
use crate::error::ApiError;
use crate::facade::limits::{LISTED_MAX, PICTURES_WAIT};
use crate::guard::{Caller, OwnRoom};
use crate::state::App;

/// The one sampler: which it is belongs to the model.
const SAMPLER: &str = "Automatic";

/// What a client posts. What is not named here has no effect.
#[derive(Debug, Deserialize)]
struct Wanted {
    #[serde(default)]
    prompt: String,
    #[serde(default)]
    negative_prompt: Option<String>,
    #[serde(default)]
    steps: Option<u32>,
    #[serde(default)]
    cfg_scale: Option<f32>,
    #[serde(default)]
    width: Option<u32>,
    #[serde(default)]
    height: Option<u32>,
    #[serde(default)]
    seed: Option<i64>,
    #[serde(default)]
    batch_size: Option<u32>,
    #[serde(default)]
    n_iter: Option<u32>,
    #[serde(default)]
    enable_hr: Option<bool>,
    #[serde(default)]
    override_settings: Value,
}

/// An error in A1111's shape.
pub(crate) struct A1111Error(ApiError);

/// `POST /sdapi/v1/txt2img`
pub(crate) async fn txt2img(
    State(app): State<App>,
    caller: Caller,
    OwnRoom(room): OwnRoom,
    Query(query): Query<Vec<(String, String)>>,
    body: Result<Sent<Value>, ApiError>,
) -> Result<Json<Value>, A1111Error> {
    let Sent(parameters) = body?;
    let wanted = serde_json::from_value::<Wanted>(parameters.clone());
    let wanted = wanted.map_err(|error| ApiError::wrong(error.to_string()))?;
    let (job_type, submission) = wanted.submission(&app, &room)?;
    let asked = submission.clone();
    let made = make(&app, &caller, &room, submission, wait_of(&query, PICTURES_WAIT)).await?;
    let images: Vec<String> = made.iter().map(|picture| BASE64.encode(&picture.bytes)).collect();
    let info = info(job_type, &asked, &made);
    // A1111 gives it as a JSON text inside the JSON.
    Ok(Json(json!({ "images": images, "parameters": parameters, "info": info.to_string() })))
}

/// `GET /sdapi/v1/progress`: of the caller's job that is done now, or waits.
pub(crate) async fn progress(
    State(app): State<App>,
    caller: Caller,
    OwnRoom(room): OwnRoom,
) -> Result<Json<Value>, A1111Error> {
    let jobs = app.store.list(Some(&room), LISTED_MAX).await.map_err(ApiError::from)?;
    let own: Vec<&Job> =
        jobs.iter().filter(|job| job.order.user == *caller.user() && !job.status().is_final()).collect();
    let first = own.iter().find(|job| job.status() == Status::Processing).or(own.first());
    // What is listed has no input, which says the steps.
    let whole = match first {
        Some(job) => app.store.job(&job.id).await.map_err(ApiError::from)?,
        None => None,
    };
    Ok(Json(report(whole.as_ref(), own.len(), app.clock.now().0)))
}

/// `GET /sdapi/v1/samplers`
pub(crate) async fn samplers() -> Json<Value> {
    Json(json!([{ "name": SAMPLER, "aliases": ["automatic"], "options": {} }]))
}

/// `GET /sdapi/v1/sd-models`: the types, which `override_settings.sd_model_checkpoint` may name.
pub(crate) async fn models(State(app): State<App>) -> Json<Value> {
    let model = |job_type: &JobType| {
        let id = &job_type.id;
        json!({ "title": id, "model_name": id, "hash": null, "sha256": null, "filename": id, "config": null })
    };
    Json(types(&app).map(model).collect())
}

/// `GET /sdapi/v1/options`
pub(crate) async fn options(State(app): State<App>, OwnRoom(room): OwnRoom) -> Json<Value> {
    let usual = usual_type(&app, &room, None).map(|job_type| &job_type.id);
    Json(json!({ "sd_model_checkpoint": usual, "samples_format": "png" }))
}

/// `POST /sdapi/v1/options`: nothing is remembered between requests, so only what is so already can be set.
pub(crate) async fn set_options(
    State(app): State<App>,
    OwnRoom(room): OwnRoom,
    body: Result<Sent<Value>, ApiError>,
) -> Result<Json<Value>, A1111Error> {
    let Sent(wanted) = body?;
    let usual = usual_type(&app, &room, None).map(|job_type| job_type.id.as_str());
    let model = wanted.get("sd_model_checkpoint").and_then(Value::as_str);
    if model.is_some() && model != usual {
        let advice = "name the model with each request, as override_settings.sd_model_checkpoint";
        return Err(ApiError::wrong(format!("this relay remembers no options; {advice}")).into());
    }
    Ok(Json(Value::Null))
}

impl Wanted {
    fn submission<'a>(self, app: &'a App, room: &RoomName) -> Result<(&'a JobType, Submission), ApiError> {
        if self.enable_hr == Some(true) {
            return Err(ApiError::wrong("enable_hr: there is no second pass here; ask for the size itself"));
        }
        let job_type = self.job_type(app, room)?;
        let images = u64::from(self.batch_size.unwrap_or(1)) * u64::from(self.n_iter.unwrap_or(1));
        let submission = Submission {
            negative_prompt: self.negative_prompt.unwrap_or_default(),
            steps: self.steps,
            guidance: self.cfg_scale,
            width: self.width,
            height: self.height,
            // -1 asks for any.
            seed: self.seed.and_then(|seed| u64::try_from(seed).ok()),
            images: u32::try_from(images).unwrap_or(u32::MAX),
            ..plain(job_type.id.clone(), self.prompt)
        };
        Ok((job_type, submission))
    }

    fn job_type<'a>(&self, app: &'a App, room: &RoomName) -> Result<&'a JobType, ApiError> {
        let named = self.override_settings.get("sd_model_checkpoint").and_then(Value::as_str);
        let found = match named {
            Some(name) => Ask::new(name).ok().and_then(|ask| types(app).find(|job_type| job_type.id == ask)),
            None => usual_type(app, room, None),
        };
        found
            .ok_or_else(|| ApiError::not_found("there is no such model; GET /sdapi/v1/sd-models lists those there are"))
    }
}

/// What A1111 tells of how pictures were made.
fn info(job_type: &JobType, asked: &Submission, made: &[Made]) -> Value {
    let seeds: Vec<u64> = made.iter().map(|picture| picture.seed.unwrap_or_default()).collect();
    let steps = asked.steps.unwrap_or(job_type.steps);
    let guidance = f64::from(asked.guidance.unwrap_or(job_type.guidance));
    let (width, height) = (asked.width.unwrap_or(job_type.width), asked.height.unwrap_or(job_type.height));
    let text = |seed: &u64| {
        let negative = &asked.negative_prompt;
        let line = format!(
            "Steps: {steps}, Sampler: {SAMPLER}, CFG scale: {guidance}, Seed: {seed}, Size: {width}x{height}, Model: {}",
            job_type.id
        );
        if negative.is_empty() {
            format!("{}\n{line}", asked.prompt)
        } else {
            format!("{}\nNegative prompt: {negative}\n{line}", asked.prompt)
        }
    };
    json!({
        "prompt": asked.prompt,
        "all_prompts": vec![&asked.prompt; made.len()],
        "negative_prompt": asked.negative_prompt,
        "all_negative_prompts": vec![&asked.negative_prompt; made.len()],
        "seed": seeds.first(),
        "all_seeds": seeds,
        "width": width,
        "height": height,
        "sampler_name": SAMPLER,
        "cfg_scale": guidance,
        "steps": steps,
        "batch_size": made.len(),
        "sd_model_name": job_type.id,
        "index_of_first_image": 0,
        "infotexts": seeds.iter().map(text).collect::<Vec<_>>(),
    })
}

/// What is said of the unfinished job that is done now or goes next, of so many.
fn report(job: Option<&Job>, count: usize, now_ms: u64) -> Value {
    let Some(job) = job else {
        return json!({ "progress": 0.0, "eta_relative": 0.0, "state": state("", 0, 0, 0), "current_image": null, "textinfo": null });
    };
    let done = f64::from(job.progress.permille) / 1000.0;
    let ran = job.started.map_or(0, |started| now_ms.saturating_sub(started.0)) as f64 / 1000.0;
    // From what it took so far, once it has shown how fast it is; else as its type says.
    let eta = if done > 0.0 { ran / done - ran } else { (job.order.expected.as_secs_f64() - ran).max(0.0) };
    let steps = serde_json::from_str::<Order>(&job.order.input).map_or(0, |order| order.steps);
    let step = (done * f64::from(steps)).round() as u32;
    json!({
        "progress": done,
        "eta_relative": eta,
        "state": state(job.id.as_str(), count, step, steps),
        "current_image": null,
        "textinfo": null,
    })
}

fn state(job: &str, job_count: usize, step: u32, steps: u32) -> Value {
    json!({
        "skipped": false,
        "interrupted": false,
        "stopping_generation": false,
        "job": job,
        "job_count": job_count,
        "job_timestamp": "0",
        "job_no": 0,
        "sampling_step": step,
        "sampling_steps": steps,
    })
}

impl<E: Into<ApiError>> From<E> for A1111Error {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl From<NoPictures> for A1111Error {
    fn from(why: NoPictures) -> Self {
        Self(match why {
            NoPictures::Refused(error) => error,
            NoPictures::Failed(reason) => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "job_failed", reason),
            NoPictures::Cancelled => ApiError::conflict("the job was called off"),
            NoPictures::Late(ids) => {
                let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
                let message = format!("not done yet; it goes on as {}: ask GET /api/jobs/ID", ids.join(", "));
                ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
            }
        })
    }
}

impl IntoResponse for A1111Error {
    fn into_response(self) -> Response {
        let ApiError { code, message, .. } = &self.0;
        let body = json!({ "error": code, "detail": message, "body": "", "errors": message });
        let (mut parts, _) = self.0.clone().into_response().into_parts();
        parts.headers.remove(axum::http::header::CONTENT_LENGTH);
        Response::from_parts(parts, body.to_string().into())
    }
}
