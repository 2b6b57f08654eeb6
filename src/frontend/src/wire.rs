//! One connection's two buffers and the stream below them.
//!
//! Input is parsed where it arrives. Output gathers until the connection is about to wait for its client, or
//! until there is a lot of it, so that a pipelined batch costs one write. Timers exist only while a write
//! cannot progress: none is set for a message that flows.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures::future::poll_immediate;
use neorunbase_types::{SqlError, SqlState, SqlType};
use neorunbase_world::{Clock, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::message::{self, FRAME_HEADER_LENGTH};
use crate::output::{self, ResultFormats};
use crate::session::Prepared;

/// Output above this goes to the socket without waiting for Sync.
pub(crate) const FLUSH_THRESHOLD: usize = 16 * 1024;

const INITIAL_BUFFER: usize = 16 * 1024;
/// The input buffer has at least this much room before a read.
const LEAST_READ: usize = 4 * 1024;
/// Buffers that a large message or result has grown beyond this are not kept.
const LARGEST_KEPT_BUFFER: usize = 256 * 1024;
const LARGEST_READ: usize = 1024 * 1024;

/// Why a connection ends.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The client left, or cannot be reached; the text is for the log.
    Gone(String),
    /// The client is told why.
    Fatal(Box<SqlError>),
}

impl Ending {
    fn io(error: &io::Error) -> Self {
        Self::Gone(error.to_string())
    }
}

/// A whole message.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) tag: u8,
    pub(crate) body: BytesMut,
}

/// What a connection may hold and how long a stalled write may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WireLimits {
    pub(crate) message_bytes: usize,
    pub(crate) write_stall: Duration,
}

/// The stream, its buffers, and how rows are written at the moment.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    clock: Arc<dyn Clock>,
    limits: WireLimits,
    input: BytesMut,
    input_has_grown: bool,
    pub(crate) output: BytesMut,
    /// How much of `output` the stream has taken already.
    written: usize,
    authenticated: bool,
    terminate: watch::Receiver<bool>,
    /// Set when a call through [`Client`](crate::Client) found that the connection must end.
    pub(crate) ending: Option<Ending>,
    /// Types of the result columns of the simple protocol's current statement.
    pub(crate) simple_types: Vec<SqlType>,
    /// The portal that is running, if the extended protocol is in use.
    pub(crate) portal: Option<(Arc<Prepared>, ResultFormats)>,
    /// Whether CopyData is expected.
    pub(crate) copying_in: bool,
}

impl Wire {
    pub(crate) fn new(
        stream: Box<dyn Stream>,
        clock: Arc<dyn Clock>,
        terminate: watch::Receiver<bool>,
        limits: WireLimits,
    ) -> Self {
        Self {
            stream,
            clock,
            limits,
            input: BytesMut::with_capacity(INITIAL_BUFFER),
            input_has_grown: false,
            output: BytesMut::with_capacity(INITIAL_BUFFER),
            written: 0,
            authenticated: false,
            terminate,
            ending: None,
            simple_types: Vec::new(),
            portal: None,
            copying_in: false,
        }
    }

    /// The node's clock.
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// From here on all message types are understood, and large ones are allowed.
    pub(crate) fn set_authenticated(&mut self) {
        self.authenticated = true;
    }

    /// What has arrived and was not taken yet.
    pub(crate) fn buffered_input(&self) -> &[u8] {
        &self.input
    }

    /// Takes the first `length` buffered bytes, which must be there.
    pub(crate) fn take_input(&mut self, length: usize) -> BytesMut {
        self.input.split_to(length)
    }

    /// The next message.
    pub(crate) async fn next_frame(&mut self) -> Result<Frame, Ending> {
        loop {
            let length = message::frame_length(&self.input, self.limits.message_bytes, self.authenticated)
                .map_err(|error| Ending::Fatal(error.to_sql_error()))?;
            if let Some(length) = length
                && self.input.len() >= length
            {
                self.input_has_grown |= length > LARGEST_KEPT_BUFFER;
                let mut body = self.input.split_to(length);
                let tag = body[0];
                body.advance(FRAME_HEADER_LENGTH);
                return Ok(Frame { tag, body });
            }
            self.fill().await?;
        }
    }

    /// Waits for more input. Whatever output there is goes out before, unless input is there already.
    pub(crate) async fn fill(&mut self) -> Result<(), Ending> {
        if self.terminate.has_changed().unwrap_or(false) {
            return Err(terminated());
        }
        // Grows as bytes arrive: an announced length alone allocates nothing.
        if self.input.is_empty() && self.input_has_grown {
            self.input = BytesMut::with_capacity(INITIAL_BUFFER);
            self.input_has_grown = false;
        } else if self.input.capacity() - self.input.len() < LEAST_READ {
            self.input
                .reserve(self.input.len().clamp(INITIAL_BUFFER / 2, LARGEST_READ));
        }
        let at_once = poll_immediate(self.stream.read_buf(&mut self.input)).await;
        let read = match at_once {
            Some(read) => read,
            None => {
                self.flush().await?;
                tokio::select! {
                    biased;
                    read = self.stream.read_buf(&mut self.input) => read,
                    _ = self.terminate.changed() => return Err(terminated()),
                }
            }
        };
        match read {
            Ok(0) => Err(Ending::Gone("end of stream".to_owned())),
            Ok(_) => Ok(()),
            Err(error) => Err(Ending::io(&error)),
        }
    }

    /// Sends all output. A write that makes no progress for too long ends the connection.
    pub(crate) async fn flush(&mut self) -> Result<(), Ending> {
        if self.output.is_empty() {
            return Ok(());
        }
        while self.written < self.output.len() {
            let pending = &self.output[self.written..];
            let at_once = poll_immediate(self.stream.write(pending)).await;
            let taken = match at_once {
                Some(taken) => taken,
                None => tokio::select! {
                    biased;
                    taken = self.stream.write(pending) => taken,
                    () = self.clock.sleep(self.limits.write_stall) => return Err(stalled()),
                },
            };
            match taken {
                Ok(0) => return Err(Ending::Gone("the stream takes no more output".to_owned())),
                Ok(count) => self.written += count,
                Err(error) => return Err(Ending::io(&error)),
            }
        }
        self.written = 0;
        if self.output.capacity() > LARGEST_KEPT_BUFFER {
            self.output = BytesMut::with_capacity(INITIAL_BUFFER);
        } else {
            self.output.clear();
        }
        let at_once = poll_immediate(self.stream.flush()).await;
        let flushed = match at_once {
            Some(flushed) => flushed,
            None => tokio::select! {
                biased;
                flushed = self.stream.flush() => flushed,
                () = self.clock.sleep(self.limits.write_stall) => return Err(stalled()),
            },
        };
        flushed.map_err(|error| Ending::io(&error))
    }

    /// Sends output if there is a lot of it.
    pub(crate) async fn flush_if_large(&mut self) -> Result<(), Ending> {
        if self.output.len() >= FLUSH_THRESHOLD {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// Tells the client why, if it can still be told, and closes the stream.
    pub(crate) async fn end(mut self, ending: &Ending) {
        if let Ending::Fatal(error) = ending {
            output::error_response(&mut self.output, "FATAL", error);
            if self.flush().await.is_err() {
                return;
            }
        }
        // A client that does not take part in closing is not waited for.
        let _ = poll_immediate(self.stream.shutdown()).await;
    }
}

fn stalled() -> Ending {
    Ending::Gone("the client takes no output".to_owned())
}

fn terminated() -> Ending {
    Ending::Fatal(SqlError::new(
        SqlState::ADMIN_SHUTDOWN,
        "terminating connection due to administrator command",
    ))
}
