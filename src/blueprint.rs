//! Blueprints: the program document, its loading, its check and its JSON Schema.
//!
//! A blueprint names agents and a flow of steps over them. This room owns the document's records,
//! the file references inside it and every compile error; it reads no file outside the document's
//! folder. It is entered through [`load_blueprint`] or [`parse_blueprint`], then [`check()`];
//! [`check_file`] does both and reports the faults of both together. [`compile()`] makes a
//! [`Program`] for an engine of it, [`run()`] runs that, and [`resume()`] goes on with a run that was
//! kept: only these touch an engine.

mod check;
mod document;
mod error;
pub mod flow;
mod load;
mod schema;
mod spec;

mod agent_md;
mod compile;
mod file_ref;
mod functions;
pub(crate) mod kept;
mod record;
mod resume;
mod run;
mod session;
mod step;

pub use check::{Known, Warning, check};
#[cfg(feature = "server")]
pub(crate) use compile::AgentWork;
pub use compile::{Program, ProgramError, compile, known_to};
pub use document::{
    AgentDef, AgentKind, AgentMeta, Blueprint, Hints, Metadata, OperatorDef, Profile,
    SCHEMA_VERSION, SpawnerHints, Strategy,
};
pub use error::{CompileError, CompileErrors};
pub use flow::steps;
pub use functions::Functions;
pub use load::{check_file, check_text, load_blueprint, parse_blueprint};
pub use resume::resume;
pub use run::{RunObserver, RunOptions, RunOutcome, RunReport, StepEnd, run};
pub use schema::json_schema;
pub use spec::{AgentSpec, AskSpec, OperatorSpec, RustFnSpec, SubprocessSpec};
