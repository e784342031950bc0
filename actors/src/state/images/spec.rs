//! The image of what a task was started with: every part of it is fixed, so it is written once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::task::{OnInterrupt, TaskSpec};
use crate::state::keys::OwnedKey;

/// What a task was started with. Written from borrowed texts, read into owned ones.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SpecImage<T = String> {
    pub(super) agent: T,
    pub(super) initial_directive: T,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<Arc<OwnedKey>>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) on_interrupt: OnInterrupt,
}

impl<'a> SpecImage<&'a str> {
    pub(super) fn of(
        spec: &'a TaskSpec,
        key: Option<Arc<OwnedKey>>,
        on_interrupt: OnInterrupt,
    ) -> Self {
        let (agent, initial_directive) = (spec.agent.as_str(), spec.initial_directive.as_str());
        Self { agent, initial_directive, key, on_interrupt }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
