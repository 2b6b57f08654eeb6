//! Keeps a session open: when one has expired, the next.

use std::sync::Arc;
use std::time::Duration;

use neorunbase_world::coordination::{CoordinationError, SessionState};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zookeeper_client::{Client, CreateMode, Error};

use crate::{ConnectError, options};

const RETRY_PAUSE: Duration = Duration::from_millis(200);

struct Place {
    servers: String,
    chroot: String,
    session_timeout: Duration,
}

struct Shared {
    /// `None` between the end of a session and the opening of the next.
    client: Mutex<Option<Arc<Client>>>,
    state: watch::Sender<SessionState>,
    granted_timeout: Mutex<Duration>,
}

/// Owns the present session and the task that replaces it.
pub(crate) struct SessionKeeper {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for SessionKeeper {
    fn drop(&mut self) {
        // With the last reference to the client its session is closed.
        self.task.abort();
    }
}

async fn open(place: &Place) -> Result<Client, Error> {
    let client = Client::connector()
        .with_session_timeout(place.session_timeout)
        .connect(&place.servers)
        .await?;
    if place.chroot == "/" {
        return Ok(client);
    }
    client
        .mkdir(&place.chroot, &options(CreateMode::Persistent))
        .await?;
    client
        .chroot(place.chroot.as_str())
        .map_err(|_| Error::UnexpectedError(format!("bad root {}", place.chroot)))
}

fn is_root_path(path: &str) -> bool {
    path == "/"
        || path
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|name| !matches!(name, "" | "." | "..")))
}

impl SessionKeeper {
    pub(crate) async fn connect(
        servers: &str,
        chroot: &str,
        session_timeout: Duration,
    ) -> Result<Self, ConnectError> {
        if !is_root_path(chroot) {
            return Err(ConnectError::BadChroot(chroot.to_owned()));
        }
        let place = Place {
            servers: servers.to_owned(),
            chroot: chroot.to_owned(),
            session_timeout,
        };
        let client = open(&place).await.map_err(|error| ConnectError::Unreachable {
            servers: servers.to_owned(),
            error,
        })?;
        let client = Arc::new(client);
        let shared = Arc::new(Shared {
            granted_timeout: Mutex::new(client.session_timeout()),
            client: Mutex::new(Some(client.clone())),
            state: watch::Sender::new(SessionState::Connected),
        });
        let task = tokio::spawn(keep_open(shared.clone(), place, client));
        Ok(Self { shared, task })
    }

    pub(crate) fn client(&self) -> Result<Arc<Client>, CoordinationError> {
        self.shared
            .client
            .lock()
            .clone()
            .ok_or(CoordinationError::SessionExpired)
    }

    pub(crate) fn close(&self) {
        self.task.abort();
        self.shared.client.lock().take();
        self.shared.state.send_replace(SessionState::Expired);
    }

    pub(crate) fn state(&self) -> watch::Receiver<SessionState> {
        self.shared.state.subscribe()
    }

    pub(crate) fn session_timeout(&self) -> Duration {
        *self.shared.granted_timeout.lock()
    }
}

async fn keep_open(shared: Arc<Shared>, place: Place, mut client: Arc<Client>) {
    loop {
        follow(&shared, &client).await;
        tracing::warn!(servers = place.servers, "the ZooKeeper session has ended");
        shared.client.lock().take();
        shared.state.send_replace(SessionState::Expired);
        client = loop {
            tokio::time::sleep(RETRY_PAUSE).await;
            match open(&place).await {
                Ok(client) => break Arc::new(client),
                Err(error) => tracing::warn!(%error, servers = place.servers, "no ZooKeeper session yet"),
            }
        };
        *shared.granted_timeout.lock() = client.session_timeout();
        *shared.client.lock() = Some(client.clone());
        shared.state.send_replace(SessionState::Connected);
    }
}

/// Reports the session's state until it has ended.
async fn follow(shared: &Shared, client: &Client) {
    let mut watcher = client.state_watcher();
    let mut state = client.state();
    loop {
        match state {
            zookeeper_client::SessionState::SyncConnected => report(shared, SessionState::Connected),
            // A read-only server is cut off from the ensemble.
            zookeeper_client::SessionState::Disconnected
            | zookeeper_client::SessionState::ConnectedReadOnly => report(shared, SessionState::Disconnected),
            state if state.is_terminated() => return,
            _ => {}
        }
        state = watcher.changed().await;
    }
}

fn report(shared: &Shared, state: SessionState) {
    shared.state.send_if_modified(|known| {
        let changed = *known != state;
        *known = state;
        changed
    });
}
