//! Rows as bytes: a version byte, then each column's id, type tag and value, ids ascending.
//!
//! A column that was added after a row was written is simply missing from it; one that was dropped is skipped.
//! So neither rewrites the table. Tuples, the rows that travel between nodes, are the same without ids.

use bytes::Bytes;
use neorunbase_types::Datum;

use crate::StorageError;
use crate::value::{put_value, put_varint, skip_value, take_value, take_varint};

const ROW_VERSION: u8 = 1;
const MALFORMED: StorageError = StorageError::Malformed { what: "row" };

/// Encodes a row. Each column once, in any order.
pub fn encode_row(columns: &[(u32, &Datum)]) -> Bytes {
    let mut output = Vec::with_capacity(1 + columns.len() * 10);
    output.push(ROW_VERSION);
    let put = |output: &mut Vec<u8>, column: u32, datum: &Datum| {
        put_varint(output, u64::from(column));
        put_value(output, datum);
    };
    if columns.is_sorted_by_key(|column| column.0) {
        for (column, datum) in columns {
            put(&mut output, *column, datum);
        }
    } else {
        let mut sorted = columns.to_vec();
        sorted.sort_by_key(|column| column.0);
        for (column, datum) in sorted {
            put(&mut output, column, datum);
        }
    }
    Bytes::from(output)
}

fn columns_of(row: &[u8]) -> Result<&[u8], StorageError> {
    match row.split_first() {
        Some((&ROW_VERSION, rest)) => Ok(rest),
        _ => Err(MALFORMED),
    }
}

/// Appends the `wanted` columns of `row` to `out`, in the order wanted: each the row's own value, or the one
/// that stands beside its id if the row does not have the column. Fastest when ids are wanted ascending.
///
/// # Errors
/// [`StorageError::Malformed`]; `out` may have grown then.
pub fn decode_columns(
    row: &[u8],
    wanted: &[(u32, &Datum)],
    out: &mut Vec<Datum>,
) -> Result<(), StorageError> {
    let start = columns_of(row)?;
    let mut rest = start;
    // Where the walk stands: columns before `rest` all have ids below `reached`.
    let mut reached = 0_u64;
    out.reserve(wanted.len());
    for &(column, missing) in wanted {
        let column = u64::from(column);
        if column < reached {
            rest = start;
        }
        loop {
            if rest.is_empty() {
                out.push(missing.clone());
                reached = column;
                break;
            }
            let mut next = rest;
            let id = take_varint(&mut next)?;
            if id > column {
                out.push(missing.clone());
                reached = column;
                break;
            }
            if id == column {
                out.push(take_value(&mut next)?);
                rest = next;
                reached = column + 1;
                break;
            }
            skip_value(&mut next)?;
            rest = next;
        }
    }
    Ok(())
}

/// The row with some columns replaced or added; all others are kept byte for byte.
///
/// # Errors
/// [`StorageError::Malformed`].
pub fn replace_columns(row: &[u8], assignments: &[(u32, &Datum)]) -> Result<Bytes, StorageError> {
    let mut sorted: Vec<(u32, &Datum)> = assignments.to_vec();
    sorted.sort_by_key(|assignment| assignment.0);
    let mut assignments = sorted.into_iter().peekable();
    let mut rest = columns_of(row)?;
    let mut output = Vec::with_capacity(row.len() + assignments.len() * 10);
    output.push(ROW_VERSION);
    while !rest.is_empty() {
        let entry = rest;
        let id = take_varint(&mut rest)?;
        skip_value(&mut rest)?;
        let mut replaced = false;
        while let Some((column, datum)) = assignments.next_if(|(column, _)| u64::from(*column) <= id) {
            put_varint(&mut output, u64::from(column));
            put_value(&mut output, datum);
            replaced |= u64::from(column) == id;
        }
        if !replaced {
            output.extend_from_slice(&entry[..entry.len() - rest.len()]);
        }
    }
    for (column, datum) in assignments {
        put_varint(&mut output, u64::from(column));
        put_value(&mut output, datum);
    }
    Ok(Bytes::from(output))
}

/// Encodes values in order.
pub fn encode_tuple(values: &[Datum]) -> Bytes {
    let mut output = Vec::with_capacity(1 + values.len() * 9);
    encode_tuple_into(values, &mut output);
    Bytes::from(output)
}

/// As [`encode_tuple`], appending to `output`.
pub fn encode_tuple_into(values: &[Datum], output: &mut Vec<u8>) {
    put_varint(output, values.len() as u64);
    for value in values {
        put_value(output, value);
    }
}

/// Decodes what [`encode_tuple`] made.
///
/// # Errors
/// [`StorageError::Malformed`].
pub fn decode_tuple(bytes: &[u8]) -> Result<Vec<Datum>, StorageError> {
    let mut out = Vec::new();
    decode_tuple_into(bytes, &mut out)?;
    Ok(out)
}

/// As [`decode_tuple`], appending to `out`.
///
/// # Errors
/// [`StorageError::Malformed`]; `out` may have grown then.
pub fn decode_tuple_into(mut bytes: &[u8], out: &mut Vec<Datum>) -> Result<(), StorageError> {
    let count = take_varint(&mut bytes)?;
    // Each value has a byte at least: a count beyond that is a lie, and must not make us reserve memory.
    if count > bytes.len() as u64 {
        return Err(MALFORMED);
    }
    out.reserve(count as usize);
    for _ in 0..count {
        out.push(take_value(&mut bytes)?);
    }
    if bytes.is_empty() { Ok(()) } else { Err(MALFORMED) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::sample_datum::any_datum;

    fn decode(row: &[u8], wanted: &[u32]) -> Vec<Datum> {
        let missing = Datum::Oid(99);
        let wanted: Vec<(u32, &Datum)> = wanted.iter().map(|id| (*id, &missing)).collect();
        let mut out = Vec::new();
        decode_columns(row, &wanted, &mut out).unwrap();
        out
    }

    #[test]
    fn columns_in_any_order_missing_and_repeated() {
        let (one, text, null) = (Datum::Integer(1), Datum::text("two"), Datum::Null);
        let row = encode_row(&[(300, &null), (1, &one), (2, &text)]);
        let missing = Datum::Oid(99);
        assert_eq!(
            decode(&row, &[1, 2, 300]),
            [one.clone(), text.clone(), Datum::Null]
        );
        assert_eq!(
            decode(&row, &[300, 7, 2, 2, 1, 0]),
            [Datum::Null, missing.clone(), text.clone(), text, one, missing]
        );
    }

    #[test]
    fn damaged_rows_are_errors() {
        let row = encode_row(&[(1, &Datum::text("hello"))]);
        for length in 0..row.len() {
            let mut out = Vec::new();
            let result = decode_columns(&row[..length], &[(1, &Datum::Null)], &mut out);
            assert!(result.is_err() || length == 1, "{length}");
        }
        assert!(decode_tuple(&[0xff, 0xff, 0xff, 0x7f]).is_err());
        assert!(decode_tuple(&[1]).is_err());
    }

    proptest! {
        #[test]
        fn rows_and_tuples_come_back(values in prop::collection::vec(any_datum(), 0..12)) {
            prop_assert_eq!(&decode_tuple(&encode_tuple(&values)).unwrap(), &values);
            let columns: Vec<(u32, &Datum)> = values.iter().enumerate().map(|(i, v)| (i as u32 * 50, v)).collect();
            let ids: Vec<u32> = columns.iter().map(|column| column.0).collect();
            prop_assert_eq!(decode(&encode_row(&columns), &ids), values);
        }

        #[test]
        fn replacing_columns_is_as_writing_them(
            before in prop::collection::btree_map(0_u32..20, any_datum(), 0..10),
            assigned in prop::collection::btree_map(0_u32..20, any_datum(), 0..10),
        ) {
            let columns = |map: &std::collections::BTreeMap<u32, Datum>| -> Bytes {
                encode_row(&map.iter().map(|(id, datum)| (*id, datum)).collect::<Vec<_>>())
            };
            let assignments: Vec<(u32, &Datum)> = assigned.iter().rev().map(|(id, datum)| (*id, datum)).collect();
            let replaced = replace_columns(&columns(&before), &assignments).unwrap();
            let mut expected = before;
            expected.extend(assigned.clone());
            prop_assert_eq!(replaced, columns(&expected));
        }
    }
}
