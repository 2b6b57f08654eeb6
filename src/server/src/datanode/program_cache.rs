//! Decoded programs, so that a statement that runs again is not decoded again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use neorunbase_expression::{ScanProgram, WriteProgram};
use neorunbase_protocol::message::ProgramRef;
use neorunbase_types::{SqlError, SqlState};
use parking_lot::RwLock;

use super::failure::Failure;
use super::table::StoredTable;

struct Kind<Program> {
    /// By digest, with the encoded form: a program is never taken for another, whatever its digest claims.
    entries: RwLock<BTreeMap<u64, (Bytes, Arc<Program>)>>,
}

impl<Program> Kind<Program> {
    fn new() -> Self {
        Self {
            entries: RwLock::new(BTreeMap::new()),
        }
    }

    fn get(
        &self,
        reference: &ProgramRef,
        capacity: usize,
        decode: impl FnOnce() -> Result<Program, Box<SqlError>>,
    ) -> Result<Arc<Program>, Failure> {
        if let Some((encoded, program)) = self.entries.read().get(&reference.digest)
            && *encoded == reference.encoded
        {
            return Ok(program.clone());
        }
        if ProgramRef::new(reference.encoded.clone()).digest != reference.digest {
            return Err(Failure::Sql(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                "a program's digest does not match its content",
            )));
        }
        let program = Arc::new(decode()?);
        let mut entries = self.entries.write();
        if entries.len() >= capacity {
            // Statements in use come back at once; anything cleverer costs more than it saves.
            entries.clear();
        }
        entries.insert(reference.digest, (reference.encoded.clone(), program.clone()));
        Ok(program)
    }
}

/// The node's cache, bounded for each kind of program.
pub(super) struct ProgramCache {
    capacity: usize,
    scans: Kind<ScanProgram>,
    writes: Kind<WriteProgram>,
    tables: Kind<StoredTable>,
}

impl ProgramCache {
    /// An empty cache of up to `capacity` programs of each kind.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            scans: Kind::new(),
            writes: Kind::new(),
            tables: Kind::new(),
        }
    }

    /// A `ScanProgram`.
    pub fn scan(&self, reference: &ProgramRef) -> Result<Arc<ScanProgram>, Failure> {
        self.scans.get(reference, self.capacity, || {
            ScanProgram::decode(&reference.encoded)
        })
    }

    /// A `WriteProgram`.
    pub fn write(&self, reference: &ProgramRef) -> Result<Arc<WriteProgram>, Failure> {
        self.writes.get(reference, self.capacity, || {
            WriteProgram::decode(&reference.encoded)
        })
    }

    /// A `TableDescriptor`.
    pub fn table(&self, reference: &ProgramRef) -> Result<Arc<StoredTable>, Failure> {
        let decode = || StoredTable::decode(reference.digest, reference.encoded.clone());
        self.tables.get(reference, self.capacity, decode)
    }
}
