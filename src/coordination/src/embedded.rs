//! The client in the service's own process: its session lives as long as the connection does.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use neorunbase_world::{Clock, Spawner};

use crate::client::{ClientOptions, Connector, Link, SessionClient};
use crate::service::{Connection, Door, EmbeddedService};

/// A client in the service's process.
pub type EmbeddedClient = SessionClient;

struct InProcess(Door);

#[async_trait]
impl Connector for InProcess {
    async fn connect(&self) -> io::Result<Link> {
        let Connection { events, sender } = self.0.connect(true);
        Ok(Link {
            send: Arc::new(move |message| sender.send(message)),
            events,
            _guard: None,
        })
    }

    fn can_hang(&self) -> bool {
        false
    }
}

impl SessionClient {
    /// A client of `service` in the same process. No pings: the service keeps the session alive while this
    /// client exists and is not disconnected.
    pub fn embedded(
        service: &EmbeddedService,
        clock: Arc<dyn Clock>,
        spawner: &dyn Spawner,
        options: ClientOptions,
    ) -> Self {
        Self::start(Box::new(InProcess(service.door())), clock, spawner, options)
    }
}
