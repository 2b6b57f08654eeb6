//! How to call a node by its name, and a shard by its number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use neorunbase_coordination::MemberList;
use neorunbase_protocol::channel::{Channel, RequestHandler};
use neorunbase_protocol::message::{Request, Response, ShardId, ShardRef};
use neorunbase_protocol::remote::ConnectionTimeouts;
use neorunbase_protocol::{CallError, ClusterSecret, RemoteChannel};
use neorunbase_world::World;
use neorunbase_world::clock::timeout;
use neorunbase_world::coordination::CoordinationError;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::observer::Observations;
use super::paths;
use super::registration::Registration;
use super::shard_map::{ShardMap, ShardMapWatcher};

/// A node in this very process.
struct LocalChannel(Arc<dyn RequestHandler>);

#[async_trait::async_trait]
impl Channel for LocalChannel {
    async fn call(&self, request: Request) -> Result<Response, CallError> {
        Ok(self.0.handle(request).await)
    }
}

/// Channels to all nodes, and where each shard is.
pub struct NodeDirectory {
    world: World,
    secret: ClusterSecret,
    timeouts: ConnectionTimeouts,
    /// Nodes of this process, called without a network.
    local: RwLock<BTreeMap<String, Arc<dyn Channel>>>,
    remote: RwLock<BTreeMap<String, (String, Arc<dyn Channel>)>>,
    members: watch::Receiver<BTreeMap<String, bytes::Bytes>>,
    shard_map: watch::Receiver<Arc<ShardMap>>,
    /// What the nodes have said of themselves, if anybody asks.
    observations: RwLock<Arc<Observations>>,
    _member_list: MemberList,
    _shard_map_watcher: ShardMapWatcher,
}

impl std::fmt::Debug for NodeDirectory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "NodeDirectory({} shards)",
            self.shard_map.borrow().len()
        )
    }
}

impl NodeDirectory {
    /// Reads membership and shard map and keeps both fresh.
    ///
    /// # Errors
    /// What trying again would not mend.
    pub async fn start(
        world: &World,
        secret: ClusterSecret,
        timeouts: ConnectionTimeouts,
    ) -> Result<Arc<Self>, CoordinationError> {
        let member_list = MemberList::start(
            world.coordination.clone(),
            world.clock.clone(),
            &*world.spawner,
            paths::DATA_NODES,
        )
        .await?;
        let shard_map_watcher = ShardMapWatcher::start(world).await?;
        Ok(Arc::new(Self {
            world: world.clone(),
            secret,
            timeouts,
            local: RwLock::default(),
            remote: RwLock::default(),
            members: member_list.members(),
            shard_map: shard_map_watcher.map(),
            observations: RwLock::default(),
            _member_list: member_list,
            _shard_map_watcher: shard_map_watcher,
        }))
    }

    /// Calls to `name` go straight to `handler` from now on: it lives in this process.
    pub fn add_local(&self, name: &str, handler: Arc<dyn RequestHandler>) {
        self.local
            .write()
            .insert(name.to_owned(), Arc::new(LocalChannel(handler)));
    }

    /// The channel to the data node `name`, if it is registered (or local).
    pub fn channel(&self, name: &str) -> Option<Arc<dyn Channel>> {
        if let Some(channel) = self.local.read().get(name) {
            return Some(channel.clone());
        }
        let address = self
            .members
            .borrow()
            .get(name)
            .map(|data| Registration::decode(data).address);
        let address = match (address, self.remote.read().get(name)) {
            // Not registered just now: the last address may still answer.
            (None, known) => return known.map(|(_, channel)| channel.clone()),
            (Some(address), Some((known, channel))) if *known == address => return Some(channel.clone()),
            (Some(address), _) => address,
        };
        let channel: Arc<dyn Channel> = Arc::new(RemoteChannel::new(
            self.world.clone(),
            address.clone(),
            self.secret.clone(),
            self.timeouts,
        ));
        self.remote
            .write()
            .insert(name.to_owned(), (address, channel.clone()));
        Some(channel)
    }

    /// Where `shard` is now, as far as is known: the reference to send and its primary's name.
    pub fn locate(&self, shard: ShardId) -> Option<(ShardRef, String)> {
        let map = self.shard_map.borrow();
        let entry = map.get(&shard)?;
        Some((
            ShardRef {
                shard,
                epoch: entry.term,
            },
            entry.primary.clone(),
        ))
    }

    /// Whether `shard` has, or is to have, more than one copy.
    pub fn is_replicated(&self, shard: ShardId) -> bool {
        let map = self.shard_map.borrow();
        map.get(&shard).is_none_or(|entry| entry.replicas.len() > 1)
    }

    /// The channel to the primary of `shard` with the reference to send.
    pub fn primary(&self, shard: ShardId) -> Option<(ShardRef, Arc<dyn Channel>)> {
        let (reference, name) = self.locate(shard)?;
        Some((reference, self.channel(&name)?))
    }

    /// Registered data nodes.
    pub fn data_nodes(&self) -> Vec<String> {
        let mut names: Vec<String> = self.members.borrow().keys().cloned().collect();
        for name in self.local.read().keys() {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// Names and registrations of the data nodes, now and as they change.
    pub(super) fn members(&self) -> watch::Receiver<BTreeMap<String, bytes::Bytes>> {
        self.members.clone()
    }

    /// What the registered data nodes say of themselves.
    pub fn registrations(&self) -> BTreeMap<String, Registration> {
        let members = self.members.borrow();
        let decoded = members
            .iter()
            .map(|(name, data)| (name.clone(), Registration::decode(data)));
        decoded.collect()
    }

    /// What was learnt of the nodes last.
    pub fn observations(&self) -> Arc<Observations> {
        self.observations.read().clone()
    }

    /// Shows `observations` from now on.
    pub(super) fn set_observations(&self, observations: Arc<Observations>) {
        *self.observations.write() = observations;
    }

    /// The shard map, now and as it changes.
    pub fn shard_map(&self) -> watch::Receiver<Arc<ShardMap>> {
        self.shard_map.clone()
    }

    /// Returns when the shard map has changed or `limit` has passed.
    pub async fn shard_map_changed(&self, limit: Duration) {
        let mut map = self.shard_map.clone();
        map.mark_unchanged();
        // Either way the caller looks again.
        let _ = timeout(&*self.world.clock, limit, map.changed()).await;
    }
}
