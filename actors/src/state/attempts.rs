//! Attempts: begin one, end one, and the fence that lets only the live one end.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::errors::EngineError;
use crate::model::event::Event;
use crate::model::ids::{ResumeKey, SessionId, TaskId};
use crate::model::session::SessionFaces;
use crate::model::task::{TaskSpec, TaskStatus};
use crate::model::token::{HandleKey, TokenFingerprint};
use crate::state::EngineState;
use crate::state::auth::{Access, NewToken, Reach};
use crate::state::effect::{Effect, Now};
use crate::state::keys::{AttemptNotes, Ended};

/// Worker tokens that an operator may mint for one attempt beside its own.
const MINTED_TOKENS_MAX: usize = 64;

/// What the state keeps of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AttemptRecord {
    /// Tokens that die with the attempt: its own first.
    pub(crate) tokens: Vec<TokenFingerprint>,
    pub(crate) handle: HandleKey,
    /// `None`: the task's initial directive.
    pub(crate) prompt: Option<Arc<str>>,
    /// `None`: not baked yet. `Some(None)`: baked, and the agent has no profile.
    pub(crate) system: Option<Option<Arc<str>>>,
    pub(crate) outputs: u32,
    pub(crate) output_bytes: u64,
    /// Place of the last Final in the attempt's outputs.
    pub(crate) last_final: Option<u32>,
    /// The engine's mark when prompt or system prompt were set.
    pub(crate) texts_mark: u64,
    /// What is kept of few attempts.
    pub(crate) notes: Option<Box<AttemptNotes>>,
}

/// An attempt that is about to begin, with its freshly minted secrets.
#[derive(Debug, Clone)]
pub struct NewAttempt {
    /// Its task.
    pub task: TaskId,
    /// The worker's token.
    pub token: NewToken,
    /// Table key of the worker's handle.
    pub handle: HandleKey,
    /// Prompt of this attempt only; `None` takes an injected one, else the initial directive.
    pub prompt: Option<Arc<str>>,
    /// Idempotency key; unique for its principal and task.
    pub key: Option<Arc<str>>,
}

/// What the dispatcher needs to know of an attempt that began.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its task.
    pub task: TaskId,
    /// Its number, from 1.
    pub attempt: u32,
    /// Agent and initial directive.
    pub spec: Arc<TaskSpec>,
    /// The session on whose behalf it runs, with its faces.
    pub session: Option<(SessionId, Arc<str>, Arc<SessionFaces>)>,
}

/// How an attempt to begin came out.
#[derive(Debug, Clone)]
pub enum Begin {
    /// It began.
    Begun(Plan),
    /// This attempt was begun under the key before; nothing was changed, no use was spent.
    Known(u32),
    /// Dispatching is paused; nothing was changed, no use was spent. What was to begin.
    Paused(Box<NewAttempt>),
}

/// How the worker of an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptEnd {
    /// Its join returned without error.
    Done,
    /// It could not be started, or ended with an error, or panicked.
    Failed(String),
    /// The attempt's time is over.
    TimedOut,
    /// The engine lost it: a restart, a shutdown.
    Interrupted(String),
}

impl AttemptEnd {
    /// A word for spans.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed(_) => "failed",
            Self::TimedOut => "timed_out",
            Self::Interrupted(_) => "interrupted",
        }
    }
}

/// What the end of an attempt came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The last Final said ok.
    Pass(Arc<Value>),
    /// The last Final said not ok.
    Blocked(Arc<Value>),
    /// It ended without a Final while a question is open.
    Suspended(ResumeKey),
    /// It was ended from outside before it could decide anything.
    Cancelled,
    /// It ran out of time.
    Timeout,
    /// It failed; the task is Blocked.
    Failed(String),
}

impl EngineState {
    /// Begins the next attempt of a task, unless its key names an earlier one.
    ///
    /// # Errors
    /// Those of an authorization; `KeyConflict`; `InvalidTransition` while an attempt is live or
    /// where the status forbids it; `TaskLimitExceeded`, `TableFull`.
    pub fn begin_attempt(
        &mut self,
        access: Access,
        new: NewAttempt,
        now: Now,
    ) -> Result<Begin, EngineError> {
        let id = new.task;
        let grant = self.check(access, Reach::Below(id), now)?;
        let (key, before) = self.attempt_key(access, &new)?;
        if let Some(attempt) = before {
            return Ok(Begin::Known(attempt));
        }
        self.check_room_for_attempt(id)?;
        if self.counters.paused {
            return Ok(Begin::Paused(Box::new(new)));
        }
        self.spend(&grant)?;
        let before = self.retried(id).unwrap_or_default();
        self.move_task(id, TaskStatus::Running, "be dispatched", now)?;
        let missing = || EngineError::TaskNotFound(id.to_string());
        let record = self.tasks.get_mut(&id).ok_or_else(missing)?;
        record.attempt += 1;
        record.live = true;
        let injected = record.next_prompt.take();
        let (attempt, spec, session) = (record.attempt, record.spec.clone(), record.session);
        self.counters.marks += 1;
        let key = key.map(|key| (key, new.prompt.is_some())).or(before.key);
        self.attempts.insert(
            (id, attempt),
            AttemptRecord {
                tokens: vec![new.token.signed.fingerprint],
                handle: new.handle,
                prompt: new.prompt.or(injected).or(before.prompt),
                system: None,
                outputs: 0,
                output_bytes: 0,
                last_final: None,
                texts_mark: self.counters.marks,
                notes: None,
            },
        );
        self.key_attempt(id, attempt, key);
        self.handles.insert(new.handle, new.token.signed.fingerprint);
        self.store_token(new.token, session, Some((id, attempt)));
        self.record(now, Event::TaskAttemptStarted { task_id: id, attempt });
        let session = session.and_then(|session| {
            let record = self.sessions.get(&session)?;
            Some((session, record.operator_id.clone(), record.faces.clone()))
        });
        Ok(Begin::Begun(Plan { task: id, attempt, spec, session }))
    }

    /// Refuses a dispatch that the task's status, or a limit, forbids.
    fn check_room_for_attempt(&self, id: TaskId) -> Result<(), EngineError> {
        let record = self.task_record(id)?;
        if record.live || !may_dispatch(record.status) {
            return Err(EngineError::transition(id, record.status, "be dispatched"));
        }
        let (current, max) = (u64::from(record.attempt), self.rules.limits.attempts_per_task);
        if current >= max {
            return Err(EngineError::TableFull { what: "attempts of the task", current, max });
        }
        if record.status.is_settled() {
            self.check_live(record.root)?;
        }
        self.check_token_room()
    }

    /// Stores one more worker token for the task's live attempt; it dies with the attempt.
    ///
    /// # Errors
    /// Those of an authorization; `InvalidTransition` where no attempt is live; `TableFull`.
    pub fn mint_worker_token(
        &mut self,
        access: Access,
        task: TaskId,
        token: NewToken,
        now: Now,
    ) -> Result<u32, EngineError> {
        let grant = self.check(access, Reach::Below(task), now)?;
        let record = self.task_record(task)?;
        if !record.live {
            return Err(EngineError::transition(task, record.status, "take a worker token"));
        }
        let (attempt, session) = (record.attempt, record.session);
        self.check_token_room()?;
        let held = self.attempts.get(&(task, attempt)).map_or(&[][..], |record| &record.tokens);
        let usable = |token: &&TokenFingerprint| {
            self.tokens.get(token).is_some_and(|record| !record.revoked)
        };
        let mut tokens: Vec<_> = held.iter().filter(usable).copied().collect();
        if tokens.len() > MINTED_TOKENS_MAX {
            let (current, max) = (tokens.len() as u64, MINTED_TOKENS_MAX as u64);
            return Err(EngineError::TableFull { what: "tokens of one attempt", current, max });
        }
        self.spend(&grant)?;
        tokens.push(token.signed.fingerprint);
        if let Some(record) = self.attempts.get_mut(&(task, attempt)) {
            record.tokens = tokens;
        }
        self.store_token(token, session, Some((task, attempt)));
        Ok(attempt)
    }

    /// Whether this attempt is the live one of its task.
    #[must_use]
    pub fn is_live(&self, task: TaskId, attempt: u32) -> bool {
        self.tasks.get(&task).is_some_and(|record| record.live && record.attempt == attempt)
    }

    /// Whether an attempt has sent no output yet.
    #[must_use]
    pub fn sent_nothing(&self, task: TaskId, attempt: u32) -> bool {
        self.attempts.get(&(task, attempt)).is_none_or(|record| record.outputs == 0)
    }

    /// Ends an attempt. Only the live one can end: anything else gives `None` and changes nothing,
    /// so every way out of a worker may call this, and the first one decides.
    ///
    /// **Invariant:** a late result changes nothing (`audit`: live attempts).
    pub fn finish_attempt(
        &mut self,
        task: TaskId,
        attempt: u32,
        end: AttemptEnd,
        now: Now,
    ) -> Option<Verdict> {
        if !self.is_live(task, attempt) {
            return None;
        }
        let interrupted = matches!(end, AttemptEnd::Interrupted(_));
        // A worker that ended left no process; any other may still have some.
        let alone = matches!(end, AttemptEnd::Done | AttemptEnd::Failed(_));
        let verdict = self.end_by(task, attempt, end, now)?;
        if alone {
            self.forget_groups(task, attempt);
        }
        self.note_end(task, attempt, Ended::of(&verdict, interrupted));
        Some(verdict)
    }

    fn end_by(&mut self, task: TaskId, attempt: u32, end: AttemptEnd, now: Now) -> Option<Verdict> {
        let record = self.tasks.get(&task)?;
        let open = record.suspended_on;
        let last = self.last_final(task, attempt);
        match (end, last, open) {
            (AttemptEnd::TimedOut, _, Some(_)) => None,
            (AttemptEnd::Done, Some((value, shown, ok)), _) => {
                self.decide(task, attempt, ok, value.clone(), shown, now);
                Some(if ok { Verdict::Pass(value) } else { Verdict::Blocked(value) })
            }
            (_, _, Some(key)) => {
                self.part_attempt(task, attempt);
                Some(Verdict::Suspended(key))
            }
            (AttemptEnd::Done, None, None) => {
                Some(self.fail(task, attempt, "the worker ended without a Final".to_owned(), now))
            }
            (AttemptEnd::Failed(reason), _, None) => Some(self.fail(task, attempt, reason, now)),
            (AttemptEnd::Interrupted(reason), _, None) => {
                Some(self.fail(task, attempt, format!("interrupted: {reason}"), now))
            }
            (AttemptEnd::TimedOut, _, None) => {
                let _ = self.fail(task, attempt, "the attempt ran out of time".to_owned(), now);
                Some(Verdict::Timeout)
            }
        }
    }

    fn fail(&mut self, task: TaskId, attempt: u32, reason: String, now: Now) -> Verdict {
        let value = json!({ "error": reason });
        self.decide(task, attempt, false, Arc::new(value.clone()), value, now);
        Verdict::Failed(reason)
    }

    /// Settles a task by the end of its live attempt.
    fn decide(
        &mut self,
        task: TaskId,
        attempt: u32,
        ok: bool,
        value: Arc<Value>,
        shown: Value,
        now: Now,
    ) {
        self.part_attempt(task, attempt);
        self.close_question(task);
        self.record(
            now,
            Event::TaskAttemptCompleted { task_id: task, attempt, result: shown.clone() },
        );
        self.settle(task, ok, value, shown, now);
    }

    /// The attempt is no longer live; its secrets end with it. The worker is not told.
    fn part_attempt(&mut self, task: TaskId, attempt: u32) {
        if let Some(record) = self.tasks.get_mut(&task) {
            record.live = false;
            record.revision += 1;
        }
        self.retire_attempt(task, attempt);
    }

    /// Revokes the tokens and the handle of an attempt.
    pub(crate) fn retire_attempt(&mut self, task: TaskId, attempt: u32) {
        let Some(record) = self.attempts.get_mut(&(task, attempt)) else { return };
        let (tokens, handle) = (std::mem::take(&mut record.tokens), record.handle);
        self.handles.remove(&handle);
        for token in tokens {
            self.revoke_token(token);
        }
    }

    /// Every live attempt. Looks at every task: for a tree that starts or ends, not for a call.
    #[must_use]
    pub fn live_attempts(&self) -> Vec<(TaskId, u32)> {
        self.tasks
            .iter()
            .filter(|(_, record)| record.live)
            .map(|(id, record)| (*id, record.attempt))
            .collect()
    }

    /// Ends every live attempt that nobody supervises any more.
    pub fn interrupt_all(&mut self, reason: &str, now: Now) -> usize {
        let mut orphans = self.live_attempts();
        orphans.sort_unstable();
        for (task, attempt) in &orphans {
            let end = AttemptEnd::Interrupted(reason.to_owned());
            if let Some(verdict) = self.finish_attempt(*task, *attempt, end, now) {
                self.effect(Effect::Stop(*task, *attempt, verdict));
            }
        }
        orphans.len()
    }

    /// Lets dispatches wait, or go on.
    ///
    /// # Errors
    /// Those of an authorization.
    pub fn set_paused(
        &mut self,
        access: Access,
        paused: bool,
        now: Now,
    ) -> Result<(), EngineError> {
        self.verify(access, Reach::Anywhere, now)?;
        if self.counters.paused != paused {
            self.counters.paused = paused;
            self.effect(Effect::Dispatching(!paused));
            self.record(now, if paused { Event::DispatchPaused } else { Event::DispatchResumed });
        }
        Ok(())
    }
}

/// The statuses that a dispatch may start from; Running only without a live attempt.
fn may_dispatch(status: TaskStatus) -> bool {
    matches!(status, TaskStatus::Pending | TaskStatus::Running | TaskStatus::Blocked)
}
