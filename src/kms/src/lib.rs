//! neorunbase-kms
