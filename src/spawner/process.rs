//! Child processes: how one is started in a group of its own, fed, drained, limited and ended.
//! It knows programs, pipes and events and nothing of the engine, of tokens or of tasks. A child
//! is hostile until proven otherwise: whatever it does, nothing of it outlives the call but a
//! process that has left its group on purpose.

mod child;
mod group;
mod parse;
mod pump;
mod run;
mod spec;

pub use child::{ChildGroup, ChildPipes};
pub use parse::{LONGEST_DEFAULT, StreamFault, StreamMode, StreamParser};
pub use run::{ChildError, ChildFault, ChildReport, run_child};
pub use spec::{ChildCommand, ChildLimits, ChildSpec, Credentials, INHERITED_DEFAULT};
