//! What other processes of the cluster may ask of a Coordinator.

use std::sync::Arc;

use async_trait::async_trait;
use neorunbase_protocol::RequestHandler;
use neorunbase_protocol::message::{
    ErrorKind, ErrorReply, Request, RequestBody, Response, ResponseBody, TimestampsReply,
};
use neorunbase_types::SqlState;

use super::oracle::Oracle;

/// More timestamps than that are not needed at once.
const MAX_RUN: u32 = 1 << 16;

/// Answers Data Nodes.
pub struct InternalService {
    /// The oracle while this process leads.
    pub oracle: Arc<Oracle>,
}

fn refuse(kind: ErrorKind, message: String) -> Response {
    ResponseBody::Error(ErrorReply {
        kind: kind as i32,
        sql_state: SqlState::CONNECTION_FAILURE.0.to_owned(),
        message,
        detail: String::new(),
        hint: String::new(),
        objects: None,
    })
    .into()
}

#[async_trait]
impl RequestHandler for InternalService {
    async fn handle(&self, request: Request) -> Response {
        match request.body {
            Some(RequestBody::Timestamps(request)) => {
                let count = request.count.clamp(1, MAX_RUN);
                match self.oracle.run_of(count).await {
                    Ok(first) => ResponseBody::Timestamps(TimestampsReply { first, count }).into(),
                    Err(error) => refuse(ErrorKind::NotLeader, error.to_string()),
                }
            }
            _ => refuse(
                ErrorKind::Sql,
                "a coordinator does not answer this request".to_owned(),
            ),
        }
    }
}
