//! What other processes of the cluster may ask of a Coordinator.

use std::sync::Arc;

use async_trait::async_trait;
use neorunbase_protocol::RequestHandler;
use neorunbase_protocol::coordinate::{DefinedReply, LiveDefinitionsReply, NoticeReply};
use neorunbase_protocol::message::{
    DoneReply, ErrorKind, Request, RequestBody, Response, ResponseBody, TimestampsReply,
};
use neorunbase_types::{Result, SqlError, SqlState};

use super::oracle::Oracle;
use super::{Coordinator, MetadataStore};
use crate::error_reply::error_reply;

/// More timestamps than that are not needed at once.
const MAX_RUN: u32 = 1 << 16;

/// Answers Data Nodes and other Coordinators.
pub struct InternalService {
    /// The role.
    pub coordinator: Arc<Coordinator>,
    /// The oracle, which answers while this process leads.
    pub oracle: Arc<Oracle>,
}

fn refuse(error: SqlError) -> Response {
    let kind = if error.state == SqlState::CANNOT_CONNECT_NOW {
        ErrorKind::NotLeader
    } else {
        ErrorKind::Sql
    };
    ResponseBody::Error(error_reply(kind, error)).into()
}

impl InternalService {
    fn metadata(&self) -> &MetadataStore {
        &self.coordinator.metadata
    }

    async fn answer(&self, request: RequestBody) -> Result<ResponseBody> {
        let done = ResponseBody::Done(DoneReply {});
        match request {
            RequestBody::Timestamps(request) => {
                let count = request.count.clamp(1, MAX_RUN);
                let first = self
                    .oracle
                    .run_of(count)
                    .await
                    .map_err(|error| SqlError::new(SqlState::CANNOT_CONNECT_NOW, error.to_string()))?;
                Ok(ResponseBody::Timestamps(TimestampsReply { first, count }))
            }
            RequestBody::AcceptCatalog(request) => {
                self.coordinator.table_holds.release_before(request.term);
                self.metadata().accept(&request).await.map(|()| done)
            }
            RequestBody::PublishCatalog(request) => {
                self.metadata().publish_accepted(&request).await.map(|()| done)
            }
            RequestBody::JoinCatalog(request) => {
                let mut reply = self.metadata().join(&request).await?;
                // Not looked up before the question: all that began before it, and are live, have to be named.
                reply.live = Some(LiveDefinitionsReply {
                    definitions: self.coordinator.live_definitions.names(),
                });
                Ok(ResponseBody::Catalog(reply))
            }
            RequestBody::Define(request) => {
                let defined = self.coordinator.define_for(request).await?;
                let notices = defined.notices.into_iter().map(|notice| NoticeReply {
                    sql_state: notice.state.0.to_owned(),
                    message: notice.message,
                });
                Ok(ResponseBody::Defined(DefinedReply {
                    tag: defined.tag,
                    notices: notices.collect(),
                    catalog_version: self.metadata().snapshot().version,
                }))
            }
            RequestBody::HoldTables(request) => {
                let coordinator = &self.coordinator;
                let clock = &*coordinator.world.clock;
                let hold = coordinator
                    .table_holds
                    .hold(clock, &coordinator.table_locks, &request);
                hold.await.map(|()| done)
            }
            RequestBody::ReleaseTables(request) => {
                self.coordinator.table_holds.release(request.definition);
                Ok(done)
            }
            RequestBody::RaiseTableVersion(request) => {
                self.coordinator.raise_table_version(request).await.map(|()| done)
            }
            _ => Err(SqlError::internal("a coordinator does not answer this request")),
        }
    }
}

#[async_trait]
impl RequestHandler for InternalService {
    async fn handle(&self, request: Request) -> Response {
        let answer = match request.body {
            Some(body) => self.answer(body).await,
            None => Err(SqlError::new(SqlState::PROTOCOL_VIOLATION, "empty request")),
        };
        match answer {
            Ok(body) => body.into(),
            Err(error) => refuse(*error),
        }
    }
}
