//! SCRAM-SHA-256 (RFC 5802, RFC 7677).

/// What the server keeps of a password: enough to verify it, not to use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScramVerifier {
    /// Rounds of PBKDF2.
    pub iterations: u32,
    /// Random, a user.
    pub salt: Vec<u8>,
    /// SHA-256 of the client key.
    pub stored_key: [u8; 32],
    /// Signs the server's final message.
    pub server_key: [u8; 32],
}
