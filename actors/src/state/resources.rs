//! Named values that a host lays out for its workers.

use std::sync::Arc;

use serde_json::Value;

use crate::errors::EngineError;
use crate::state::EngineState;
use crate::state::auth::{Access, Reach};
use crate::state::effect::Now;

/// What a host lays out and workers fetch:
///
/// ```
/// # use adjutant_actors::{config::EngineCfg, state::{EngineState, Rules, auth::Access, effect::Now}};
/// # let mut state = EngineState::new(Rules::from(&EngineCfg::default()));
/// # let now = Now { unix: 1, ms: 1 };
/// state.set_resource("limits".into(), std::sync::Arc::new(serde_json::json!({ "lines": 400 })))?;
/// assert!(state.resource("limits").is_some() && state.resource("other").is_none());
/// assert_eq!(state.fetch_data(Access::Trusted, "limits", now)?["lines"], 400);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl EngineState {
    /// Stores a value under a name, in place of one that stands there.
    ///
    /// # Errors
    /// `TableFull`.
    pub fn set_resource(&mut self, key: String, value: Arc<Value>) -> Result<(), EngineError> {
        let (current, max) = (self.resources.len() as u64, self.rules.limits.resources);
        if current >= max && !self.resources.contains(&key) {
            return Err(EngineError::TableFull { what: "resources", current, max });
        }
        self.resources.insert(key, value);
        Ok(())
    }

    /// The value under a name.
    #[must_use]
    pub fn resource(&self, key: &str) -> Option<Arc<Value>> {
        self.resources.get(&key.to_owned()).cloned()
    }

    /// The value under a name, authorized.
    ///
    /// # Errors
    /// Those of an authorization; `ResourceNotFound`.
    pub fn fetch_data(
        &mut self,
        access: Access,
        key: &str,
        now: Now,
    ) -> Result<Arc<Value>, EngineError> {
        let grant = self.check(access, Reach::Anywhere, now)?;
        let value = self
            .resources
            .get(&key.to_owned())
            .cloned()
            .ok_or_else(|| EngineError::ResourceNotFound(key.escape_debug().to_string()))?;
        self.spend(&grant)?;
        Ok(value)
    }
}
