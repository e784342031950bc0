//! Operators as tools.

use crate::server::mcp::tool::Entry;

pub(crate) fn tools() -> Vec<Entry> {
    Vec::new()
}
