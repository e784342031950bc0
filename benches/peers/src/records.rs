//! The state of the bare actors: a map of task records, changed by one message at a time.
//! Checks nothing that an engine checks: it is the floor under the engines, not one of them.

use std::collections::{HashMap, VecDeque};

use crate::peer::{AGENT, DIRECTIVE, KEPT};

/// What a bare actor is asked: a question about its state, or one of the five steps of a task.
#[derive(Debug)]
pub(crate) enum Step {
    /// How many records there are.
    Count,
    /// Keeps a record.
    Start { agent: String, directive: String },
    /// Begins its attempt.
    Begin(u64),
    /// Gives the worker its directive.
    Pull(u64),
    /// Takes the worker's result.
    Submit(u64, String),
    /// Decides the task.
    Finish(u64),
}

/// What a bare actor answers.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The number of records.
    Count(usize),
    /// The id of the record that was kept.
    Started(u64),
    /// The step was taken.
    Done,
    /// The directive.
    Directive(String),
    /// Whether the task has a result.
    Finished(bool),
    /// There is no such record.
    Unknown,
}

#[derive(Debug, Default)]
struct Record {
    agent: String,
    directive: String,
    attempt: u32,
    result: Option<String>,
    passed: bool,
}

/// Task records by id. The last finished ones are kept, as many as the engines are told to keep.
#[derive(Debug, Default)]
pub(crate) struct Records {
    tasks: HashMap<u64, Record>,
    finished: VecDeque<u64>,
    last: u64,
}

impl Records {
    /// Takes one step.
    pub(crate) fn apply(&mut self, step: Step) -> Answer {
        match step {
            Step::Count => Answer::Count(self.tasks.len()),
            Step::Start { agent, directive } => {
                self.last += 1;
                self.tasks.insert(self.last, Record { agent, directive, ..Record::default() });
                Answer::Started(self.last)
            }
            Step::Begin(id) => self.change(id, |record| {
                record.attempt += 1;
                Answer::Done
            }),
            Step::Pull(id) => self.change(id, |record| Answer::Directive(record.directive.clone())),
            Step::Submit(id, result) => self.change(id, |record| {
                record.result = Some(result);
                Answer::Done
            }),
            Step::Finish(id) => self.finish(id),
        }
    }

    fn change(&mut self, id: u64, change: impl FnOnce(&mut Record) -> Answer) -> Answer {
        self.tasks.get_mut(&id).map_or(Answer::Unknown, change)
    }

    fn finish(&mut self, id: u64) -> Answer {
        let Some(record) = self.tasks.get_mut(&id) else { return Answer::Unknown };
        record.passed = record.result.is_some() && record.attempt > 0 && record.agent == AGENT;
        let answer = Answer::Finished(record.passed);
        self.finished.push_back(id);
        if self.finished.len() > KEPT
            && let Some(oldest) = self.finished.pop_front()
        {
            self.tasks.remove(&oldest);
        }
        answer
    }
}

/// An actor that owns [`Records`] and answers one message a step.
pub(crate) trait Ask: Sync {
    /// Sends a step and waits for its answer; `None` where the framework gave none.
    fn ask(&self, step: Step) -> impl Future<Output = Option<Answer>> + Send;
}

/// One question, one answer: nothing was started yet.
pub(crate) async fn count(actor: &impl Ask) -> bool {
    matches!(actor.ask(Step::Count).await, Some(Answer::Count(0)))
}

/// As many messages as an engine takes turns for a lifecycle.
pub(crate) async fn five_messages(actor: &impl Ask) -> bool {
    let start = Step::Start { agent: AGENT.to_owned(), directive: DIRECTIVE.to_owned() };
    let Some(Answer::Started(id)) = actor.ask(start).await else { return false };
    let Some(Answer::Done) = actor.ask(Step::Begin(id)).await else { return false };
    let Some(Answer::Directive(prompt)) = actor.ask(Step::Pull(id)).await else { return false };
    let Some(Answer::Done) = actor.ask(Step::Submit(id, prompt)).await else { return false };
    matches!(actor.ask(Step::Finish(id)).await, Some(Answer::Finished(true)))
}
