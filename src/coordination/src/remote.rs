//! The embedded service over the network: frames of a four-byte length and a postcard message.
//!
//! Neither authenticated nor encrypted: for the simulator, and for processes of one machine over loopback.
//! Clusters use ZooKeeper.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use neorunbase_world::clock::timeout;
use neorunbase_world::{Clock, Listener, Network, NodeAddress, Spawner, Stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::client::{ClientOptions, Connector, Link, SessionClient};
use crate::message::{ClientMessage, Refusal, ServerMessage};
use crate::owned_task::OwnedTask;
use crate::service::{Connection, Door, EmbeddedService};

const MAX_FRAME_BYTES: usize = 4 << 20;
/// Longer than any session may be silent.
const IDLE_LIMIT: Duration = Duration::from_secs(120);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A client over the network.
pub type RemoteClient = SessionClient;

fn encode<M: Serialize>(message: &M) -> io::Result<Vec<u8>> {
    let mut frame = postcard::to_extend(message, vec![0; 4]).map_err(io::Error::other)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "message too large for one frame",
        ));
    }
    let length = u32::try_from(length).map_err(io::Error::other)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

async fn write_frame(writer: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    writer.write_all(frame).await?;
    writer.flush().await
}

async fn read_message<M: DeserializeOwned>(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<M> {
    let mut length = [0; 4];
    reader.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too large"));
    }
    let mut frame = vec![0; length];
    reader.read_exact(&mut frame).await?;
    postcard::from_bytes(&frame).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The service's side of the network.
pub struct RemoteServer {
    address: NodeAddress,
    _task: OwnedTask,
}

impl RemoteServer {
    /// Listens on `address` for clients of `service`. Dropping the server stops accepting; connections live
    /// on until the service goes.
    ///
    /// # Errors
    /// The operating system's, such as an address in use.
    pub async fn start(
        service: &EmbeddedService,
        network: &dyn Network,
        clock: Arc<dyn Clock>,
        spawner: Arc<dyn Spawner>,
        address: &str,
    ) -> io::Result<Self> {
        let listener = network.listen(address).await?;
        let address = listener.local_address();
        let accepting = accept(listener, service.door(), clock, spawner.clone());
        let task = spawner.spawn("coordination-accept", Box::pin(accepting));
        Ok(Self {
            address,
            _task: OwnedTask(task),
        })
    }

    /// Where clients connect to.
    pub fn local_address(&self) -> &str {
        &self.address
    }
}

async fn accept(listener: Box<dyn Listener>, door: Door, clock: Arc<dyn Clock>, spawner: Arc<dyn Spawner>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (door, clock) = (door.clone(), clock.clone());
                let serving = async move {
                    if let Err(error) = serve(stream, &door, &*clock).await {
                        tracing::debug!(peer, %error, "coordination connection ended");
                    }
                };
                spawner.spawn("coordination-connection", Box::pin(serving));
            }
            Err(error) => {
                tracing::warn!(%error, "coordination server cannot accept");
                clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: Box<dyn Stream>, door: &Door, clock: &dyn Clock) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let Connection { mut events, sender } = door.connect(false);
    let reading = async {
        loop {
            let message = timeout(clock, IDLE_LIMIT, read_message::<ClientMessage>(&mut reader)).await;
            sender.send(message.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??);
        }
    };
    let writing = async {
        while let Some(message) = events.recv().await {
            let frame = encode(&message).or_else(|error| match message {
                ServerMessage::Answer { call, .. } => encode(&ServerMessage::Answer {
                    call,
                    result: Err(Refusal::Other(format!("the answer cannot be sent: {error}"))),
                }),
                _ => Err(error),
            })?;
            write_frame(&mut writer, &frame).await?;
        }
        Ok(())
    };
    tokio::select! {
        biased;
        result = writing => result,
        result = reading => result,
    }
}

struct OverNetwork {
    network: Arc<dyn Network>,
    spawner: Arc<dyn Spawner>,
    address: NodeAddress,
}

#[async_trait]
impl Connector for OverNetwork {
    async fn connect(&self) -> io::Result<Link> {
        let stream = self.network.connect(&self.address).await?;
        let (outgoing, to_send) = mpsc::unbounded_channel();
        let (received, events) = mpsc::unbounded_channel();
        let carrying = async move {
            // Either end of the link closing ends the other; the client reconnects.
            if let Err(error) = carry(stream, to_send, received).await {
                tracing::debug!(%error, "connection to the coordination service ended");
            }
        };
        let guard = OwnedTask(self.spawner.spawn("coordination-link", Box::pin(carrying)));
        let send = Arc::new(move |message| {
            // Fails if the connection has ended, which the client learns from its events.
            let _ = outgoing.send(message);
        });
        Ok(Link {
            send,
            events,
            _guard: Some(guard),
        })
    }

    fn can_hang(&self) -> bool {
        true
    }
}

async fn carry(
    stream: Box<dyn Stream>,
    mut to_send: mpsc::UnboundedReceiver<ClientMessage>,
    received: mpsc::UnboundedSender<ServerMessage>,
) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = async {
        while let Some(message) = to_send.recv().await {
            write_frame(&mut writer, &encode(&message)?).await?;
        }
        Ok(())
    };
    let reading = async {
        loop {
            let message = read_message(&mut reader).await?;
            if received.send(message).is_err() {
                return Ok(());
            }
        }
    };
    tokio::select! {
        biased;
        result = writing => result,
        result = reading => result,
    }
}

impl SessionClient {
    /// A client of the service at `address`. Connects in the background, and anew whenever the connection
    /// breaks or nothing was heard for half of the session's timeout.
    pub fn remote(
        address: &str,
        network: Arc<dyn Network>,
        clock: Arc<dyn Clock>,
        spawner: Arc<dyn Spawner>,
        options: ClientOptions,
    ) -> Self {
        let connector = OverNetwork {
            network,
            spawner: spawner.clone(),
            address: address.to_owned(),
        };
        Self::start(Box::new(connector), clock, &*spawner, options)
    }
}
