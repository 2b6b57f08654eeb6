//! Values as Arrow arrays and back. Dates and times travel as plain integers counted from PostgreSQL's epoch: their
//! meaning stays with our own expressions, DataFusion only moves, compares and hashes them.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, StringBuilder, UInt32Builder,
};
use datafusion::arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, UInt32Type,
};
use datafusion::common::ScalarValue;
use neorunbase_types::{Datum, Result, SqlError, SqlType};

use super::ordered_bytes;

/// Bytes of a uuid.
const UUID_BYTES: i32 = 16;

/// The Arrow type that carries values of `sql_type`.
pub(crate) fn data_type(sql_type: &SqlType) -> DataType {
    match sql_type {
        SqlType::Boolean => DataType::Boolean,
        SqlType::SmallInt => DataType::Int16,
        SqlType::Integer | SqlType::Date => DataType::Int32,
        SqlType::BigInt | SqlType::Time | SqlType::Timestamp | SqlType::TimestampTz => DataType::Int64,
        SqlType::Real => DataType::Float32,
        SqlType::DoublePrecision => DataType::Float64,
        SqlType::Oid => DataType::UInt32,
        SqlType::Numeric(_) | SqlType::Interval | SqlType::Bytea => DataType::Binary,
        SqlType::Uuid => DataType::FixedSizeBinary(UUID_BYTES),
        SqlType::Text | SqlType::VarChar(_) | SqlType::Char(_) | SqlType::Name | SqlType::Unknown => {
            DataType::Utf8
        }
    }
}

fn mismatch(sql_type: &SqlType) -> Box<SqlError> {
    SqlError::internal(format_args!("a value is not of its column's type {sql_type}"))
}

/// One value as a DataFusion literal.
pub(crate) fn scalar(datum: &Datum, sql_type: &SqlType) -> Result<ScalarValue> {
    if datum.is_null() {
        return ScalarValue::try_from(&data_type(sql_type)).map_err(SqlError::internal);
    }
    Ok(match (datum, data_type(sql_type)) {
        (Datum::Boolean(value), DataType::Boolean) => ScalarValue::Boolean(Some(*value)),
        (Datum::SmallInt(value), DataType::Int16) => ScalarValue::Int16(Some(*value)),
        (Datum::Integer(value) | Datum::Date(value), DataType::Int32) => ScalarValue::Int32(Some(*value)),
        (
            Datum::BigInt(value) | Datum::Time(value) | Datum::Timestamp(value) | Datum::TimestampTz(value),
            DataType::Int64,
        ) => ScalarValue::Int64(Some(*value)),
        (Datum::Real(value), DataType::Float32) => ScalarValue::Float32(Some(*value)),
        (Datum::DoublePrecision(value), DataType::Float64) => ScalarValue::Float64(Some(*value)),
        (Datum::Oid(value), DataType::UInt32) => ScalarValue::UInt32(Some(*value)),
        (Datum::Text(value), DataType::Utf8) => ScalarValue::Utf8(Some(value.to_string())),
        (Datum::Bytea(value), DataType::Binary) => ScalarValue::Binary(Some(value.to_vec())),
        (Datum::Numeric(value), DataType::Binary) => {
            ScalarValue::Binary(Some(ordered_bytes::encode_numeric(value)))
        }
        (Datum::Interval(value), DataType::Binary) => {
            ScalarValue::Binary(Some(ordered_bytes::encode_interval(value)))
        }
        (Datum::Uuid(value), DataType::FixedSizeBinary(_)) => {
            ScalarValue::FixedSizeBinary(UUID_BYTES, Some(value.to_vec()))
        }
        _ => return Err(mismatch(sql_type)),
    })
}

/// Collects values of one type into an array.
pub(crate) enum ColumnBuilder {
    Boolean(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    UInt32(UInt32Builder),
    Utf8(StringBuilder),
    Binary(BinaryBuilder),
    Uuid(FixedSizeBinaryBuilder),
}

impl ColumnBuilder {
    pub(crate) fn new(sql_type: &SqlType, rows: usize) -> Self {
        match data_type(sql_type) {
            DataType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            DataType::Int16 => Self::Int16(Int16Builder::with_capacity(rows)),
            DataType::Int32 => Self::Int32(Int32Builder::with_capacity(rows)),
            DataType::Int64 => Self::Int64(Int64Builder::with_capacity(rows)),
            DataType::Float32 => Self::Float32(Float32Builder::with_capacity(rows)),
            DataType::Float64 => Self::Float64(Float64Builder::with_capacity(rows)),
            DataType::UInt32 => Self::UInt32(UInt32Builder::with_capacity(rows)),
            DataType::FixedSizeBinary(_) => {
                Self::Uuid(FixedSizeBinaryBuilder::with_capacity(rows, UUID_BYTES))
            }
            DataType::Binary => Self::Binary(BinaryBuilder::with_capacity(rows, rows * 8)),
            _ => Self::Utf8(StringBuilder::with_capacity(rows, rows * 8)),
        }
    }

    pub(crate) fn append(&mut self, datum: &Datum) -> Result<()> {
        match (self, datum) {
            (Self::Boolean(builder), Datum::Boolean(value)) => builder.append_value(*value),
            (Self::Int16(builder), Datum::SmallInt(value)) => builder.append_value(*value),
            (Self::Int32(builder), Datum::Integer(value) | Datum::Date(value)) => {
                builder.append_value(*value)
            }
            (
                Self::Int64(builder),
                Datum::BigInt(value)
                | Datum::Time(value)
                | Datum::Timestamp(value)
                | Datum::TimestampTz(value),
            ) => builder.append_value(*value),
            (Self::Float32(builder), Datum::Real(value)) => builder.append_value(*value),
            (Self::Float64(builder), Datum::DoublePrecision(value)) => builder.append_value(*value),
            (Self::UInt32(builder), Datum::Oid(value)) => builder.append_value(*value),
            (Self::Utf8(builder), Datum::Text(value)) => builder.append_value(value),
            (Self::Binary(builder), Datum::Bytea(value)) => builder.append_value(value),
            (Self::Binary(builder), Datum::Numeric(value)) => {
                builder.append_value(ordered_bytes::encode_numeric(value));
            }
            (Self::Binary(builder), Datum::Interval(value)) => {
                builder.append_value(ordered_bytes::encode_interval(value));
            }
            (Self::Uuid(builder), Datum::Uuid(value)) => {
                builder.append_value(value).map_err(SqlError::internal)?;
            }
            (builder, Datum::Null) => builder.append_null(),
            (_, other) => {
                return Err(SqlError::internal(format_args!(
                    "a value is not of its column's type: {other:?}"
                )));
            }
        }
        Ok(())
    }

    fn append_null(&mut self) {
        match self {
            Self::Boolean(builder) => builder.append_null(),
            Self::Int16(builder) => builder.append_null(),
            Self::Int32(builder) => builder.append_null(),
            Self::Int64(builder) => builder.append_null(),
            Self::Float32(builder) => builder.append_null(),
            Self::Float64(builder) => builder.append_null(),
            Self::UInt32(builder) => builder.append_null(),
            Self::Utf8(builder) => builder.append_null(),
            Self::Binary(builder) => builder.append_null(),
            Self::Uuid(builder) => builder.append_null(),
        }
    }

    pub(crate) fn finish(self) -> ArrayRef {
        match self {
            Self::Boolean(mut builder) => Arc::new(builder.finish()),
            Self::Int16(mut builder) => Arc::new(builder.finish()),
            Self::Int32(mut builder) => Arc::new(builder.finish()),
            Self::Int64(mut builder) => Arc::new(builder.finish()),
            Self::Float32(mut builder) => Arc::new(builder.finish()),
            Self::Float64(mut builder) => Arc::new(builder.finish()),
            Self::UInt32(mut builder) => Arc::new(builder.finish()),
            Self::Utf8(mut builder) => Arc::new(builder.finish()),
            Self::Binary(mut builder) => Arc::new(builder.finish()),
            Self::Uuid(mut builder) => Arc::new(builder.finish()),
        }
    }
}

/// The value of row `row`.
pub(crate) fn datum_at(array: &dyn Array, sql_type: &SqlType, row: usize) -> Result<Datum> {
    if array.is_null(row) {
        return Ok(Datum::Null);
    }
    let expected = data_type(sql_type);
    if *array.data_type() != expected {
        return Err(mismatch(sql_type));
    }
    Ok(match sql_type {
        SqlType::Boolean => Datum::Boolean(array.as_boolean().value(row)),
        SqlType::SmallInt => Datum::SmallInt(array.as_primitive::<Int16Type>().value(row)),
        SqlType::Integer => Datum::Integer(array.as_primitive::<Int32Type>().value(row)),
        SqlType::Date => Datum::Date(array.as_primitive::<Int32Type>().value(row)),
        SqlType::BigInt => Datum::BigInt(array.as_primitive::<Int64Type>().value(row)),
        SqlType::Time => Datum::Time(array.as_primitive::<Int64Type>().value(row)),
        SqlType::Timestamp => Datum::Timestamp(array.as_primitive::<Int64Type>().value(row)),
        SqlType::TimestampTz => Datum::TimestampTz(array.as_primitive::<Int64Type>().value(row)),
        SqlType::Real => Datum::Real(array.as_primitive::<Float32Type>().value(row)),
        SqlType::DoublePrecision => Datum::DoublePrecision(array.as_primitive::<Float64Type>().value(row)),
        SqlType::Oid => Datum::Oid(array.as_primitive::<UInt32Type>().value(row)),
        SqlType::Numeric(_) => Datum::Numeric(ordered_bytes::decode_numeric(
            array.as_binary::<i32>().value(row),
        )?),
        SqlType::Interval => Datum::Interval(ordered_bytes::decode_interval(
            array.as_binary::<i32>().value(row),
        )?),
        SqlType::Bytea => Datum::Bytea(array.as_binary::<i32>().value(row).to_vec().into()),
        SqlType::Uuid => {
            let bytes = array.as_fixed_size_binary().value(row);
            Datum::Uuid(bytes.try_into().map_err(|_| mismatch(sql_type))?)
        }
        SqlType::Text | SqlType::VarChar(_) | SqlType::Char(_) | SqlType::Name | SqlType::Unknown => {
            Datum::text(array.as_string::<i32>().value(row))
        }
    })
}
