//! What an endpoint is asked: the order in its workers' words, and what makes the attempt safe and its result ours.

use queue::{Attempt, Job, Order};
use runpod::{Dialect, Extras, InitImage, Mime, Policy, RunRequest, to_input};
use serde_json::{Value, json};

use super::hints::webhook_token;
use super::rules::EndpointRules;
use crate::state::App;

/// What our own worker puts into the result store.
const PICTURE: &str = "image/png";

/// The request for an attempt; an error is for people.
pub(crate) async fn request(
    app: &App,
    rules: &EndpointRules,
    job: &Job,
    attempt: &Attempt,
) -> Result<RunRequest, String> {
    let mut input = match &job.order.ask {
        Some(_) => of_order(app, rules, job).await?,
        None => serde_json::from_str(&job.order.input).map_err(|_| "its input is not JSON".to_owned())?,
    };
    let Value::Object(fields) = &mut input else { return Err("its input is not a JSON object".to_owned()) };
    // A client's input must not speak for the relay.
    fields.retain(|name, _| !name.starts_with('_'));
    fields.insert("_client_ref".to_owned(), json!(job.id));
    let public_url = app.cloud.rules().public_url.as_deref().map(|url| url.trim_end_matches('/'));
    if let Some(url) = public_url {
        if rules.claims && !super::is_naive() {
            let claim = json!({ "url": format!("{url}/api/claim"), "nonce": attempt.nonce.as_str() });
            fields.insert("_claim".to_owned(), claim);
        }
        if rules.dialect == Dialect::Manyhands
            && let Some(place) = place(app, job).await
        {
            fields.insert("_output".to_owned(), json!({ "put": [place] }));
        }
    }
    let policy =
        Policy { execution_timeout: Some(attempt.price.execution_max), ttl: Some(attempt.ttl), ..Policy::default() };
    let webhook = public_url.map(|url| format!("{url}/api/webhook/{}", webhook_token(attempt)));
    Ok(RunRequest { input, webhook, policy: Some(policy) })
}

async fn of_order(app: &App, rules: &EndpointRules, job: &Job) -> Result<Value, String> {
    let order: Order = serde_json::from_str(&job.order.input).map_err(|_| "its order cannot be read".to_owned())?;
    let init_image = match (&order.init_image, rules.dialect) {
        (None, _) => None,
        (Some(path), Dialect::ComfyUi | Dialect::A1111) => {
            let kept = app.results.get(path).await.map_err(|error| error.to_string())?;
            let mime = Mime::of(&kept.bytes).ok_or("its first picture is a clip")?;
            Some(InitImage::Bytes(mime, kept.bytes.to_vec()))
        }
        (Some(path), Dialect::Manyhands | Dialect::Sdxl) => {
            let url = app.results.sign_get(path, rules.ttl, app.clock.now()).await;
            Some(InitImage::Url(url.map_err(|error| error.to_string())?))
        }
    };
    let extras = Extras { workflow: rules.workflow.as_ref(), init_image, defaults: Some(&rules.defaults) };
    to_input(&order, rules.dialect, &extras).map_err(|error| error.to_string())
}

/// Where our own worker puts the picture, instead of sending it through the endpoint; it sends it if there is no such place.
async fn place(app: &App, job: &Job) -> Option<Value> {
    let job_type = app.catalogue.find(job.order.ask.as_ref()?)?;
    let (url, path) = app.results.sign_put(&job_type.bucket, &job.order.user, PICTURE, app.clock.now()).await.ok()?;
    Some(json!({ "put": url, "path": path }))
}
