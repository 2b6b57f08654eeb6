//! The admin HTTP server: health, readiness, metrics, the cluster's status, and what operators do to nodes. Nothing here
//! needs authorisation: it shows numbers and node names, never rows, statements or secrets, and what can be asked for
//! here loses nothing. Whoever reaches the port can ask: it listens on the loopback interface unless told otherwise.

mod metrics;
mod nodes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use neorunbase_server::daemon::{ClusterStatus, CoordinatorHandle};
use neorunbase_world::{Clock, MonotonicTime};
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Said where only a coordinator knows the answer.
const NO_COORDINATOR: &str = "no coordinator is ready in this process";

/// What the server shows.
struct Shown {
    clock: Arc<dyn Clock>,
    started: MonotonicTime,
    ready: AtomicBool,
    coordinator: RwLock<Option<Arc<CoordinatorHandle>>>,
}

/// A running admin server; it ends when this is dropped.
pub struct AdminServer {
    address: String,
    shown: Arc<Shown>,
    serving: JoinHandle<()>,
}

impl AdminServer {
    /// Listens on `address`. The process is alive from now on, but not ready.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(address: &str, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let bind = || format!("cannot listen on {address} (admin)");
        let listener = TcpListener::bind(address).await.with_context(bind)?;
        let address = listener.local_addr().with_context(bind)?.to_string();
        let shown = Arc::new(Shown {
            started: clock.monotonic(),
            clock,
            ready: AtomicBool::new(false),
            coordinator: RwLock::default(),
        });
        let router = router(shown.clone());
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the admin server ended");
            }
        });
        Ok(Self {
            address,
            shown,
            serving,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The process serves from now on; a coordinator also shows the cluster.
    pub fn is_ready(&self, coordinator: Option<Arc<CoordinatorHandle>>) {
        *self.shown.coordinator.write() = coordinator;
        self.shown.ready.store(true, Ordering::Release);
    }

    /// The process is about to stop.
    pub fn is_stopping(&self) {
        self.shown.ready.store(false, Ordering::Release);
        *self.shown.coordinator.write() = None;
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shown {
    async fn status(&self) -> Option<ClusterStatus> {
        let coordinator = self.coordinator.read().clone()?;
        Some(coordinator.status().await)
    }
}

fn router(shown: Arc<Shown>) -> Router {
    Router::new()
        .route("/", get(overview))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .route("/metrics", get(prometheus))
        .route("/api/v1/status", get(status))
        .merge(nodes::router())
        .with_state(shown)
}

async fn overview() -> &'static str {
    "NeorunBase admin server\n\n/healthz\n/readyz\n/metrics\n/api/v1/status\n/api/v1/nodes\n/api/v1/shards\n\
     /api/v1/jobs\n"
}

async fn readiness(State(shown): State<Arc<Shown>>) -> Response {
    if shown.ready.load(Ordering::Acquire) {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

async fn prometheus(State(shown): State<Arc<Shown>>) -> Response {
    let uptime = shown.clock.monotonic().since(shown.started);
    let ready = shown.ready.load(Ordering::Acquire);
    let text = metrics::render(uptime, ready, shown.status().await.as_ref());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn status(State(shown): State<Arc<Shown>>) -> Response {
    match shown.status().await {
        Some(status) => axum::Json(status).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, format!("{NO_COORDINATOR}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use neorunbase_operating_system::OsClock;

    use super::*;
    use crate::http_request;

    #[tokio::test]
    async fn is_alive_before_it_is_ready() {
        let server = AdminServer::start("127.0.0.1:0", Arc::new(OsClock::new()))
            .await
            .unwrap();
        let address = server.address().to_owned();
        let get = move |path: &'static str| {
            let address = address.clone();
            async move {
                tokio::task::spawn_blocking(move || http_request::get(&address, path).unwrap())
                    .await
                    .unwrap()
            }
        };
        assert_eq!(get("/healthz").await, (200, "ok\n".to_owned()));
        assert_eq!(get("/readyz").await.0, 503);
        for path in [
            "/api/v1/status",
            "/api/v1/nodes",
            "/api/v1/shards",
            "/api/v1/jobs",
        ] {
            assert_eq!(get(path).await.0, 503, "{path}");
        }
        server.is_ready(None);
        assert_eq!(get("/readyz").await.0, 200);
        let (code, text) = get("/metrics").await;
        assert_eq!(code, 200);
        assert!(text.contains("\nneorunbase_ready 1\n"), "{text}");
        assert_eq!(get("/nothing").await.0, 404);
        server.is_stopping();
        assert_eq!(get("/readyz").await.0, 503);
    }
}
