//! A statement's transaction: found or begun, and, for autocommit, ended.

use std::sync::Arc;

use neorunbase_protocol::message::{StatementContext, TransactionId, WrittenReply};
use neorunbase_txn::{Lost, Outcome, StatementGuard};
use neorunbase_types::{SqlError, SqlState};
use neorunbase_world::fault::planted;

use super::failure::Failure;
use super::table::StoredTable;
use super::{DataNode, Participant};

/// One statement's hold on its transaction.
pub(super) struct Session {
    /// The transaction; none for reads outside any.
    pub participant: Option<Arc<Participant>>,
    guard: Option<StatementGuard<StoredTable>>,
    autocommit: bool,
}

/// How a statement begins.
pub(super) enum Begin {
    /// Run it.
    Run(Session),
    /// It ran before, and committed: this is what it answered.
    Repeat(WrittenReply),
}

impl DataNode {
    /// Begins a statement. `keeps_state`: it writes or locks, so it needs a transaction that will be ended.
    pub(super) async fn begin(
        &self,
        context: &StatementContext,
        keeps_state: bool,
    ) -> Result<Begin, Failure> {
        if context.transaction == 0 && keeps_state {
            return Err(Failure::Sql(SqlError::internal(
                "writes and locks need a transaction",
            )));
        }
        if context.transaction == 0 || (context.autocommit && !keeps_state) {
            return Ok(Begin::Run(Session {
                participant: None,
                guard: None,
                autocommit: false,
            }));
        }
        if context.repeated
            && self.participant(context.transaction).is_none()
            && self.outcomes.lock().get(context.transaction).is_none()
            && !self.would_remember(context.transaction)
        {
            return Err(Failure::OutcomeUnknown);
        }
        let (participant, is_new) = self.find_or_begin(context.transaction)?;
        if context.autocommit && !is_new {
            // The same request once more, while the first is still at it.
            let ended = self.or_failed(participant.ended()).await?;
            ended.map_err(|Lost| Failure::OutcomeUnknown)?;
            return self.repeated(context);
        }
        match participant.begin_statement(context.sequence, self.world.clock.monotonic()) {
            Ok(guard) => Ok(Begin::Run(Session {
                participant: Some(participant),
                guard: Some(guard),
                autocommit: context.autocommit,
            })),
            Err(_) => Err(Failure::UnknownTransaction(context.transaction)),
        }
    }

    /// As [`begin`](Self::begin), for statements without a reply that could be repeated.
    pub(super) async fn begin_read(
        &self,
        context: &StatementContext,
        locks: bool,
    ) -> Result<Session, Failure> {
        match self.begin(context, locks).await? {
            Begin::Run(session) => Ok(session),
            Begin::Repeat(_) => Err(Failure::UnknownTransaction(context.transaction)),
        }
    }

    pub(super) fn find_or_begin(
        &self,
        transaction: TransactionId,
    ) -> Result<(Arc<Participant>, bool), Failure> {
        if let Some(participant) = self.participant(transaction) {
            return Ok((participant, false));
        }
        let mut transactions = self.transactions.lock();
        if let Some(participant) = transactions.get(&transaction) {
            return Ok((participant.clone(), false));
        }
        let may_begin = self.outcomes.lock().may_begin(transaction) || planted("duplicate-request-applied");
        if !may_begin || self.presumed.lock().contains(&transaction) {
            drop(transactions);
            // For autocommit the outcome decides what to answer; anything else has lost its state.
            let ended = Participant::new(transaction, self.world.clock.monotonic());
            ended.end(Outcome::Aborted);
            return Ok((Arc::new(ended), false));
        }
        let participant = Arc::new(Participant::new(transaction, self.world.clock.monotonic()));
        transactions.insert(transaction, participant.clone());
        Ok((participant, true))
    }

    fn repeated(&self, context: &StatementContext) -> Result<Begin, Failure> {
        let outcomes = self.outcomes.lock();
        match (
            outcomes.get(context.transaction),
            outcomes.detail(context.transaction),
        ) {
            (Some(Outcome::Committed(_)), Some(reply)) => Ok(Begin::Repeat(reply)),
            (Some(Outcome::Committed(_)), None) => Err(Failure::Sql(
                SqlError::new(
                    SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
                    "the statement has committed, but its result is not known any more",
                )
                .with_detail("the request was repeated after its answer had been lost"),
            )),
            _ => Err(Failure::UnknownTransaction(context.transaction)),
        }
    }

    /// Ends a statement that writes; under autocommit, its transaction too.
    pub(super) async fn conclude(
        &self,
        session: Session,
        result: Result<WrittenReply, Failure>,
    ) -> Result<WrittenReply, Failure> {
        let Session {
            participant,
            guard,
            autocommit,
        } = session;
        drop(guard);
        let Some(participant) = participant else {
            return result;
        };
        if planted("lock-early-release") {
            self.locks.release(participant.id(), &participant.take_locks());
        }
        if !autocommit {
            return result;
        }
        match result {
            Ok(reply) => self.commit(&participant, reply, &[], None).await,
            Err(failure) => {
                self.roll_back(&participant).await;
                Err(failure)
            }
        }
    }

    /// Ends a statement that reads.
    pub(super) async fn conclude_read<Reply>(
        &self,
        session: Session,
        result: Result<Reply, Failure>,
    ) -> Result<Reply, Failure> {
        match result {
            Ok(reply) => self
                .conclude(session, Ok(WrittenReply::default()))
                .await
                .map(|_| reply),
            Err(failure) => {
                self.conclude(session, Err(failure)).await?;
                Err(Failure::Sql(SqlError::internal("a failed read has succeeded")))
            }
        }
    }
}
