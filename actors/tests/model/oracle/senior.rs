//! Questions, verdicts from outside, directives and pauses by the oracle.

use std::sync::Arc;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::event::Event;
use adjutant_actors::model::ids::{ResumeKey, TaskId};
use adjutant_actors::model::task::TaskStatus;
use adjutant_actors::state::effect::Effect;
use adjutant_actors::state::resumes::Answer;
use adjutant_actors::state::verdicts::Marking;
use serde_json::{Value, json};

use crate::call::{Call, Reply, Said, Who, json_text, value};
use crate::oracle::auth::Reach;
use crate::oracle::tasks::refused;
use crate::oracle::{Oracle, Question};

impl Oracle {
    pub(super) fn senior(&mut self, call: &Call) -> Reply {
        match *call {
            Call::Ask { who, task, key, value } => self.ask(who, task, key, value),
            Call::Answer { who, key, value } => self.answer_question(who, key, value),
            Call::Look { key } => {
                let asked = self.questions.get(&key).ok_or(EngineError::ResumeKeyNotFound)?;
                Ok(Said::Answer(match &asked.answer {
                    Some(answer) => Answer::Given(Arc::new(answer.clone())),
                    None if asked.closed => Answer::Closed,
                    None => Answer::Open { task: asked.task, revision: 0 },
                }))
            }
            Call::Mark { who, marking, task, ok, value: number } => {
                let grant = self.check(who, Reach::Below(task))?;
                if !allowed(marking, self.task(task)?.status, ok) {
                    return Err(refused());
                }
                self.spend(&grant)?;
                self.end_from_outside(task);
                let shown = self.shown_value(number);
                self.settle(task, ok, value(number), shown);
                Ok(Said::Nothing)
            }
            Call::Inject { who, task, text } => {
                let grant = self.check(who, Reach::Below(task))?;
                if self.task(task)?.status.is_final() {
                    return Err(refused());
                }
                self.spend(&grant)?;
                self.touch(task).directive = Some(text);
                self.event(Event::DirectiveInjected { task_id: task });
                Ok(Said::Nothing)
            }
            Call::Pause { who, on } => {
                let grant = self.check(who, Reach::Anywhere)?;
                self.spend(&grant)?;
                if std::mem::replace(&mut self.paused, on) != on {
                    self.effect(Effect::Dispatching(!on));
                    self.event(if on { Event::DispatchPaused } else { Event::DispatchResumed });
                }
                Ok(Said::Nothing)
            }
            ref other => unreachable!("{other:?} is not a senior's"),
        }
    }

    /// The question that a task is suspended on.
    pub(super) fn open_question(&self, task: TaskId) -> Option<ResumeKey> {
        let open = |asked: &Question| asked.task == task && asked.answer.is_none() && !asked.closed;
        let mut found = self.questions.iter().filter(|(_, asked)| open(asked));
        let key = found.next().map(|(key, _)| *key);
        assert!(found.next().is_none(), "two questions of {task} are open");
        key
    }

    pub(super) fn close_question(&mut self, task: TaskId) {
        if let Some(asked) = self.open_question(task).and_then(|key| self.questions.get_mut(&key)) {
            asked.closed = true;
        }
    }

    /// A value as events show it.
    fn shown_value(&self, number: u8) -> Value {
        let bytes = json_text(number).len() as u64;
        let large = bytes > self.rules.limits.inline_bytes;
        if large { json!({ "omitted_bytes": bytes }) } else { value(number) }
    }

    fn clock(&mut self, task: TaskId, runs: bool) {
        if let Some(attempt) = self.live(task) {
            self.effect(Effect::Clock(task, attempt, runs));
        }
    }

    fn ask(&mut self, who: Who, task: TaskId, key: ResumeKey, number: u8) -> Reply {
        let grant = self.check(who, Reach::Own(task))?;
        if !matches!(self.task(task)?.status, TaskStatus::Pending | TaskStatus::Running) {
            return Err(refused());
        }
        self.spend(&grant)?;
        self.become_(task, TaskStatus::Suspended);
        self.questions.insert(key, Question { task, answer: None, closed: false });
        self.clock(task, false);
        let question = self.shown_value(number);
        self.event(Event::SeniorQueried { task_id: task, question });
        self.event(Event::TaskSuspended { task_id: task, key });
        Ok(Said::Nothing)
    }

    fn answer_question(&mut self, who: Who, key: ResumeKey, number: u8) -> Reply {
        let grant = self.check(who, Reach::Anywhere)?;
        let asked = self.questions.get(&key).ok_or(EngineError::ResumeKeyNotFound)?;
        if asked.closed || asked.answer.is_some() {
            return Err(refused());
        }
        let task = asked.task;
        self.spend(&grant)?;
        self.questions.get_mut(&key).unwrap().answer = Some(value(number));
        self.become_(task, TaskStatus::Running);
        self.clock(task, true);
        let answer = self.shown_value(number);
        self.event(Event::TaskResumed { task_id: task, key });
        self.event(Event::SeniorAnswered { task_id: task, answer });
        Ok(Said::Task(task))
    }
}

/// From which statuses a verdict from outside is lawful.
fn allowed(marking: Marking, status: TaskStatus, ok: bool) -> bool {
    match (marking, status) {
        (Marking::Operator, TaskStatus::Pending | TaskStatus::Running)
        | (Marking::Senior, TaskStatus::Running | TaskStatus::Suspended) => true,
        (Marking::Senior, TaskStatus::Blocked) => ok,
        _ => false,
    }
}
