//! Compact serde forms for the two kinds of value whose own implementations do not suit postcard.

/// A decimal as its unscaled integer's little-endian bytes and its scale. The crate's own implementation asks
/// the format what comes next, which a format that does not describe itself cannot tell.
pub mod numeric {
    use bigdecimal::BigDecimal;
    use bigdecimal::num_bigint::BigInt;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the pair.
    pub fn serialize<S: Serializer>(value: &BigDecimal, serializer: S) -> Result<S::Ok, S::Error> {
        let (unscaled, scale) = value.as_bigint_and_scale();
        (unscaled.to_signed_bytes_le(), scale as i32).serialize(serializer)
    }

    /// Reads the pair.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BigDecimal, D::Error> {
        let (bytes, scale) = <(Vec<u8>, i32)>::deserialize(deserializer)?;
        if i64::from(scale) < 0 || i64::from(scale) > crate::numeric::MAXIMUM_SCALE {
            return Err(serde::de::Error::custom("scale of a numeric is out of range"));
        }
        Ok(BigDecimal::new(
            BigInt::from_signed_bytes_le(&bytes),
            i64::from(scale),
        ))
    }
}

/// Byte strings in one piece.
pub mod bytes {
    use ::bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the bytes.
    pub fn serialize<S: Serializer>(value: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(value)
    }

    /// Reads the bytes.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(Bytes::from)
    }
}
