//! The client of the embedded service, over whatever carries its messages.
//!
//! A background task keeps a connection and the session. Answers and watches are taken in the order in which
//! the service sent them, so a watch is registered before anything that could fire it is seen.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use neorunbase_world::clock::timeout;
use neorunbase_world::coordination::{CoordinationError, CreateMode, SessionState, Version, Watch};
use neorunbase_world::{Clock, Coordination, Spawner};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::message::{Answer, ClientMessage, MAX_DATA_BYTES, Request, ServerMessage, SessionId, WatchKind};
use crate::owned_task::OwnedTask;

const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// Between learning of an expiry and opening the next session, so that owners of ephemerals can see it.
const EXPIRY_PAUSE: Duration = Duration::from_millis(1);

/// How patient a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// How long the service keeps the session without hearing of the client.
    pub session_timeout: Duration,
    /// How long a call waits, for a connection included, before it reports `ConnectionLost`.
    pub call_deadline: Duration,
}

impl ClientOptions {
    /// Calls wait for half of the session's timeout.
    pub fn with_session_timeout(session_timeout: Duration) -> Self {
        Self {
            session_timeout,
            call_deadline: session_timeout / 2,
        }
    }
}

/// Both directions of a connection; it ends when this is dropped.
pub(crate) struct Link {
    pub(crate) send: Arc<dyn Fn(ClientMessage) + Send + Sync>,
    pub(crate) events: mpsc::UnboundedReceiver<ServerMessage>,
    pub(crate) _guard: Option<OwnedTask>,
}

#[async_trait]
pub(crate) trait Connector: Send + Sync {
    async fn connect(&self) -> io::Result<Link>;

    /// Whether a broken connection can go unnoticed, so that pings are needed.
    fn can_hang(&self) -> bool;
}

struct Pending {
    answer: oneshot::Sender<Result<Answer, CoordinationError>>,
    watch: Option<(String, WatchKind, oneshot::Sender<()>)>,
}

#[derive(Default)]
struct Inner {
    /// Set while the session is open on a connection.
    send: Option<Arc<dyn Fn(ClientMessage) + Send + Sync>>,
    session: Option<SessionId>,
    closed: bool,
    next_call: u64,
    pending: BTreeMap<u64, Pending>,
    watches: BTreeMap<(String, WatchKind), Vec<oneshot::Sender<()>>>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    options: ClientOptions,
    inner: Mutex<Inner>,
    state: watch::Sender<SessionState>,
    /// A call waited too long on the present connection: it must not take effect later on.
    reset: Notify,
}

/// A client of the embedded service, in the same process or over the network. Dropping it leaves the session
/// to its timeout, as a crash would; [`close`](SessionClient::close) ends it.
pub struct SessionClient {
    shared: Arc<Shared>,
    _task: OwnedTask,
}

impl SessionClient {
    pub(crate) fn start(
        connector: Box<dyn Connector>,
        clock: Arc<dyn Clock>,
        spawner: &dyn Spawner,
        options: ClientOptions,
    ) -> Self {
        let shared = Arc::new(Shared {
            clock,
            options,
            inner: Mutex::new(Inner::default()),
            state: watch::Sender::new(SessionState::Disconnected),
            reset: Notify::new(),
        });
        let task = spawner.spawn(
            "coordination-client",
            Box::pin(keep_connected(shared.clone(), connector)),
        );
        Self {
            shared,
            _task: OwnedTask(task),
        }
    }

    /// The present session, if one was opened.
    pub fn session_id(&self) -> Option<SessionId> {
        self.shared.inner.lock().session
    }

    /// Returns once a session is open.
    ///
    /// # Errors
    /// `ConnectionLost` if that takes longer than a call may.
    pub async fn connected(&self) -> Result<(), CoordinationError> {
        let mut state = self.shared.state.subscribe();
        let opened = state.wait_for(|state| *state == SessionState::Connected);
        match timeout(&*self.shared.clock, self.shared.options.call_deadline, opened).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(CoordinationError::ConnectionLost),
        }
    }

    /// Ends the session now, its ephemeral nodes with it. Further calls report `SessionExpired`.
    pub async fn close(&self) {
        let send = {
            let mut inner = self.shared.inner.lock();
            inner.closed = true;
            inner.send.clone()
        };
        let mut state = self.shared.state.subscribe();
        if let Some(send) = send {
            send(ClientMessage::Close);
            let ended = state.wait_for(|state| *state == SessionState::Expired);
            // Unanswered, the session ends by its timeout.
            let _ = timeout(&*self.shared.clock, self.shared.options.call_deadline, ended).await;
        }
    }

    async fn call(
        &self,
        request: Request,
        watch: Option<(String, WatchKind, oneshot::Sender<()>)>,
    ) -> Result<Answer, CoordinationError> {
        if let Request::Create { path, data, .. } | Request::Set { path, data, .. } = &request
            && data.len() + path.len() > MAX_DATA_BYTES
        {
            return Err(CoordinationError::Other(format!(
                "too many bytes for one node at {path}"
            )));
        }
        let shared = &*self.shared;
        let mut asked = None;
        let asking = async {
            let answer = self.ask(request, watch, &mut asked).await?;
            answer.await.unwrap_or(Err(CoordinationError::ConnectionLost))
        };
        match timeout(&*shared.clock, shared.options.call_deadline, asking).await {
            Ok(result) => result,
            Err(_elapsed) => {
                let mut inner = shared.inner.lock();
                if asked.is_some_and(|call| inner.pending.remove(&call).is_some()) {
                    shared.reset.notify_one();
                }
                Err(CoordinationError::ConnectionLost)
            }
        }
    }

    /// Sends `request` once there is a session, and returns where its answer will come.
    async fn ask(
        &self,
        request: Request,
        watch: Option<(String, WatchKind, oneshot::Sender<()>)>,
        asked: &mut Option<u64>,
    ) -> Result<oneshot::Receiver<Result<Answer, CoordinationError>>, CoordinationError> {
        let mut state = self.shared.state.subscribe();
        loop {
            {
                let mut inner = self.shared.inner.lock();
                if inner.closed {
                    return Err(CoordinationError::SessionExpired);
                }
                if let Some(send) = inner.send.clone() {
                    let call = inner.next_call;
                    inner.next_call += 1;
                    let (answer, receiver) = oneshot::channel();
                    inner.pending.insert(call, Pending { answer, watch });
                    // Under the lock, so that calls arrive in the order of their numbers.
                    send(ClientMessage::Call { call, request });
                    *asked = Some(call);
                    return Ok(receiver);
                }
            }
            if *state.borrow_and_update() == SessionState::Expired {
                return Err(CoordinationError::SessionExpired);
            }
            if state.changed().await.is_err() {
                return Err(CoordinationError::ConnectionLost);
            }
        }
    }
}

async fn keep_connected(shared: Arc<Shared>, connector: Box<dyn Connector>) {
    loop {
        let connecting = connector.connect();
        if let Ok(Ok(mut link)) = timeout(&*shared.clock, shared.options.call_deadline, connecting).await {
            serve(&shared, &mut link, connector.can_hang()).await;
            shared.lose_connection();
        }
        if shared.inner.lock().closed {
            return;
        }
        shared.clock.sleep(RECONNECT_PAUSE).await;
    }
}

async fn serve(shared: &Shared, link: &mut Link, can_hang: bool) {
    let clock = &*shared.clock;
    let session_timeout = shared.options.session_timeout;
    // A wish to reset that came too late for the previous connection does not concern this one.
    let _ = shared.reset.notified().now_or_never();
    let open = |session| {
        let timeout_millis = u64::try_from(session_timeout.as_millis()).unwrap_or(u64::MAX);
        (link.send)(ClientMessage::Open {
            session,
            timeout_millis,
        });
    };
    open(shared.inner.lock().session);
    // The service has surely heard of the client at this time or later.
    let mut heard_at = clock.monotonic();
    let mut next_ping = heard_at;
    loop {
        let now = clock.monotonic();
        if can_hang && now.since(heard_at) >= session_timeout / 2 {
            return;
        }
        if can_hang && now >= next_ping {
            (link.send)(ClientMessage::Ping { sent_at: now.0 });
            next_ping = now.after(session_timeout / 6);
        }
        let tick = async {
            if can_hang {
                clock.sleep(next_ping.since(now)).await
            } else {
                pending().await
            }
        };
        let message = tokio::select! {
            biased;
            message = link.events.recv() => message,
            () = shared.reset.notified() => return,
            () = tick => continue,
        };
        match message {
            None => return,
            Some(ServerMessage::Opened { session }) => {
                let mut inner = shared.inner.lock();
                if inner.closed {
                    (link.send)(ClientMessage::Close);
                }
                inner.session = Some(session);
                inner.send = Some(link.send.clone());
                shared.state.send_replace(SessionState::Connected);
            }
            Some(ServerMessage::Expired) => {
                shared.expire();
                if shared.inner.lock().closed {
                    return;
                }
                clock.sleep(EXPIRY_PAUSE).await;
                open(None);
            }
            Some(ServerMessage::Answer { call, result }) => shared.answered(call, result),
            Some(ServerMessage::Watch { path, kind }) => {
                let watchers = shared.inner.lock().watches.remove(&(path, kind));
                fire(watchers.into_iter().flatten());
            }
            Some(ServerMessage::Pong { sent_at }) => heard_at.0 = heard_at.0.max(sent_at),
        }
    }
}

fn fire(watchers: impl IntoIterator<Item = oneshot::Sender<()>>) {
    for watcher in watchers {
        // Nobody waits any more if this fails.
        let _ = watcher.send(());
    }
}

impl Shared {
    fn answered(&self, call: u64, result: Result<Answer, crate::message::Refusal>) {
        let mut inner = self.inner.lock();
        let Some(Pending { answer, watch }) = inner.pending.remove(&call) else {
            return;
        };
        if let Some((path, kind, sender)) = watch
            && result.is_ok()
        {
            let watchers = inner.watches.entry((path, kind)).or_default();
            watchers.retain(|watcher| !watcher.is_closed());
            watchers.push(sender);
        }
        drop(inner);
        let _ = answer.send(result.map_err(CoordinationError::from));
    }

    fn lose_connection(&self) {
        self.end_calls(&CoordinationError::ConnectionLost);
        self.state.send_if_modified(|state| {
            let connected = *state == SessionState::Connected;
            if connected {
                *state = SessionState::Disconnected;
            }
            connected
        });
    }

    fn expire(&self) {
        neorunbase_world::sometimes!("session-expired");
        self.inner.lock().session = None;
        self.end_calls(&CoordinationError::SessionExpired);
        self.state.send_replace(SessionState::Expired);
    }

    /// Nothing more comes over this connection: calls fail with `error`, and watches fire, since the service
    /// has forgotten them.
    fn end_calls(&self, error: &CoordinationError) {
        let (calls, watches) = {
            let mut inner = self.inner.lock();
            inner.send = None;
            (
                std::mem::take(&mut inner.pending),
                std::mem::take(&mut inner.watches),
            )
        };
        for call in calls.into_values() {
            let _ = call.answer.send(Err(error.clone()));
        }
        fire(watches.into_values().flatten());
    }
}

fn mismatch<T>() -> Result<T, CoordinationError> {
    Err(CoordinationError::Other(
        "the service answered another question".to_owned(),
    ))
}

#[async_trait]
impl Coordination for SessionClient {
    async fn create(&self, path: &str, data: Bytes, mode: CreateMode) -> Result<String, CoordinationError> {
        let request = Request::Create {
            path: path.to_owned(),
            data: data.to_vec(),
            kind: mode.into(),
        };
        match self.call(request, None).await? {
            Answer::Created(name) => Ok(name),
            _ => mismatch(),
        }
    }

    async fn get(&self, path: &str) -> Result<Option<(Bytes, Version)>, CoordinationError> {
        match self
            .call(
                Request::Get {
                    path: path.to_owned(),
                    watch: false,
                },
                None,
            )
            .await?
        {
            Answer::Data(found) => Ok(found.map(|(data, version)| (Bytes::from(data), version))),
            _ => mismatch(),
        }
    }

    async fn get_and_watch(
        &self,
        path: &str,
    ) -> Result<(Option<(Bytes, Version)>, Watch), CoordinationError> {
        let (sender, fired) = oneshot::channel();
        let request = Request::Get {
            path: path.to_owned(),
            watch: true,
        };
        match self
            .call(request, Some((path.to_owned(), WatchKind::Data, sender)))
            .await?
        {
            Answer::Data(found) => Ok((found.map(|(data, version)| (Bytes::from(data), version)), fired)),
            _ => mismatch(),
        }
    }

    async fn set(&self, path: &str, data: Bytes, expected: Version) -> Result<Version, CoordinationError> {
        let request = Request::Set {
            path: path.to_owned(),
            data: data.to_vec(),
            expected,
        };
        match self.call(request, None).await? {
            Answer::Set(version) => Ok(version),
            _ => mismatch(),
        }
    }

    async fn delete(&self, path: &str, expected: Option<Version>) -> Result<(), CoordinationError> {
        match self
            .call(
                Request::Delete {
                    path: path.to_owned(),
                    expected,
                },
                None,
            )
            .await?
        {
            Answer::Deleted => Ok(()),
            _ => mismatch(),
        }
    }

    async fn children(&self, path: &str) -> Result<Vec<String>, CoordinationError> {
        match self
            .call(
                Request::Children {
                    path: path.to_owned(),
                    watch: false,
                },
                None,
            )
            .await?
        {
            Answer::Children(names) => Ok(names),
            _ => mismatch(),
        }
    }

    async fn children_and_watch(&self, path: &str) -> Result<(Vec<String>, Watch), CoordinationError> {
        let (sender, fired) = oneshot::channel();
        let request = Request::Children {
            path: path.to_owned(),
            watch: true,
        };
        match self
            .call(request, Some((path.to_owned(), WatchKind::Children, sender)))
            .await?
        {
            Answer::Children(names) => Ok((names, fired)),
            _ => mismatch(),
        }
    }

    fn session(&self) -> watch::Receiver<SessionState> {
        self.shared.state.subscribe()
    }
}
