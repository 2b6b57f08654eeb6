//! Tells the Data Nodes which transactions are alive. A node that hears nothing of one for a while rolls it back.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use neorunbase_protocol::message::{Heartbeat, RequestBody, TransactionId};
use neorunbase_world::World;
use neorunbase_world::clock::timeout;
use neorunbase_world::fault::buggify;
use parking_lot::Mutex;

use crate::cluster::NodeDirectory;

/// Nodes take a transaction for abandoned after several of these.
const INTERVAL: Duration = Duration::from_secs(1);

/// All open transactions of this Coordinator that have an id.
pub struct Heartbeats {
    transactions: Mutex<BTreeSet<TransactionId>>,
}

/// Keeps one transaction alive until dropped.
pub struct OpenTransaction {
    heartbeats: Arc<Heartbeats>,
    transaction: TransactionId,
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        self.heartbeats.transactions.lock().remove(&self.transaction);
    }
}

impl Heartbeats {
    /// Starts beating.
    pub fn start(world: &World, directory: Arc<NodeDirectory>) -> Arc<Self> {
        let heartbeats = Arc::new(Self {
            transactions: Mutex::default(),
        });
        let task = beat(world.clone(), directory, Arc::downgrade(&heartbeats));
        world.spawner.spawn("heartbeats", Box::pin(task));
        heartbeats
    }

    /// Adds a transaction.
    pub fn open(self: &Arc<Self>, transaction: TransactionId) -> OpenTransaction {
        self.transactions.lock().insert(transaction);
        OpenTransaction {
            heartbeats: self.clone(),
            transaction,
        }
    }
}

async fn beat(world: World, directory: Arc<NodeDirectory>, heartbeats: Weak<Heartbeats>) {
    loop {
        world.clock.sleep(INTERVAL).await;
        let Some(heartbeats) = heartbeats.upgrade() else {
            return;
        };
        let transactions: Vec<TransactionId> = heartbeats.transactions.lock().iter().copied().collect();
        if transactions.is_empty() || buggify("heartbeat left out") {
            continue;
        }
        let beats = directory.data_nodes().into_iter().filter_map(|node| {
            let channel = directory.channel(&node)?;
            let request = RequestBody::Heartbeat(Heartbeat {
                transactions: transactions.clone(),
            });
            let clock = world.clock.clone();
            Some(async move {
                // A node that cannot be reached hears the next one.
                let _ = timeout(&*clock, INTERVAL, channel.call(request.into())).await;
            })
        });
        join_all(beats).await;
    }
}
