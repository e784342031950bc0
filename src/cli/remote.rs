//! The verbs that ask a running server: `link`, `questions`, `answer`, `cancel`.

use std::io::{IsTerminal, Read};

use serde_json::{Value, json};

use crate::cli::args::{AnswerArgs, CancelArgs, RemoteArgs};
use crate::cli::client::{Client, Refusal};
use crate::cli::{code, drive, print_line, say, usage};

/// Why a verb could not be carried out.
pub(crate) enum RemoteError {
    Refused(Refusal),
    Other(anyhow::Error),
}

impl From<Refusal> for RemoteError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<anyhow::Error> for RemoteError {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Asks the server that the arguments mean, and tells a refusal with its exit code.
pub(crate) fn on_server(
    args: &RemoteArgs,
    verb: impl AsyncFnOnce(Client) -> Result<i32, RemoteError>,
) -> anyhow::Result<i32> {
    drive::block_on(async {
        let done = match Client::of(args) {
            Ok(client) => verb(client).await,
            Err(error) => Err(match error.downcast::<Refusal>() {
                Ok(refusal) => refusal.into(),
                Err(error) => return Ok(usage(&format!("{error:#}"))),
            }),
        };
        match done {
            Ok(code) => Ok(code),
            Err(RemoteError::Refused(refusal)) => Ok(tell(&refusal, args.json)),
            Err(RemoteError::Other(error)) => Err(error),
        }
    })
}

/// Says why, as the server's own document where JSON is asked for.
pub(crate) fn tell(refusal: &Refusal, json: bool) -> i32 {
    match refusal {
        Refusal::Problem(_, problem) if json => say(&problem.to_string()),
        _ if json => {
            let code = json!({ "code": "unreachable", "detail": refusal.to_string() });
            say(&code.to_string());
        }
        _ => say(&format!("adjutant: {refusal}")),
    }
    refusal.code()
}

/// Prints a link to the live page.
pub(crate) fn link(args: &RemoteArgs) -> anyhow::Result<i32> {
    on_server(args, async |client| {
        let link = client.post("/v1/links", &json!({})).await?;
        let line = match args.json {
            true => link.to_string(),
            // The server is reached here as the arguments say, so the page is as well.
            false => format!("{}{}", client.base, link["path"].as_str().unwrap_or_default()),
        };
        Ok(print_line(&line)?)
    })
}

/// Lists the open questions.
pub(crate) fn questions(args: &RemoteArgs) -> anyhow::Result<i32> {
    on_server(args, async |client| {
        for question in open_questions(&client).await? {
            let line = match args.json {
                true => question.to_string(),
                false => plain(&question),
            };
            print_line(&line)?;
        }
        Ok(code::PASS)
    })
}

async fn open_questions(client: &Client) -> Result<Vec<Value>, Refusal> {
    let mut list = client.get("/v1/questions").await?;
    match list["questions"].take() {
        Value::Array(questions) => Ok(questions),
        _ => Ok(Vec::new()),
    }
}

/// A question in one line that steers no terminal.
fn plain(question: &Value) -> String {
    let text = |name: &str| question[name].as_str().unwrap_or_default().to_owned();
    let asked = match &question["question"] {
        Value::String(words) => words.escape_debug().to_string(),
        other => other.to_string(),
    };
    format!("{} {} {asked}", text("key"), text("task_id"))
}

/// Answers one.
pub(crate) fn answer(args: &AnswerArgs) -> anyhow::Result<i32> {
    on_server(&args.remote, async |client| {
        let open = open_questions(&client).await?;
        let named = args.key.as_deref().unwrap_or_default();
        let fits = |question: &&Value| {
            ["key", "task_id"]
                .iter()
                .any(|name| question[*name].as_str().is_some_and(|id| id.starts_with(named)))
        };
        let fitting: Vec<_> = open.iter().filter(fits).collect();
        let [question] = fitting.as_slice() else {
            fitting.iter().for_each(|question| say(&plain(question)));
            if fitting.is_empty() {
                say(&match named {
                    "" => "adjutant: no question is open".to_owned(),
                    _ => format!(
                        "adjutant: no open question begins with {}; see `adjutant questions`",
                        named.escape_debug()
                    ),
                });
                return Ok(code::NOT_FOUND);
            }
            return Ok(usage("several questions are open; name one by its key"));
        };
        let text = match &args.value {
            Some(text) => text.clone(),
            None => from_stdin(question)?,
        };
        // A word that is no JSON is taken as text, as `run --answer` does.
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|_| text.trim_end().into());
        let key = question["key"].as_str().unwrap_or_default();
        client.post(&format!("/v1/questions/{key}/answer"), &json!({ "answer": answer })).await?;
        if args.remote.json {
            let done = json!({ "key": key, "task_id": question["task_id"], "answer": answer });
            print_line(&done.to_string())?;
        }
        Ok(code::PASS)
    })
}

fn from_stdin(question: &Value) -> anyhow::Result<String> {
    let (mut stdin, mut text) = (std::io::stdin(), String::new());
    if stdin.is_terminal() {
        say(&plain(question));
        say("answer:");
        stdin.read_line(&mut text)?;
    } else {
        stdin.read_to_string(&mut text)?;
    }
    Ok(text)
}

/// Cancels a task with what is below it, or a run.
pub(crate) fn cancel(args: &CancelArgs) -> anyhow::Result<i32> {
    on_server(&args.remote, async |client| {
        let kind = if args.id.starts_with("run-") { "runs" } else { "tasks" };
        client.post(&format!("/v1/{kind}/{}/cancel", args.id), &json!({})).await?;
        if args.remote.json {
            print_line(&json!({ "cancelled": args.id }).to_string())?;
        }
        Ok(code::PASS)
    })
}
