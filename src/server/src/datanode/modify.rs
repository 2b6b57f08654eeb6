//! UPDATE and DELETE, evaluated where the rows live.

use std::sync::Arc;

use bytes::Bytes;
use neorunbase_protocol::message::{ModifyRows, WrittenReply};

use super::DataNode;
use super::candidates::{Range, Step};
use super::evaluate::{Modifier, Surroundings};
use super::failure::Failure;
use super::locking::RowAccess;
use super::read::View;
use super::scan::VISITS_PER_TURN;
use super::session::{Begin, Session};
use super::table::StoredTable;
use super::write::{Changes, duplicate_unique_value};

impl DataNode {
    /// See [`ModifyRows`].
    pub(super) async fn modify_rows(&self, request: ModifyRows) -> Result<WrittenReply, Failure> {
        let shard = self.served_shard(&request.shard)?;
        let table = self.programs.table(&request.table)?;
        shard.fences.check_write(&table.descriptor)?;
        let program = self.programs.write(&request.program)?;
        let surroundings = Surroundings::new(&request.parameters, &request.context)?;
        let modifier = Modifier::new(program, surroundings);
        let session = match self.begin(&request.context, true).await? {
            Begin::Run(session) => session,
            Begin::Repeat(reply) => return Ok(reply),
        };
        let view = View {
            shard,
            storage: table.descriptor.storage,
            snapshot: request.context.snapshot,
            own: session.participant.clone(),
        };
        let result = self
            .modify_rows_in(&session, &view, &table, modifier, &request)
            .await;
        self.conclude(session, result).await
    }

    async fn modify_rows_in(
        &self,
        session: &Session,
        view: &View,
        table: &Arc<StoredTable>,
        mut modifier: Modifier,
        request: &ModifyRows,
    ) -> Result<WrittenReply, Failure> {
        let name = &table.descriptor.table_name;
        let access = RowAccess::of_write(self, session, view, &request.context, name)?;
        let mut changes = Changes::new(&access, table);
        let mut reply = WrittenReply::default();
        if request.keys.is_empty() {
            let range = Range {
                index: request.index,
                lower: request.lower.clone(),
                upper: request.upper.clone(),
                reverse: false,
            };
            self.modify_range(
                &access,
                range,
                &mut modifier,
                &mut changes,
                request.delete,
                &mut reply,
            )
            .await?;
        } else {
            for key in &request.keys {
                if changes.get(key).is_some() {
                    continue; // a key named twice is one row
                }
                let mut accepts = |row: &[u8]| modifier.accepts(row);
                if let Some(row) = access.take_by_key(key, &mut accepts).await? {
                    modify(
                        &access,
                        &mut modifier,
                        &mut changes,
                        key,
                        &row,
                        request.delete,
                        &mut reply,
                    )
                    .await?;
                }
            }
        }
        changes.keep(&request.context);
        Ok(reply)
    }

    async fn modify_range(
        &self,
        access: &RowAccess<'_>,
        range: Range,
        modifier: &mut Modifier,
        changes: &mut Changes<'_>,
        delete: bool,
        reply: &mut WrittenReply,
    ) -> Result<(), Failure> {
        let mut walk = self.walk(access.view, range).await?;
        let mut visits = 0_usize;
        loop {
            let candidate = match walk.step(self)? {
                Step::End => return Ok(()),
                Step::Wait(other) => {
                    self.await_in_doubt(&other, access.view.snapshot).await?;
                    continue;
                }
                Step::Found(candidate) => candidate,
            };
            visits += 1;
            if visits.is_multiple_of(VISITS_PER_TURN) {
                tokio::task::yield_now().await;
            }
            // A row that moved within an index while this walk went along it may come up again.
            if changes.get(&candidate.key).is_some() || !modifier.accepts(&candidate.seen.row)? {
                continue;
            }
            let mut accepts = |row: &[u8]| modifier.accepts(row);
            let seen = Some(candidate.seen.commit_timestamp);
            if let Some(row) = access.take(&candidate.key, seen, &mut accepts).await? {
                modify(access, modifier, changes, &candidate.key, &row, delete, reply).await?;
            }
        }
    }
}

/// Changes one row that is locked, matches, and is decoded in `modifier`.
async fn modify(
    access: &RowAccess<'_>,
    modifier: &mut Modifier,
    changes: &mut Changes<'_>,
    key: &Bytes,
    row: &Bytes,
    delete: bool,
    reply: &mut WrittenReply,
) -> Result<(), Failure> {
    let new = if delete { None } else { Some(modifier.update(row)?) };
    if let Some(value) = changes
        .claim_unique_values(access, key, Some(row), new.as_ref())
        .await?
    {
        return Err(duplicate_unique_value(&changes.table.descriptor, &value));
    }
    reply.returned.extend(modifier.returned()?);
    reply.affected += 1;
    changes.put(key.clone(), new)
}
