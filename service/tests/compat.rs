//! OpenAI's and A1111's picture APIs, by hand: exact shapes of answers and errors.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use data_encoding::BASE64;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use self::room::{PNG, Stage, painted, png};

#[path = "stage/room.rs"]
mod room;

const GENERATE: &str = "/v1/images/generations";
const TXT2IMG: &str = "/sdapi/v1/txt2img";

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn openai_answers_with_pictures() {
    let stage = Stage::start().await;
    let client = stage.client("room", "ada");
    let working = stage.worker("room", "bob").work("room", "w", "&models=demo", painted);
    let body = json!({"model": "demo_fast", "prompt": "the sea", "n": 2, "size": "128x128", "response_format": "b64_json", "user": "x"});
    let answer = client.post(GENERATE, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(keys(&answer.body), ["created", "data"]);
    assert!(answer.body["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(answer.body["data"], json!([{"b64_json": PNG}, {"b64_json": PNG}]));

    // A name of theirs is whatever is usual here, and whoever does not say gets both.
    let answer = client.post(GENERATE, json!({"model": "gpt-image-1", "prompt": "the sea"})).await;
    assert_eq!(keys(&answer.body["data"][0]), ["b64_json", "url"]);
    let answer = client.post(GENERATE, json!({"prompt": "the sea", "response_format": "url", "size": "auto"})).await;
    assert_eq!(keys(&answer.body["data"][0]), ["url"]);
    let url = answer.body["data"][0]["url"].as_str().unwrap();
    let picture = reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap();
    assert_eq!(picture.bytes().await.unwrap(), png(), "the address is signed and needs no token");
    working.abort();
}

#[tokio::test]
async fn openai_is_refused_in_its_own_shape() {
    let stage = Stage::start().await;
    let client = stage.client("room", "ada");
    let refused = [
        (json!({"model": "demo_fast", "prompt": "a", "size": "100000x64"}), 400, json!("size")),
        (json!({"model": "demo_fast", "prompt": "a", "size": "large"}), 400, json!("size")),
        (json!({"model": "demo_fast", "prompt": "a", "n": 99}), 400, json!("n")),
        (json!({"model": "demo_fast", "prompt": ""}), 400, json!("prompt")),
        (json!({"model": "no_such", "prompt": "a"}), 404, json!("model")),
        (json!({"prompt": "a", "quality": "best"}), 400, json!("quality")),
        (json!({"prompt": "a", "response_format": "png"}), 400, json!("response_format")),
        (json!({"prompt": "a", "stream": true}), 400, json!("stream")),
        (json!({"n": 1}), 400, Value::Null),
        (json!("text"), 400, Value::Null),
    ];
    for (body, status, param) in refused {
        let answer = client.post(GENERATE, body).await;
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
        let error = &answer.body["error"];
        assert_eq!(keys(error), ["code", "message", "param", "type"]);
        assert_eq!((&error["param"], &error["type"]), (&param, &json!("invalid_request_error")), "{answer:?}");
    }
    let models = client.get("/v1/models").await.body;
    assert_eq!((&models["object"], &models["data"][0]["object"]), (&json!("list"), &json!("model")));
}

#[tokio::test]
async fn a_picture_that_is_late_goes_on_and_one_nobody_waits_for_does_not() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let late = client.post(&format!("{GENERATE}?wait=50"), json!({"model": "demo_fast", "prompt": "a"})).await;
    assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!((&late.body["error"]["code"], &late.body["error"]["type"]), (&json!("timeout"), &json!("server_error")));
    let job = worker.take("room", "w", "").await.unwrap();
    let id = job["id"].as_str().unwrap();
    assert!(late.body["error"]["message"].as_str().unwrap().contains(id), "it names the job");
    worker.done("room", "w", id, painted(&job["input"])).await;
    assert_eq!(client.status("room", id).await["status"], "COMPLETED");

    let hung_up = client.post(GENERATE, json!({"model": "demo_fast", "prompt": "a"}));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), hung_up).await.is_err());
    let mut changes = stage.app.store.changes();
    loop {
        let requests = client.get("/v2/room/requests").await.body;
        if requests["requests"].as_array().unwrap().iter().any(|one| one["status"] == "CANCELLED") {
            break;
        }
        changes.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_failed_picture_says_why() {
    let stage = Stage::start().await;
    let client = stage.client("room", "ada");
    let working = stage.worker("room", "bob").work("room", "w", "", |_| json!({"error": "no more paint"}));
    let answer = client.post(GENERATE, json!({"model": "demo_fast", "prompt": "a"})).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer.body["error"]["message"].as_str().unwrap().contains("no more paint"), "{answer:?}");
    let answer = client.post(TXT2IMG, json!({"prompt": "a"})).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(keys(&answer.body), ["body", "detail", "error", "errors"]);
    working.abort();
}

#[tokio::test]
async fn a1111_answers_with_pictures_parameters_and_info() {
    let stage = Stage::start().await;
    let client = stage.client("room", "ada");
    let working = stage.worker("room", "bob").work("room", "w", "&models=demo", painted);
    let body = json!({
        "prompt": "the sea", "negative_prompt": "fog", "steps": 4, "cfg_scale": 2.5, "width": 64, "height": 128, "seed": 7,
        "batch_size": 2, "n_iter": 1, "sampler_name": "Euler a", "styles": [],
    });
    let answer = client.post(TXT2IMG, body.clone()).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(keys(&answer.body), ["images", "info", "parameters"]);
    assert_eq!((&answer.body["images"], &answer.body["parameters"]), (&json!([PNG, PNG]), &body));
    let info: Value = serde_json::from_str(answer.body["info"].as_str().unwrap()).unwrap();
    assert_eq!((&info["seed"], &info["all_seeds"]), (&json!(7), &json!([7, 8])));
    assert_eq!((&info["steps"], &info["cfg_scale"], &info["width"]), (&json!(4), &json!(2.5), &json!(64)));
    let line = "Steps: 4, Sampler: Automatic, CFG scale: 2.5, Seed: 8, Size: 64x128, Model: demo_fast";
    assert_eq!(info["infotexts"][1], json!(format!("the sea\nNegative prompt: fog\n{line}")));
    working.abort();
}

#[tokio::test]
async fn a1111_is_refused_in_its_own_shape() {
    let stage = Stage::start().await;
    let client = stage.client("room", "ada");
    let refused = [
        json!({"prompt": "a", "width": 4096, "height": 4096}),
        json!({"prompt": "a", "width": 65}),
        json!({"prompt": "a", "steps": 0}),
        json!({"prompt": "a", "batch_size": 100}),
        json!({"prompt": "a", "enable_hr": true}),
        json!({"prompt": "", "seed": -1}),
        json!({"prompt": 5}),
    ];
    for body in refused {
        let answer = client.post(TXT2IMG, body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        assert_eq!(keys(&answer.body), ["body", "detail", "error", "errors"]);
    }
    let body = json!({"prompt": "a", "override_settings": {"sd_model_checkpoint": "no_such"}});
    assert_eq!(client.post(TXT2IMG, body).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a1111_tells_how_far_the_callers_job_is() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let progress = "/sdapi/v1/progress?skip_current_image=true";
    let idle = client.get(progress).await.body;
    assert_eq!(keys(&idle), ["current_image", "eta_relative", "progress", "state", "textinfo"]);
    assert_eq!((&idle["progress"], &idle["state"]["job_count"]), (&json!(0.0), &json!(0)));
    let id = client.run("room", json!({"type": "demo_fast", "prompt": "a"})).await;
    worker.take("room", "w", "").await.unwrap();
    let note = json!({"status": "IN_PROGRESS", "output": {"progress": 250, "step": 2, "of": 8}});
    worker.done("room", "w", &id, note).await;
    let told = client.get(progress).await.body;
    assert_eq!((&told["progress"], &told["current_image"]), (&json!(0.25), &Value::Null));
    let state = &told["state"];
    assert_eq!((&state["job"], &state["sampling_step"], &state["sampling_steps"]), (&json!(id), &json!(2), &json!(8)));
    assert!(told["eta_relative"].as_f64().unwrap() >= 0.0);
    let others = stage.client("room", "eve").get(progress).await.body;
    assert_eq!(others["state"]["job_count"], 0, "of others nothing is told");
}

#[tokio::test]
async fn a1111s_clients_find_what_they_ask_for_at_their_start() {
    let stage = Stage::start().await;
    let client = stage.client("room", "ada");
    stage.worker("room", "bob").get("/v2/room/ping/w?models=demo").await;
    assert_eq!(client.get("/sdapi/v1/samplers").await.body[0]["name"], "Automatic");
    let models = client.get("/sdapi/v1/sd-models").await.body;
    assert!(models.as_array().unwrap().iter().any(|model| model["title"] == "demo_fast"));
    let options = client.get("/sdapi/v1/options").await.body;
    assert_eq!(options["sd_model_checkpoint"], "demo_fast", "what somebody there can do");
    let set = |model: &'static str| client.post("/sdapi/v1/options", json!({"sd_model_checkpoint": model}));
    assert_eq!(set("demo_fast").await.status, StatusCode::OK);
    assert_eq!(set("demo_high").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_room_is_the_tokens_own_or_named_by_whoever_has_every_room() {
    let stage = Stage::start().await;
    let (client, operator) = (stage.client("room", "ada"), stage.operator());
    assert_eq!(models_for(&client, None).await, StatusCode::OK);
    assert_eq!(models_for(&client, Some("room")).await, StatusCode::OK);
    assert_eq!(models_for(&client, Some("other")).await, StatusCode::FORBIDDEN);
    assert_eq!(models_for(&operator, None).await, StatusCode::BAD_REQUEST);
    assert_eq!(models_for(&operator, Some("other")).await, StatusCode::OK);
    let basic = format!("Basic {}", BASE64.encode(format!("user:{}", client.token).as_bytes()));
    let by_password = room::Caller { stage: &stage, token: basic };
    assert_eq!(models_for(&by_password, None).await, StatusCode::OK, "all that A1111's clients can send");
}

async fn models_for(caller: &room::Caller<'_>, room: Option<&str>) -> StatusCode {
    let headers: Vec<_> = room.map(|room| ("x-manyhands-room", room)).into_iter().collect();
    caller.call(Method::GET, "/v1/models", None, &headers).await.status
}
