//! The embedded service as its users see it.
#![allow(clippy::unwrap_used)]

mod conformance;
mod durability;
mod election;
mod faults;
mod membership;
mod support;
