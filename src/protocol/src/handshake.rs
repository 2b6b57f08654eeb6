//! How two processes of a cluster recognise each other: both prove that they hold the cluster's secret (derived
//! from the master key) over fresh nonces, and derive one sealing key a direction from it.
//!
//! ```text
//! caller -> server   magic (8) ‖ caller nonce (32)
//! server -> caller   server nonce (32) ‖ HMAC(secret, "server" ‖ nonces) (32)
//! caller -> server   HMAC(secret, "caller" ‖ nonces) (32)
//! ```
//! All messages have fixed sizes, so a stranger can make us allocate nothing.

use std::io;

use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use neorunbase_world::{Entropy, Stream};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MAGIC: &[u8; 8] = b"NEORUN\x00\x01";
const NONCE_BYTES: usize = 32;
const PROOF_BYTES: usize = 32;

/// The secret that all processes of a cluster share.
#[derive(Clone)]
pub struct ClusterSecret(pub [u8; 32]);

impl std::fmt::Debug for ClusterSecret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ClusterSecret(<hidden>)")
    }
}

/// Sealing keys of one connection.
pub struct SessionKeys {
    /// Seals what this side sends.
    pub sending: [u8; 32],
    /// Opens what this side receives.
    pub receiving: [u8; 32],
}

fn proof(secret: &ClusterSecret, role: &str, caller_nonce: &[u8], server_nonce: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret.0).expect("HMAC takes keys of any length");
    mac.update(role.as_bytes());
    mac.update(caller_nonce);
    mac.update(server_nonce);
    mac
}

fn directional_key(
    secret: &ClusterSecret,
    direction: &str,
    caller_nonce: &[u8],
    server_nonce: &[u8],
) -> [u8; 32] {
    let salt = [caller_nonce, server_nonce].concat();
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(Some(&salt), &secret.0)
        .expand(direction.as_bytes(), &mut key)
        .expect("32 bytes is a valid HKDF-SHA256 output length");
    key
}

fn refused() -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        "peer does not hold this cluster's secret",
    )
}

/// The calling side.
///
/// # Errors
/// `PermissionDenied` if the server does not know the secret; the stream's own errors.
pub async fn call(
    stream: &mut dyn Stream,
    secret: &ClusterSecret,
    entropy: &dyn Entropy,
) -> io::Result<SessionKeys> {
    let mut caller_nonce = [0; NONCE_BYTES];
    entropy.fill(&mut caller_nonce);
    let mut hello = Vec::with_capacity(MAGIC.len() + NONCE_BYTES);
    hello.extend_from_slice(MAGIC);
    hello.extend_from_slice(&caller_nonce);
    stream.write_all(&hello).await?;
    stream.flush().await?;

    let mut answer = [0; NONCE_BYTES + PROOF_BYTES];
    stream.read_exact(&mut answer).await?;
    let (server_nonce, server_proof) = answer.split_at(NONCE_BYTES);
    proof(secret, "server", &caller_nonce, server_nonce)
        .verify_slice(server_proof)
        .map_err(|_| refused())?;

    let own_proof = proof(secret, "caller", &caller_nonce, server_nonce)
        .finalize()
        .into_bytes();
    stream.write_all(&own_proof).await?;
    stream.flush().await?;
    Ok(SessionKeys {
        sending: directional_key(secret, "caller to server", &caller_nonce, server_nonce),
        receiving: directional_key(secret, "server to caller", &caller_nonce, server_nonce),
    })
}

/// The answering side.
///
/// # Errors
/// `InvalidData` for garbage, `PermissionDenied` if the caller does not know the secret; the stream's own errors.
pub async fn answer(
    stream: &mut dyn Stream,
    secret: &ClusterSecret,
    entropy: &dyn Entropy,
) -> io::Result<SessionKeys> {
    let mut hello = [0; MAGIC.len() + NONCE_BYTES];
    stream.read_exact(&mut hello[..MAGIC.len()]).await?;
    if &hello[..MAGIC.len()] != MAGIC {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a NeorunBase node",
        ));
    }
    stream.read_exact(&mut hello[MAGIC.len()..]).await?;
    let caller_nonce = &hello[MAGIC.len()..];
    let mut server_nonce = [0; NONCE_BYTES];
    entropy.fill(&mut server_nonce);

    let mut reply = Vec::with_capacity(NONCE_BYTES + PROOF_BYTES);
    reply.extend_from_slice(&server_nonce);
    reply.extend_from_slice(
        &proof(secret, "server", caller_nonce, &server_nonce)
            .finalize()
            .into_bytes(),
    );
    stream.write_all(&reply).await?;
    stream.flush().await?;

    let mut caller_proof = [0; PROOF_BYTES];
    stream.read_exact(&mut caller_proof).await?;
    proof(secret, "caller", caller_nonce, &server_nonce)
        .verify_slice(&caller_proof)
        .map_err(|_| refused())?;
    Ok(SessionKeys {
        sending: directional_key(secret, "server to caller", caller_nonce, &server_nonce),
        receiving: directional_key(secret, "caller to server", caller_nonce, &server_nonce),
    })
}
