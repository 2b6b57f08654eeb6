//! Which shard a row belongs to. A shard owns a *range* of the 64-bit hash space, not a residue, so that a
//! split or merge moves ranges.

use std::io::Cursor;

/// Position of a row in the hash space: the first half of `murmur3_x64_128` of its encoded shard key.
pub fn hash_shard_key(encoded_shard_key: &[u8]) -> u64 {
    // Reading from memory cannot fail.
    let hash = murmur3::murmur3_x64_128(&mut Cursor::new(encoded_shard_key), 0).unwrap_or(0);
    hash as u64
}

/// The shard, of `shards` equal ranges, that owns `hash`.
pub fn shard_of_hash(hash: u64, shards: u32) -> u32 {
    debug_assert!(shards > 0, "a shard group has at least one shard");
    // Multiplying into the upper half divides the space into `shards` even ranges without a division.
    ((u128::from(hash) * u128::from(shards)) >> 64) as u32
}

/// First hash of the range that shard `index` of `shards` owns.
pub fn range_start(index: u32, shards: u32) -> u64 {
    let start = (u128::from(index) << 64).div_ceil(u128::from(shards));
    u64::try_from(start).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_the_space_without_overlap() {
        for shards in [1, 2, 3, 4, 7, 16, 1000] {
            for index in 0..shards {
                let start = range_start(index, shards);
                assert_eq!(shard_of_hash(start, shards), index);
                if start > 0 {
                    assert_eq!(shard_of_hash(start - 1, shards), index - 1);
                }
            }
            assert_eq!(shard_of_hash(u64::MAX, shards), shards - 1);
        }
    }

    #[test]
    fn hash_is_murmur3_x64_128() {
        // Reference value of MurmurHash3_x64_128("hello", seed 0), first half.
        assert_eq!(hash_shard_key(b"hello"), 0xcbd8_a7b3_41bd_9b02);
    }
}
