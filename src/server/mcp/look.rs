//! How the server is, as a tool.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::server::doctor::{Report, report};
use crate::server::mcp::tool::{Call, Effect, Entry, Reply};
use crate::server::problem::Problem;

pub(crate) fn tools() -> Vec<Entry> {
    let about = "Says whether the server is well: the disk, the journal, the clock, who is attached, what was left \
                 behind, recent errors, and what to do about what is wrong. For the admin; a flush of the disk is \
                 measured.";
    vec![Entry::new("doctor", ("Look after the server", about), Effect::Reads, doctor)]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Serialize, JsonSchema)]
struct Doctor {
    /// Whether nothing fails; findings may still warn.
    ok: bool,
    #[serde(flatten)]
    report: Report,
}

async fn doctor(call: Call, Nothing {}: Nothing) -> Result<Reply<Doctor>, Problem> {
    call.who.must_be_admin()?;
    let report = report(&call.app).await;
    Ok(Reply::Done(Doctor { ok: report.is_well(), report }))
}
