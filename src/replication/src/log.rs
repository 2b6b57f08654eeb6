//! A shard's log as replication sees it: the entries that some follower may still lack, or that may still be lost.

use std::collections::VecDeque;

/// Where an entry stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogPosition {
    /// The term whose primary made it.
    pub term: u64,
    /// Counts the shard's entries from 1, over all terms.
    pub sequence: u64,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<R> {
    /// Where.
    pub position: LogPosition,
    /// What happened; none: the term began.
    pub record: Option<R>,
}

/// What a log holds.
pub trait Record: Clone {
    /// About how much memory it takes.
    fn bytes(&self) -> usize;
}

/// The end of a shard's log, in memory.
#[derive(Clone, Debug)]
pub struct ShardLog<R> {
    /// The last entry that is not kept here. It and everything before it is committed.
    base: LogPosition,
    entries: VecDeque<Entry<R>>,
    committed: u64,
    durable: u64,
    /// Of the records that are kept.
    bytes: usize,
}

fn bytes_of<R: Record>(entry: &Entry<R>) -> usize {
    entry.record.as_ref().map_or(0, R::bytes)
}

impl<R: Record> ShardLog<R> {
    /// A log of which everything up to `base` is committed, durable and applied, and nothing is known beyond.
    pub fn starting_at(base: LogPosition) -> Self {
        Self {
            base,
            entries: VecDeque::new(),
            committed: base.sequence,
            durable: base.sequence,
            bytes: 0,
        }
    }

    /// A log as it is found on disk: everything up to `base` is applied, `written` are the entries in the order in which
    /// they were written. One with the sequence of an earlier one stands for it, and voids what followed that.
    ///
    /// # Errors
    /// The entry that does not follow any other: something is missing before it.
    pub fn recovered(
        base: LogPosition,
        written: impl IntoIterator<Item = Entry<R>>,
    ) -> Result<Self, LogPosition> {
        let mut log = Self::starting_at(base);
        for entry in written {
            let LogPosition { term, sequence } = entry.position;
            if sequence <= log.end().sequence {
                log.truncate_after((sequence - 1).max(base.sequence));
            }
            // What comes before its overwriting by what is applied already is void as well.
            let is_void = sequence <= base.sequence || term < log.end().term;
            if is_void {
                continue;
            }
            if sequence != log.end().sequence + 1 {
                return Err(entry.position);
            }
            log.push(entry);
        }
        log.durable = log.end().sequence;
        Ok(log)
    }

    /// The last entry.
    pub fn end(&self) -> LogPosition {
        self.entries.back().map_or(self.base, |entry| entry.position)
    }

    /// The last entry that is not kept here any more.
    pub fn base(&self) -> LogPosition {
        self.base
    }

    /// Entries up to here are never taken back.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Entries up to here are durable on this node.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The entry at `position`, and so all before it, is durable on this node.
    pub fn written(&mut self, position: LogPosition) {
        // It may have been overwritten since.
        if self.position(position.sequence) == Some(position) {
            self.durable = self.durable.max(position.sequence);
        }
    }

    /// The position of entry `sequence`, if it is there and still known.
    pub fn position(&self, sequence: u64) -> Option<LogPosition> {
        if sequence == self.base.sequence {
            return Some(self.base);
        }
        Some(self.get(sequence)?.position)
    }

    /// Entry `sequence`, if it is kept.
    pub fn get(&self, sequence: u64) -> Option<&Entry<R>> {
        let index = sequence.checked_sub(self.base.sequence + 1)?;
        self.entries.get(usize::try_from(index).ok()?)
    }

    /// At most `most` kept entries after `sequence`.
    pub fn after(&self, sequence: u64, most: usize) -> impl Iterator<Item = &Entry<R>> {
        let skipped = sequence.saturating_sub(self.base.sequence);
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        self.entries.iter().skip(skipped).take(most)
    }

    /// Adds an entry at the end.
    ///
    /// # Panics
    /// If it does not follow the last one: the log would have a gap.
    pub fn push(&mut self, entry: Entry<R>) {
        let end = self.end();
        assert!(
            entry.position.sequence == end.sequence + 1 && entry.position.term >= end.term,
            "entry {:?} does not follow {end:?}",
            entry.position
        );
        self.bytes += bytes_of(&entry);
        self.entries.push_back(entry);
    }

    /// Drops the entries after `sequence`.
    ///
    /// # Panics
    /// If one of them is committed: it would be lost.
    pub fn truncate_after(&mut self, sequence: u64) {
        assert!(
            sequence >= self.committed,
            "entries up to {} are committed, so the log cannot be cut after {sequence}",
            self.committed
        );
        let kept = usize::try_from(sequence - self.base.sequence).unwrap_or(usize::MAX);
        self.bytes -= self
            .entries
            .range(kept.min(self.entries.len())..)
            .map(bytes_of)
            .sum::<usize>();
        self.entries.truncate(kept);
        self.durable = self.durable.min(sequence);
    }

    /// Entries up to `sequence` are committed from now on (as far as they are there). Returns whether that is news.
    pub fn commit(&mut self, sequence: u64) -> bool {
        let sequence = sequence.min(self.end().sequence);
        let is_news = sequence > self.committed;
        self.committed = self.committed.max(sequence);
        is_news
    }

    /// Bytes of the records that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets entries up to `sequence`, as far as they are committed.
    pub fn forget_up_to(&mut self, sequence: u64) {
        self.forget_while(sequence, |_| true);
    }

    /// Forgets entries up to `sequence`, as far as they are committed and the log holds more than `bytes` without them.
    pub fn forget_beyond(&mut self, sequence: u64, bytes: usize) {
        self.forget_while(sequence, |kept| kept > bytes);
    }

    fn forget_while(&mut self, sequence: u64, forgets: impl Fn(usize) -> bool) {
        let sequence = sequence.min(self.committed).min(self.durable);
        while let Some(first) = self.entries.front()
            && first.position.sequence <= sequence
            && forgets(self.bytes - bytes_of(first))
        {
            self.base = first.position;
            self.bytes -= bytes_of(first);
            self.entries.pop_front();
        }
    }
}
