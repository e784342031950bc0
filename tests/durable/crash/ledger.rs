//! The ledger: what was acknowledged, and the comparison of a store with it.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use adjutant::journal::{Journal, restore};
use adjutant::store::SqliteStore;
use adjutant::{
    Event, EventRecord, Now, OutputEvent, ResumeKey, TaskId, TaskStatus, TokenFingerprint,
};
use adjutant_actors::state::{EngineState, Rules};
use serde::{Deserialize, Serialize};

use super::child;

/// What the engine's process says once it was told so itself: a line of JSON each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Ack {
    /// A panic, of a check in the load for one.
    Broke {
        why: String,
    },
    Opened {
        epoch: u64,
        interrupted: usize,
    },
    Started {
        task: TaskId,
        directive: String,
    },
    SubTask {
        parent: TaskId,
        child: TaskId,
    },
    Cancelled {
        task: TaskId,
    },
    /// A worker runs, so its dispatch stands.
    Begun {
        task: TaskId,
        attempt: u32,
    },
    Output {
        task: TaskId,
        attempt: u32,
        mark: String,
    },
    Used {
        token: TokenFingerprint,
        left: u32,
    },
    Asked {
        task: TaskId,
        key: ResumeKey,
    },
    Answered {
        key: ResumeKey,
        mark: String,
    },
    Passed {
        task: TaskId,
        attempt: u32,
        mark: String,
    },
    Heard {
        seq: u64,
        kind: String,
        task: Option<TaskId>,
    },
}

impl Ack {
    /// A line that is whole; the last one before a kill may not be, and the harness has its own.
    pub(super) fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

/// What is known of one store over all its rounds.
#[derive(Default)]
pub(super) struct Ledger {
    epoch: u64,
    /// Number of the newest event that was looked at.
    seen: u64,
    /// Newest attempt of each task, by the log.
    attempts: HashMap<TaskId, u32>,
    /// Newest event of each task that changes where it stands.
    last: HashMap<TaskId, &'static str>,
    kinds: HashMap<u64, (&'static str, Option<TaskId>)>,
    /// All that was ever acknowledged and must stay.
    acks: Vec<Ack>,
}

type Checked = Result<(), String>;

fn must(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(what()) }
}

impl Ledger {
    /// Compares a store with all that was acknowledged on it. Gives how many attempts the engine of
    /// this round found at work.
    pub(super) fn check(&mut self, place: &Path, acks: &[Ack]) -> Result<usize, String> {
        let mut interrupted = 0;
        for ack in acks {
            if let Ack::Opened { epoch, interrupted: found } = ack {
                must(*epoch > self.epoch, || format!("epoch {epoch} after {}", self.epoch))?;
                (self.epoch, interrupted) = (*epoch, *found);
            }
        }
        self.acks.extend_from_slice(acks);
        if !place.join("store.db").exists() {
            must(acks.is_empty(), || "all of it was acknowledged".to_owned())?;
            return Ok(0);
        }
        let store = SqliteStore::open(place, child::store_cfg()).map_err(|e| e.to_string())?;
        let restored = restore(&store, Rules::from(&child::cfg())).map_err(|e| e.to_string())?;
        must(restored.head.set_aside.is_empty(), || format!("{:?}", restored.head.set_aside))?;
        let mut state = restored.state;
        let events = store.events_after(self.seen, usize::MAX).map_err(|e| e.to_string())?;
        self.read_log(&events)?;
        must(state.last_seq() == self.seen, || {
            format!("the state counts {} events, the log has {}", state.last_seq(), self.seen)
        })?;
        for ack in &self.acks {
            self.is_there(&state, ack)
                .map_err(|lost| format!("{ack:?} was acknowledged: {lost}"))?;
        }
        nothing_twice(&state)?;
        let at = restored.head.at.unwrap_or(Now { unix: 0, ms: 0 });
        state.recover(at);
        self.at_rest(&state)?;
        store.close().map_err(|e| e.to_string())?;
        Ok(interrupted)
    }

    /// The log goes on without gaps, and attempts go upward one by one.
    fn read_log(&mut self, events: &[EventRecord]) -> Checked {
        for record in events {
            let (seq, kind, task) = (record.seq, record.event.kind(), record.event.task_id());
            must(seq == self.seen + 1, || format!("event {seq} after {}", self.seen))?;
            self.seen = seq;
            self.kinds.insert(seq, (kind, task));
            let Some(task) = task else { continue };
            if let Event::TaskAttemptStarted { attempt, .. } = &record.event {
                let before = self.attempts.insert(task, *attempt).unwrap_or(0);
                must(*attempt == before + 1, || {
                    format!("{task}: attempt {attempt} after {before}")
                })?;
            }
            if kind.starts_with("task_") {
                self.last.insert(task, kind);
            }
        }
        Ok(())
    }

    fn is_there(&self, state: &EngineState, ack: &Ack) -> Checked {
        let task_of = |id: &TaskId| state.task(id).ok_or("there is no such task");
        match ack {
            Ack::Broke { why } => Err(why.clone()),
            Ack::Opened { .. } => Ok(()),
            Ack::Started { task, directive } => {
                let spec = task_of(task)?.spec;
                must(spec.initial_directive == *directive, || format!("{spec:?}"))
            }
            Ack::SubTask { parent, child } => {
                let found = state.task_parent(child);
                must(found == Some(*parent), || format!("its parent is {found:?}"))
            }
            Ack::Cancelled { task } => {
                let status = task_of(task)?.status;
                must(status == TaskStatus::Cancelled, || format!("it is {status}"))
            }
            Ack::Begun { task, attempt } => {
                let found = task_of(task)?.attempt;
                must(found >= *attempt, || format!("its newest attempt is {found}"))
            }
            Ack::Output { task, attempt, mark } => {
                let found = state.output_tail(*task, *attempt);
                let count = found.iter().filter(|event| mark_of(event) == Some(mark)).count();
                must(count == 1, || format!("it is there {count} times"))
            }
            Ack::Used { token, left } => {
                let record = state.token_record(*token).ok_or("there is no such token")?;
                // A use more may have been on its way.
                let found = record.uses_left.unwrap_or(u32::MAX);
                must(found <= *left, || format!("{found} uses are left"))
            }
            Ack::Asked { task, key } => {
                let found = state.pending_resume(*key).ok_or("there is no such question")?;
                must(found.task_id == *task, || format!("it is of {}", found.task_id))
            }
            Ack::Answered { key, mark } => {
                let found = state.pending_resume(*key).ok_or("there is no such question")?;
                let answer = found.answer;
                must(answer.as_ref().is_some_and(|it| **it == *mark), || format!("{answer:?}"))
            }
            Ack::Passed { task, attempt, mark } => {
                let found = task_of(task)?;
                let same = found.last_result.as_ref().is_some_and(|it| *it == **mark);
                let passed = found.status == TaskStatus::Pass && found.attempt == *attempt;
                must(passed && same, || format!("it is {found:?}"))
            }
            Ack::Heard { seq, kind, task } => {
                let found = self.kinds.get(seq);
                let same = found.is_some_and(|(is, of)| is == kind && of == task);
                must(same, || format!("the log has {found:?} there"))
            }
        }
    }

    /// After its recovery, nothing is at work, and every rule holds.
    fn at_rest(&self, state: &EngineState) -> Checked {
        state.audit()?;
        must(state.live_attempts().is_empty(), || "attempts are live".to_owned())?;
        for task in state.tasks_with(|status| status == TaskStatus::Running) {
            // Only an answer to a question whose attempt had gone leaves a task so.
            let last = self.last.get(&task);
            must(last == Some(&"task_resumed"), || format!("{task} is Running after {last:?}"))?;
        }
        Ok(())
    }
}

fn mark_of(event: &OutputEvent) -> Option<&String> {
    match event {
        OutputEvent::Progress { stage, .. } => Some(stage),
        OutputEvent::Artifact { name, .. } => Some(name),
        _ => None,
    }
}

/// Every call of the load carries a mark of its own: no mark is there twice.
fn nothing_twice(state: &EngineState) -> Checked {
    let (mut directives, mut marks) = (HashSet::new(), HashSet::new());
    for id in state.tasks_with(|_| true) {
        let Some(task) = state.task(&id) else { continue };
        let directive = task.spec.initial_directive;
        must(directives.insert(directive.clone()), || format!("{directive} was started twice"))?;
        for attempt in 1..=task.attempt {
            for event in state.output_tail(id, attempt) {
                let Some(mark) = mark_of(&event) else { continue };
                must(marks.insert(mark.clone()), || format!("{mark} is there twice"))?;
            }
        }
    }
    Ok(())
}
