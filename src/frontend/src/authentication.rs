//! Proving who connects.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use neorunbase_types::{Result, SqlError, SqlState};
use neorunbase_world::Entropy;

use crate::message::Reader;
use crate::output;
use crate::scram::{self, ScramExchange, ScramVerifier};
use crate::session::Gateway;
use crate::wire::{Ending, Wire};

/// Runs the SASL exchange for `user`; returns if the password was right.
pub(crate) async fn authenticate(
    wire: &mut Wire,
    gateway: &dyn Gateway,
    entropy: &dyn Entropy,
    mock_secret: &[u8; 32],
    user: &str,
) -> Result<(), Ending> {
    // Unknown users go through the same exchange, so that nothing tells them from wrong passwords.
    let verifier = gateway
        .scram_verifier(user)
        .await
        .map_err(Ending::Fatal)?
        .unwrap_or_else(|| ScramVerifier::mock(user, mock_secret));

    output::authentication_sasl(&mut wire.output, &[scram::MECHANISM]);
    let initial = wire.next_frame().await?;
    let client_first = match initial_response(&initial.body).map_err(Ending::Fatal)? {
        Some(client_first) => client_first.to_vec(),
        None => {
            output::authentication_sasl_continue(&mut wire.output, b"");
            wire.next_frame().await?.body.to_vec()
        }
    };
    let mut nonce = [0; 18];
    entropy.fill(&mut nonce);
    let exchange =
        ScramExchange::begin(verifier, &client_first, &BASE64.encode(nonce)).map_err(Ending::Fatal)?;
    output::authentication_sasl_continue(&mut wire.output, exchange.server_first().as_bytes());
    let client_final = wire.next_frame().await?;
    match exchange.finish(&client_final.body).map_err(Ending::Fatal)? {
        Some(server_final) => {
            output::authentication_sasl_final(&mut wire.output, server_final.as_bytes());
            output::authentication_ok(&mut wire.output);
            Ok(())
        }
        None => Err(Ending::Fatal(SqlError::new(
            SqlState::INVALID_PASSWORD,
            format!("password authentication failed for user \"{user}\""),
        ))),
    }
}

/// The data of a SASLInitialResponse, if there are any.
fn initial_response(body: &[u8]) -> Result<Option<&[u8]>> {
    let mut reader = Reader::new(body);
    if reader.string()? != scram::MECHANISM {
        return Err(SqlError::new(
            SqlState::PROTOCOL_VIOLATION,
            "client selected an invalid SASL authentication mechanism",
        ));
    }
    let length = reader.i32()?;
    let data = match usize::try_from(length) {
        Ok(length) => Some(reader.bytes(length)?),
        Err(_) => None,
    };
    reader.finish()?;
    Ok(data)
}
