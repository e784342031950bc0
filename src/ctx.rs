//! The context of one attempt, as spawners, layers and operators see it.

use std::collections::HashMap;
use std::fmt;

use adjutant_actors::model::ids::TaskId;
use serde_json::Value;

use crate::operator::OperatorInfo;

/// Four bags of named values that layers lay out for those below them.
///
/// ```
/// use adjutant::CtxMeta;
///
/// let mut meta = CtxMeta::default();
/// meta.runtime.insert("region".into(), "north".into()); // as a layer does for those below it
/// assert!(meta.authz.is_empty() && meta.observer.is_empty() && meta.loop_ns.is_empty());
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct CtxMeta {
    /// For the worker: handle, endpoints, references.
    pub runtime: HashMap<String, Value>,
    /// For decisions on rights.
    pub authz: HashMap<String, Value>,
    /// For those who watch.
    pub observer: HashMap<String, Value>,
    /// For loops of a flow.
    pub loop_ns: HashMap<String, Value>,
}

/// Shows the names only: the runtime bag holds the worker's handle, which is a secret.
impl fmt::Debug for CtxMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |bag: &HashMap<String, Value>| {
            let mut names: Vec<_> = bag.keys().cloned().collect();
            names.sort_unstable();
            names
        };
        f.debug_struct("CtxMeta")
            .field("runtime", &names(&self.runtime))
            .field("authz", &names(&self.authz))
            .field("observer", &names(&self.observer))
            .field("loop_ns", &names(&self.loop_ns))
            .finish()
    }
}

/// What one attempt is about.
///
/// ```
/// use adjutant::{Ctx, TaskId};
///
/// let mut ctx = Ctx::new(TaskId::from_bits(1), 1, "build");
/// ctx.meta.runtime.insert("region".into(), "north".into());
/// assert_eq!((ctx.attempt, ctx.agent.as_str()), (1, "build"));
/// ```
#[derive(Debug, Clone)]
pub struct Ctx {
    /// Its task.
    pub task_id: TaskId,
    /// Its number, from 1.
    pub attempt: u32,
    /// Agent that the task names.
    pub agent: String,
    /// Named values.
    pub meta: CtxMeta,
    /// The faces of the operator on whose behalf it runs.
    pub operator: OperatorInfo,
}

impl Ctx {
    /// A context without values and with the default operator.
    #[must_use]
    pub fn new(task_id: TaskId, attempt: u32, agent: impl Into<String>) -> Self {
        Self {
            task_id,
            attempt,
            agent: agent.into(),
            meta: CtxMeta::default(),
            operator: OperatorInfo::default(),
        }
    }
}

/// Key of the worker's handle in [`CtxMeta::runtime`].
pub const WORKER_HANDLE: &str = "worker_handle";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_value() {
        let mut ctx = Ctx::new(TaskId::from_bits(1), 1, "a");
        ctx.meta.runtime.insert(WORKER_HANDLE.into(), "wh-canary".into());
        let shown = format!("{ctx:?}");
        assert!(shown.contains("worker_handle") && !shown.contains("canary"), "{shown}");
    }
}
