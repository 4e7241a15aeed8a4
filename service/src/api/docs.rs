//! The OpenAPI document, made from the table of routes and from what their handlers say of themselves.

use axum::Json;
use axum::extract::State;
use utoipa::OpenApi;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, Paths};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, InfoBuilder, OpenApiBuilder, ResponseBuilder};

use super::{events, files, health, jobs, membership, queue, work};
use crate::guard::Need;
use crate::routes::{Route, routes};
use crate::state::App;

/// The scheme of tokens, as the document names it.
const TOKEN: &str = "token";

/// Brings in the schemas that handlers name.
#[derive(OpenApi)]
#[openapi(paths(
    health::health,
    health::metrics,
    docs,
    queue::job_types,
    queue::room_job_types,
    queue::list,
    queue::submit,
    membership::token,
    jobs::show,
    jobs::cancel,
    events::events,
    events::socket,
    files::upload,
    files::read,
    files::write,
    work::join,
    work::beat,
    work::deliver
))]
struct Handlers;

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut components = Handlers::openapi().components.unwrap_or_else(Components::new);
    components.add_security_scheme(TOKEN, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    let mut paths = Paths::new();
    for route in routes() {
        let operation = operation(&route);
        paths.add_path_operation(route.path, vec![method(route.method)], operation);
    }
    let info = InfoBuilder::new()
        .title("Manyhands queue")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Rooms' jobs, their results and their workers. Errors are {\"error\":{\"code\",\"message\"}}; 401 without a \
             token, 403 where it does not allow this, 404 for what is not there or somebody else's, 429 with Retry-After.",
        ))
        .build();
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components)).build()
}

/// The OpenAPI document of this API.
#[utoipa::path(get, path = "/api/docs", responses((status = 200, body = Object)))]
pub(crate) async fn docs(State(_app): State<App>) -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}

fn operation(route: &Route) -> utoipa::openapi::path::Operation {
    let plain = || {
        OperationBuilder::new()
            .summary(Some(route.summary))
            .response("200", ResponseBuilder::new().description("as the API that it follows"))
            .build()
    };
    let mut operation = route.operation.clone().unwrap_or_else(plain);
    operation.security = match route.need {
        Need::Nothing | Need::Signed => None,
        Need::Room(right) | Need::Job(right) | Need::TokenRoom(right) => Some((TOKEN, right.name())),
        Need::Worker => Some((TOKEN, "work")),
        Need::Operator => Some((TOKEN, "operate")),
    }
    .map(|(scheme, right)| vec![SecurityRequirement::new(scheme, [right])]);
    operation
}

fn method(name: &str) -> HttpMethod {
    match name {
        "GET" => HttpMethod::Get,
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "DELETE" => HttpMethod::Delete,
        "PATCH" => HttpMethod::Patch,
        other => unreachable!("no route has the method {other}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_document_has_every_route_and_nothing_else() {
        let document = serde_json::to_value(document()).unwrap();
        let mut written = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                written.insert((method.to_uppercase(), path.clone()));
                let says = ["summary", "description"].iter().any(|key| operation[key].as_str().is_some());
                assert!(says, "{method} {path} does not say what it does");
            }
        }
        let table: BTreeSet<_> =
            routes().iter().map(|route| (route.method.to_owned(), route.path.to_owned())).collect();
        assert_eq!(written, table);
        assert_eq!(table.len(), routes().len(), "no route is twice in the table");
    }

    #[test]
    fn handlers_say_where_they_really_are() {
        let handlers = Handlers::openapi().paths.paths;
        let table: BTreeSet<_> = routes().iter().map(|route| route.path.to_owned()).collect();
        for path in handlers.keys() {
            assert!(table.contains(path), "{path}");
        }
    }

    #[test]
    fn every_schema_that_is_named_is_there() {
        let document = serde_json::to_value(document()).unwrap();
        let mut named = BTreeSet::new();
        collect(&document, &mut named);
        assert!(named.contains("JobView"));
        for name in named {
            assert!(document["components"]["schemas"].get(&name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_submission_in_the_document_is_the_one_that_is_read() {
        let document = serde_json::to_value(document()).unwrap();
        let properties = document["components"]["schemas"]["SubmissionBody"]["properties"].as_object().unwrap();
        let written: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        let error = serde_json::from_value::<::queue::Submission>(serde_json::json!({ "no_such_field": 1 }));
        let error = error.unwrap_err().to_string();
        let (_, expected) = error.split_once("expected one of ").unwrap();
        let read: BTreeSet<&str> = expected.split('`').skip(1).step_by(2).collect();
        assert_eq!(written, read);
    }

    fn collect(value: &Value, named: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    if let (true, Some(name)) = (key == "$ref", value.as_str()) {
                        named.insert(name.trim_start_matches("#/components/schemas/").to_owned());
                    }
                    collect(value, named);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, named)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
