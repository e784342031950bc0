//! The senior of a run: prepared answers first, then the person at the terminal.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use adjutant::{CancellationToken, Engine, SeniorBridge, TaskId, async_trait};
use anyhow::{Context, bail};
use indicatif::MultiProgress;
use serde_json::Value;

use crate::cli::say;

/// Prepared answers by step; where a step asks more often, its last answer is used again.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    by_step: Mutex<HashMap<String, VecDeque<Value>>>,
}

impl Answers {
    /// Reads `REF=JSON` arguments; what is no JSON is text.
    pub(crate) fn parse(texts: &[String]) -> anyhow::Result<Self> {
        let mut by_step: HashMap<String, VecDeque<Value>> = HashMap::new();
        for text in texts {
            let (step, answer) =
                text.split_once('=').with_context(|| format!("--answer {text}: not REF=JSON"))?;
            if step.is_empty() {
                bail!("--answer {text}: the step's ref is missing before `=`");
            }
            by_step.entry(step.to_owned()).or_default().push_back(value_of(answer));
        }
        Ok(Self { by_step: Mutex::new(by_step) })
    }

    fn take(&self, step: &str) -> Option<Value> {
        let mut by_step = self.by_step.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = by_step.get_mut(step)?;
        if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
    }

    /// Passes over what was used before: the first `count` answers of a step, but not its last one.
    pub(crate) fn skip(&self, step: &str, count: usize) {
        let mut by_step = self.by_step.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answers) = by_step.get_mut(step) {
            let spare = answers.len().saturating_sub(1);
            answers.drain(..count.min(spare));
        }
    }

    /// The steps that have prepared answers.
    pub(crate) fn steps(&self) -> Vec<String> {
        let by_step = self.by_step.lock().unwrap_or_else(PoisonError::into_inner);
        let mut steps: Vec<_> = by_step.keys().cloned().collect();
        steps.sort_unstable();
        steps
    }
}

fn value_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// Answers from the command line or from the terminal.
pub(crate) struct CliSenior {
    pub(crate) engine: Engine,
    pub(crate) answers: Arc<Answers>,
    pub(crate) bars: MultiProgress,
    /// One question at a time on the terminal.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// For a run that is kept: leaves it open where nobody is there to answer.
    pub(crate) leave: Option<CancellationToken>,
}

#[async_trait]
impl SeniorBridge for CliSenior {
    async fn ask(&self, task_id: &TaskId, question: Value) -> Result<Value, String> {
        let task = *task_id;
        let step = self
            .engine
            .with_state("senior", move |state| state.task(&task).map(|task| task.spec.agent))
            .await
            .map_err(|error| error.to_string())?
            .unwrap_or_default();
        if let Some(answer) = self.answers.take(&step) {
            return Ok(answer);
        }
        if !std::io::stdin().is_terminal() {
            let refusal = format!(
                "step {step} asks a senior and nobody is there: stdin is no terminal; \
                 give --answer {step}=JSON"
            );
            let Some(leave) = &self.leave else { return Err(refusal) };
            say(&format!("adjutant: {refusal}"));
            leave.cancel();
            return std::future::pending().await;
        }
        let _turn = self.turn.lock().await;
        self.ask_on_terminal(step, question).await
    }
}

impl CliSenior {
    /// Shows the question and reads a line in a thread of its own, so that a cancelled run does
    /// not wait for the keyboard.
    async fn ask_on_terminal(&self, step: String, question: Value) -> Result<Value, String> {
        let bars = self.bars.clone();
        let (tell, told) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = tell.send(bars.suspend(|| read_answer(&step, &question)));
        });
        told.await.map_err(|_| "the terminal went away".to_owned())?
    }
}

fn read_answer(step: &str, question: &Value) -> Result<Value, String> {
    let mut talk = std::io::stderr().lock();
    let shown = match question {
        Value::String(text) => text.clone(),
        other => format!("{other:#}"),
    };
    let _ = write!(talk, "\n{shown}\n\n{step} asks: answer (JSON or text)> ");
    let _ = talk.flush();
    drop(talk);
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(0) => Err(format!("stdin ended before step {step} was answered")),
        Ok(_) => Ok(value_of(line.trim())),
        Err(error) => Err(format!("read the answer of step {step}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_used_in_order_and_the_last_one_again() {
        let texts = ["a=1".to_owned(), "a={\"x\":2}".to_owned(), "b=yes=no".to_owned()];
        let answers = Answers::parse(&texts).unwrap();
        assert_eq!(answers.take("a"), Some(json!(1)));
        assert_eq!(answers.take("a"), Some(json!({ "x": 2 })));
        assert_eq!(answers.take("a"), Some(json!({ "x": 2 })));
        assert_eq!(answers.take("b"), Some(json!("yes=no")));
        assert_eq!(answers.take("c"), None);
        let answers = Answers::parse(&texts).unwrap();
        answers.skip("a", 9);
        answers.skip("b", 1);
        assert_eq!(answers.take("a"), Some(json!({ "x": 2 })), "the last one is kept");
        assert_eq!(answers.take("b"), Some(json!("yes=no")));
        assert!(Answers::parse(&["nothing".to_owned()]).is_err());
    }
}
