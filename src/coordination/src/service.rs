//! The embedded service: one task that owns the state, journals its changes and talks to connections.
//!
//! Requests that wait while the journal syncs are taken together: one sync answers all of them. Nobody hears
//! of a change, by answer, read or watch, before it is durable.

mod lagging;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use neorunbase_world::{Clock, Entropy, MonotonicTime, Spawner};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::journal::{Journal, JournalError, JournalLocation};
use crate::message::{Answer, ClientMessage, Refusal, Request, ServerMessage, SessionId};
use crate::owned_task::OwnedTask;
use crate::state::{Change, Effects, State};
pub use lagging::Lag;
use lagging::{Caller, LaggingServer, Transaction};

/// How many waiting messages one journal record may answer.
const BATCH_LIMIT: usize = 256;
const SHORTEST_TIMEOUT_MILLIS: u64 = 10;
const LONGEST_TIMEOUT_MILLIS: u64 = 60_000;

/// How long the news of a watch on a path is held back from a session.
pub type WatchDelay = Arc<dyn Fn(SessionId, &str) -> Duration + Send + Sync>;

/// What happens to one call of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFate {
    /// It is carried out and answered.
    Served,
    /// The connection breaks before it takes effect.
    RequestLost,
    /// The connection breaks after it took effect.
    AnswerLost,
}

/// Decides the fate of each call.
pub type CallFault = Arc<dyn Fn(SessionId, &Request) -> CallFate + Send + Sync>;

#[derive(Default)]
struct Hooks {
    watch_delay: Option<WatchDelay>,
    call_fault: Option<CallFault>,
}

pub(crate) enum Command {
    Connected {
        connection: u64,
        local: bool,
        events: mpsc::UnboundedSender<ServerMessage>,
    },
    Message {
        connection: u64,
        message: ClientMessage,
    },
    Disconnected {
        connection: u64,
    },
    ExpireSession(SessionId),
    SetDisconnected(SessionId, bool),
    SetLag(SessionId, Option<Lag>),
    Sessions(oneshot::Sender<Vec<SessionId>>),
    Stop(oneshot::Sender<()>),
}

/// Makes connections to a service; outlives it harmlessly.
#[derive(Clone)]
pub(crate) struct Door {
    commands: mpsc::UnboundedSender<Command>,
    next_connection: Arc<AtomicU64>,
}

impl Door {
    /// `local`: the session lives as long as the connection, without pings.
    pub(crate) fn connect(&self, local: bool) -> Connection {
        let connection = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let (sender, events) = mpsc::unbounded_channel();
        // If the service is gone the sender is dropped here, which the client sees as a broken connection.
        let _ = self.commands.send(Command::Connected {
            connection,
            local,
            events: sender,
        });
        Connection {
            events,
            sender: ConnectionSender {
                connection,
                commands: self.commands.clone(),
            },
        }
    }
}

/// One client's connection. Dropping the sender disconnects.
pub(crate) struct Connection {
    pub(crate) events: mpsc::UnboundedReceiver<ServerMessage>,
    pub(crate) sender: ConnectionSender,
}

pub(crate) struct ConnectionSender {
    connection: u64,
    commands: mpsc::UnboundedSender<Command>,
}

impl ConnectionSender {
    pub(crate) fn send(&self, message: ClientMessage) {
        // A service that is gone has dropped the connection's events too; that is where it shows.
        let _ = self.commands.send(Command::Message {
            connection: self.connection,
            message,
        });
    }
}

impl Drop for ConnectionSender {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Disconnected {
            connection: self.connection,
        });
    }
}

/// The embedded coordination service. Dropping it stops it as a crash would.
pub struct EmbeddedService {
    door: Door,
    hooks: Arc<Mutex<Hooks>>,
    _task: OwnedTask,
}

impl EmbeddedService {
    /// Starts the service on what `journal` holds; without a journal, on an empty tree that dies with it.
    ///
    /// # Errors
    /// [`JournalError`] if the journal cannot be read.
    pub async fn start(
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        spawner: Arc<dyn Spawner>,
        journal: Option<JournalLocation>,
    ) -> Result<Self, JournalError> {
        let (journal, state) = match journal {
            None => (None, State::default()),
            Some(location) => {
                let path = location.path.clone();
                let (journal, changes) = Journal::open(location).await?;
                let state = State::replay(changes).map_err(|reason| JournalError::Corrupt {
                    path,
                    offset: 0,
                    reason,
                })?;
                (Some(journal), state)
            }
        };
        let (sender, commands) = mpsc::unbounded_channel();
        let hooks = Arc::new(Mutex::new(Hooks::default()));
        let core = Core {
            clock,
            entropy,
            spawner: spawner.clone(),
            hooks: hooks.clone(),
            state,
            journal,
            connections: BTreeMap::new(),
            attached: BTreeMap::new(),
            blocked: BTreeSet::new(),
            lagging: BTreeMap::new(),
            changes: Vec::new(),
            outbox: Vec::new(),
        };
        let task = spawner.spawn("coordination-service", Box::pin(core.run(commands)));
        let door = Door {
            commands: sender,
            next_connection: Arc::new(AtomicU64::new(1)),
        };
        Ok(Self {
            door,
            hooks,
            _task: OwnedTask(task),
        })
    }

    pub(crate) fn door(&self) -> Door {
        self.door.clone()
    }

    /// Ends `session` now, as if it had been silent for too long.
    pub fn expire_session(&self, session: SessionId) {
        let _ = self.door.commands.send(Command::ExpireSession(session));
    }

    /// Cuts the connection of `session` and keeps it from coming back, or lets it come back. Its timeout runs
    /// meanwhile.
    pub fn set_disconnected(&self, session: SessionId, disconnected: bool) {
        let _ = self
            .door
            .commands
            .send(Command::SetDisconnected(session, disconnected));
    }

    /// Serves `session` from now on by a server that is behind the others; `None`: by one that is not.
    pub fn set_lag(&self, session: SessionId, lag: Option<Lag>) {
        let _ = self.door.commands.send(Command::SetLag(session, lag));
    }

    /// Holds back watches from now on as `delay` says; `None` delivers them at once.
    pub fn set_watch_delay(&self, delay: Option<WatchDelay>) {
        self.hooks.lock().watch_delay = delay;
    }

    /// Breaks connections around calls from now on as `fault` says; `None` serves all of them.
    pub fn set_call_fault(&self, fault: Option<CallFault>) {
        self.hooks.lock().call_fault = fault;
    }

    /// The living sessions; none if the service has stopped.
    pub async fn sessions(&self) -> Vec<SessionId> {
        let (sender, receiver) = oneshot::channel();
        let _ = self.door.commands.send(Command::Sessions(sender));
        receiver.await.unwrap_or_default()
    }

    /// Answers what was asked before this call, then stops.
    pub async fn stop(&self) {
        let (sender, receiver) = oneshot::channel();
        if self.door.commands.send(Command::Stop(sender)).is_ok() {
            // An error means that the service has stopped already.
            let _ = receiver.await;
        }
    }
}

struct ConnectionState {
    events: mpsc::UnboundedSender<ServerMessage>,
    local: bool,
    session: Option<SessionId>,
}

struct Delivery {
    to: mpsc::UnboundedSender<ServerMessage>,
    message: ServerMessage,
    delay: Duration,
}

struct Core {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    spawner: Arc<dyn Spawner>,
    hooks: Arc<Mutex<Hooks>>,
    state: State,
    journal: Option<Journal>,
    connections: BTreeMap<u64, ConnectionState>,
    /// The connection that speaks for a session: what an older one still says is ignored.
    attached: BTreeMap<SessionId, u64>,
    blocked: BTreeSet<SessionId>,
    /// Servers that lag, each with one session.
    lagging: BTreeMap<SessionId, LaggingServer>,
    changes: Vec<Change>,
    outbox: Vec<Delivery>,
}

impl Core {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let clock = self.clock.clone();
        loop {
            let deadline = self
                .state
                .next_deadline()
                .into_iter()
                .chain(self.next_due())
                .min();
            let first = tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => Some(command),
                    None => return,
                },
                () = sleep_until(&*clock, deadline) => None,
            };
            let now = clock.monotonic();
            self.catch_up(now);
            let mut stop = None;
            if let Some(command) = first {
                self.handle(command, now, &mut stop);
            }
            let mut drained = false;
            for _ in 1..BATCH_LIMIT {
                let Ok(command) = commands.try_recv() else {
                    drained = true;
                    break;
                };
                self.handle(command, now, &mut stop);
            }
            // After the messages: what waited here while the disk was slow has kept its session alive.
            if drained {
                for session in self.state.overdue(now) {
                    self.end_session(session, now);
                }
            }
            if let Err(error) = self.make_durable().await {
                // What was applied is not what a restart would find, so nothing may be served from it. All
                // connections break here, the outcome of their calls unknown.
                tracing::error!(%error, "the coordination service stops: its journal failed");
                return;
            }
            self.deliver();
            if let Some(stopped) = stop {
                let _ = stopped.send(());
                return;
            }
        }
    }

    async fn make_durable(&mut self) -> Result<(), JournalError> {
        let changes = std::mem::take(&mut self.changes);
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        if changes.is_empty() {
            return Ok(());
        }
        journal.append(&changes).await?;
        if journal.wants_compaction() {
            journal.compact(&self.state.snapshot()).await?;
        }
        Ok(())
    }

    fn deliver(&mut self) {
        for delivery in self.outbox.drain(..) {
            let Delivery { to, message, delay } = delivery;
            if delay.is_zero() {
                // A connection that is gone misses nothing: its client fires all its watches.
                let _ = to.send(message);
                continue;
            }
            let clock = self.clock.clone();
            // Weak: what is late must not make a broken connection look whole.
            let to = to.downgrade();
            let late = async move {
                clock.sleep(delay).await;
                if let Some(to) = to.upgrade() {
                    let _ = to.send(message);
                }
            };
            self.spawner.spawn("coordination-late-watch", Box::pin(late));
        }
    }

    fn handle(&mut self, command: Command, now: MonotonicTime, stop: &mut Option<oneshot::Sender<()>>) {
        match command {
            Command::Connected {
                connection,
                local,
                events,
            } => {
                self.connections.insert(
                    connection,
                    ConnectionState {
                        events,
                        local,
                        session: None,
                    },
                );
            }
            Command::Message { connection, message } => self.message(connection, message, now),
            Command::Disconnected { connection } => self.cut(connection, now),
            Command::ExpireSession(session) => self.end_session(session, now),
            Command::SetDisconnected(session, true) => {
                self.blocked.insert(session);
                if let Some(connection) = self.attached.get(&session).copied() {
                    self.cut(connection, now);
                }
            }
            Command::SetDisconnected(session, false) => {
                self.blocked.remove(&session);
            }
            Command::SetLag(session, lag) => self.set_lag(session, lag, now),
            Command::Sessions(reply) => {
                let _ = reply.send(self.state.sessions());
            }
            Command::Stop(stopped) => *stop = Some(stopped),
        }
    }

    fn message(&mut self, connection: u64, message: ClientMessage, now: MonotonicTime) {
        let Some(speaker) = self.connections.get(&connection) else {
            return;
        };
        let session = speaker.session;
        if let Some(session) = session {
            self.state.touch(session, now);
        }
        match (message, session) {
            (
                ClientMessage::Open {
                    session: Some(session),
                    ..
                },
                None,
            ) => self.resume(connection, session, now),
            (
                ClientMessage::Open {
                    session: None,
                    timeout_millis,
                },
                None,
            ) => {
                let timeout_millis = timeout_millis.clamp(SHORTEST_TIMEOUT_MILLIS, LONGEST_TIMEOUT_MILLIS);
                let session = SessionId(self.entropy.next_u64());
                let timeout = Duration::from_millis(timeout_millis);
                self.state.open_session(session, timeout, now);
                self.tell_lagging(&Transaction::Opened { session, timeout }, None, now);
                self.attach(connection, session);
            }
            (ClientMessage::Ping { sent_at }, _) => self.send(connection, ServerMessage::Pong { sent_at }),
            (ClientMessage::Call { call, request }, Some(session)) => {
                self.call(connection, session, call, request, now);
            }
            (ClientMessage::Close, Some(session)) => self.end_session(session, now),
            // A second opening, or a call that was on its way when the session expired: the client knows that
            // such calls came to nothing.
            (ClientMessage::Open { .. }, Some(_)) => self.cut(connection, now),
            (ClientMessage::Call { .. } | ClientMessage::Close, None) => {}
        }
    }

    fn resume(&mut self, connection: u64, session: SessionId, now: MonotonicTime) {
        if self.blocked.contains(&session) {
            self.cut(connection, now);
            return;
        }
        if !self.state.has_session(session) {
            self.send(connection, ServerMessage::Expired);
            return;
        }
        if let Some(previous) = self.attached.get(&session).copied() {
            self.cut(previous, now);
        }
        self.state.touch(session, now);
        self.attach(connection, session);
    }

    fn attach(&mut self, connection: u64, session: SessionId) {
        let Some(speaker) = self.connections.get_mut(&connection) else {
            return;
        };
        speaker.session = Some(session);
        if speaker.local {
            self.state.hold(session);
        }
        self.attached.insert(session, connection);
        self.send(connection, ServerMessage::Opened { session });
    }

    fn call(&mut self, connection: u64, session: SessionId, call: u64, request: Request, now: MonotonicTime) {
        let fault = self.hooks.lock().call_fault.clone();
        let fate = fault.map_or(CallFate::Served, |fault| fault(session, &request));
        if fate == CallFate::RequestLost {
            self.cut(connection, now);
            return;
        }
        if fate == CallFate::AnswerLost {
            self.cut(connection, now);
            if request.is_read() {
                return;
            }
        }
        let caller = Caller { connection, call };
        if self.lagging.contains_key(&session) {
            self.call_lagging(session, caller, request, now);
        } else if request.is_read() {
            let result = self.state.apply(session, request, &mut Effects::default());
            self.answer(caller, result);
        } else {
            self.write(session, caller, request, now);
        }
    }

    /// Carries out a call that changes something. Its answer comes by the session's server.
    fn write(&mut self, session: SessionId, caller: Caller, request: Request, now: MonotonicTime) {
        let mut effects = Effects::default();
        let result = self.state.apply(session, request.clone(), &mut effects);
        // Watches first: whoever sees the answer must have been told of the change already.
        self.spread(effects);
        if !self.lagging.contains_key(&session) {
            self.answer(caller, result.clone());
        }
        let transaction = match result {
            Ok(_) => Transaction::Applied { session, request },
            Err(_) => Transaction::Nothing,
        };
        self.tell_lagging(&transaction, Some((session, caller, result)), now);
    }

    fn end_session(&mut self, session: SessionId, now: MonotonicTime) {
        let mut effects = Effects::default();
        self.state.end_session(session, &mut effects);
        self.lagging.remove(&session);
        self.tell_lagging(&Transaction::Ended(session), None, now);
        self.spread(effects);
        if let Some(connection) = self.attached.remove(&session) {
            self.send(connection, ServerMessage::Expired);
            if let Some(speaker) = self.connections.get_mut(&connection) {
                speaker.session = None;
            }
        }
    }

    fn cut(&mut self, connection: u64, now: MonotonicTime) {
        let Some(ConnectionState {
            session: Some(session),
            ..
        }) = self.connections.remove(&connection)
        else {
            return;
        };
        self.attached.remove(&session);
        self.state.release(session, now);
        self.state.forget_watches(session);
        self.forget_lagging_calls(session);
    }

    fn spread(&mut self, effects: Effects) {
        self.changes.extend(effects.changes);
        let watch_delay = self.hooks.lock().watch_delay.clone();
        for notice in effects.notices {
            let connection = self.attached.get(&notice.session);
            let Some(listener) = connection.and_then(|connection| self.connections.get(connection)) else {
                continue;
            };
            let delay = watch_delay
                .as_ref()
                .map_or(Duration::ZERO, |delay| delay(notice.session, &notice.path));
            let message = ServerMessage::Watch {
                path: notice.path,
                kind: notice.kind,
            };
            self.outbox.push(Delivery {
                to: listener.events.clone(),
                message,
                delay,
            });
        }
    }

    fn answer(&mut self, caller: Caller, result: Result<Answer, Refusal>) {
        let Caller { connection, call } = caller;
        self.send(connection, ServerMessage::Answer { call, result });
    }

    fn send(&mut self, connection: u64, message: ServerMessage) {
        if let Some(listener) = self.connections.get(&connection) {
            self.outbox.push(Delivery {
                to: listener.events.clone(),
                message,
                delay: Duration::ZERO,
            });
        }
    }
}

async fn sleep_until(clock: &dyn Clock, deadline: Option<MonotonicTime>) {
    match deadline {
        Some(deadline) => clock.sleep(deadline.since(clock.monotonic())).await,
        None => pending().await,
    }
}
