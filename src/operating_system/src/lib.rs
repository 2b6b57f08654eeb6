//! neorunbase-operating-system
