//! Picture APIs that clients speak already: OpenAI's and A1111's. Their paths name no room, so it is the token's own.

mod a1111;
mod openai;
mod pictures;

use axum::routing::{get, post};

use crate::access::Right::{Read, Submit};
use crate::guard::Need;
use crate::routes::Route;

/// This part of the table.
pub(crate) fn routes() -> Vec<Route> {
    let of = Route::new;
    vec![
        of("POST", "/v1/images/generations", Need::TokenRoom(Submit), post(openai::generate))
            .waits()
            .says("OpenAI's pictures from words; answers when they are there, 504 after ?wait= milliseconds"),
        of("GET", "/v1/models", Need::TokenRoom(Read), get(openai::models))
            .says("The job types that OpenAI's clients may name as a model"),
        of("POST", "/sdapi/v1/txt2img", Need::TokenRoom(Submit), post(a1111::txt2img))
            .waits()
            .says("A1111's pictures from words; answers when they are there"),
        of("GET", "/sdapi/v1/progress", Need::TokenRoom(Read), get(a1111::progress))
            .says("How far the caller's job is, in A1111's words"),
        of("GET", "/sdapi/v1/samplers", Need::TokenRoom(Read), get(a1111::samplers)).says("The one sampler"),
        of("GET", "/sdapi/v1/sd-models", Need::TokenRoom(Read), get(a1111::models))
            .says("The job types that A1111's clients may name as a checkpoint"),
        of("GET", "/sdapi/v1/options", Need::TokenRoom(Read), get(a1111::options))
            .says("The usual checkpoint; nothing else can be set"),
        of("POST", "/sdapi/v1/options", Need::TokenRoom(Submit), post(a1111::set_options))
            .says("The usual checkpoint; nothing else can be set"),
    ]
}
