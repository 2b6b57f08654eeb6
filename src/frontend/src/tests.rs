//! Whole conversations with a connection, its client played by the pgwire crate's codec over a stream in
//! memory.
#![allow(clippy::unwrap_used)]

mod copying;
mod ending;
mod extended;
mod opening;
mod simple;
pub(crate) mod support;
