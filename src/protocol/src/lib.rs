//! What processes of a cluster say to each other: prost messages, Snappy-compressed, sealed with AES-256-GCM,
//! framed over [`Stream`](neorunbase_world::Stream)s, and request/response calls on top.

pub mod channel;
pub mod coordinate;
pub mod frame;
pub mod handshake;
pub mod message;
pub mod remote;
pub mod replicate;
pub mod server;

pub use channel::{CallError, Channel, RequestHandler};
pub use handshake::ClusterSecret;
pub use remote::RemoteChannel;
