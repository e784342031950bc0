//! The state, the transitions and the actors under the adjutant engine.
//!
//! Reading order: [`model`] (values), [`state`] (tables and transitions), [`table`] (what makes a
//! turn undoable), `turn` (the queue), `state_actor` (who runs it), [`system`] (the handle), then
//! the actors around it: `waiter`, `attempt`, `session_actor`, `spawner_actor`, [`root`]. The wire
//! between them is one page: [`messages`].
//!
//! What outlives the process goes through [`journal`], as images of the records that turns touched.
//!
//! Nothing here knows the engine that hosts call, a spawner or a layer; what runs comes in through
//! [`launch`]. Hosts use the `adjutant` package, which re-exports what they need.

pub mod clock;
pub mod config;
pub mod errors;
#[cfg(feature = "simulation")]
pub mod hop;
pub mod journal;
pub mod launch;
pub mod messages;
pub mod model;
pub mod root;
pub mod state;
pub mod system;
pub mod table;

mod attempt;
mod commits;
mod desk;
#[cfg(not(feature = "simulation"))]
mod hop;
mod line;
mod mail;
mod outgoing;
mod pool;
mod queue;
mod session_actor;
mod shards;
mod spawner_actor;
mod state_actor;
mod turn;
mod waiter;
