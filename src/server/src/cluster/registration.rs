//! What a Data Node's ephemeral node says of it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::failure_domain::Labels;

/// Grows when what is written means something else than before. Members that a reader does not know are ignored.
const VERSION: u32 = 1;

/// A registered Data Node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    version: u32,
    /// Where other processes reach it.
    pub address: String,
    /// See [`Labels`].
    #[serde(default)]
    pub labels: Labels,
}

impl Registration {
    /// Of a node at `address`.
    pub fn new(address: String, labels: Labels) -> Self {
        Self {
            version: VERSION,
            address,
            labels,
        }
    }

    /// As it is registered.
    ///
    /// # Errors
    /// None that a registration with these members can have.
    pub fn encode(&self) -> Result<Bytes, serde_json::Error> {
        Ok(serde_json::to_vec(self)?.into())
    }

    /// What is registered. Earlier versions wrote the bare address.
    pub fn decode(data: &[u8]) -> Self {
        match serde_json::from_slice(data) {
            Ok(registration) => registration,
            Err(_) => Self::new(String::from_utf8_lossy(data).into_owned(), Labels::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_addresses_and_later_versions_are_understood() {
        let labels = Labels::from([("zone".to_owned(), "a".to_owned())]);
        let registration = Registration::new("[::1]:7441".to_owned(), labels);
        let encoded = registration.encode().expect("it can be written");
        assert_eq!(Registration::decode(&encoded), registration);
        for address in ["10.0.0.1:7441", "[::1]:7441", "node-1:7"] {
            let decoded = Registration::decode(address.as_bytes());
            assert_eq!(decoded, Registration::new(address.to_owned(), Labels::new()));
        }
        let later = br#"{"version":2,"address":"x:1","labels":{},"weight":3}"#;
        assert_eq!(Registration::decode(later).address, "x:1");
    }
}
