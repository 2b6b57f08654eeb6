//! Walks the rows of a range, or of an index range, as a statement's view has them: the snapshot's versions with
//! the transaction's own writes merged in. The view stays as it was when the walk began, so an UPDATE never meets
//! rows that it has just written itself.

use std::ops::Bound;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use neorunbase_protocol::message::StorageId;
use neorunbase_storage::descriptor::IndexDescriptor;
use neorunbase_storage::key::split_index_entry;
use neorunbase_storage::shard::{IndexScan, StoreSnapshot, VersionScan, index_entry};
use neorunbase_world::fault::planted;

use super::failure::Failure;
use super::read::{Look, SeenRow, View};
use super::{DataNode, Participant};

/// Where to walk.
#[derive(Clone, Debug)]
pub(super) struct Range {
    /// 0: the primary key.
    pub index: StorageId,
    /// Inclusive.
    pub lower: Bytes,
    /// Exclusive; empty: to the end.
    pub upper: Bytes,
    /// Descending.
    pub reverse: bool,
}

impl Range {
    /// The part of the range that a walk which stopped after `position` has not visited.
    pub(super) fn after(mut self, position: &Bytes) -> Self {
        if self.reverse {
            self.upper = position.clone();
        } else {
            let mut next = BytesMut::with_capacity(position.len() + 1);
            next.put_slice(position);
            next.put_u8(0);
            self.lower = next.freeze();
        }
        self
    }

    fn bounds<'a>(&'a self, last: Option<&'a Bytes>) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
        let lower = Bound::Included(self.lower.as_ref());
        let upper = if self.upper.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(self.upper.as_ref())
        };
        match last {
            None => (lower, upper),
            Some(last) if self.reverse => (lower, Bound::Excluded(last)),
            Some(last) => (Bound::Excluded(last), upper),
        }
    }

    fn comes_first(&self, left: &Bytes, right: &Bytes) -> bool {
        if self.reverse { left > right } else { left < right }
    }
}

/// A row found.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// Where the walk stands: pass to [`Range::after`] to go on from here.
    pub position: Bytes,
    /// The primary key.
    pub key: Bytes,
    /// The row.
    pub seen: SeenRow,
}

/// What a step of the walk brings.
pub(super) enum Step {
    Found(Candidate),
    /// The row cannot be read before this transaction has ended; step again then.
    Wait(Arc<Participant>),
    End,
}

/// The walk.
pub(super) struct Candidates {
    view: View,
    range: Range,
    source: Source,
    /// Whether the transaction has writes to merge in.
    merges: bool,
}

enum Source {
    Rows {
        scan: VersionScan,
        next: Option<(Bytes, SeenRow)>,
        last: Option<Bytes>,
    },
    Entries {
        scan: IndexScan,
        next: Option<Bytes>,
        last: Option<Bytes>,
        index: IndexDescriptor,
        /// For the newest versions: the instant that entries and rows are both read from. A snapshot's versions do
        /// not change, so there rows are read as they are now.
        instant: Option<StoreSnapshot>,
    },
    Nothing,
}

impl DataNode {
    /// Begins a walk.
    pub(super) async fn walk(&self, view: &View, range: Range) -> Result<Candidates, Failure> {
        loop {
            let in_doubt = {
                // The view is taken while no commit is being applied: it has all of each or nothing.
                let _instant = view.shard.visibility.read();
                let storage = if range.index == 0 {
                    view.storage
                } else {
                    range.index
                };
                let in_doubt = |storage, lower: &[u8], upper: &[u8]| {
                    view.shard
                        .in_doubt_within(storage, lower, upper, view.snapshot, view.reader())
                };
                let mut other = in_doubt(storage, &range.lower, &range.upper);
                if range.index != 0 && view.snapshot == 0 {
                    // Rows will be read from this very instant, and which ones is not known yet.
                    other = other.or_else(|| in_doubt(view.storage, &[], &[]));
                }
                match other {
                    Some(other) => other,
                    None => return Candidates::new(view.clone(), range),
                }
            };
            self.await_in_doubt(&in_doubt, view.snapshot).await?;
        }
    }
}

impl Candidates {
    fn new(view: View, range: Range) -> Result<Self, Failure> {
        let store = &view.shard.store;
        let source = if range.index == 0 {
            let scan = store.scan(
                view.storage,
                &range.lower,
                &range.upper,
                view.snapshot,
                range.reverse,
            )?;
            Source::Rows {
                scan,
                next: None,
                last: None,
            }
        } else if let Some(index) = view.shard.index(range.index) {
            let instant = store.snapshot();
            // The entries of what it should see may be gone, and then no row would tell.
            if !planted("index-ignores-collection") {
                instant.check_readable(view.snapshot)?;
            }
            let scan = instant.scan_index(range.index, &range.lower, &range.upper, range.reverse)?;
            let instant = (view.snapshot == 0).then_some(instant);
            Source::Entries {
                scan,
                next: None,
                last: None,
                index,
                instant,
            }
        } else {
            // No row was ever written to this shard while the index existed.
            store.snapshot().check_readable(view.snapshot)?;
            Source::Nothing
        };
        let merges = view
            .own
            .as_ref()
            .is_some_and(|own| own.writes.lock().touches(view.shard.id, view.storage));
        Ok(Self {
            view,
            range,
            source,
            merges,
        })
    }

    /// The next row.
    pub(super) fn step(&mut self, node: &DataNode) -> Result<Step, Failure> {
        match self.source {
            Source::Rows { .. } => self.step_rows(node),
            Source::Entries { .. } => self.step_entries(node),
            Source::Nothing => Ok(Step::End),
        }
    }

    fn step_rows(&mut self, node: &DataNode) -> Result<Step, Failure> {
        let Source::Rows { scan, next, last } = &mut self.source else {
            return Ok(Step::End);
        };
        loop {
            if next.is_none() {
                *next = scan.next()?.and_then(|(key, version)| {
                    let commit_timestamp = version.commit_timestamp;
                    version.row.map(|row| {
                        (
                            key,
                            SeenRow {
                                row,
                                commit_timestamp,
                            },
                        )
                    })
                });
            }
            if self.merges
                && let Some((key, row)) = own_row(&self.view, &self.range, last.as_ref())
                && next
                    .as_ref()
                    .is_none_or(|(stored, _)| !self.range.comes_first(stored, &key))
            {
                if next.as_ref().is_some_and(|(stored, _)| *stored == key) {
                    *next = None;
                }
                *last = Some(key.clone());
                let Some(row) = row else { continue };
                let seen = SeenRow {
                    row,
                    commit_timestamp: 0,
                };
                return Ok(Step::Found(Candidate {
                    position: key.clone(),
                    key,
                    seen,
                }));
            }
            let Some((key, mut seen)) = next.take() else {
                return Ok(Step::End);
            };
            *last = Some(key.clone());
            if planted("read-uncommitted")
                && let Look::Row(dirty) = self.view.look(node, &key)?
            {
                let Some(dirty) = dirty else { continue };
                seen = dirty;
            }
            return Ok(Step::Found(Candidate {
                position: key.clone(),
                key,
                seen,
            }));
        }
    }

    fn step_entries(&mut self, node: &DataNode) -> Result<Step, Failure> {
        let Source::Entries {
            scan,
            next,
            last,
            index,
            instant,
        } = &mut self.source
        else {
            return Ok(Step::End);
        };
        loop {
            if next.is_none() {
                *next = scan.next()?;
            }
            let own = if self.merges {
                own_entry(&self.view, &self.range, last.as_ref())
            } else {
                None
            };
            let entry = match (&*next, own) {
                (None, None) => return Ok(Step::End),
                (Some(stored), Some(own)) if self.range.comes_first(&own, stored) => own,
                (None, Some(own)) => own,
                (Some(stored), _) => stored.clone(),
            };
            let (_, key) = split_index_entry(&entry, index.columns.len())?;
            let key = entry.slice_ref(key);
            let seen = match instant {
                Some(instant) => self.view.look_back(instant, &key)?,
                None => match self.view.look(node, &key)? {
                    Look::Wait(other) => return Ok(Step::Wait(other)),
                    Look::Row(seen) => seen,
                },
            };
            if next.as_ref() == Some(&entry) {
                *next = None;
            }
            *last = Some(entry.clone());
            let Some(seen) = seen else { continue };
            // Entries of older versions stay for a while: only the one that the visible version has counts, or a
            // row would come up once for each.
            if index_entry(index, &key, &seen.row)? == entry {
                return Ok(Step::Found(Candidate {
                    position: entry,
                    key,
                    seen,
                }));
            }
        }
    }
}

fn own_row(view: &View, range: &Range, last: Option<&Bytes>) -> Option<(Bytes, Option<Bytes>)> {
    let writes = view.own.as_ref()?.writes.lock();
    let (lower, upper) = range.bounds(last);
    let (key, row) = writes
        .shard(view.shard.id)?
        .next_row(view.storage, lower, upper, range.reverse)?;
    Some((key.clone(), row.clone()))
}

fn own_entry(view: &View, range: &Range, last: Option<&Bytes>) -> Option<Bytes> {
    let writes = view.own.as_ref()?.writes.lock();
    let (lower, upper) = range.bounds(last);
    let (entry, _) = writes
        .shard(view.shard.id)?
        .next_entry(range.index, lower, upper, range.reverse)?;
    Some(entry.clone())
}
