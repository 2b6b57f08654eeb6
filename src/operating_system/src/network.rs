//! TCP.

use std::io;

use async_trait::async_trait;
use neorunbase_world::network::{Listener, Network, NodeAddress, Stream};
use tokio::net::{TcpListener, TcpStream};

/// Connections over TCP. Nagle's algorithm is off: small frames are answered at once, and writers batch themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpNetwork;

#[async_trait]
impl Network for TcpNetwork {
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let listener = TcpListener::bind(address).await?;
        let local_address = listener.local_addr()?.to_string();
        Ok(Box::new(BoundListener {
            listener,
            local_address,
        }))
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

struct BoundListener {
    listener: TcpListener,
    local_address: NodeAddress,
}

#[async_trait]
impl Listener for BoundListener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, NodeAddress)> {
        let (stream, peer) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), peer.to_string()))
    }

    fn local_address(&self) -> NodeAddress {
        self.local_address.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn carries_bytes_both_ways() {
        let listener = TcpNetwork.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        assert!(!address.ends_with(":0"), "the port was chosen");
        let server = async {
            let (mut stream, peer) = listener.accept().await.unwrap();
            assert!(peer.starts_with("127.0.0.1:"));
            let mut request = [0; 4];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"ping");
            stream.write_all(b"pong").await.unwrap();
        };
        let client = async {
            let mut stream = TcpNetwork.connect(&address).await.unwrap();
            stream.write_all(b"ping").await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"pong");
        };
        tokio::join!(server, client);
    }

    #[tokio::test]
    async fn reports_a_refused_connection() {
        let address = TcpNetwork.listen("127.0.0.1:0").await.unwrap().local_address();
        let error = TcpNetwork.connect(&address).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
