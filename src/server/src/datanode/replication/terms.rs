//! Terms begin: this node becomes primary of shards whose configuration says so.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use neorunbase_protocol::message::ShardId;
use neorunbase_replication::{Configuration, LogPosition, NotYet};
use neorunbase_storage::wal::{self, WalRecord};
use neorunbase_txn::Phase;
use neorunbase_world::clock::timeout;
use neorunbase_world::fault::{dawdle, planted};
use prost::Message;

use super::super::log_record::{LogEntry, LogRecord, TermBeganRecord};
use super::super::registry::ServeError;
use super::super::shard::Shard;
use super::super::{DataNode, Participant};
use super::replica::{Replica, Role};
use crate::cluster::shard_map::{announce_change, change_shard};

/// How soon a term that cannot begin yet is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// What a shard that is this node's to lead needs.
enum Due {
    /// The term can begin.
    Begin(Configuration),
    /// This node has begun the term before (a restart, say): it needs another one.
    Renew(Configuration),
    /// Something has to end or run out first.
    Later,
}

impl DataNode {
    /// Begins terms for as long as the node lives.
    pub(in crate::datanode) async fn begin_terms_forever(self: &Arc<Self>) {
        let is_waiting = match self.begin_terms().await {
            Ok(is_waiting) => is_waiting,
            Err(error) => {
                tracing::error!(%error, "cannot begin a term");
                true
            }
        };
        if is_waiting {
            self.world.clock.sleep(RETRY_INTERVAL).await;
        } else {
            let pause = self.config.replication.timing.lease;
            let _ = timeout(&*self.world.clock, pause, self.terms_due.notified()).await;
        }
    }

    /// Begins what can begin now. Returns whether something has to wait.
    pub(in crate::datanode) async fn begin_terms(self: &Arc<Self>) -> Result<bool, ServeError> {
        let (mut begin, mut renew, mut is_waiting) = (Vec::new(), Vec::new(), false);
        {
            let mut replicas = self.replicas.lock();
            for (shard, replica) in &mut replicas.shards {
                match self.due(replica) {
                    None => {}
                    Some(Due::Begin(configuration)) => begin.push((*shard, configuration)),
                    Some(Due::Renew(configuration)) => renew.push((*shard, configuration)),
                    Some(Due::Later) => is_waiting = true,
                }
            }
        }
        if !renew.is_empty() {
            is_waiting = true;
            self.renew_terms(renew).await;
        }
        if !begin.is_empty() {
            self.register_terms(&begin).await?;
            dawdle(&*self.world.clock, "term begun late", Duration::from_millis(500)).await;
            // The records that begin terms come into the node's log in the order in which they come into those of the
            // shards: before or after what a later primary sends.
            let _one_at_a_time = self.receiving.lock().await;
            join_all(
                begin
                    .into_iter()
                    .map(|(shard, configuration)| self.begin_term(shard, configuration)),
            )
            .await;
        }
        Ok(is_waiting)
    }

    fn due(&self, replica: &mut Replica) -> Option<Due> {
        let configuration = replica.configuration.clone()?;
        let Role::Follower(follower) = &mut replica.role else {
            return None;
        };
        if replica.shard.is_damaged() || replica.is_installing {
            return None;
        }
        Some(
            match follower.may_begin(&configuration, self.world.clock.monotonic()) {
                Err(NotYet::NotPrimary) => return None,
                Err(NotYet::Leased { .. }) => Due::Later,
                Err(NotYet::BegunBefore) => Due::Renew(configuration),
                // What it has taken over must be in the node's log before the term's own first entry is.
                Ok(()) if follower.log().durable() < follower.log().end().sequence => Due::Later,
                Ok(()) if self.still_has_remains(&replica.shard) => Due::Later,
                Ok(()) => Due::Begin(configuration),
            },
        )
    }

    /// Whether some transaction still has something of an earlier term that it will not give up by itself.
    ///
    /// Those that are prepared do not: this node lost the shard while their outcome was being written, and that was not written
    /// after all. The shard's log has what they have.
    fn still_has_remains(&self, shard: &Shard) -> bool {
        let has_part = |participant: &&Arc<Participant>| {
            participant.phase() == Phase::Prepared && participant.touches(shard.id)
        };
        let prepared: Vec<_> = self
            .transactions
            .lock()
            .values()
            .filter(has_part)
            .cloned()
            .collect();
        for participant in prepared {
            self.strip_or_lose(&participant, shard);
        }
        self.has_remains(shard)
    }

    /// Whether some transaction still has something of an earlier term.
    pub(super) fn has_remains(&self, shard: &Shard) -> bool {
        let touches = |participant: &Arc<Participant>| participant.touches(shard.id);
        self.transactions.lock().values().any(touches) || self.revived.lock().values().any(touches)
    }

    /// Asks for new terms of shards that this node leads already.
    async fn renew_terms(&self, shards: Vec<(ShardId, Configuration)>) {
        let coordination = &*self.world.coordination;
        let name = &self.config.name;
        let changes = shards.into_iter().map(|(shard, configuration)| async move {
            let next = configuration.promoted(name)?;
            match change_shard(coordination, shard, &next).await {
                Ok(current) => Some((shard, configuration, current)),
                Err(error) => {
                    tracing::debug!(shard, %error, "cannot ask for a new term yet");
                    None
                }
            }
        });
        let changed: Vec<_> = join_all(changes).await.into_iter().flatten().collect();
        if changed.is_empty() {
            return;
        }
        {
            let mut replicas = self.replicas.lock();
            for (shard, before, current) in changed {
                let replica = replicas.shards.get_mut(&shard);
                if let Some(Replica {
                    role: Role::Follower(follower),
                    ..
                }) = replica
                    && before.promoted(name).as_ref() == Some(&current)
                {
                    neorunbase_world::sometimes!("term-renewed-after-a-restart");
                    follower.renewed(&before);
                }
                self.configure_shard(&mut replicas, shard, current);
            }
        }
        if let Err(error) = announce_change(coordination).await {
            tracing::debug!(%error, "a new term will be noticed late");
        }
    }

    /// Makes it durable that these terms have begun here.
    async fn register_terms(&self, shards: &[(ShardId, Configuration)]) -> Result<(), ServeError> {
        let mut registry = self.registry.lock().await;
        let mut changed = registry.clone();
        for (shard, configuration) in shards {
            if let Ok(place) = changed.shards.binary_search_by_key(shard, |known| known.shard) {
                let begun = &mut changed.shards[place].begun;
                *begun = configuration.term.max(*begun);
            }
        }
        if !planted("term-begun-twice") {
            self.replace_registry(&mut registry, changed).await?;
        }
        Ok(())
    }

    async fn begin_term(self: &Arc<Self>, shard: ShardId, configuration: Configuration) {
        let term = configuration.term;
        let record = {
            let mut replicas = self.replicas.lock();
            let Some(replica) = replicas.shards.get_mut(&shard) else {
                return;
            };
            let Role::Follower(follower) = &replica.role else {
                return;
            };
            // It may have been changed while the registry was written, and is not heard of twice.
            let newest = replica.configuration.clone();
            let configuration = match newest.filter(|newest| newest.term == term) {
                Some(newest) if !planted("term-begun-with-an-old-set") => newest,
                Some(_) => configuration,
                None => return,
            };
            let now = self.world.clock.monotonic();
            let follower = follower.clone();
            match follower.begin_term(configuration, now) {
                Ok(primary) => {
                    let position = primary.log().end();
                    replica.role = Role::Primary(primary);
                    replica.shard.begin_term(term);
                    began_record(shard, position)
                }
                // Things have changed while the registry was written.
                Err(_) => return,
            }
        };
        neorunbase_world::sometimes!("term-begun");
        tracing::info!(node = %self.config.name, shard, term, "begins a term as primary of the shard");
        self.start_shippers();
        let position = LogPosition {
            term: record.term,
            sequence: record.sequence,
        };
        let node = self.clone();
        let written: wal::Apply = Box::new(move |logged| node.term_is_durable(shard, position, logged.lsn));
        let clock = self.world.clock.clone();
        if let Err(error) = self.wal.append_when_room(&*clock, vec![record], written).await {
            self.log_failed(&error);
        }
    }

    fn term_is_durable(&self, shard: ShardId, position: LogPosition, lsn: wal::Lsn) {
        let mut replicas = self.replicas.lock();
        let Some(replica) = replicas.shards.get_mut(&shard) else {
            return;
        };
        let Some(primary) = replica.primary_of(position.term) else {
            return;
        };
        primary.written(position);
        let followers: Vec<_> = primary.followers().map(str::to_owned).collect();
        replica.lsns.insert(position.sequence, lsn);
        for follower in followers {
            replicas.send_later(&follower, [shard]);
        }
        self.advance(&mut replicas, [shard]);
        self.unsent.notify_waiters();
    }
}

/// The record that begins a term.
fn began_record(shard: ShardId, position: LogPosition) -> WalRecord {
    let entry = Some(LogEntry::TermBegan(TermBeganRecord {}));
    WalRecord {
        shard,
        term: position.term,
        sequence: position.sequence,
        payload: LogRecord { entry }.encode_to_vec().into(),
    }
}
