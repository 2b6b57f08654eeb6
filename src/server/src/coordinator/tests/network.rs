//! A network in memory: whoever listens can be reached.

use std::collections::BTreeMap;
use std::io;

use async_trait::async_trait;
use neorunbase_world::network::NodeAddress;
use neorunbase_world::{Listener, Network, Stream};
use parking_lot::Mutex;
use tokio::sync::mpsc;

const BUFFER_BYTES: usize = 64 << 10;

/// All listeners, by address.
#[derive(Default)]
pub struct MemoryNetwork(Mutex<BTreeMap<String, mpsc::UnboundedSender<Box<dyn Stream>>>>);

struct MemoryListener {
    address: NodeAddress,
    arrivals: tokio::sync::Mutex<mpsc::UnboundedReceiver<Box<dyn Stream>>>,
}

#[async_trait]
impl Listener for MemoryListener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, NodeAddress)> {
        let stream = self.arrivals.lock().await.recv().await;
        Ok((stream.ok_or(io::ErrorKind::BrokenPipe)?, "client:1".to_owned()))
    }
    fn local_address(&self) -> NodeAddress {
        self.address.clone()
    }
}

#[async_trait]
impl Network for MemoryNetwork {
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.lock().insert(address.to_owned(), sender);
        Ok(Box::new(MemoryListener {
            address: address.to_owned(),
            arrivals: tokio::sync::Mutex::new(receiver),
        }))
    }
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        let (near, far) = tokio::io::duplex(BUFFER_BYTES);
        let listener = self.0.lock().get(address).cloned();
        let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
        let accepted = listener.send(Box::new(far));
        accepted.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(Box::new(near))
    }
}
