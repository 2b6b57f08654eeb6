//! The connections that exist: what cancel requests, shutdown and administrators reach them by.

use std::collections::BTreeMap;
use std::sync::Arc;

use neorunbase_world::Entropy;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use tokio::sync::watch;

struct Entry {
    secret: u32,
    cancel: watch::Sender<u64>,
    terminate: watch::Sender<bool>,
}

/// All connections of this server, by process id.
pub struct Backends {
    entropy: Arc<dyn Entropy>,
    entries: Mutex<BTreeMap<i32, Entry>>,
}

/// One connection's place among [`Backends`]; it ends with this value.
pub(crate) struct Backend {
    backends: Arc<Backends>,
    pub(crate) process_id: i32,
    pub(crate) secret: u32,
    pub(crate) cancel: watch::Receiver<u64>,
    pub(crate) terminate: watch::Receiver<bool>,
}

impl Backends {
    /// No connections yet.
    pub fn new(entropy: Arc<dyn Entropy>) -> Arc<Self> {
        Arc::new(Self {
            entropy,
            entries: Mutex::new(BTreeMap::new()),
        })
    }

    /// Gives a new connection a process id that no other has, and a secret that nobody can guess.
    pub(crate) fn register(self: &Arc<Self>) -> Backend {
        let (cancel_sender, cancel) = watch::channel(0);
        let (terminate_sender, terminate) = watch::channel(false);
        let mut entries = self.entries.lock();
        let process_id = loop {
            let candidate = (self.entropy.next_u64() & 0x7fff_ffff) as i32;
            if candidate != 0 && !entries.contains_key(&candidate) {
                break candidate;
            }
        };
        let secret = (self.entropy.next_u64() >> 32) as u32;
        entries.insert(
            process_id,
            Entry {
                secret,
                cancel: cancel_sender,
                terminate: terminate_sender,
            },
        );
        Backend {
            backends: self.clone(),
            process_id,
            secret,
            cancel,
            terminate,
        }
    }

    /// A CancelRequest: cancels if the secret is right, and does not tell whether it was.
    pub(crate) fn cancel_with_secret(&self, process_id: i32, secret: u32) {
        if let Some(entry) = self.entries.lock().get(&process_id)
            && bool::from(entry.secret.to_be_bytes().ct_eq(&secret.to_be_bytes()))
        {
            entry.cancel.send_modify(|version| *version += 1);
        }
    }

    /// Cancels what the connection `process_id` is running; false if there is no such connection.
    pub fn cancel(&self, process_id: i32) -> bool {
        let entries = self.entries.lock();
        let entry = entries.get(&process_id);
        if let Some(entry) = entry {
            entry.cancel.send_modify(|version| *version += 1);
        }
        entry.is_some()
    }

    /// Cancels what the connection `process_id` is running and closes it; false if there is no such connection.
    pub fn terminate(&self, process_id: i32) -> bool {
        let entries = self.entries.lock();
        let entry = entries.get(&process_id);
        if let Some(entry) = entry {
            entry.terminate.send_replace(true);
            entry.cancel.send_modify(|version| *version += 1);
        }
        entry.is_some()
    }

    /// Closes every connection as soon as it waits for its client.
    pub fn terminate_when_idle(&self) {
        for entry in self.entries.lock().values() {
            entry.terminate.send_replace(true);
        }
    }

    /// Cancels whatever is running on any connection.
    pub fn cancel_all(&self) {
        for entry in self.entries.lock().values() {
            entry.cancel.send_modify(|version| *version += 1);
        }
    }

    /// How many connections there are, those still starting up included.
    pub fn count(&self) -> usize {
        self.entries.lock().len()
    }
}

impl std::fmt::Debug for Backends {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Backends({})", self.count())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.backends.entries.lock().remove(&self.process_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::support::TestEntropy;

    #[test]
    fn only_the_right_secret_cancels() {
        let backends = Backends::new(Arc::new(TestEntropy::default()));
        let first = backends.register();
        let second = backends.register();
        assert_ne!(first.process_id, second.process_id);
        backends.cancel_with_secret(first.process_id, first.secret ^ 1);
        backends.cancel_with_secret(second.process_id, first.secret);
        assert_eq!((*first.cancel.borrow(), *second.cancel.borrow()), (0, 0));
        backends.cancel_with_secret(first.process_id, first.secret);
        assert_eq!((*first.cancel.borrow(), *second.cancel.borrow()), (1, 0));
        assert!(backends.terminate(second.process_id));
        assert!(*second.terminate.borrow());
        let process_id = first.process_id;
        drop(first);
        assert!(!backends.cancel(process_id));
        assert_eq!(backends.count(), 1);
    }
}
