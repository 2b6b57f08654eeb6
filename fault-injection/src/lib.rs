//! Faults as data: a plan is drawn from the seed before anything runs, can be written down, cut shorter and
//! replayed; the nemesis carries it out on whatever has nodes, links and disks to break.

mod draw;
pub mod nemesis;
pub mod plan;

pub use nemesis::{Nemesis, Victim};
pub use plan::{CutSilence, DiskCrash, Fault, FaultPlan, NodeName, ScheduledFault, Swizzled, Topology};
