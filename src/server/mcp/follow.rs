//! Following a run in a call: until its end, or until it asks something that the call cannot settle.

use std::collections::BTreeSet;
use std::time::Duration;

use adjutant_actors::model::event::{Event, EventRecord};
use adjutant_actors::model::ids::RunId;
use rmcp::model::InputRequiredResult;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::server::mcp::questions::{self, Question, Way};
use crate::server::mcp::runs::{Run, seen};
use crate::server::mcp::tool::{Call, Reply};
use crate::server::mcp::wait::within;
use crate::server::problem::Problem;
use crate::server::runs::Standing;

/// Longer than any call waits.
const FOR_EVER: Duration = Duration::from_secs(86_400);

/// Waits for the end of a run, or for a question that is not `known`; asks the client's user where
/// `ask` and the client allow it.
pub(crate) async fn follow(
    call: &Call,
    run: RunId,
    wanted: Duration,
    ask: bool,
    known: BTreeSet<String>,
) -> Result<Reply<Run>, Problem> {
    let what = format!("{run} goes on");
    let way = questions::way(call).filter(|_| ask && !wanted.is_zero());
    if !wanted.is_zero()
        && let Some(done) = within(call, wanted, &what, attend(call, run, way, known)).await
        && let Some(ask) = done?
    {
        return Ok(Reply::Ask(ask));
    }
    Ok(Reply::Done(seen(call, run).await?))
}

/// Ends with the run, or with a question that has to be put to somebody else than this call can.
async fn attend(
    call: &Call,
    run: RunId,
    way: Option<Way>,
    mut known: BTreeSet<String>,
) -> Result<Option<InputRequiredResult>, Problem> {
    let mut news = call.app.engine.subscribe_records();
    loop {
        let view = call.app.runs.view(run).await?;
        if !matches!(view.status, Standing::Running | Standing::Waiting) {
            return Ok(None);
        }
        let mut open = open_in(call, run).await?;
        open.retain(|question| !known.contains(&question.key));
        match (way, open.first()) {
            (_, None) => {}
            (None, Some(_)) => return Ok(None),
            (Some(Way::Again), Some(_)) => {
                return Ok(Some(questions::ask_again(&open, run.to_string())));
            }
            (Some(Way::Meanwhile), Some(question)) => {
                tokio::select! {
                    answered = questions::ask_meanwhile(call, question) => {
                        if !answered? {
                            return Ok(None);
                        }
                    }
                    // Somebody else has answered, or nobody has to any more: the form is taken back.
                    gone = gone(call, &mut news, &question.key) => gone?,
                }
                known.insert(question.key.clone());
                continue;
            }
        }
        tokio::select! {
            ended = call.app.runs.wait(run, FOR_EVER) => drop(ended?),
            () = moved(&mut news) => {}
        }
    }
}

/// Ends once a question is open no more.
async fn gone(call: &Call, news: &mut Receiver<EventRecord>, key: &str) -> Result<(), Problem> {
    while questions::open(call).await?.iter().any(|question| question.key == key) {
        moved(news).await;
    }
    Ok(())
}

/// Ends once something has happened to some question.
async fn moved(news: &mut Receiver<EventRecord>) {
    loop {
        match news.recv().await {
            Ok(record) => match record.event {
                Event::SeniorQueried { .. }
                | Event::SeniorAnswered { .. }
                | Event::TaskCancelled { .. } => return,
                _ => {}
            },
            Err(RecvError::Lagged(_)) => return,
            // The engine is gone, which whoever looks next is told.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The open questions of a run; none for a caller who may not answer any.
pub(crate) async fn open_in(call: &Call, run: RunId) -> Result<Vec<Question>, Problem> {
    let mut open = match questions::open(call).await {
        Err(problem) if problem.code() == "role_violation" => return Ok(Vec::new()),
        open => open?,
    };
    if !open.is_empty() {
        let tasks = call.app.runs.view(run).await?.tasks.unwrap_or_default();
        let tasks: BTreeSet<_> = tasks.iter().map(ToString::to_string).collect();
        open.retain(|question| tasks.contains(&question.task_id));
    }
    Ok(open)
}

pub(crate) fn keys(open: &[Question]) -> BTreeSet<String> {
    open.iter().map(|question| question.key.clone()).collect()
}
