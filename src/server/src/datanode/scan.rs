//! Rows by range, a batch at a time.

use bytes::Bytes;
use neorunbase_protocol::message::{LockMode, RowsReply, ScanRows};

use super::DataNode;
use super::candidates::{Range, Step};
use super::evaluate::{Scanner, Surroundings};
use super::failure::Failure;
use super::locking::RowAccess;
use super::read::View;
use super::session::Session;

/// Rows visited between two chances for other tasks to run.
pub(super) const VISITS_PER_TURN: usize = 512;

impl DataNode {
    /// See [`ScanRows`].
    pub(super) async fn scan_rows(&self, request: ScanRows) -> Result<RowsReply, Failure> {
        let shard = self.served_shard(&request.shard)?;
        shard.fences.check_read(request.storage, &request.context)?;
        let program = self.programs.scan(&request.program)?;
        let surroundings = Surroundings::new(&request.parameters, &request.context)?;
        let mut scanner = Scanner::new(program, surroundings);
        let locks = request.lock != i32::from(LockMode::None);
        let session = self.begin_read(&request.context, locks).await?;
        let view = View {
            shard,
            storage: request.storage,
            snapshot: request.context.snapshot,
            own: session.participant.clone(),
        };
        let result = self
            .scan_batch(&session, &view, &request, locks, &mut scanner)
            .await;
        self.conclude_read(session, result).await
    }

    async fn scan_batch(
        &self,
        session: &Session,
        view: &View,
        request: &ScanRows,
        locks: bool,
        scanner: &mut Scanner,
    ) -> Result<RowsReply, Failure> {
        let mut range = Range {
            index: request.index,
            lower: request.lower.clone(),
            upper: request.upper.clone(),
            reverse: request.reverse,
        };
        let mut limit = if request.limit == 0 {
            u64::MAX
        } else {
            request.limit
        };
        if !request.resume_from.is_empty() {
            let (sent, position) = read_continuation(&request.resume_from)?;
            limit = limit.saturating_sub(sent);
            range = range.after(&position);
        }
        let batch_bytes = match request.batch_bytes as usize {
            0 => self.config.scan_batch_bytes,
            wanted => wanted.min(self.config.scan_batch_bytes),
        };
        let access = if locks {
            Some(RowAccess::of_read(
                self,
                session,
                view,
                &request.context,
                request.lock,
                request.wait,
            )?)
        } else {
            None
        };
        let mut reply = RowsReply::default();
        let mut bytes = 0;
        let mut visits = 0;
        let already_sent = request.limit.saturating_sub(limit);
        let mut walk = self.walk(view, range).await?;
        while (reply.rows.len() as u64) < limit {
            let candidate = match walk.step(self)? {
                Step::End => return Ok(reply),
                Step::Wait(other) => {
                    self.await_in_doubt(&other, view.snapshot).await?;
                    continue;
                }
                Step::Found(candidate) => candidate,
            };
            visits += 1;
            if scanner.accepts(&candidate.seen.row)? {
                let is_taken = match &access {
                    None => true,
                    Some(access) => {
                        let mut accepts = |row: &[u8]| scanner.accepts(row);
                        let seen = Some(candidate.seen.commit_timestamp);
                        access.take(&candidate.key, seen, &mut accepts).await?.is_some()
                    }
                };
                if is_taken {
                    let row = scanner.output()?;
                    bytes += row.len();
                    reply.rows.push(row);
                    if request.with_keys {
                        bytes += candidate.key.len();
                        reply.keys.push(candidate.key);
                    }
                }
            }
            if bytes >= batch_bytes || visits >= self.config.scan_batch_visits {
                let sent = if request.limit == 0 {
                    0
                } else {
                    already_sent + reply.rows.len() as u64
                };
                reply.continuation = continuation(sent, &candidate.position);
                return Ok(reply);
            }
            if visits % VISITS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(reply)
    }
}

/// Rows sent so far (for the limit), then where the walk stands.
fn continuation(sent: u64, position: &Bytes) -> Bytes {
    [&sent.to_be_bytes(), position.as_ref()].concat().into()
}

fn read_continuation(continuation: &Bytes) -> Result<(u64, Bytes), Failure> {
    let Some((sent, _)) = continuation.split_first_chunk::<8>() else {
        return Err(Failure::Sql(neorunbase_types::SqlError::new(
            neorunbase_types::SqlState::PROTOCOL_VIOLATION,
            "malformed scan continuation",
        )));
    };
    Ok((u64::from_be_bytes(*sent), continuation.slice(8..)))
}
