//! Requests in, answers out.

use async_trait::async_trait;
use neorunbase_protocol::RequestHandler;
use neorunbase_protocol::message::{
    DecisionReply, DoneReply, Heartbeat, LockMode, Request, RequestBody, Response, ResponseBody, RowsReply,
    ShardStatus, StatusReply, WrittenReply,
};
use neorunbase_types::{SqlError, SqlState};
use neorunbase_world::fault::{buggify, planted};

use super::DataNode;
use super::failure::Failure;

#[async_trait]
impl RequestHandler for DataNode {
    async fn handle(&self, request: Request) -> Response {
        match self.answer(request).await {
            Ok(body) => Response { body: Some(body) },
            Err(failure) => failure.into_response(),
        }
    }
}

fn done(result: Result<(), Failure>) -> Result<ResponseBody, Failure> {
    result.map(|()| ResponseBody::Done(DoneReply {}))
}

fn rows(result: Result<RowsReply, Failure>) -> Result<ResponseBody, Failure> {
    result.map(ResponseBody::Rows)
}

fn written(result: Result<WrittenReply, Failure>) -> Result<ResponseBody, Failure> {
    result.map(ResponseBody::Written)
}

fn decision(result: Result<DecisionReply, Failure>) -> Result<ResponseBody, Failure> {
    result.map(ResponseBody::Decision)
}

impl DataNode {
    async fn answer(&self, request: Request) -> Result<ResponseBody, Failure> {
        let Some(body) = request.body else {
            return Err(Failure::Sql(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                "empty node request",
            )));
        };
        // What was applied is durable, so a node that can no longer write may go on showing it.
        let only_reads = match &body {
            RequestBody::Status(_) => true,
            RequestBody::ReadRows(request) => request.lock() == LockMode::None,
            RequestBody::ScanRows(request) => request.lock() == LockMode::None,
            _ => false,
        };
        if !only_reads {
            self.check_healthy()?;
        }
        let commits = match &body {
            RequestBody::WriteRows(request) => request.context.autocommit,
            RequestBody::ModifyRows(request) => request.context.autocommit,
            RequestBody::CommitLocal(_) | RequestBody::Decide(_) | RequestBody::BulkWrite(_) => true,
            _ => false,
        };
        let settles = commits || matches!(&body, RequestBody::Prepare(_) | RequestBody::Finish(_));
        let answer = self.carry_out_as_primary(body).await;
        if settles && buggify("answer of a commit lost") {
            return Err(Failure::OutcomeUnknown);
        }
        match answer {
            // The log failed somewhere around the commit record: followers may have it, or the next start may find it.
            Err(Failure::Sql(error))
                if commits && error.state == SqlState::IO_ERROR && self.failure().is_some() =>
            {
                Err(Failure::OutcomeUnknown)
            }
            answer => answer,
        }
    }

    /// Carries the request out. What it saw, or did for later, counts only if no other node can have become primary
    /// meanwhile; so does a refusal because of what it saw.
    async fn carry_out_as_primary(&self, body: RequestBody) -> Result<ResponseBody, Failure> {
        let seen_by = match &body {
            RequestBody::ReadRows(request) => Some((request.shard, request.context.transaction)),
            RequestBody::ScanRows(request) => Some((request.shard, request.context.transaction)),
            RequestBody::WriteRows(request) => Some((request.shard, request.context.transaction)),
            RequestBody::ModifyRows(request) => Some((request.shard, request.context.transaction)),
            _ => None,
        };
        let refused_by = match &body {
            RequestBody::BulkWrite(request) => Some((request.shard, 0)),
            _ => seen_by,
        };
        let _entered = self.enter(&body)?;
        let answer = self.carry_out(body).await;
        let rests_on = match &answer {
            Ok(ResponseBody::Written(written)) if written.commit_timestamp != 0 => None,
            Ok(_) => seen_by,
            Err(failure) if failure.tells_of_rows() && !planted("refused-by-a-deposed-primary") => refused_by,
            Err(_) => None,
        };
        if let Some((reference, transaction)) = rests_on {
            self.check_current(&reference, transaction)?;
        }
        answer
    }

    async fn carry_out(&self, body: RequestBody) -> Result<ResponseBody, Failure> {
        match body {
            RequestBody::ReadRows(request) => rows(self.read_rows(request).await),
            RequestBody::ScanRows(request) => rows(self.scan_rows(request).await),
            RequestBody::WriteRows(request) => written(self.write_rows(request).await),
            RequestBody::ModifyRows(request) => written(self.modify_rows(request).await),
            RequestBody::Prepare(request) => done(self.prepare(request).await),
            RequestBody::CommitLocal(request) => written(self.commit_local(request).await),
            RequestBody::Decide(request) => done(self.decide(request).await),
            RequestBody::Finish(request) => done(self.finish(request).await),
            RequestBody::QueryDecision(request) => decision(self.query_decision(request).await),
            RequestBody::QueryPrepared(request) => self.query_prepared(request).map(ResponseBody::Prepared),
            RequestBody::Heartbeat(request) => {
                self.heartbeat(&request);
                Ok(ResponseBody::Done(DoneReply {}))
            }
            RequestBody::ChangeStorage(request) => done(self.change_storage(request).await),
            RequestBody::FenceTable(request) => done(self.fence_table(request).await),
            RequestBody::BulkWrite(request) => written(self.bulk_write(request).await),
            RequestBody::CollectGarbage(request) => done(self.collect_garbage(request).await),
            RequestBody::Status(_) => Ok(ResponseBody::Status(self.status())),
            RequestBody::Replicate(request) => {
                let reply = self.replicate(request).await;
                reply.map(ResponseBody::Replicated)
            }
            RequestBody::RollbackTo(request) => done(self.rollback_to(request).await),
            RequestBody::CopyPiece(piece) => {
                let reply = self.take_copy_piece(piece).await;
                reply.map(ResponseBody::Copied)
            }
            RequestBody::Validate(request) => done(self.validate(request).await),
            RequestBody::LockWaits(request) => Ok(ResponseBody::LockWaits(self.lock_waits(request))),
            RequestBody::Timestamps(_)
            | RequestBody::AcceptCatalog(_)
            | RequestBody::PublishCatalog(_)
            | RequestBody::JoinCatalog(_)
            | RequestBody::Define(_)
            | RequestBody::HoldTables(_)
            | RequestBody::ReleaseTables(_)
            | RequestBody::RaiseTableVersion(_) => Err(Failure::NotLeader),
        }
    }

    fn heartbeat(&self, request: &Heartbeat) {
        let now = self.world.clock.monotonic();
        let transactions = self.transactions.lock();
        for transaction in &request.transactions {
            if let Some(participant) = transactions.get(transaction) {
                participant.heard(now);
            }
        }
    }

    fn status(&self) -> StatusReply {
        let replicas = self.replicas.lock();
        let shards = replicas.shards.values().map(|replica| ShardStatus {
            shard: replica.shard.id,
            epoch: replica.shard.term(),
            bytes: replica.shard.store.engine().approximate_bytes(),
            applied_lsn: replica.applied.sequence,
            prepared: replica.prepared.len() as u64,
            operations: replica.shard.operations(),
        });
        let shards = shards.collect();
        drop(replicas);
        StatusReply {
            name: self.config.name.clone(),
            shards,
            open_transactions: self.transactions.lock().len() as u64,
            wal_bytes: self.wal.bytes(),
            copies: self.copies.statuses(),
        }
    }
}
