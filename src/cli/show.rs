//! `adjutant show`: the life of one task or run, from its start to its end.

use adjutant::store::View;
use adjutant::{EngineState, Event, EventRecord, OutputEvent, RunId, TaskId, TaskState};
use anyhow::bail;
use serde_json::{Value, json};

use crate::cli::args::ShowArgs;
use crate::cli::look::summary;
use crate::cli::place::Place;
use crate::cli::{code, print_line};

/// Characters of a value that a line shows.
const SHOWN: usize = 160;

pub(crate) fn main(args: &ShowArgs) -> anyhow::Result<i32> {
    let mut found = Vec::new();
    for view in Place::of(&args.store)?.views()? {
        let state = view.state();
        let tasks = state.tasks_with(|_| true).into_iter().map(Named::Task);
        let runs = state.runs().into_iter().map(|(id, _)| Named::Run(id));
        let wanted: Vec<_> = tasks.chain(runs).filter(|named| named.fits(&args.id)).collect();
        if let [first, ..] = wanted[..] {
            found.extend(wanted.iter().map(Named::text));
            if found.len() == 1 {
                return print(view, first, args.json);
            }
        }
    }
    match found.len() {
        0 => bail!("no task and no run is called {}", args.id),
        many => bail!("{} fits {many}: {}", args.id, found[..many.min(4)].join(", ")),
    }
}

fn print(view: View, named: Named, as_json: bool) -> anyhow::Result<i32> {
    match named {
        Named::Task(task) => print_task(view, task, as_json),
        Named::Run(run) => print_run(&view, run, as_json),
    }
}

#[derive(Clone, Copy)]
enum Named {
    Task(TaskId),
    Run(RunId),
}

impl Named {
    fn text(&self) -> String {
        match self {
            Self::Task(id) => id.to_string(),
            Self::Run(id) => id.to_string(),
        }
    }

    fn fits(&self, start: &str) -> bool {
        self.text().starts_with(start)
    }
}

fn print_task(mut view: View, id: TaskId, as_json: bool) -> anyhow::Result<i32> {
    let events = view.events_of(id)?;
    let state = view.state();
    let Some(task) = state.task(&id) else { bail!("task {id} is not kept any more") };
    if as_json {
        let timeline: Vec<_> = events.iter().map(|record| entry(&task, record)).collect();
        let mut shown = json!({ "task": task, "timeline": timeline });
        shown["operator"] = json!(operator(state, id));
        shown["parent"] = json!(state.task_parent(&id));
        shown["run"] = json!(state.step_of(&id).map(|step| step.run));
        shown["attempts"] = json!(attempts(&events));
        return print_line(&shown.to_string());
    }
    print_line(&headline(state, &task))?;
    print_line(&format!("  asked: {}", cut(&task.spec.initial_directive)))?;
    let mut began = None;
    for record in &events {
        let since = record.at.saturating_sub(task.created_at);
        if let Event::TaskAttemptStarted { .. } = record.event {
            began = Some(record.at);
        }
        let at = clock(record.at);
        print_line(&format!("  {at} {:>8}  {}", format!("+{}", span(since)), line(record, began)))?;
    }
    if events.is_empty() {
        print_line("  the event log does not reach back to it any more")?;
    }
    Ok(code::PASS)
}

fn operator(state: &EngineState, id: TaskId) -> Option<String> {
    let session = state.task_session(&id).and_then(|session| state.session(session));
    session.map(|session| session.operator_id)
}

fn headline(state: &EngineState, task: &TaskState) -> String {
    let took = span(task.updated_at.saturating_sub(task.created_at));
    let mut line = format!("{}  agent {}  {}", task.id, task.spec.agent, task.status);
    line += &format!(", attempt {}, {took} from start to its last change", task.attempt);
    if let Some(operator) = operator(state, task.id) {
        line += &format!(", by {operator}");
    }
    if let Some(parent) = state.task_parent(&task.id) {
        line += &format!(", below {parent}");
    }
    if let Some(step) = state.step_of(&task.id) {
        line += &format!(", in {}", step.run);
    }
    line
}

/// Each attempt with its start, its end and how long it took.
fn attempts(events: &[EventRecord]) -> Vec<Value> {
    let starts = events.iter().enumerate().filter_map(|(at, record)| match record.event {
        Event::TaskAttemptStarted { attempt, .. } => Some((at, record, attempt)),
        _ => None,
    });
    let shown = starts.map(|(at, start, attempt)| {
        let end = events[at..].iter().find(|record| {
            matches!(record.event, Event::TaskAttemptCompleted { attempt: ended, .. } if ended == attempt)
        });
        let took = end.map(|end| end.at.saturating_sub(start.at));
        let end = end.map(|end| end.at);
        json!({ "attempt": attempt, "started_at": start.at, "ended_at": end, "took_secs": took })
    });
    shown.collect()
}

fn entry(task: &TaskState, record: &EventRecord) -> Value {
    json!({
        "seq": record.seq,
        "at": record.at,
        "since_start_secs": record.at.saturating_sub(task.created_at),
        "event": record.event,
    })
}

fn line(record: &EventRecord, began: Option<u64>) -> String {
    let took = began.map_or_else(String::new, |began| {
        format!(" after {}", span(record.at.saturating_sub(began)))
    });
    match &record.event {
        Event::TaskCreated { .. } => "started".to_owned(),
        Event::TaskAttemptStarted { attempt, .. } => format!("attempt {attempt} dispatched"),
        Event::TaskAttemptCompleted { attempt, result, .. } => {
            format!("attempt {attempt} ended{took}: {}", cut(&result.to_string()))
        }
        Event::TaskPass { result, .. } => format!("passed: {}", cut(&result.to_string())),
        Event::TaskBlocked { result, .. } => format!("blocked: {}", cut(&result.to_string())),
        Event::TaskSuspended { key, .. } => format!("waits for an answer to {key}"),
        Event::TaskResumed { key, .. } => format!("goes on after the answer to {key}"),
        Event::TaskCancelled { .. } => "cancelled".to_owned(),
        Event::SeniorQueried { question, .. } => format!("asks: {}", cut(&question.to_string())),
        Event::SeniorAnswered { answer, .. } => format!("answered: {}", cut(&answer.to_string())),
        Event::WorkerOutput { attempt, event, .. } => {
            format!("attempt {attempt}: {}", output(event))
        }
        Event::AttemptSlow { attempt, elapsed_ms, .. } => {
            format!("attempt {attempt} is slow: {}", span(elapsed_ms / 1000))
        }
        Event::DirectiveInjected { .. } => "its next prompt was set".to_owned(),
        other => other.kind().to_owned(),
    }
}

fn output(event: &OutputEvent) -> String {
    match event {
        OutputEvent::Progress { stage, note } => match note {
            Some(note) => format!("progress {stage}: {}", cut(note)),
            None => format!("progress {stage}"),
        },
        OutputEvent::Partial { chunk } => format!("partial {}", cut(&chunk.to_string())),
        OutputEvent::Artifact { name, .. } => format!("artifact {name}"),
        OutputEvent::Final { ok, .. } => format!("final, {}", if *ok { "ok" } else { "not ok" }),
        _ => "output of an unknown kind".to_owned(),
    }
}

fn print_run(view: &View, id: RunId, as_json: bool) -> anyhow::Result<i32> {
    let state = view.state();
    let Some(run) = state.run(id) else { bail!("run {id} is not kept any more") };
    let mut tasks: Vec<_> = state
        .kept_steps(id, None, usize::MAX)
        .iter()
        .filter_map(|step| state.task(&step.task))
        .collect();
    tasks.sort_by_key(|task| (task.created_at, task.id));
    if as_json {
        let mut shown = summary(id, &run);
        shown["report"] = json!(run.report);
        shown["tasks"] = json!(tasks);
        return print_line(&shown.to_string());
    }
    let (status, began) = (run.status.as_str(), clock(run.started_at));
    print_line(&format!(
        "{id}  {}  {status}, started {began}, resumed {}x",
        run.name, run.resumed
    ))?;
    for task in tasks {
        let took = span(task.updated_at.saturating_sub(task.created_at));
        let (id, agent, attempt) = (task.id, &task.spec.agent, task.attempt);
        let asked = cut(&task.spec.initial_directive);
        print_line(&format!(
            "  {id} {agent:<12} {:<9} attempt {attempt}, {took}: {asked}",
            task.status.as_str()
        ))?;
    }
    Ok(code::PASS)
}

/// Unix seconds as people write them.
pub(crate) fn clock(unix: u64) -> String {
    let seconds = i64::try_from(unix).ok();
    let stamp = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    stamp.map_or_else(|| unix.to_string(), |stamp| stamp.to_string())
}

/// Seconds as a short word.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// One line of a text, cut where it is long.
fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.len() < text.len() => format!("{line} …"),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_texts_are_short_and_right() {
        assert_eq!(clock(0), "1970-01-01T00:00:00Z");
        assert_eq!(clock(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!([span(7), span(125), span(7_384)], ["7s", "2m05s", "2h03m"]);
        assert_eq!(cut("one\ntwo"), "one …");
        assert_eq!(cut(&"é".repeat(SHOWN + 1)), format!("{}…", "é".repeat(SHOWN)));
    }
}
