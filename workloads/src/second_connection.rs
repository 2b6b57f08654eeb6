//! A second connection for each client of a workload, kept from step to step as long as it serves.
//!
//! Connections go to one Coordinator after the other, so a client and its second connection mostly speak to two.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::client::{CallResult, Client};

/// The second connections of a workload's clients.
#[derive(Default)]
pub(crate) struct SecondConnections {
    idle: Mutex<BTreeMap<u32, Client>>,
}

impl SecondConnections {
    /// The one of client `index`, or a new one. Whoever takes it gives it back if it is still of use.
    pub(crate) async fn take(&self, client: &Client, index: u32) -> CallResult<Client> {
        let idle = self.idle.lock().remove(&index);
        match idle {
            Some(second) => Ok(second),
            None => client.another().await,
        }
    }

    /// Keeps it for the next step.
    pub(crate) fn give_back(&self, index: u32, second: Client) {
        self.idle.lock().insert(index, second);
    }
}
