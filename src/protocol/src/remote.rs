//! Calls to a node in another process: one connection, many calls at once, opened when needed.
//!
//! A call waits as long as the node works on it (it may wait for a row lock), but not on a dead connection: pings
//! notice a peer that has gone silent, and every call under way then ends as [`CallError::OutcomeUnknown`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use neorunbase_world::clock::timeout;
use neorunbase_world::{Stream, World};
use parking_lot::Mutex;
use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};

use crate::channel::{CallError, Channel};
use crate::frame::{FrameKind, FrameOpener, FrameSealer};
use crate::handshake::{self, ClusterSecret};
use crate::message::{Request, Response};

/// How patient connections are.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionTimeouts {
    /// For connecting and the handshake.
    pub connect: Duration,
    /// Between pings.
    pub ping_interval: Duration,
    /// Silence after which the peer counts as gone.
    pub silence: Duration,
}

impl Default for ConnectionTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            ping_interval: Duration::from_secs(1),
            silence: Duration::from_secs(5),
        }
    }
}

/// Refuses new work when so many encoded requests wait for the socket.
const SEND_QUEUE_LENGTH: usize = 1024;

struct Connection {
    outgoing: mpsc::Sender<(u64, FrameKind, Vec<u8>)>,
    pending: Arc<Mutex<Pending>>,
}

#[derive(Default)]
struct Pending {
    closed: bool,
    answers: BTreeMap<u64, oneshot::Sender<Response>>,
    next_call: u64,
}

impl Pending {
    fn close(&mut self) {
        self.closed = true;
        self.answers.clear();
    }
}

/// A [`Channel`] to a node behind the network.
pub struct RemoteChannel {
    world: World,
    address: String,
    secret: ClusterSecret,
    timeouts: ConnectionTimeouts,
    connection: tokio::sync::Mutex<Option<Arc<Connection>>>,
}

impl RemoteChannel {
    /// A channel to the node listening at `address`; connects at the first call.
    pub fn new(
        world: World,
        address: impl Into<String>,
        secret: ClusterSecret,
        timeouts: ConnectionTimeouts,
    ) -> Self {
        Self {
            world,
            address: address.into(),
            secret,
            timeouts,
            connection: tokio::sync::Mutex::new(None),
        }
    }

    async fn connection(&self) -> Result<Arc<Connection>, CallError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref()
            && !connection.pending.lock().closed
        {
            return Ok(connection.clone());
        }
        let unreachable = || CallError::Unreachable(self.address.clone());
        let opened = timeout(&*self.world.clock, self.timeouts.connect, async {
            let mut stream = self.world.network.connect(&self.address).await?;
            let keys = handshake::call(&mut *stream, &self.secret, &*self.world.entropy).await?;
            std::io::Result::Ok((stream, keys))
        });
        let (stream, keys) = match opened.await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => {
                tracing::debug!(address = %self.address, %error, "cannot connect to node");
                return Err(unreachable());
            }
            Err(_) => return Err(unreachable()),
        };
        let (outgoing, queue) = mpsc::channel(SEND_QUEUE_LENGTH);
        let pending = Arc::new(Mutex::new(Pending::default()));
        let connection = Arc::new(Connection {
            outgoing: outgoing.clone(),
            pending: pending.clone(),
        });
        let driver = drive(
            self.world.clone(),
            stream,
            FrameSealer::new(&keys.sending),
            FrameOpener::new(&keys.receiving),
            queue,
            pending,
            self.timeouts,
        );
        self.world.spawner.spawn("node connection", Box::pin(driver));
        *slot = Some(connection.clone());
        Ok(connection)
    }
}

#[async_trait]
impl Channel for RemoteChannel {
    async fn call(&self, request: Request) -> Result<Response, CallError> {
        let connection = self.connection().await?;
        let (answer, answered) = oneshot::channel();
        let call = {
            let mut pending = connection.pending.lock();
            if pending.closed {
                return Err(CallError::Unreachable(self.address.clone()));
            }
            let call = pending.next_call;
            pending.next_call += 1;
            pending.answers.insert(call, answer);
            call
        };
        if connection
            .outgoing
            .send((call, FrameKind::Request, request.encode_to_vec()))
            .await
            .is_err()
        {
            return Err(CallError::Unreachable(self.address.clone()));
        }
        answered
            .await
            .map_err(|_| CallError::OutcomeUnknown(self.address.clone()))
    }
}

/// Moves frames of one connection until it breaks or falls silent; then fails every call under way.
async fn drive(
    world: World,
    stream: Box<dyn Stream>,
    sealer: FrameSealer,
    opener: FrameOpener,
    queue: mpsc::Receiver<(u64, FrameKind, Vec<u8>)>,
    pending: Arc<Mutex<Pending>>,
    timeouts: ConnectionTimeouts,
) {
    let (reader, writer) = tokio::io::split(stream);
    let (pings, ping_queue) = mpsc::channel(1);
    tokio::select! {
        biased;
        () = write_frames(writer, sealer, queue, ping_queue) => {}
        () = read_answers(&world, reader, opener, &pending, pings, timeouts) => {}
    }
    pending.lock().close();
}

async fn write_frames<W: tokio::io::AsyncWrite + Unpin>(
    mut writer: W,
    mut sealer: FrameSealer,
    mut queue: mpsc::Receiver<(u64, FrameKind, Vec<u8>)>,
    mut pings: mpsc::Receiver<()>,
) {
    let mut buffer = BytesMut::new();
    loop {
        let (call, kind, body) = tokio::select! {
            biased;
            item = queue.recv() => match item {
                Some(item) => item,
                None => return,
            },
            Some(()) = pings.recv() => (0, FrameKind::Ping, Vec::new()),
        };
        buffer.clear();
        if sealer.seal(call, kind, &body, &mut buffer).is_err() {
            return;
        }
        while let Ok((call, kind, body)) = queue.try_recv() {
            if sealer.seal(call, kind, &body, &mut buffer).is_err() {
                return;
            }
        }
        if writer.write_all(&buffer).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}

async fn read_answers<R: tokio::io::AsyncRead + Unpin>(
    world: &World,
    mut reader: R,
    mut opener: FrameOpener,
    pending: &Mutex<Pending>,
    pings: mpsc::Sender<()>,
    timeouts: ConnectionTimeouts,
) {
    let mut heard = world.clock.monotonic();
    loop {
        match timeout(&*world.clock, timeouts.ping_interval, opener.next(&mut reader)).await {
            Ok(Ok(Some(frame))) => {
                heard = world.clock.monotonic();
                if frame.kind != FrameKind::Response {
                    continue;
                }
                let Ok(response) = Response::decode(frame.body) else {
                    return;
                };
                if let Some(answer) = pending.lock().answers.remove(&frame.call) {
                    // The caller may have given up; its answer is not needed then.
                    let _ = answer.send(response);
                }
            }
            Ok(Ok(None) | Err(_)) => return,
            Err(_elapsed) => {
                if world.clock.monotonic().since(heard) >= timeouts.silence {
                    return;
                }
                // A full queue means that a ping is waiting already.
                let _ = pings.try_send(());
            }
        }
    }
}
