//! Data nodes, shards and jobs, and the drain of a node.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use neorunbase_server::cluster::drain::DrainError;
use neorunbase_server::daemon::CoordinatorHandle;

use super::{Refusal, Shown, no_coordinator};

/// The routes.
pub(super) fn router() -> Router<Arc<Shown>> {
    Router::new()
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/shards", get(shards))
        .route("/api/v1/jobs", get(jobs))
        .route("/api/v1/nodes/{name}/drain", post(drain))
        .route("/api/v1/nodes/{name}/undrain", post(undrain))
}

fn coordinator(shown: &Shown) -> Result<Arc<CoordinatorHandle>, Refusal> {
    shown.coordinator.read().clone().ok_or_else(no_coordinator)
}

async fn nodes(State(shown): State<Arc<Shown>>) -> Result<Response, Refusal> {
    Ok(Json(coordinator(&shown)?.nodes().await).into_response())
}

async fn shards(State(shown): State<Arc<Shown>>) -> Result<Response, Refusal> {
    Ok(Json(coordinator(&shown)?.shards()).into_response())
}

async fn jobs(State(shown): State<Arc<Shown>>) -> Result<Response, Refusal> {
    Ok(Json(coordinator(&shown)?.jobs().await).into_response())
}

/// What browsers send for any page that asks them to is refused: that needs no more than a link.
fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    if content_type.is_some_and(|value| value.starts_with("application/json")) {
        return Ok(());
    }
    let reason = "the content type must be application/json";
    Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason.to_owned()))
}

async fn drain(
    State(shown): State<Arc<Shown>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    check_content_type(&headers)?;
    answer(coordinator(&shown)?.drain(&name).await)
}

async fn undrain(
    State(shown): State<Arc<Shown>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    check_content_type(&headers)?;
    answer(coordinator(&shown)?.undrain(&name).await)
}

fn answer(outcome: Result<(), DrainError>) -> Result<Response, Refusal> {
    let error = match outcome {
        Ok(()) => return Ok(Json(serde_json::json!({})).into_response()),
        Err(error) => error,
    };
    let code = match &error {
        DrainError::UnknownNode(_) => StatusCode::NOT_FOUND,
        DrainError::TooFewOthers { .. } => StatusCode::CONFLICT,
        DrainError::Coordination(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Err(Refusal(code, error.to_string()))
}
