//! What clients and the service say to each other, in process and over the network alike.

use neorunbase_world::coordination::{CoordinationError, CreateMode, Version};
use serde::{Deserialize, Serialize};

/// The most data that one node may hold; ZooKeeper's limit is about the same.
pub const MAX_DATA_BYTES: usize = 1 << 20;

/// Names a session; random, so that one from before a restart of the service is not mistaken for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// What a watch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WatchKind {
    /// The node's creation, change or deletion.
    Data,
    /// Children coming and going, or the node's deletion.
    Children,
}

/// [`CreateMode`] in a form that can travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeKind {
    /// [`CreateMode::Persistent`].
    Persistent,
    /// [`CreateMode::Ephemeral`].
    Ephemeral,
    /// [`CreateMode::EphemeralSequential`].
    EphemeralSequential,
}

impl From<CreateMode> for NodeKind {
    fn from(mode: CreateMode) -> Self {
        match mode {
            CreateMode::Persistent => Self::Persistent,
            CreateMode::Ephemeral => Self::Ephemeral,
            CreateMode::EphemeralSequential => Self::EphemeralSequential,
        }
    }
}

/// One call of the coordination trait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Create a node.
    Create {
        /// Where.
        path: String,
        /// Its data.
        data: Vec<u8>,
        /// How long it lives.
        kind: NodeKind,
    },
    /// Read a node.
    Get {
        /// Which.
        path: String,
        /// Whether to watch it.
        watch: bool,
    },
    /// Replace a node's data.
    Set {
        /// Which.
        path: String,
        /// The new data.
        data: Vec<u8>,
        /// Only if this is the current version.
        expected: Version,
    },
    /// Remove a node.
    Delete {
        /// Which.
        path: String,
        /// Only if this is the current version.
        expected: Option<Version>,
    },
    /// List a node's children.
    Children {
        /// Which.
        path: String,
        /// Whether to watch for children coming and going.
        watch: bool,
    },
}

impl Request {
    /// Whether it changes nothing.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Get { .. } | Self::Children { .. })
    }
}

/// What a request that was carried out returns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Created, under this name.
    Created(String),
    /// The node's data and version, if it exists.
    Data(Option<(Vec<u8>, Version)>),
    /// Set; this is the new version.
    Set(Version),
    /// Deleted.
    Deleted,
    /// The names of the children, sorted.
    Children(Vec<String>),
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// [`CoordinationError::NoNode`].
    NoNode(String),
    /// [`CoordinationError::NodeExists`].
    NodeExists(String),
    /// [`CoordinationError::BadVersion`].
    BadVersion(String),
    /// [`CoordinationError::NotEmpty`].
    NotEmpty(String),
    /// [`CoordinationError::Other`].
    Other(String),
}

impl From<Refusal> for CoordinationError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoNode(path) => Self::NoNode(path),
            Refusal::NodeExists(path) => Self::NodeExists(path),
            Refusal::BadVersion(path) => Self::BadVersion(path),
            Refusal::NotEmpty(path) => Self::NotEmpty(path),
            Refusal::Other(reason) => Self::Other(reason),
        }
    }
}

/// From a client. The first one of a connection is `Open`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientMessage {
    /// Resume `session`, or open a new one.
    Open {
        /// The session to resume.
        session: Option<SessionId>,
        /// For a new session: how long it survives silence.
        timeout_millis: u64,
    },
    /// A call; answers carry the same number.
    Call {
        /// Chosen by the client, unique on its connection.
        call: u64,
        /// What to do.
        request: Request,
    },
    /// Keeps the session alive.
    Ping {
        /// Returned as it is.
        sent_at: u64,
    },
    /// Ends the session now.
    Close,
}

/// From the service, in the order in which things happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerMessage {
    /// The session is open on this connection.
    Opened {
        /// Which.
        session: SessionId,
    },
    /// The session is gone, its ephemeral nodes with it.
    Expired,
    /// The outcome of a call.
    Answer {
        /// Of which call.
        call: u64,
        /// Its outcome.
        result: Result<Answer, Refusal>,
    },
    /// A watch fired; it is gone at the service.
    Watch {
        /// Of which node.
        path: String,
        /// Of which kind.
        kind: WatchKind,
    },
    /// The service heard the ping.
    Pong {
        /// As in the ping.
        sent_at: u64,
    },
}
