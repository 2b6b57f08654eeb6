//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's half, without channel binding.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use neorunbase_types::{Result, SqlError, SqlState};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The one mechanism on offer.
pub(crate) const MECHANISM: &str = "SCRAM-SHA-256";

/// PostgreSQL's `SCRAM_DEFAULT_ITERATIONS`.
pub const DEFAULT_ITERATIONS: u32 = 4096;

/// PostgreSQL's `SCRAM_DEFAULT_SALT_LEN`, in bytes.
pub const DEFAULT_SALT_LENGTH: usize = 16;

/// What the server keeps of a password: enough to verify it, not to use it.
#[derive(Clone, PartialEq, Eq)]
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

impl std::fmt::Debug for ScramVerifier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "ScramVerifier {{ iterations: {}, secrets: <hidden> }}",
            self.iterations
        )
    }
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

impl ScramVerifier {
    /// Derives the verifier of `password`. Takes milliseconds: that is the point of it.
    pub fn from_password(password: &str, salt: &[u8], iterations: u32) -> Self {
        // As PostgreSQL does, a password that SASLprep refuses is used as it is.
        let prepared = stringprep::saslprep(password).unwrap_or(std::borrow::Cow::Borrowed(password));
        let salted_password =
            pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(prepared.as_bytes(), salt, iterations.max(1));
        let client_key = hmac_sha256(&salted_password, &[b"Client Key"]);
        Self {
            iterations: iterations.max(1),
            salt: salt.to_vec(),
            stored_key: Sha256::digest(client_key).into(),
            server_key: hmac_sha256(&salted_password, &[b"Server Key"]),
        }
    }

    /// A verifier that no password matches, the same each time for `user`, so that an attacker cannot tell
    /// which users exist.
    pub(crate) fn mock(user: &str, secret: &[u8; 32]) -> Self {
        let salt = hmac_sha256(secret, &[b"salt", user.as_bytes()]);
        Self {
            iterations: DEFAULT_ITERATIONS,
            salt: salt[..DEFAULT_SALT_LENGTH].to_vec(),
            stored_key: hmac_sha256(secret, &[b"stored", user.as_bytes()]),
            server_key: hmac_sha256(secret, &[b"server", user.as_bytes()]),
        }
    }

    /// Whether `password` is the right one, for logins that send it in the clear over an encrypted channel.
    pub fn verify_password(&self, password: &str) -> bool {
        let other = Self::from_password(password, &self.salt, self.iterations);
        other.stored_key.ct_eq(&self.stored_key).into()
    }

    /// Reads PostgreSQL's `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`.
    pub fn parse(text: &str) -> Option<Self> {
        let (iterations, rest) = text.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let iterations = iterations.parse().ok().filter(|&iterations| iterations > 0)?;
        Some(Self {
            iterations,
            salt: BASE64.decode(salt).ok()?,
            stored_key: BASE64.decode(stored_key).ok()?.try_into().ok()?,
            server_key: BASE64.decode(server_key).ok()?.try_into().ok()?,
        })
    }

    /// Writes PostgreSQL's `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`.
    pub fn serialize(&self) -> String {
        format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(self.stored_key),
            BASE64.encode(self.server_key)
        )
    }
}

fn malformed(detail: impl Into<String>) -> Box<SqlError> {
    SqlError::new(SqlState::PROTOCOL_VIOLATION, "malformed SCRAM message").with_detail(detail)
}

/// The value of the attribute `name=` that `part` must be.
fn attribute(part: Option<&str>, name: char) -> Result<&str> {
    part.and_then(|part| part.strip_prefix(name)?.strip_prefix('='))
        .ok_or_else(|| malformed(format!("Expected attribute \"{name}\".")))
}

/// One exchange, after the client's first message has been answered.
#[derive(Debug)]
pub(crate) struct ScramExchange {
    verifier: ScramVerifier,
    /// The client's GS2 header, which it must repeat under the proof.
    gs2_header: String,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

impl ScramExchange {
    /// Takes the client-first-message; the answer is [`ScramExchange::server_first`].
    pub(crate) fn begin(verifier: ScramVerifier, client_first: &[u8], server_nonce: &str) -> Result<Self> {
        let client_first =
            std::str::from_utf8(client_first).map_err(|_| malformed("The message is not UTF-8."))?;
        if client_first.contains('\0') {
            return Err(malformed("The message contains a zero byte."));
        }
        let mut parts = client_first.splitn(3, ',');
        let channel_binding = parts.next().unwrap_or_default();
        match channel_binding {
            "n" | "y" => {}
            binding if binding.starts_with("p=") => {
                return Err(SqlError::new(
                    SqlState::PROTOCOL_VIOLATION,
                    "client requires SCRAM channel binding, but it is not supported",
                ));
            }
            _ => return Err(malformed("Unexpected channel-binding flag.")),
        }
        let authorization_identity = parts.next().ok_or_else(|| malformed("The message ends early."))?;
        if !authorization_identity.is_empty() {
            return Err(SqlError::unsupported("a SASL authorization identity"));
        }
        let bare = parts.next().ok_or_else(|| malformed("The message ends early."))?;
        let mut attributes = bare.split(',');
        let user = attributes.next();
        if user.is_some_and(|part| part.starts_with("m=")) {
            return Err(SqlError::unsupported(
                "the SCRAM extension that the client requires",
            ));
        }
        // The startup packet said who connects; as in PostgreSQL, this name is not looked at.
        attribute(user, 'n')?;
        let client_nonce = attribute(attributes.next(), 'r')?;
        if client_nonce.is_empty() || !client_nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(malformed("The nonce has characters that are not printable."));
        }
        let nonce = format!("{client_nonce}{server_nonce}");
        let server_first = format!(
            "r={nonce},s={},i={}",
            BASE64.encode(&verifier.salt),
            verifier.iterations
        );
        Ok(Self {
            verifier,
            gs2_header: format!("{channel_binding},,"),
            client_first_bare: bare.to_owned(),
            server_first,
            nonce,
        })
    }

    /// The server-first-message.
    pub(crate) fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Takes the client-final-message; returns the server-final-message, or `None` if the password was wrong.
    pub(crate) fn finish(&self, client_final: &[u8]) -> Result<Option<String>> {
        let client_final =
            std::str::from_utf8(client_final).map_err(|_| malformed("The message is not UTF-8."))?;
        let (without_proof, proof) = client_final
            .rsplit_once(",p=")
            .ok_or_else(|| malformed("Expected attribute \"p\"."))?;
        let mut attributes = without_proof.split(',');
        let channel_binding = attribute(attributes.next(), 'c')?;
        if BASE64.decode(channel_binding).ok().as_deref() != Some(self.gs2_header.as_bytes()) {
            return Err(malformed("Unexpected channel-binding data."));
        }
        if attribute(attributes.next(), 'r')? != self.nonce {
            return Err(malformed("The nonce does not match."));
        }
        let proof: [u8; 32] = BASE64
            .decode(proof)
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or_else(|| malformed("Malformed proof."))?;

        let authentication_message: [&[u8]; 5] = [
            self.client_first_bare.as_bytes(),
            b",",
            self.server_first.as_bytes(),
            b",",
            without_proof.as_bytes(),
        ];
        let client_signature = hmac_sha256(&self.verifier.stored_key, &authentication_message);
        let mut client_key = proof;
        for (byte, signature) in client_key.iter_mut().zip(client_signature) {
            *byte ^= signature;
        }
        let stored_key: [u8; 32] = Sha256::digest(client_key).into();
        if !bool::from(stored_key.ct_eq(&self.verifier.stored_key)) {
            return Ok(None);
        }
        let server_signature = hmac_sha256(&self.verifier.server_key, &authentication_message);
        Ok(Some(format!("v={}", BASE64.encode(server_signature))))
    }
}

/// The client's half, so that tests can log in.
#[cfg(test)]
pub(crate) mod client {
    use super::*;

    /// The client-final-message for `password`, after `server_first` answered `n,,{client_first_bare}`.
    pub(crate) fn final_message(password: &str, client_first_bare: &str, server_first: &str) -> String {
        let mut parts = server_first.split(',');
        let nonce = attribute(parts.next(), 'r').expect("nonce");
        let salt = BASE64
            .decode(attribute(parts.next(), 's').expect("salt"))
            .expect("base64");
        let iterations = attribute(parts.next(), 'i')
            .expect("iterations")
            .parse()
            .expect("number");
        let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), &salt, iterations);
        let mut proof = hmac_sha256(&salted, &[b"Client Key"]);
        let stored_key: [u8; 32] = Sha256::digest(proof).into();
        let without_proof = format!("c=biws,r={nonce}");
        let message = format!("{client_first_bare},{server_first},{without_proof}");
        for (byte, signature) in proof
            .iter_mut()
            .zip(hmac_sha256(&stored_key, &[message.as_bytes()]))
        {
            *byte ^= signature;
        }
        format!("{without_proof},p={}", BASE64.encode(proof))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    // RFC 7677, section 3.
    const CLIENT_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CLIENT_FINAL: &[u8] = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn rfc_verifier(password: &str) -> ScramVerifier {
        ScramVerifier::from_password(
            password,
            &BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(),
            4096,
        )
    }

    #[test]
    fn rfc_7677_test_vector() {
        let exchange = ScramExchange::begin(rfc_verifier("pencil"), CLIENT_FIRST, SERVER_NONCE).unwrap();
        assert_eq!(
            exchange.server_first(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        assert_eq!(
            exchange.finish(CLIENT_FINAL).unwrap().as_deref(),
            Some("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
        );
        let ours = client::final_message("pencil", "n=user,r=rOprNGfwEbeRWgbNEkqO", exchange.server_first());
        assert_eq!(ours.as_bytes(), CLIENT_FINAL);
    }

    #[test]
    fn wrong_passwords_and_unknown_users_fail_alike() {
        for verifier in [rfc_verifier("pencil2"), ScramVerifier::mock("user", &[7; 32])] {
            let exchange = ScramExchange::begin(verifier, CLIENT_FIRST, SERVER_NONCE).unwrap();
            assert_eq!(exchange.finish(CLIENT_FINAL), Ok(None));
        }
        assert_eq!(
            ScramVerifier::mock("a", &[7; 32]),
            ScramVerifier::mock("a", &[7; 32])
        );
        assert_ne!(
            ScramVerifier::mock("a", &[7; 32]).salt,
            ScramVerifier::mock("b", &[7; 32]).salt
        );
        assert_ne!(
            ScramVerifier::mock("a", &[7; 32]).salt,
            ScramVerifier::mock("a", &[8; 32]).salt
        );
    }

    #[test]
    fn verifiers_round_trip_through_postgresql_text() {
        let verifier = rfc_verifier("pencil");
        let text = verifier.serialize();
        // As PostgreSQL 15 stores it for this password and salt.
        assert_eq!(
            text,
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
        assert_eq!(ScramVerifier::parse(&text), Some(verifier.clone()));
        assert!(verifier.verify_password("pencil") && !verifier.verify_password("Pencil"));
        for bad in [
            "",
            "md5abc",
            "SCRAM-SHA-256$0:AA==$AA==:AA==",
            "SCRAM-SHA-256$4096:AA==$AA==:AA==",
        ] {
            assert_eq!(ScramVerifier::parse(bad), None);
        }
    }

    #[test]
    fn passwords_are_normalised() {
        // RFC 4013: U+00AD is mapped to nothing, U+00AA to "a".
        assert_eq!(rfc_verifier("I\u{ad}X"), rfc_verifier("IX"));
        assert_eq!(rfc_verifier("\u{aa}"), rfc_verifier("a"));
    }

    #[test]
    fn malformed_messages_are_refused() {
        for first in [
            "",
            "n",
            "n,",
            "n,,",
            "x,,n=,r=a",
            "p=tls-unique,,n=,r=a",
            "n,a=x,n=,r=a",
            "n,,m=x,n=,r=a",
            "n,,n=,r=",
            "n,,n=,r=a b",
            "n,,r=a",
        ] {
            assert!(
                ScramExchange::begin(rfc_verifier(""), first.as_bytes(), "x").is_err(),
                "{first}"
            );
        }
        let exchange = ScramExchange::begin(rfc_verifier("pencil"), CLIENT_FIRST, SERVER_NONCE).unwrap();
        let good = std::str::from_utf8(CLIENT_FINAL).unwrap();
        for bad in [
            String::new(),
            good.replace("biws", "eSws"),
            good.replace("rOpr", "rOps"),
            good.replace("dHzb", "dHz"),
        ] {
            assert!(exchange.finish(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
