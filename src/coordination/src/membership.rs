//! Who is there: each node keeps an ephemeral node of its own, and everybody keeps a list of all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::select_all;
use neorunbase_world::coordination::{CoordinationError, CreateMode, Watch, ensure_path};
use neorunbase_world::fault::dawdle;
use neorunbase_world::{Clock, Coordination, Spawner};
use tokio::sync::watch;

use crate::owned_task::OwnedTask;

const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// After another process has taken this node's name; long enough not to fight over it at full speed.
const DISPLACED_PAUSE: Duration = Duration::from_secs(2);
/// The list is read again this often even if nothing is said to have changed.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// This node's presence. Dropping it ends the upkeep; the ephemeral node goes with the session, or at once by
/// [`leave`](Membership::leave).
pub struct Membership {
    coordination: Arc<dyn Coordination>,
    node_path: String,
    registered: watch::Receiver<bool>,
    task: OwnedTask,
}

impl Membership {
    /// Registers `name` with `data` under `path` in the background, and again whenever the session has
    /// expired. A node of the same name left by an earlier process is replaced.
    pub fn start(
        coordination: Arc<dyn Coordination>,
        clock: Arc<dyn Clock>,
        spawner: &dyn Spawner,
        path: &str,
        name: &str,
        data: Bytes,
    ) -> Self {
        let node_path = format!("{path}/{name}");
        let (sender, registered) = watch::channel(false);
        let upkeep = keep_registered(
            coordination.clone(),
            clock,
            path.to_owned(),
            node_path.clone(),
            data,
            sender,
        );
        let task = OwnedTask(spawner.spawn("membership", Box::pin(upkeep)));
        Self {
            coordination,
            node_path,
            registered,
            task,
        }
    }

    /// Whether the node is registered, as far as is known, now and as it changes.
    pub fn registered(&self) -> watch::Receiver<bool> {
        self.registered.clone()
    }

    /// Leaves the list at once.
    ///
    /// # Errors
    /// `ConnectionLost`, `SessionExpired`: the node goes once the session has ended.
    pub async fn leave(self) -> Result<(), CoordinationError> {
        drop(self.task);
        match self.coordination.delete(&self.node_path, None).await {
            Ok(()) | Err(CoordinationError::NoNode(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

async fn keep_registered(
    coordination: Arc<dyn Coordination>,
    clock: Arc<dyn Clock>,
    path: String,
    node_path: String,
    data: Bytes,
    registered: watch::Sender<bool>,
) {
    loop {
        match register(&*coordination, &path, &node_path, &data).await {
            Ok(()) => {
                registered.send_replace(true);
                let displaced = stays_registered(&*coordination, &*clock, &node_path, &data).await;
                registered.send_replace(false);
                if displaced {
                    tracing::error!(node_path, "another process has taken this node's name");
                    clock.sleep(DISPLACED_PAUSE).await;
                }
            }
            Err(error) => {
                tracing::debug!(node_path, %error, "cannot register yet");
                clock.sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Returns only once the ephemeral node is surely of the present session: created, not found.
async fn register(
    coordination: &dyn Coordination,
    path: &str,
    node_path: &str,
    data: &Bytes,
) -> Result<(), CoordinationError> {
    ensure_path(coordination, path).await?;
    loop {
        match coordination
            .create(node_path, data.clone(), CreateMode::Ephemeral)
            .await
        {
            Err(CoordinationError::NodeExists(_)) => match coordination.delete(node_path, None).await {
                Ok(()) | Err(CoordinationError::NoNode(_)) => {}
                Err(error) => return Err(error),
            },
            created => return created.map(|_| ()),
        }
    }
}

/// Returns when the node is gone, or is not ours: `true` if another process has put its own there.
async fn stays_registered(
    coordination: &dyn Coordination,
    clock: &dyn Clock,
    node_path: &str,
    data: &Bytes,
) -> bool {
    loop {
        match coordination.get_and_watch(node_path).await {
            // The watch fires at the end of the session too. A node that is there after an expiry is still
            // watched, and its removal noticed.
            Ok((Some((found, _)), changed)) if found == *data => {
                let _ = changed.await;
            }
            Ok((Some(_), _)) => return true,
            Ok((None, _)) | Err(CoordinationError::SessionExpired) => return false,
            Err(_) => clock.sleep(RETRY_PAUSE).await,
        }
    }
}

/// The members under a path, kept fresh.
pub struct MemberList {
    members: watch::Receiver<BTreeMap<String, Bytes>>,
    _task: OwnedTask,
}

impl MemberList {
    /// Reads the list, retrying until that succeeds, and keeps it fresh until dropped. While the service is
    /// out of reach the last list stands.
    ///
    /// # Errors
    /// What trying again would not mend.
    pub async fn start(
        coordination: Arc<dyn Coordination>,
        clock: Arc<dyn Clock>,
        spawner: &dyn Spawner,
        path: &str,
    ) -> Result<Self, CoordinationError> {
        let (members, watches) = loop {
            match read(&*coordination, path).await {
                Ok(read) => break read,
                Err(CoordinationError::ConnectionLost | CoordinationError::SessionExpired) => {
                    clock.sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        };
        let (sender, receiver) = watch::channel(members);
        let keeping = keep_fresh(coordination, clock, path.to_owned(), sender, watches);
        let task = spawner.spawn("member-list", Box::pin(keeping));
        Ok(Self {
            members: receiver,
            _task: OwnedTask(task),
        })
    }

    /// Names and data of the members, now and as they change.
    pub fn members(&self) -> watch::Receiver<BTreeMap<String, Bytes>> {
        self.members.clone()
    }
}

async fn read(
    coordination: &dyn Coordination,
    path: &str,
) -> Result<(BTreeMap<String, Bytes>, Vec<Watch>), CoordinationError> {
    let (names, watch) = match coordination.children_and_watch(path).await {
        Err(CoordinationError::NoNode(_)) => {
            ensure_path(coordination, path).await?;
            coordination.children_and_watch(path).await?
        }
        found => found?,
    };
    let mut watches = vec![watch];
    let mut members = BTreeMap::new();
    for name in names {
        let (found, watch) = coordination.get_and_watch(&format!("{path}/{name}")).await?;
        watches.push(watch);
        if let Some((data, _)) = found {
            members.insert(name, data);
        }
    }
    Ok((members, watches))
}

async fn keep_fresh(
    coordination: Arc<dyn Coordination>,
    clock: Arc<dyn Clock>,
    path: String,
    members: watch::Sender<BTreeMap<String, Bytes>>,
    mut watches: Vec<Watch>,
) {
    loop {
        tokio::select! {
            biased;
            _ = select_all(watches) => {}
            () = clock.sleep(REFRESH_INTERVAL) => {}
        }
        dawdle(&*clock, "member list read late", Duration::from_secs(1)).await;
        watches = loop {
            match read(&*coordination, &path).await {
                Ok((fresh, watches)) => {
                    members.send_if_modified(|known| {
                        let changed = *known != fresh;
                        *known = fresh;
                        changed
                    });
                    break watches;
                }
                Err(error) => {
                    tracing::debug!(path, %error, "member list cannot be read");
                    clock.sleep(RETRY_PAUSE).await;
                }
            }
        };
    }
}
