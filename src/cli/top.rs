//! `adjutant top`: what a running server does, looked at again and again.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use crate::cli::args::TopArgs;
use crate::cli::client::{Client, Refusal};
use crate::cli::remote::{RemoteError, on_server, tell};
use crate::cli::{code, print_line, put_line};

/// Rows of a list, at most.
const ROWS: usize = 12;

pub(crate) fn main(args: &TopArgs) -> anyhow::Result<i32> {
    on_server(&args.remote, async |client| watch(&client, args).await)
}

async fn watch(client: &Client, args: &TopArgs) -> Result<i32, RemoteError> {
    let first = Look::take(client, None).await?;
    let json = args.remote.json;
    // A pipe gets one look, unless lines of JSON are asked for again and again.
    if args.once || (!json && !std::io::stdout().is_terminal()) {
        let shown = if json { first.json().to_string() } else { first.text(&client.base) };
        return Ok(print_line(shown.trim_end())?);
    }
    let mut look = first;
    loop {
        if json {
            if !put_line(&look.json().to_string())? {
                return Ok(code::PASS);
            }
        } else {
            draw(&look.text(&client.base))?;
        }
        tokio::select! {
            () = sleep(Duration::from_secs(args.interval)) => {}
            _ = tokio::signal::ctrl_c() => return Ok(code::PASS),
        }
        match Look::take(client, Some(&look)).await {
            Ok(next) => look = next,
            Err(refusal) => return Ok(tell(&refusal, json)),
        }
    }
}

/// Draws over what was drawn before.
fn draw(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    write!(out, "\x1b[H\x1b[J{text}")?;
    out.flush()?;
    Ok(())
}

/// What was seen at one moment.
struct Look {
    at: Instant,
    metrics: Map<String, Value>,
    supervision: Value,
    questions: Value,
    runs: Value,
    tasks: Value,
    turns_per_second: Option<f64>,
}

impl Look {
    async fn take(client: &Client, before: Option<&Self>) -> Result<Self, Refusal> {
        let metrics = numbers(&client.text("/metrics").await?);
        let at = Instant::now();
        let mut look = Self {
            at,
            supervision: client.get("/v1/supervision").await?,
            questions: client.get("/v1/questions").await?["questions"].take(),
            runs: listed(client, "/v1/runs?status=open&limit=50", "runs").await?,
            tasks: listed(client, "/v1/tasks?status=running&limit=50", "tasks").await?,
            metrics,
            turns_per_second: None,
        };
        if let Some(before) = before {
            let turns = look.number("turns_total") - before.number("turns_total");
            let passed = at.duration_since(before.at).as_secs_f64();
            look.turns_per_second = (passed > 0.0 && turns >= 0.0).then(|| turns / passed);
        }
        Ok(look)
    }

    fn number(&self, name: &str) -> f64 {
        self.metrics.get(name).and_then(Value::as_f64).unwrap_or(0.0)
    }

    fn json(&self) -> Value {
        json!({
            "metrics": self.metrics,
            "turns_per_second": self.turns_per_second,
            "supervision": self.supervision,
            "questions": self.questions,
            "runs": self.runs,
            "tasks": self.tasks,
        })
    }

    fn text(&self, base: &str) -> String {
        let mut out = String::new();
        let n = |name: &str| self.number(name);
        let speed = self.turns_per_second.map_or("-".to_owned(), |speed| format!("{speed:.0}"));
        let outcome = |word| n(&format!("outcomes_total{{outcome=\"{word}\"}}"));
        let _ = writeln!(out, "adjutant {base}");
        let _ = writeln!(
            out,
            "tasks   {} running, {} queued, {} suspended; {} passed, {} blocked, {} cancelled",
            n("running_tasks"),
            n("queued_tasks"),
            n("suspended_tasks"),
            outcome("pass"),
            outcome("blocked"),
            outcome("cancelled"),
        );
        let _ = writeln!(
            out,
            "engine  {speed} turns/s, {} waiting; {} restarts, {} forced stops, {} child kills",
            n("queued_turns"),
            n("restarts_total"),
            n("forced_stops_total"),
            n("child_kills_total"),
        );
        let _ = writeln!(
            out,
            "links   {} sessions, {} operators, {} away, {} frames parked; {} event streams, {} lags",
            n("sessions"),
            n("operators_connected"),
            n("operators_away"),
            n("operator_parked_frames"),
            n("event_streams"),
            n("lagged_subscribers_total"),
        );
        for spawner in list(&self.supervision["spawners"]) {
            let state = if spawner["alive"] == true { "" } else { ", left dead" };
            let name = words(&spawner["name"]);
            let (done, limit) = (&spawner["restarts"], &spawner["limit"]);
            let _ = writeln!(out, "spawner {name}: {done} of {limit} restarts{state}");
        }
        section(&mut out, "WAITING FOR A HUMAN", &self.questions, &["key", "task_id", "question"]);
        section(&mut out, "RUNS", &self.runs, &["run_id", "status", "blueprint"]);
        section(&mut out, "TASKS AT WORK", &self.tasks, &["task_id", "agent", "attempt"]);
        out
    }
}

/// A list, or none from a server that has no such route.
async fn listed(client: &Client, path: &str, name: &str) -> Result<Value, Refusal> {
    match client.get(path).await {
        Ok(mut answer) => Ok(answer[name].take()),
        Err(Refusal::Problem(404 | 405, _)) => Ok(Value::Null),
        Err(refusal) => Err(refusal),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A value as words that steer no terminal.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.escape_debug().to_string(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn section(out: &mut String, title: &str, rows: &Value, columns: &[&str]) {
    let all = list(rows).count();
    if all == 0 {
        return;
    }
    let _ = writeln!(out, "\n{title} ({all})");
    for row in list(rows).take(ROWS) {
        let cells: Vec<_> = columns.iter().map(|name| words(&row[*name])).collect();
        let _ = writeln!(out, "  {}", cells.join("  "));
    }
    if all > ROWS {
        let _ = writeln!(out, "  and {} more", all - ROWS);
    }
}

/// The plain numbers of a scrape, by name and labels, without the prefix of the program.
fn numbers(scrape: &str) -> Map<String, Value> {
    let lines = scrape.lines().filter(|line| !line.starts_with('#'));
    let read = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        let name = name.strip_prefix("adjutant_")?;
        (!name.contains("_bucket{")).then(|| (name.to_owned(), json!(value.parse::<f64>().ok())))
    };
    lines.filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_read_by_its_names_and_labels() {
        let scrape = "# HELP adjutant_turns x\nadjutant_turns_total 12\n\
                      adjutant_outcomes_total{outcome=\"pass\"} 3\n\
                      adjutant_commit_seconds_bucket{le=\"0.1\"} 9\n# EOF\n";
        let numbers = numbers(scrape);
        assert_eq!(numbers["turns_total"], 12.0);
        assert_eq!(numbers["outcomes_total{outcome=\"pass\"}"], 3.0);
        assert_eq!(numbers.len(), 2);
    }
}
