//! Data nodes, shards and jobs, and the drain of a node.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use neorunbase_server::cluster::drain::DrainError;
use neorunbase_server::daemon::CoordinatorHandle;

use super::{NO_COORDINATOR, Shown};

/// The routes.
pub(super) fn router() -> Router<Arc<Shown>> {
    Router::new()
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/shards", get(shards))
        .route("/api/v1/jobs", get(jobs))
        .route("/api/v1/nodes/{name}/drain", post(drain))
        .route("/api/v1/nodes/{name}/undrain", post(undrain))
}

/// Why something is not done: the status code, and words for a person.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, format!("{}\n", self.1)).into_response()
    }
}

impl From<DrainError> for Refused {
    fn from(error: DrainError) -> Self {
        let code = match &error {
            DrainError::UnknownNode(_) => StatusCode::NOT_FOUND,
            DrainError::TooFewOthers { .. } => StatusCode::CONFLICT,
            DrainError::Coordination(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(code, error.to_string())
    }
}

fn coordinator(shown: &Shown) -> Result<Arc<CoordinatorHandle>, Refused> {
    let coordinator = shown.coordinator.read().clone();
    coordinator.ok_or_else(|| Refused(StatusCode::SERVICE_UNAVAILABLE, NO_COORDINATOR.to_owned()))
}

async fn nodes(State(shown): State<Arc<Shown>>) -> Result<Response, Refused> {
    Ok(Json(coordinator(&shown)?.nodes().await).into_response())
}

async fn shards(State(shown): State<Arc<Shown>>) -> Result<Response, Refused> {
    Ok(Json(coordinator(&shown)?.shards()).into_response())
}

async fn jobs(State(shown): State<Arc<Shown>>) -> Result<Response, Refused> {
    Ok(Json(coordinator(&shown)?.jobs().await).into_response())
}

/// What browsers send for any page that asks them to is refused: that needs no more than a link.
fn check_content_type(headers: &HeaderMap) -> Result<(), Refused> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    if content_type.is_some_and(|value| value.starts_with("application/json")) {
        return Ok(());
    }
    let reason = "the content type must be application/json";
    Err(Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason.to_owned()))
}

async fn drain(
    State(shown): State<Arc<Shown>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    check_content_type(&headers)?;
    coordinator(&shown)?.drain(&name).await?;
    Ok(done())
}

async fn undrain(
    State(shown): State<Arc<Shown>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    check_content_type(&headers)?;
    coordinator(&shown)?.undrain(&name).await?;
    Ok(done())
}

fn done() -> Response {
    Json(serde_json::json!({})).into_response()
}
