//! Definitions are carried out by the leader, whichever Coordinator a client is connected to.

use std::sync::Arc;
use std::time::Duration;

use neorunbase_protocol::CallError;
use neorunbase_protocol::coordinate::{Define, DefinedReply, RaiseTableVersion};
use neorunbase_protocol::message::{ErrorKind, RequestBody, ResponseBody, StaleTableReply};
use neorunbase_sql::plan::{Definition, IsolationLevel};
use neorunbase_types::{Result, SqlError, SqlState};
use neorunbase_world::clock::timeout;

use super::definition::Defined;
use super::{Execution, unexpected_answer};
use crate::coordinator::Coordinator;
use crate::coordinator::session_core::SessionCore;
use crate::coordinator::transaction::Transaction;
use crate::error_reply::sql_error;

/// A definition waits so long for a leader.
const LEADER_LIMIT: Duration = Duration::from_secs(15);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// The catalog of the leader gets so long to be seen here.
const CATALOG_LIMIT: Duration = Duration::from_secs(5);

impl Execution<'_> {
    /// Has the leader carry a definition out, be it this Coordinator or another.
    ///
    /// # Errors
    /// The definition's; `57P03` if there is no leader; `08007` if it cannot be learned whether it took effect.
    pub async fn define(&mut self, definition: &Definition) -> Result<Defined> {
        let coordinator = self.core.coordinator.clone();
        if coordinator.metadata.leading().is_some() {
            return self.define_as_leader(definition).await;
        }
        let deadline = coordinator.world.clock.monotonic().after(LEADER_LIMIT);
        let encoded = postcard::to_stdvec(definition).map_err(SqlError::internal)?;
        let request = Define {
            user: self.core.user.clone(),
            definition: encoded.into(),
            transaction_time_unix_micros: self.transaction.time_unix_micros,
        };
        loop {
            if let Some(defined) = coordinator.define_at_leader(&request).await? {
                return Ok(defined);
            }
            if coordinator.world.clock.monotonic() >= deadline {
                return Err(
                    SqlError::new(SqlState::CANNOT_CONNECT_NOW, "no coordinator leads the catalog")
                        .with_hint("definitions are possible again once a leader is elected"),
                );
            }
            coordinator.world.clock.sleep(RETRY_PAUSE).await;
            if coordinator.metadata.leading().is_some() {
                return self.define_as_leader(definition).await;
            }
        }
    }
}

impl Coordinator {
    /// `None`: nobody carried it out.
    async fn define_at_leader(&self, request: &Define) -> Result<Option<Defined>> {
        let Some(leader) = self.coordinators.leader() else {
            return Ok(None);
        };
        match leader.call(RequestBody::Define(request.clone()).into()).await {
            Err(CallError::Unreachable(_)) => Ok(None),
            Err(CallError::OutcomeUnknown(_)) => Err(SqlError::new(
                SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
                "lost contact with the leader: the definition may or may not have taken effect",
            )),
            Ok(response) => match response.body {
                Some(ResponseBody::Defined(reply)) => self.see_definition(reply).await.map(Some),
                Some(ResponseBody::Error(error)) if error.kind() == ErrorKind::NotLeader => Ok(None),
                Some(ResponseBody::Error(error)) => Err(sql_error(error)),
                _ => Err(unexpected_answer()),
            },
        }
    }

    /// The client's next statement must see its definition.
    async fn see_definition(&self, reply: DefinedReply) -> Result<Defined> {
        if timeout(
            &*self.world.clock,
            CATALOG_LIMIT,
            self.metadata.seen(reply.catalog_version),
        )
        .await
        .is_err()
        {
            tracing::warn!(
                version = reply.catalog_version,
                "the leader's catalog has not come here yet"
            );
        }
        let notices = reply.notices.into_iter();
        Ok(Defined {
            tag: reply.tag,
            notices: notices
                .map(|notice| *SqlError::new(SqlState::from_code(&notice.sql_state), notice.message))
                .collect(),
        })
    }

    /// Carries out a definition that a client of another Coordinator asked for.
    ///
    /// # Errors
    /// The definition's; `57P03` if this Coordinator does not lead.
    pub async fn define_for(self: &Arc<Self>, request: Define) -> Result<Defined> {
        neorunbase_world::sometimes!("definition-carried-out-for-another-coordinator");
        self.metadata.check_leading()?;
        let definition: Definition = postcard::from_bytes(&request.definition).map_err(SqlError::internal)?;
        let core = Arc::new(SessionCore {
            coordinator: self.clone(),
            user: request.user,
            process_id: 0,
        });
        let services = self.transaction_services.clone();
        let mut transaction = Transaction::begin(services, IsolationLevel::ReadCommitted, false);
        transaction.time_unix_micros = request.transaction_time_unix_micros;
        transaction.start_statement().await?;
        let mut execution = Execution {
            core: &core,
            transaction: &mut transaction,
            parameters: Arc::from([]),
            commits_at_once: false,
        };
        execution.define_as_leader(&definition).await
    }

    /// Follows up where data nodes demanded a later version of a table than was used here.
    pub(in crate::coordinator) async fn catch_up(&self, stale: StaleTableReply) {
        let catalog = self.metadata.snapshot();
        let known = catalog.table_in(stale.storage);
        if known.is_none_or(|table| table.version >= stale.version) {
            return;
        }
        let request = RaiseTableVersion {
            storage: stale.storage,
            version: stale.version,
        };
        if self.metadata.leading().is_some() {
            if let Err(error) = self.raise_table_version(request).await {
                tracing::warn!(%error, "cannot finish a definition that was broken off");
            }
            return;
        }
        if let Some(leader) = self.coordinators.leader()
            && let Err(error) = leader.call(RequestBody::RaiseTableVersion(request).into()).await
        {
            tracing::debug!(%error, "the leader does not hear of a table that is old here");
        }
    }

    /// Ends a definition that was broken off after it had fenced its table: the table gets the version that the fence
    /// demands, and is otherwise as it was.
    ///
    /// # Errors
    /// As [`MetadataStore::change`](crate::coordinator::MetadataStore::change).
    pub async fn raise_table_version(&self, request: RaiseTableVersion) -> Result<()> {
        // One that is under way ends first.
        let _one_at_a_time = self.defining.lock().await;
        let catalog = self.metadata.snapshot();
        let Some(table) = catalog.table_in(request.storage) else {
            return Ok(());
        };
        if table.version >= request.version {
            return Ok(());
        }
        let id = table.id;
        neorunbase_world::sometimes!("broken-off-definition-finished");
        tracing::info!(
            table = table.name,
            version = request.version,
            "a definition of the table was broken off"
        );
        self.metadata
            .change(|catalog| {
                if let Some(table) = catalog.tables.get_mut(&id) {
                    Arc::make_mut(table).version = request.version;
                }
                Ok(())
            })
            .await
    }
}
