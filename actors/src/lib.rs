//! The state, the transitions and the actors under the adjutant engine.

pub mod model;
