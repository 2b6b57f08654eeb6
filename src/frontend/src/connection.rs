//! One connection, from its first packet to its end.

use std::sync::Arc;
use std::time::Duration;

use neorunbase_types::{SqlError, SqlState};
use neorunbase_world::clock::timeout;
use neorunbase_world::{Clock, Stream};

use crate::authentication::authenticate;
use crate::cancel::Backend;
use crate::extended::ExtendedQuery;
use crate::listener::Server;
use crate::message;
use crate::output;
use crate::session::{Session, Startup, TransactionStatus};
use crate::startup::{Opening, StartupPacket, receive_opening};
use crate::wire::{Ending, Frame, Wire, WireLimits};

/// The version that clients are told; drivers choose their catalog queries by it.
const SERVER_VERSION: &str = "15.8";

/// An error on its way to the client.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The session reported it and has acted on it.
    Session(Box<SqlError>),
    /// The session has to be told.
    Protocol(Box<SqlError>),
    /// There is no way to go on.
    End(Ending),
}

impl From<Box<SqlError>> for Failure {
    fn from(error: Box<SqlError>) -> Self {
        Self::Protocol(error)
    }
}

impl From<Ending> for Failure {
    fn from(ending: Ending) -> Self {
        Self::End(ending)
    }
}

/// Serves one connection until it ends.
pub(crate) async fn run(server: Arc<Server>, stream: Box<dyn Stream>, backend: Backend) {
    let limits = WireLimits {
        message_bytes: server.limits.message_bytes,
        write_stall: server.limits.write_stall_timeout,
    };
    let mut wire = Wire::new(stream, server.clock.clone(), backend.terminate.clone(), limits);
    let ending = match start(&server, &backend, &mut wire).await {
        Err(ending) => ending,
        Ok(None) => return,
        Ok(Some((packet, _slot))) => match open_session(&server, &backend, &mut wire, packet).await {
            Err(ending) => ending,
            Ok(session) => {
                let mut connection = Connection {
                    wire,
                    session,
                    extended: ExtendedQuery::default(),
                    skipping_until_sync: false,
                    clock: server.clock.clone(),
                    awaits_query: true,
                };
                let ending = connection.converse().await;
                connection.session.close().await;
                wire = connection.wire;
                ending
            }
        },
    };
    match &ending {
        Ending::Gone(reason) => tracing::debug!(process_id = backend.process_id, reason, "connection ends"),
        Ending::Fatal(error) => tracing::debug!(process_id = backend.process_id, %error, "connection ends"),
    }
    wire.end(&ending).await;
}

/// Everything up to AuthenticationOk, within the time allowed for it. `None` if no session was wanted.
async fn start(
    server: &Server,
    backend: &Backend,
    wire: &mut Wire,
) -> Result<Option<(StartupPacket, tokio::sync::OwnedSemaphorePermit)>, Ending> {
    let opening = async {
        let packet = match receive_opening(wire).await? {
            Opening::Session(packet) => packet,
            Opening::Cancel { process_id, secret } => {
                server.backends.cancel_with_secret(process_id, secret);
                return Ok(None);
            }
        };
        let slot = server.slots.clone().try_acquire_owned().map_err(|_| {
            Ending::Fatal(SqlError::new(
                SqlState::TOO_MANY_CONNECTIONS,
                "sorry, too many clients already",
            ))
        })?;
        authenticate(
            wire,
            &*server.gateway,
            &*server.entropy,
            &server.mock_secret,
            &packet.user,
        )
        .await?;
        Ok(Some((packet, slot)))
    };
    let started = timeout(&*server.clock, server.limits.authentication_timeout, opening).await;
    match started {
        Ok(Ok(Some(started))) => {
            wire.set_authenticated();
            tracing::debug!(
                process_id = backend.process_id,
                user = started.0.user,
                "authenticated"
            );
            Ok(Some(started))
        }
        Ok(other) => other,
        Err(_) => Err(Ending::Fatal(SqlError::new(
            SqlState::QUERY_CANCELED,
            "canceling authentication due to timeout",
        ))),
    }
}

/// Opens the session and tells the client all it needs before its first query.
async fn open_session(
    server: &Server,
    backend: &Backend,
    wire: &mut Wire,
    packet: StartupPacket,
) -> Result<Box<dyn Session>, Ending> {
    let application_name = packet
        .parameters
        .iter()
        .find(|(name, _)| name == "application_name")
        .map_or_else(String::new, |(_, value)| value.clone());
    let client_encoding = packet
        .parameters
        .iter()
        .find(|(name, value)| name == "client_encoding" && value.eq_ignore_ascii_case("SQL_ASCII"))
        .map_or("UTF8", |_| "SQL_ASCII");
    let mut reported: Vec<(String, String)> = [
        ("application_name", application_name.as_str()),
        ("client_encoding", client_encoding),
        ("DateStyle", "ISO, MDY"),
        ("default_transaction_read_only", "off"),
        ("in_hot_standby", "off"),
        ("integer_datetimes", "on"),
        ("IntervalStyle", "postgres"),
        ("is_superuser", "off"),
        ("server_encoding", "UTF8"),
        ("server_version", SERVER_VERSION),
        ("session_authorization", packet.user.as_str()),
        ("standard_conforming_strings", "on"),
        ("TimeZone", "UTC"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();

    let session = server
        .gateway
        .open_session(Startup {
            user: packet.user,
            database: packet.database,
            parameters: packet.parameters,
            process_id: backend.process_id,
            cancel: backend.cancel.clone(),
        })
        .await
        .map_err(Ending::Fatal)?;

    for (name, value) in session.initial_parameters() {
        match reported
            .iter_mut()
            .find(|(known, _)| known.eq_ignore_ascii_case(&name))
        {
            Some(known) => known.1 = value,
            None => reported.push((name, value)),
        }
    }
    for (name, value) in &reported {
        output::parameter_status(&mut wire.output, name, value);
    }
    output::backend_key_data(&mut wire.output, backend.process_id, backend.secret);
    output::ready_for_query(&mut wire.output, session.transaction_status());
    Ok(session)
}

/// An open session and its client.
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) session: Box<dyn Session>,
    pub(crate) extended: ExtendedQuery,
    /// After an error in the extended protocol, all until Sync is dropped.
    skipping_until_sync: bool,
    clock: Arc<dyn Clock>,
    /// The client has been told that it may send a query, and has sent nothing since.
    awaits_query: bool,
}

impl Connection {
    /// Answers messages until there is a reason to end.
    async fn converse(&mut self) -> Ending {
        loop {
            let answered = match self.next_frame().await {
                Ok(frame) if self.skipping_until_sync && !matches!(frame.tag, b'S' | b'X') => Ok(()),
                Ok(frame) => self.answer(frame).await,
                Err(ending) => Err(ending),
            };
            let ended = match answered {
                Ok(()) => self.wire.flush_if_large().await,
                Err(ending) => Err(ending),
            };
            if let Err(ending) = ended {
                return ending;
            }
        }
    }

    /// The next message, if it comes before the client has left its transaction idle for too long.
    async fn next_frame(&mut self) -> Result<Frame, Ending> {
        let limit = self.idle_limit();
        let next = self.wire.next_frame();
        let received = match limit {
            None => next.await,
            Some(limit) => timeout(&*self.clock, limit, next).await.unwrap_or_else(|_| {
                Err(Ending::Fatal(SqlError::new(
                    SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
                    "terminating connection due to idle-in-transaction timeout",
                )))
            }),
        };
        self.awaits_query = false;
        received
    }

    fn idle_limit(&self) -> Option<Duration> {
        let is_idle = self.awaits_query && self.session.transaction_status() != TransactionStatus::Idle;
        is_idle
            .then(|| self.session.idle_in_transaction_limit())
            .flatten()
    }

    async fn answer(&mut self, frame: Frame) -> Result<(), Ending> {
        match frame.tag {
            b'Q' => self.simple_query(&frame.body).await,
            b'S' => self.sync().await,
            b'H' => self.wire.flush().await,
            b'X' => Err(Ending::Gone("terminated".to_owned())),
            // Left over from a COPY that failed before its client knew.
            b'd' | b'c' | b'f' => Ok(()),
            b'F' => {
                self.report(Failure::Protocol(SqlError::unsupported(
                    "the function call message",
                )))
                .await?;
                self.ready_for_query();
                Ok(())
            }
            _ => match self.extended_query(&frame).await {
                Ok(()) => Ok(()),
                Err(failure) => {
                    self.skipping_until_sync = true;
                    self.report(failure).await
                }
            },
        }
    }

    async fn simple_query(&mut self, body: &[u8]) -> Result<(), Ending> {
        self.extended.forget_unnamed();
        let ran = match message::decode_string(body) {
            Ok(sql) => self
                .session
                .simple_query(sql, &mut self.wire)
                .await
                .map_err(Failure::Session),
            Err(error) => Err(Failure::Protocol(error)),
        };
        self.after_session_call()?;
        if let Err(failure) = ran {
            self.report(failure).await?;
        }
        self.ready_for_query();
        Ok(())
    }

    async fn sync(&mut self) -> Result<(), Ending> {
        self.skipping_until_sync = false;
        // Portals of the implicit transaction let go of what they hold before it ends.
        if self.session.transaction_status() == TransactionStatus::Idle {
            self.extended.forget_portals();
        }
        let synced = self.session.sync().await.map_err(Failure::Session);
        self.after_session_call()?;
        if let Err(failure) = synced {
            self.report(failure).await?;
        }
        self.ready_for_query();
        Ok(())
    }

    /// Ends the connection if the session's use of it came upon a reason to.
    pub(crate) fn after_session_call(&mut self) -> Result<(), Ending> {
        self.wire.copying_in = false;
        self.wire.ending.take().map_or(Ok(()), Err)
    }

    /// Sends an error. Those that the session does not know of put its transaction into the failed state.
    async fn report(&mut self, failure: Failure) -> Result<(), Ending> {
        let error = match failure {
            Failure::End(ending) => return Err(ending),
            Failure::Session(error) if error.state == SqlState::ADMIN_SHUTDOWN => {
                return Err(Ending::Fatal(error));
            }
            Failure::Session(error) => error,
            Failure::Protocol(error) => {
                self.session.fail().await;
                error
            }
        };
        output::error_response(&mut self.wire.output, "ERROR", &error);
        Ok(())
    }

    fn ready_for_query(&mut self) {
        let status = self.session.transaction_status();
        if status == TransactionStatus::Idle {
            self.extended.forget_portals();
        }
        output::ready_for_query(&mut self.wire.output, status);
        self.awaits_query = true;
    }
}
