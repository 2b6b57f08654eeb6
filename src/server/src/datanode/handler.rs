//! Requests in, answers out.

use async_trait::async_trait;
use neorunbase_protocol::RequestHandler;
use neorunbase_protocol::message::{
    DecisionReply, DoneReply, Heartbeat, LockMode, Request, RequestBody, Response, ResponseBody, RowsReply,
    ShardStatus, StatusReply, WrittenReply,
};
use neorunbase_types::{SqlError, SqlState};

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
        let answer = self.carry_out(body).await;
        match answer {
            // The log failed somewhere around the commit record: the next start may find it or not.
            Err(Failure::Sql(error))
                if commits && error.state == SqlState::IO_ERROR && self.failure().is_some() =>
            {
                Err(Failure::Sql(
                    SqlError::new(
                        SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
                        format!(
                            "data node \"{}\" failed during the commit; its outcome is unknown",
                            self.config.name
                        ),
                    )
                    .with_detail(error.detail.unwrap_or(error.message)),
                ))
            }
            answer => answer,
        }
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
            RequestBody::Heartbeat(request) => {
                self.heartbeat(&request);
                Ok(ResponseBody::Done(DoneReply {}))
            }
            RequestBody::ChangeStorage(request) => done(self.change_storage(request)),
            RequestBody::BulkWrite(request) => written(self.bulk_write(request).await),
            RequestBody::CollectGarbage(request) => done(self.collect_garbage(request).await),
            RequestBody::Status(_) => Ok(ResponseBody::Status(self.status())),
            RequestBody::AssignShards(request) => done(self.assign_shards(request).await),
            RequestBody::RollbackTo(request) => done(self.rollback_to(request).await),
            RequestBody::Timestamps(_) => Err(Failure::NotLeader),
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
        let prepared: Vec<_> = {
            let prepared = self.prepared.lock();
            prepared
                .keys()
                .filter_map(|transaction| self.participant(*transaction))
                .collect()
        };
        let shards = self.shards.read();
        let shards = shards.values().map(|shard| ShardStatus {
            shard: shard.id,
            epoch: shard.epoch(),
            bytes: shard.store.engine().approximate_bytes(),
            applied_lsn: shard.store.engine().applied_lsn(),
            prepared: prepared
                .iter()
                .filter(|participant| participant.writes.lock().shard(shard.id).is_some())
                .count() as u64,
        });
        StatusReply {
            name: self.config.name.clone(),
            shards: shards.collect(),
            open_transactions: self.transactions.lock().len() as u64,
            wal_bytes: self.wal.bytes(),
        }
    }
}
