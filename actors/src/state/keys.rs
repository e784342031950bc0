//! Idempotency keys: a call that is made again under its key finds what it did before.
//!
//! A caller that got no answer cannot know whether its call was done. Under a key it asks again,
//! also after a crash, and gets the same task or the same attempt. Keys stand in the records that
//! they name and go with them; the indexes here follow from these. No key is found by anyone but
//! the principal that set it.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use crate::errors::EngineError;
use crate::model::group::ProcessGroup;
use crate::model::ids::{ResumeKey, TaskId};
use crate::model::role::Role;
use crate::model::task::OnInterrupt;
use crate::state::EngineState;
use crate::state::attempts::{AttemptRecord, NewAttempt, Verdict};
use crate::state::auth::Access;
use crate::state::tasks::{NewTask, TaskRecord};

/// On whose behalf a key was set. It outlives tokens and sessions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Principal {
    /// Code of the host without a token.
    Host,
    /// Everyone who attaches under this operator id, in any session.
    Operator(Arc<str>),
    /// The workers of this task, in any attempt.
    Task(TaskId),
}

/// A key with its principal; two principals never meet under one text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct OwnedKey {
    pub(crate) by: Principal,
    pub(crate) text: Arc<str>,
}

/// Both texts are a caller's choice, and the hasher of the tables is a fast one, which somebody
/// may find collisions for. So a table gets their hash under a random key of this process instead.
impl Hash for OwnedKey {
    fn hash<H: Hasher>(&self, table: &mut H) {
        static KEYED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        table.write_u64(KEYED.hash_one((&self.by, &self.text)));
    }
}

/// What is kept of few attempts: of those with a key, with processes, and of interrupted ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct AttemptNotes {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<Arc<OwnedKey>>,
    /// Whether the dispatch under the key named a prompt.
    #[serde(default)]
    pub(crate) prompted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<Ended>,
    /// Process groups that work for it, or did when the engine lost it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) groups: Vec<ProcessGroup>,
}

/// What a retry takes over from the attempt that was interrupted.
#[derive(Default)]
pub(crate) struct Retried {
    pub(crate) prompt: Option<Arc<str>>,
    pub(crate) key: Option<(Arc<OwnedKey>, bool)>,
}

/// How an attempt ended; its value is that of its last Final.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ended {
    Pass,
    Blocked,
    Suspended(ResumeKey),
    Cancelled,
    Timeout,
    Failed(String),
    /// As `Failed`, because the engine lost it.
    Interrupted(String),
}

impl Ended {
    pub(crate) fn of(verdict: &Verdict, interrupted: bool) -> Self {
        match verdict {
            Verdict::Pass(_) => Self::Pass,
            Verdict::Blocked(_) => Self::Blocked,
            Verdict::Suspended(key) => Self::Suspended(*key),
            Verdict::Cancelled => Self::Cancelled,
            Verdict::Timeout => Self::Timeout,
            Verdict::Failed(reason) if interrupted => Self::Interrupted(reason.clone()),
            Verdict::Failed(reason) => Self::Failed(reason.clone()),
        }
    }
}

impl AttemptRecord {
    pub(crate) fn notes(&mut self) -> &mut AttemptNotes {
        self.notes.get_or_insert_default()
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        let ended = self.notes.as_ref().and_then(|notes| notes.ended.as_ref());
        matches!(ended, Some(Ended::Interrupted(_)))
    }
}

/// A keyed attempt from its beginning to its verdict:
///
/// ```
/// use adjutant_actors::config::Limits;
/// use adjutant_actors::model::output::{ContentRef, OutputEvent};
/// use adjutant_actors::model::{mint::Mint, role::Role, token::{TokenRequest, TokenSigner, WorkerHandle}};
/// use adjutant_actors::state::{attempts::{AttemptEnd, Begin, NewAttempt, Plan, Verdict}, auth::NewToken};
/// use adjutant_actors::state::outputs::{BodyHash, NewOutput};
/// # use adjutant_actors::{config::EngineCfg, state::{EngineState, Rules, auth::Access, effect::Now}};
/// # let mut state = EngineState::new(Rules::from(&EngineCfg::default()));
/// # let now = Now { unix: 1, ms: 1 };
/// # use adjutant_actors::{model::{ids::TaskId, task::TaskSpec}, state::tasks::NewTask};
/// # let spec = std::sync::Arc::new(TaskSpec::new("echo", "hello"));
/// # let task = state.create_task(Access::Trusted, NewTask::new(TaskId::from_bits(1), spec), now)?;
/// let (signer, mint) = (TokenSigner::new([7; 32]), Mint::seeded(7));
/// let (token, signed) = signer.mint_at(TokenRequest {
///     agent_id: "echo".into(),
///     role: Role::Worker,
///     scopes: vec![],
///     issued_at: now.unix,
///     ttl: std::time::Duration::from_secs(60),
///     max_uses: None,
///     nonce: mint.nonce(),
/// });
/// let token = NewToken { token, signed, deadline_ms: 60_000 };
/// let handle = signer.handle_key(WorkerHandle::draw(&mint).expose());
/// let new = NewAttempt { task, token, handle, prompt: None, key: Some("first".into()) };
/// let begun = state.begin_attempt(Access::Trusted, new, now)?;
/// assert!(matches!(begun, Begin::Begun(Plan { attempt: 1, .. })));
/// assert!(state.is_live(task, 1) && state.sent_nothing(task, 1));
/// assert_eq!(state.resolve_handle(&handle, now)?, (task, 1));
/// assert_eq!(state.bound_task(signed, now)?, (task, 1));
/// state.bake_system_prompt(task, 1, Some("You echo.".into()))?;
///
/// let worker = Access::Token(signed);
/// assert_eq!(state.fetch_prompt(worker, task, now)?, "hello");
/// assert_eq!(state.fetch_payload(worker, task, now)?.system.as_deref(), Some("You echo."));
/// state.post_result(worker, task, std::sync::Arc::new("half".into()), now)?;
/// let event = OutputEvent::Final { content: ContentRef::inline("done".into()), ok: true };
/// state.append_output(worker, task, 1, NewOutput::prepare(event, &Limits::default())?, now)?;
/// assert_eq!(state.final_of(task, 1), Some(("done".into(), true)));
/// assert_eq!(state.output_tail(task, 1).len(), 1);
/// assert!(state.body(&BodyHash::default()).is_none()); // a large one would be kept by its hash
/// let verdict = state.finish_attempt(task, 1, AttemptEnd::Done, now);
/// assert!(matches!(verdict, Some(Verdict::Pass(value)) if *value == "done"));
/// assert!(state.finish_attempt(task, 1, AttemptEnd::TimedOut, now).is_none()); // too late
/// assert!(matches!(state.verdict_of(task, 1)?, Some(Verdict::Pass(_))));
/// assert!(state.interrupted_to_retry().is_empty() && state.live_attempts().is_empty());
/// assert!(state.fetch_prompt(worker, task, now).is_err()); // its token died with it
/// assert_eq!((state.interrupt_all("the end", now), AttemptEnd::TimedOut.word()), (0, "timed_out"));
/// state.set_paused(Access::Trusted, true, now)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl EngineState {
    /// Puts a caller's key under its principal.
    pub(crate) fn owned_key(&self, access: Access, text: &Arc<str>) -> Arc<OwnedKey> {
        let by = match access {
            Access::Trusted => Principal::Host,
            Access::Token(signed) => match self.tokens.get(&signed.fingerprint) {
                Some(record) if record.token.role == Role::Worker => {
                    record.task_id.map_or(Principal::Host, Principal::Task)
                }
                Some(record) => Principal::Operator(record.token.agent_id.as_str().into()),
                None => Principal::Host,
            },
        };
        Arc::new(OwnedKey { by, text: text.clone() })
    }

    /// The task that was started under this key; `None` where there is none any more.
    ///
    /// # Errors
    /// `KeyConflict` where that task was started with something else.
    pub(crate) fn started_before(
        &self,
        key: &Arc<OwnedKey>,
        new: &NewTask,
        parent: Option<TaskId>,
    ) -> Result<Option<TaskId>, EngineError> {
        let Some(id) = self.task_keys.get(key).copied() else { return Ok(None) };
        let record = self.task_record(id)?;
        let same = [
            ("agent", record.spec.agent == new.spec.agent),
            ("directive", record.spec.initial_directive == new.spec.initial_directive),
            ("parent", record.parent == parent),
            ("on_interrupt", record.on_interrupt == new.on_interrupt),
        ];
        no_conflict(key, &same)?;
        Ok(Some(id))
    }

    /// The key of an attempt that is to begin, and the attempt that was begun under it, unless it is to be begun again: the newest one
    /// of its task, interrupted, where the task says to retry.
    ///
    /// # Errors
    /// `KeyConflict` where it was begun with another prompt.
    pub(crate) fn attempt_key(
        &self,
        access: Access,
        new: &NewAttempt,
    ) -> Result<(Option<Arc<OwnedKey>>, Option<u32>), EngineError> {
        let Some(text) = &new.key else { return Ok((None, None)) };
        let key = self.owned_key(access, text);
        let place = (new.task, key.clone());
        let before = self.attempt_keys.get(&place).copied().and_then(|attempt| {
            self.attempts.get(&(new.task, attempt)).map(|record| (attempt, record))
        });
        let Some((attempt, record)) = before else { return Ok((Some(key), None)) };
        let prompted = record.notes.as_ref().is_some_and(|notes| notes.prompted);
        let same_prompt = match &new.prompt {
            Some(prompt) => prompted && record.prompt.as_ref() == Some(prompt),
            None => !prompted,
        };
        no_conflict(&key, &[("prompt", same_prompt)])?;
        let again = self
            .tasks
            .get(&new.task)
            .is_some_and(|task| task.attempt == attempt && self.is_to_retry(new.task, task));
        Ok((Some(key), (!again).then_some(attempt)))
    }

    /// What the next attempt takes over where it is the retry of an interrupted one: its prompt,
    /// and the key that it was begun under.
    pub(crate) fn retried(&self, id: TaskId) -> Option<Retried> {
        let task = self.tasks.get(&id).filter(|task| self.is_to_retry(id, task))?;
        let record = self.attempts.get(&(id, task.attempt))?;
        let notes = record.notes.as_ref()?;
        let key = notes.key.clone().map(|key| (key, notes.prompted));
        Some(Retried { prompt: record.prompt.clone(), key })
    }

    /// Gives a fresh attempt its key, if it has one, with whether its call named a prompt; an interrupted one that had it before loses it.
    pub(crate) fn key_attempt(
        &mut self,
        task: TaskId,
        attempt: u32,
        key: Option<(Arc<OwnedKey>, bool)>,
    ) {
        let Some((key, prompted)) = key else { return };
        let place = (task, key);
        if let Some(before) = self.attempt_keys.get(&place).copied()
            && let Some(record) = self.attempts.get_mut(&(task, before))
        {
            record.notes().key = None;
        }
        if let Some(record) = self.attempts.get_mut(&(task, attempt)) {
            let notes = record.notes();
            (notes.key, notes.prompted) = (Some(place.1.clone()), prompted);
        }
        self.attempt_keys.insert(place, attempt);
    }

    /// Notes how an attempt ended, where that may be asked for later.
    pub(crate) fn note_end(&mut self, task: TaskId, attempt: u32, ended: Ended) {
        let kept = matches!(ended, Ended::Interrupted(_))
            || self.attempts.get(&(task, attempt)).is_some_and(|record| record.notes.is_some());
        if kept && let Some(record) = self.attempts.get_mut(&(task, attempt)) {
            record.notes().ended = Some(ended);
        }
    }

    /// How a keyed attempt ended; `None` while it is live.
    ///
    /// # Errors
    /// `TaskNotFound` where the task is forgotten.
    pub fn verdict_of(&self, task: TaskId, attempt: u32) -> Result<Option<Verdict>, EngineError> {
        self.task_record(task)?;
        if self.is_live(task, attempt) {
            return Ok(None);
        }
        let record = self.attempts.get(&(task, attempt));
        let ended = record.and_then(|record| record.notes.as_ref()?.ended.clone());
        let value = || self.last_final(task, attempt).map(|(value, _, _)| value);
        let verdict = match ended {
            Some(Ended::Pass) => value().map(Verdict::Pass),
            Some(Ended::Blocked) => value().map(Verdict::Blocked),
            Some(Ended::Suspended(key)) => Some(Verdict::Suspended(key)),
            Some(Ended::Cancelled) => Some(Verdict::Cancelled),
            Some(Ended::Timeout) => Some(Verdict::Timeout),
            Some(Ended::Failed(why) | Ended::Interrupted(why)) => Some(Verdict::Failed(why)),
            None => None,
        };
        let lost = || Verdict::Failed("what the attempt came to is not known any more".to_owned());
        Ok(Some(verdict.unwrap_or_else(lost)))
    }

    /// Whether a task waits to be dispatched again because its attempt was interrupted.
    fn is_to_retry(&self, id: TaskId, task: &TaskRecord) -> bool {
        task.on_interrupt == OnInterrupt::Retry
            && task.status == crate::model::task::TaskStatus::Blocked
            && self.attempts.get(&(id, task.attempt)).is_some_and(AttemptRecord::is_interrupted)
    }

    /// The tasks that say to retry and whose newest attempt was interrupted, oldest id first. It
    /// follows from the records, so it outlives a crash as they do. Looks at every task.
    #[must_use]
    pub fn interrupted_to_retry(&self) -> Vec<TaskId> {
        let waiting = self.tasks.iter().filter(|(id, task)| self.is_to_retry(**id, task));
        // The tasks of an open run wait for whoever resumes that.
        let waiting = waiting.filter(|(id, _)| !self.is_pinned(**id));
        let mut ids: Vec<TaskId> = waiting.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// Every key leads to its record, and every record that has one is found by it.
    pub(crate) fn audit_keys(&self) -> Result<(), String> {
        for (key, id) in self.task_keys.iter() {
            if self.tasks.get(id).is_none_or(|task| task.key.as_ref() != Some(key)) {
                return Err(format!("keys: a key names task {id}, which does not have it"));
            }
        }
        let keyed = self.tasks.iter().filter(|(_, task)| task.key.is_some()).count();
        if keyed != self.task_keys.len() {
            return Err(format!("keys: {keyed} tasks have one, {} kept", self.task_keys.len()));
        }
        let key_of = |place: &(TaskId, u32)| {
            self.attempts.get(place).and_then(|record| record.notes.as_ref()?.key.as_ref())
        };
        for ((task, key), attempt) in self.attempt_keys.iter() {
            if key_of(&(*task, *attempt)) != Some(key) {
                return Err(format!("keys: a key names attempt {attempt} of task {task}"));
            }
        }
        let keyed = self.attempts.iter().filter(|(place, _)| key_of(place).is_some()).count();
        if keyed != self.attempt_keys.len() {
            let kept = self.attempt_keys.len();
            return Err(format!("keys: {keyed} attempts have one, {kept} kept"));
        }
        Ok(())
    }
}

fn no_conflict(key: &OwnedKey, same: &[(&'static str, bool)]) -> Result<(), EngineError> {
    let differs: Vec<_> = same.iter().filter(|(_, same)| !same).map(|(what, _)| *what).collect();
    if differs.is_empty() {
        return Ok(());
    }
    Err(EngineError::KeyConflict { key: key.text.to_string(), differs })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes what a key gives to the hasher of a table.
    #[derive(Default)]
    struct Noted(Vec<u8>);

    impl Hasher for Noted {
        fn write(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }

        fn finish(&self) -> u64 {
            0
        }
    }

    #[test]
    fn what_a_caller_chooses_reaches_a_table_as_a_keyed_hash() {
        let noted = |by: &str, text: &str| {
            let mut noted = Noted::default();
            OwnedKey { by: Principal::Operator(by.into()), text: text.into() }.hash(&mut noted);
            assert_eq!(noted.0.len(), 8, "a hash and nothing that was chosen");
            noted.0
        };
        assert_eq!(noted("ann", "a"), noted("ann", "a"));
        assert_ne!(noted("ann", "a"), noted("ann", "b"));
        assert_ne!(noted("ann", "a"), noted("bob", "a"));
        // Not even the length of what was chosen shows.
        noted("ann", &"a".repeat(1000));
    }
}
