//! The coordination trait over a real ZooKeeper ensemble. Production only: its client has tasks, timers and
//! sockets of its own.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the client library has tasks, timers and sockets of its own; only production links it"
)]

mod session;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use neorunbase_world::Coordination;
use neorunbase_world::coordination::{CoordinationError, CreateMode, SessionState, Version, Watch};
use tokio::sync::{oneshot, watch};
use zookeeper_client::{Acls, Client, CreateOptions, Error, OneshotWatcher};

use crate::session::SessionKeeper;

/// A client of a ZooKeeper ensemble. Opens a new session by itself when one has expired. Dropping it closes
/// the session.
pub struct ZooKeeperCoordination {
    keeper: SessionKeeper,
    call_deadline: Duration,
}

/// Why there is no first session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The chroot is not an absolute path.
    #[error("{0:?} is not a path that can serve as root in ZooKeeper")]
    BadChroot(String),
    /// No session could be opened, or the chroot not be created.
    #[error("cannot open a session with ZooKeeper at {servers}: {error}")]
    Unreachable {
        /// The connection string.
        servers: String,
        /// What the client library reported.
        error: Error,
    },
}

fn options(mode: zookeeper_client::CreateMode) -> CreateOptions<'static> {
    mode.with_acls(Acls::anyone_all())
}

fn translate(error: Error, path: &str) -> CoordinationError {
    match error {
        Error::NoNode => CoordinationError::NoNode(path.to_owned()),
        Error::NodeExists => CoordinationError::NodeExists(path.to_owned()),
        Error::BadVersion => CoordinationError::BadVersion(path.to_owned()),
        Error::NotEmpty => CoordinationError::NotEmpty(path.to_owned()),
        Error::SessionExpired => CoordinationError::SessionExpired,
        // A session that moved to another server has not expired, and a closed client may have sent the call.
        Error::ConnectionLoss | Error::Timeout | Error::SessionMoved | Error::ClientClosed => {
            CoordinationError::ConnectionLost
        }
        // The library wraps socket errors and silent servers so; the outcome is as unknown.
        Error::Custom(_) => CoordinationError::ConnectionLost,
        other => CoordinationError::Other(format!("{path}: {other}")),
    }
}

/// Fires when the watcher does, or at the end of its session.
fn forward(watcher: OneshotWatcher) -> Watch {
    let (mut sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            biased;
            // Dropping the watcher takes it off the server.
            () = sender.closed() => return,
            _ = watcher.changed() => {}
        }
        // Nobody waits any more if this fails.
        let _ = sender.send(());
    });
    receiver
}

impl ZooKeeperCoordination {
    /// Opens a session with the ensemble at `servers` (`host:port,host:port`). All paths are below `chroot`,
    /// which is created if missing.
    ///
    /// # Errors
    /// [`ConnectError`] if there is no session within about `session_timeout`.
    pub async fn connect(
        servers: &str,
        chroot: &str,
        session_timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let keeper = SessionKeeper::connect(servers, chroot, session_timeout).await?;
        Ok(Self {
            keeper,
            call_deadline: session_timeout,
        })
    }

    /// The session timeout that the ensemble has granted, which need not be the one asked for.
    pub fn session_timeout(&self) -> Duration {
        self.keeper.session_timeout()
    }

    /// Closes the session, its ephemeral nodes with it; done shortly after. Further calls report
    /// `SessionExpired`.
    pub fn close(&self) {
        self.keeper.close();
    }

    /// Runs one call on the present session, for a limited time.
    async fn call<T, F>(
        &self,
        path: &str,
        call: impl FnOnce(Arc<Client>) -> F,
    ) -> Result<T, CoordinationError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let client = self.keeper.client()?;
        match tokio::time::timeout(self.call_deadline, call(client)).await {
            Ok(result) => result.map_err(|error| translate(error, path)),
            Err(_elapsed) => Err(CoordinationError::ConnectionLost),
        }
    }
}

/// Waits for both; `first` was sent first, and its failure is the one that counts.
async fn in_order<T>(
    first: impl Future<Output = Result<(), Error>>,
    second: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let (first, second) = futures::join!(first, second);
    first.and(second)
}

#[async_trait]
impl Coordination for ZooKeeperCoordination {
    async fn create(&self, path: &str, data: Bytes, mode: CreateMode) -> Result<String, CoordinationError> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let mode = match mode {
            CreateMode::Persistent => zookeeper_client::CreateMode::Persistent,
            CreateMode::Ephemeral => zookeeper_client::CreateMode::Ephemeral,
            CreateMode::EphemeralSequential => zookeeper_client::CreateMode::EphemeralSequential,
        };
        let (_, sequence) = self
            .call(path, |client| async move {
                client.create(path, &data, &options(mode)).await
            })
            .await?;
        match mode {
            zookeeper_client::CreateMode::EphemeralSequential => Ok(format!("{name}{sequence}")),
            _ => Ok(name.to_owned()),
        }
    }

    async fn get(&self, path: &str) -> Result<Option<(Bytes, Version)>, CoordinationError> {
        self.call(path, |client| async move {
            // A server may lag behind the leader. `sync`, sent just before the read, makes it catch up, so
            // that reads are as fresh as those of the embedded service.
            match in_order(client.sync(path), client.get_data(path)).await {
                Ok((data, stat)) => Ok(Some((Bytes::from(data), stat.version))),
                Err(Error::NoNode) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn get_and_watch(
        &self,
        path: &str,
    ) -> Result<(Option<(Bytes, Version)>, Watch), CoordinationError> {
        self.call(path, |client| async move {
            loop {
                match in_order(client.sync(path), client.get_and_watch_data(path)).await {
                    Ok((data, stat, watcher)) => {
                        return Ok((Some((Bytes::from(data), stat.version)), forward(watcher)));
                    }
                    Err(Error::NoNode) => {}
                    Err(error) => return Err(error),
                }
                // Absent nodes need another kind of watch. If the node came in between, read it after all.
                let (stat, watcher) = client.check_and_watch_stat(path).await?;
                if stat.is_none() {
                    return Ok((None, forward(watcher)));
                }
            }
        })
        .await
    }

    async fn set(&self, path: &str, data: Bytes, expected: Version) -> Result<Version, CoordinationError> {
        let stat = self
            .call(path, |client| async move {
                refuse_wildcard(&client, path, Some(expected)).await?;
                client.set_data(path, &data, Some(expected)).await
            })
            .await?;
        Ok(stat.version)
    }

    async fn delete(&self, path: &str, expected: Option<Version>) -> Result<(), CoordinationError> {
        self.call(path, |client| async move {
            refuse_wildcard(&client, path, expected).await?;
            client.delete(path, expected).await
        })
        .await
    }

    async fn children(&self, path: &str) -> Result<Vec<String>, CoordinationError> {
        let mut names = self
            .call(path, |client| async move {
                in_order(client.sync(path), client.list_children(path)).await
            })
            .await?;
        names.sort_unstable();
        Ok(names)
    }

    async fn children_and_watch(&self, path: &str) -> Result<(Vec<String>, Watch), CoordinationError> {
        let (mut names, watcher) = self
            .call(path, |client| async move {
                in_order(client.sync(path), client.list_and_watch_children(path)).await
            })
            .await?;
        names.sort_unstable();
        Ok((names, forward(watcher)))
    }

    fn session(&self) -> watch::Receiver<SessionState> {
        self.keeper.state()
    }
}

/// To ZooKeeper -1 means any version; to the trait only `None` does.
async fn refuse_wildcard(client: &Client, path: &str, expected: Option<Version>) -> Result<(), Error> {
    match expected {
        Some(-1) => match client.check_stat(path).await? {
            Some(_) => Err(Error::BadVersion),
            None => Err(Error::NoNode),
        },
        _ => Ok(()),
    }
}
