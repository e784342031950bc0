//! How the engine is, as a tool.

use std::sync::atomic::Ordering;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::server::mcp::tool::{Call, Effect, Entry, Reply};
use crate::server::problem::Problem;

pub(crate) fn tools() -> Vec<Entry> {
    let about = "Says whether the engine is well: whether it takes work, whether its journal can be written, how much \
                 is going on, and what to do about what is wrong.";
    vec![Entry::new("doctor", ("Look after the engine", about), Effect::Reads, doctor)]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Serialize, JsonSchema)]
struct Doctor {
    /// Whether nothing is wrong.
    ok: bool,
    /// What is wrong, each with what to do about it.
    findings: Vec<String>,
    /// The version of the program.
    version: &'static str,
    /// Whether state outlives the process.
    durable: bool,
    /// Tasks that are not settled.
    live_tasks: u64,
    /// Sessions that are remembered.
    sessions: u64,
    /// Turns that wait for the state.
    queued_turns: usize,
}

async fn doctor(call: Call, Nothing {}: Nothing) -> Result<Reply<Doctor>, Problem> {
    let (app, mut findings) = (&call.app, Vec::new());
    if app.draining.load(Ordering::Acquire) {
        findings.push("The engine is going down and takes nothing new; start it again.".to_owned());
    }
    if app.engine.journal_failure().is_some() {
        findings.push("The journal failed; look at the store with `adjutant fsck`.".to_owned());
    }
    let look = |state: &mut adjutant_actors::state::EngineState| {
        (state.live_tasks(), state.session_count() as u64)
    };
    let (live_tasks, sessions) = app.engine.with_state("doctor", look).await?;
    Ok(Reply::Done(Doctor {
        ok: findings.is_empty(),
        findings,
        version: env!("CARGO_PKG_VERSION"),
        durable: app.engine.is_durable(),
        live_tasks,
        sessions,
        queued_turns: app.engine.queued_turns(),
    }))
}
