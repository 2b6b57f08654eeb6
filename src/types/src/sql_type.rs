//! Column and expression types.

use serde::{Deserialize, Serialize};

/// A PostgreSQL type with its modifiers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SqlType {
    /// `boolean`
    Boolean,
    /// `smallint`
    SmallInt,
    /// `integer`
    Integer,
    /// `bigint`
    BigInt,
    /// `real`
    Real,
    /// `double precision`
    DoublePrecision,
    /// `numeric` or `numeric(precision, scale)`
    Numeric(Option<(u16, i16)>),
    /// `text`
    Text,
    /// `character varying` or `character varying(n)`; `n` counts characters
    VarChar(Option<u32>),
    /// `character(n)`, blank-padded
    Char(u32),
    /// `bytea`
    Bytea,
    /// `date`
    Date,
    /// `time without time zone`
    Time,
    /// `timestamp without time zone`
    Timestamp,
    /// `timestamp with time zone`
    TimestampTz,
    /// `interval`
    Interval,
    /// `uuid`
    Uuid,
    /// `oid`
    Oid,
    /// `name`, the catalogs' 63-byte text
    Name,
    /// The type of an untyped literal or parameter until its context decides (PostgreSQL's `unknown`).
    Unknown,
}
