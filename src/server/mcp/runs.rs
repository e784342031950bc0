//! Runs as tools.

use crate::server::Shared;
use crate::server::caller::Authority;
use crate::server::mcp::tool::{Call, Entry};
use crate::server::problem::Problem;

pub(crate) fn tools() -> Vec<Entry> {
    Vec::new()
}

pub(crate) async fn tasks_of(_call: &Call, _run: &str) -> Result<Vec<String>, Problem> {
    Ok(Vec::new())
}

pub(crate) async fn shown(_app: &Shared, _who: &Authority, _id: &str) -> Result<(), Problem> {
    Ok(())
}
