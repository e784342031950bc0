//! Process groups of attempts: remembered while they may run, so that a later engine can end those
//! that outlived this one. The state never touches a process.

use crate::errors::EngineError;
use crate::model::group::ProcessGroup;
use crate::model::ids::TaskId;
use crate::state::EngineState;

/// Groups that are remembered of one attempt; the oldest go first.
const GROUPS_MAX: usize = 16;

/// Groups of an attempt that is over, by its task and number.
pub type LeftGroups = ((TaskId, u32), Vec<ProcessGroup>);

/// Only an attempt that is live has groups of its own:
///
/// ```
/// use adjutant_actors::{model::group::ProcessGroup, state::groups::LeftGroups};
/// # use adjutant_actors::{config::EngineCfg, state::{EngineState, Rules, auth::Access, effect::Now}};
/// # let mut state = EngineState::new(Rules::from(&EngineCfg::default()));
/// # let now = Now { unix: 1, ms: 1 };
/// # use adjutant_actors::{model::{ids::TaskId, task::TaskSpec}, state::tasks::NewTask};
/// # let spec = std::sync::Arc::new(TaskSpec::new("echo", "hello"));
/// # let task = state.create_task(Access::Trusted, NewTask::new(TaskId::from_bits(1), spec), now)?;
/// let group = ProcessGroup { number: 4711, session: 12, start: 99, boot: "one boot".into() };
/// assert!(state.remember_group(task, 1, group).is_err());
/// state.forget_groups(task, 1);
/// let left: Vec<LeftGroups> = state.left_groups();
/// assert!(left.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl EngineState {
    /// Remembers a process group that works for a live attempt, until the attempt's own end.
    ///
    /// # Errors
    /// `TaskNotFound`; `InvalidTransition` where the attempt is not live.
    pub fn remember_group(
        &mut self,
        task: TaskId,
        attempt: u32,
        group: ProcessGroup,
    ) -> Result<(), EngineError> {
        if !self.is_live(task, attempt) {
            let status = self.task_record(task)?.status;
            return Err(EngineError::transition(task, status, "have a process"));
        }
        if let Some(record) = self.attempts.get_mut(&(task, attempt)) {
            let groups = &mut record.notes().groups;
            if groups.len() >= GROUPS_MAX {
                groups.remove(0);
            }
            groups.push(group);
        }
        Ok(())
    }

    /// The remembered groups of attempts that are not live: nobody is known to end them. Looks at
    /// every attempt.
    #[must_use]
    pub fn left_groups(&self) -> Vec<LeftGroups> {
        let left = self.attempts.iter().filter_map(|(place, record)| {
            let groups = &record.notes.as_ref()?.groups;
            let over = !groups.is_empty() && !self.is_live(place.0, place.1);
            over.then(|| (*place, groups.clone()))
        });
        left.collect()
    }

    /// Forgets the groups of an attempt: they are gone.
    pub fn forget_groups(&mut self, task: TaskId, attempt: u32) {
        let any = self.attempts.get(&(task, attempt)).and_then(|record| record.notes.as_ref());
        if any.is_none_or(|notes| notes.groups.is_empty()) {
            return;
        }
        if let Some(record) = self.attempts.get_mut(&(task, attempt)) {
            let notes = record.notes();
            notes.groups.clear();
            if notes.key.is_none() && notes.ended.is_none() {
                record.notes = None;
            }
        }
    }
}
