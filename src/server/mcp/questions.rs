//! The questions to the senior as tools, and as questions to the client's own user.

use adjutant_actors::errors::EngineError;
use rmcp::model::{
    ElicitRequest, ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationSchema,
    InputRequest, InputRequests, InputRequiredResult, ProtocolVersion,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::server::mcp::tool::{Call, Effect, Entry, Reply};
use crate::server::parse;
use crate::server::problem::Problem;
use crate::server::questions::{self, LIST_MAX};

/// The one field of the form in which a user answers.
const FIELD: &str = "answer";

pub(crate) fn tools() -> Vec<Entry> {
    vec![
        Entry::new(
            "list_questions",
            (
                "List open questions",
                "Lists the questions that agents have asked and that nobody has answered yet, the oldest first.",
            ),
            Effect::Reads,
            list,
        ),
        Entry::new(
            "answer_question",
            (
                "Answer a question",
                "Answers an open question; its task goes on at once. The answer is any JSON value and becomes the \
                 value of the step that asked. The first answer wins. Do not invent what a person was asked for.",
            ),
            Effect::AddsOnce,
            answer,
        ),
    ]
}

/// A question as tools show it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Question {
    /// What to answer it by.
    pub(crate) key: String,
    /// The task that waits for the answer.
    pub(crate) task_id: String,
    /// What is asked.
    pub(crate) question: Value,
    /// When it was asked, in seconds since 1970.
    pub(crate) asked_at: u64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct List {
    /// The questions of this run alone.
    #[serde(default)]
    run_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Listed {
    /// The open questions.
    questions: Vec<Question>,
}

async fn list(call: Call, list: List) -> Result<Reply<Listed>, Problem> {
    let mut questions = open(&call).await?;
    if let Some(run) = list.run_id {
        let tasks = super::runs::tasks_of(&call, &run).await?;
        questions.retain(|question| tasks.contains(&question.task_id));
    }
    Ok(Reply::Done(Listed { questions }))
}

/// The open questions that the caller may answer, the oldest first.
pub(crate) async fn open(call: &Call) -> Result<Vec<Question>, Problem> {
    let open = call.app.engine.open_questions_as(call.who.caller(), LIST_MAX).await?;
    let shown = open.into_iter().map(|(key, pending)| Question {
        key: key.to_string(),
        task_id: pending.task_id.to_string(),
        question: Value::clone(&pending.question),
        asked_at: pending.asked_at,
    });
    Ok(shown.collect())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Answer {
    /// The key of the question, from list_questions.
    key: String,
    /// The answer: any JSON value.
    answer: Value,
}

#[derive(Serialize, JsonSchema)]
struct Answered {
    /// The key of the question.
    key: String,
    /// Always true: an answer that does not count is an error.
    answered: bool,
}

async fn answer(call: Call, given: Answer) -> Result<Reply<Answered>, Problem> {
    give(&call, &given.key, given.answer).await?;
    Ok(Reply::Done(Answered { key: given.key, answered: true }))
}

async fn give(call: &Call, key: &str, answer: Value) -> Result<(), Problem> {
    questions::give(&call.app, &call.who, parse(key)?, answer).await
}

/// How a client's own user can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// In the middle of the call.
    Meanwhile,
    /// The call ends with the question, and the client repeats it with the answer.
    Again,
}

/// Whether and how the client can ask its user.
pub(crate) fn way(call: &Call) -> Option<Way> {
    let offered = call.context.client_capabilities()?.elicitation?;
    // Who names no mode means forms, as the first revision had it.
    if offered.form.is_none() && offered.url.is_some() {
        return None;
    }
    let version = call.context.protocol_version()?;
    let again = version.as_str() >= ProtocolVersion::V_2026_07_28.as_str();
    Some(if again { Way::Again } else { Way::Meanwhile })
}

/// Puts a question to the user and gives the answer to the engine. False where the user will not
/// answer, or cannot be asked.
pub(crate) async fn ask_meanwhile(call: &Call, question: &Question) -> Result<bool, Problem> {
    let Ok(asked) = call.context.peer.create_elicitation(form(question)).await else {
        return Ok(false);
    };
    take(call, &question.key, &asked).await
}

/// A reply that has the client ask these questions and call again. The state names the run, which
/// whoever repeats the call must have the right to see as before.
pub(crate) fn ask_again(questions: &[Question], state: String) -> InputRequiredResult {
    let requests: InputRequests = questions
        .iter()
        .map(|question| {
            let request = ElicitRequest::new(form(question));
            (question.key.clone(), InputRequest::Elicitation(request))
        })
        .collect();
    InputRequiredResult::new(Some(requests), Some(state))
}

/// Takes the answers that a repeated call brings. False where one of them is a refusal.
pub(crate) async fn take_brought(call: &Call) -> Result<bool, Problem> {
    let mut all = true;
    for (key, brought) in call.answers.iter().flatten() {
        let asked: ElicitResult = serde_json::from_value(brought.clone())
            .map_err(|error| EngineError::InvalidArgument(format!("answer to {key}: {error}")))?;
        all &= take(call, key, &asked).await?;
    }
    Ok(all)
}

async fn take(call: &Call, key: &str, asked: &ElicitResult) -> Result<bool, Problem> {
    let content = asked.content.as_ref().and_then(|content| content.get(FIELD));
    let (ElicitationAction::Accept, Some(answer)) = (&asked.action, content) else {
        return Ok(false);
    };
    match give(call, key, meant(answer)).await {
        Ok(()) => Ok(true),
        // Somebody else was faster, or the task is over: there is nothing to ask any more.
        Err(problem) if matches!(problem.code(), "question_not_found" | "invalid_transition") => {
            Ok(true)
        }
        Err(problem) => Err(problem),
    }
}

/// A text that is JSON is meant as JSON.
fn meant(answer: &Value) -> Value {
    match answer.as_str() {
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| answer.clone()),
        None => answer.clone(),
    }
}

/// The form for a question.
fn form(question: &Question) -> ElicitRequestParams {
    let message = match &question.question {
        Value::String(text) => text.clone(),
        other => format!("{other:#}"),
    };
    let requested_schema = ElicitationSchema::builder()
        .required_string_property(FIELD, |field| {
            field.title("Answer").description("A text, or JSON such as true or {\"max\": 3}.")
        })
        .build_unchecked();
    ElicitRequestParams::FormElicitationParams { meta: None, message, requested_schema }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_that_is_json_is_taken_as_json() {
        assert_eq!(meant(&json!("true")), json!(true));
        assert_eq!(meant(&json!("\"true\"")), json!("true"));
        assert_eq!(meant(&json!("{\"max\": 3}")), json!({ "max": 3 }));
        assert_eq!(meant(&json!("yes, do it")), json!("yes, do it"));
        assert_eq!(meant(&json!(7)), json!(7));
    }
}
