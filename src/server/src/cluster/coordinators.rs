//! How to call the Coordinators, and which of them leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use neorunbase_coordination::{MemberList, current_leader};
use neorunbase_protocol::channel::Channel;
use neorunbase_protocol::remote::ConnectionTimeouts;
use neorunbase_protocol::{ClusterSecret, RemoteChannel};
use neorunbase_world::coordination::CoordinationError;
use neorunbase_world::{TaskHandle, World};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::paths;

/// How often the coordination service is asked who leads.
const LOOKUP_INTERVAL: Duration = Duration::from_millis(250);

/// Channels to the Coordinators by address, made when they are first needed.
struct Channels {
    world: World,
    secret: ClusterSecret,
    known: Mutex<BTreeMap<String, Arc<dyn Channel>>>,
}

impl Channels {
    fn to(&self, address: &str) -> Arc<dyn Channel> {
        let mut known = self.known.lock();
        let channel = known.entry(address.to_owned()).or_insert_with(|| {
            Arc::new(RemoteChannel::new(
                self.world.clone(),
                address.to_owned(),
                self.secret.clone(),
                ConnectionTimeouts::default(),
            ))
        });
        channel.clone()
    }
}

/// The registered Coordinators, and the one that stands first for election.
pub struct CoordinatorDirectory {
    channels: Arc<Channels>,
    members: watch::Receiver<BTreeMap<String, Bytes>>,
    /// Its address; empty: none is known yet.
    leader: watch::Receiver<String>,
    _member_list: MemberList,
    lookup: TaskHandle,
}

impl Drop for CoordinatorDirectory {
    fn drop(&mut self) {
        self.lookup.abort();
    }
}

impl CoordinatorDirectory {
    /// Keeps up with who is registered and who leads.
    ///
    /// # Errors
    /// What trying again would not mend.
    pub async fn start(world: &World, secret: ClusterSecret) -> Result<Arc<Self>, CoordinationError> {
        let member_list = MemberList::start(
            world.coordination.clone(),
            world.clock.clone(),
            &*world.spawner,
            paths::COORDINATORS,
        )
        .await?;
        let (sender, leader) = watch::channel(String::new());
        let lookup = world
            .spawner
            .spawn("leader lookup", Box::pin(follow_leader(world.clone(), sender)));
        Ok(Arc::new(Self {
            channels: Arc::new(Channels {
                world: world.clone(),
                secret,
                known: Mutex::default(),
            }),
            members: member_list.members(),
            leader,
            _member_list: member_list,
            lookup,
        }))
    }

    /// The channel to the Coordinator `name`, if it is registered.
    pub fn channel(&self, name: &str) -> Option<Arc<dyn Channel>> {
        let members = self.members.borrow();
        let address = members.get(name)?;
        Some(self.channels.to(&String::from_utf8_lossy(address)))
    }

    /// Channels to all registered Coordinators but `own`.
    pub fn others(&self, own: &str) -> Vec<Arc<dyn Channel>> {
        let members = self.members.borrow();
        let others = members.iter().filter(|(name, _)| *name != own);
        others
            .map(|(_, address)| self.channels.to(&String::from_utf8_lossy(address)))
            .collect()
    }

    /// The channel to the leader. It may have just died, or not lead any more: then it says so.
    pub fn leader(&self) -> Option<Arc<dyn Channel>> {
        let address = self.leader.borrow();
        (!address.is_empty()).then(|| self.channels.to(&address))
    }
}

async fn follow_leader(world: World, leader: watch::Sender<String>) {
    loop {
        match current_leader(&*world.coordination, paths::COORDINATOR_ELECTION).await {
            Ok(Some((_, data))) => {
                let address = String::from_utf8_lossy(&data).into_owned();
                leader.send_if_modified(|known| {
                    let changed = *known != address;
                    *known = address;
                    changed
                });
            }
            // The last leader known stands; it refuses if it no longer leads.
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "cannot look up the leader"),
        }
        world.clock.sleep(LOOKUP_INTERVAL).await;
    }
}
