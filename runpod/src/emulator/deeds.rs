//! Does what the platform wants done: claims, pictures, webhooks.

use std::sync::Arc;

use data_encoding::BASE64;
use serde_json::{Value, json};
use tokio::task::{JoinSet, spawn_blocking};

use crate::emulator::Shared;
use crate::emulator::paint::{Work, work};
use crate::emulator::platform::Deed;

/// Lets time go on in the platform until it is dropped.
pub(crate) async fn attend(shared: Arc<Shared>) {
    let mut deeds = JoinSet::new();
    loop {
        let (due, next) = shared.look(|platform, now| platform.advance(now));
        // Whatever time has brought, whoever waits may look at it.
        shared.changed.send_replace(());
        for deed in due {
            deeds.spawn(attend_to(Arc::clone(&shared), deed));
        }
        tokio::select! {
            () = shared.stirred.notified() => {}
            () = shared.clock.until(next) => {}
            Some(_) = deeds.join_next() => {}
        }
    }
}

async fn attend_to(shared: Arc<Shared>, deed: Deed) {
    match deed {
        Deed::Claim { run, url, nonce, id } => {
            let answer = claim(&shared, &url, &nonce, &id).await;
            shared.with(|platform, now| platform.claimed(run, answer, now));
        }
        Deed::Work { run, input } => {
            let result = made(&shared, input).await;
            shared.with(|platform, now| platform.delivered(run, result, now));
        }
        Deed::Tell { hook, url, body } => {
            let is_taken = match shared.http.post(&url).json(&body).send().await {
                Ok(reply) => reply.status().as_u16() == 200,
                Err(_) => false,
            };
            shared.with(|platform, now| platform.told(hook, is_taken, now));
        }
    }
}

/// Asks whether a run may begin. Whoever does not hear "yes" does not begin.
async fn claim(shared: &Shared, url: &str, nonce: &str, id: &str) -> Result<(), String> {
    let reply = shared.http.post(url).json(&json!({"nonce": nonce, "id": id})).send().await;
    match reply.map(|reply| reply.status().as_u16()) {
        Ok(200..=299) => Ok(()),
        Ok(409) => Err("this job is claimed already".to_owned()),
        Ok(status) => Err(format!("this job cannot be claimed ({status})")),
        Err(error) => Err(format!("this job cannot be claimed ({})", error.without_url())),
    }
}

/// Paints, and puts the picture where the input says; how many were put.
async fn made(shared: &Shared, input: Value) -> Result<(Value, u64), String> {
    let place = input.pointer("/_output/put/0").cloned();
    let painted = spawn_blocking(move || work(&input)).await;
    let Work { picture, mut output } = painted.map_err(|error| error.to_string())?;
    let text = |name: &str| place.as_ref().and_then(|place| place.get(name)).and_then(Value::as_str);
    let Some((url, path)) = text("put").zip(text("path")) else { return Ok((output, 0)) };
    // Both headers are part of what a store's presigned address signs.
    let put = shared.http.put(url).header("content-type", "image/png").header("if-none-match", "*");
    let put = put.body(picture.clone()).send().await;
    let is_put = put.is_ok_and(|reply| reply.status().is_success());
    if !is_put {
        // As a worker would that has nowhere else to leave it.
        output["images"] = json!([{"filename": "0.png", "type": "base64", "data": BASE64.encode(&picture)}]);
        return Ok((output, 0));
    }
    output["images"] = json!([{"filename": "0.png", "type": "stored", "data": path}]);
    Ok((output, 1))
}
