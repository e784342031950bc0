//! Child processes: how one is started in a group of its own, fed, drained, limited and ended.
//! Only `adapter`, the spawner itself, knows the engine; the rest knows programs, pipes and
//! events. A child is hostile until proven otherwise: whatever it does, nothing of it outlives the call but a
//! process that has left its group on purpose.

mod adapter;
mod child;
mod group;
mod left;
mod parse;
mod pump;
mod run;
mod spec;
mod table;

pub use adapter::ProcessSpawner;
#[cfg(feature = "server")]
pub(crate) use child::kills;
pub use child::{ChildGroup, ChildPipes};
pub(crate) use left::end_left;
pub use parse::{LONGEST_DEFAULT, StreamFault, StreamMode, StreamParser};
pub use run::{ChildError, ChildFault, ChildReport, run_child};
pub use spec::{ChildCommand, ChildLimits, ChildSpec, Credentials, INHERITED_DEFAULT};
