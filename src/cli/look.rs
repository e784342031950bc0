//! `adjutant fsck`, `export`, `runs`: looks at stores without changing them.

use adjutant::EngineState;
use adjutant::store::{Report, export_json, fsck};
use adjutant::{RunId, RunRecord, TaskStatus};
use serde_json::{Value, json};

use crate::cli::args::{ExportArgs, LookArgs};
use crate::cli::place::Place;
use crate::cli::show::{clock, span};
use crate::cli::{code, print_line, say};

/// Checks every store that is meant.
pub(crate) fn check(args: &LookArgs) -> anyhow::Result<i32> {
    let stores = Place::of(&args.store)?.stores()?;
    if stores.is_empty() {
        say("adjutant: there is no store yet");
    }
    let mut worst = code::PASS;
    for path in stores {
        let report = fsck(&path)?;
        if !report.is_sound() {
            worst = code::FAILED;
        }
        if args.json {
            let shown =
                json!({ "store": path, "sound": report.is_sound(), "report": findings(&report) });
            print_line(&shown.to_string())?;
            continue;
        }
        for line in faults(&report) {
            print_line(&line)?;
        }
        let rows: u64 = report.rows.values().sum();
        let verdict = if report.is_sound() { "sound" } else { "NOT SOUND" };
        let (batch, event) = (report.last_batch, report.last_seq);
        print_line(&format!(
            "{}: {verdict}: {rows} records, up to batch {batch} and event {event}",
            path.display()
        ))?;
    }
    Ok(worst)
}

fn faults(report: &Report) -> Vec<String> {
    let structure = report.structure.iter().map(|line| format!("database: {line}"));
    let aside =
        report.set_aside.iter().map(|row| format!("{} {}: {}", row.table, row.key, row.why));
    let rule = report.broken_rule.iter().map(|rule| format!("broken rule: {rule}"));
    structure.chain(aside).chain(rule).collect()
}

fn findings(report: &Report) -> Value {
    json!({
        "last_batch": report.last_batch,
        "last_seq": report.last_seq,
        "rows": report.rows,
        "faults": faults(report),
    })
}

/// Prints a whole store as lines of JSON.
pub(crate) fn export(args: &ExportArgs) -> anyhow::Result<i32> {
    let path = Place::of(&args.store)?.only()?;
    // Out to a pipe that closed early: the reader has what it wanted.
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match export_json(&path, &mut out) {
        Ok(_) => Ok(code::PASS),
        Err(error) if error.to_string().contains("Broken pipe") => Ok(code::PASS),
        Err(error) => Err(error.into()),
    }
}

/// Lists the runs of every store that is meant, the oldest first.
pub(crate) fn runs(args: &LookArgs) -> anyhow::Result<i32> {
    let mut all = Vec::new();
    for view in Place::of(&args.store)?.views()? {
        for (id, run) in view.state().runs() {
            let counts = Counts::of(view.state(), id);
            all.push((id, run, counts, view.path().to_owned()));
        }
    }
    all.sort_by_key(|(id, run, _, _)| (run.started_at, *id));
    if all.is_empty() && !args.json {
        say("adjutant: there is no run yet");
    }
    for (id, run, counts, store) in all {
        let line = if args.json {
            let mut shown = summary(id, &run);
            shown["tasks"] = counts.json();
            shown["store"] = json!(store);
            shown.to_string()
        } else {
            line(id, &run, &counts)
        };
        print_line(&line)?;
    }
    Ok(code::PASS)
}

/// The tasks of a run by how they stand.
pub(crate) struct Counts {
    passed: usize,
    open: usize,
    other: usize,
}

impl Counts {
    pub(crate) fn of(state: &EngineState, run: RunId) -> Self {
        let mut counts = Self { passed: 0, open: 0, other: 0 };
        for step in state.kept_steps(run, None, usize::MAX) {
            match step.status {
                TaskStatus::Pass => counts.passed += 1,
                TaskStatus::Blocked if step.interrupted => counts.open += 1,
                status if !status.is_settled() => counts.open += 1,
                _ => counts.other += 1,
            }
        }
        counts
    }

    fn json(&self) -> Value {
        json!({ "passed": self.passed, "open": self.open, "other": self.other })
    }
}

fn line(id: RunId, run: &RunRecord, counts: &Counts) -> String {
    let (status, name, since) = (run.status.as_str(), &run.name, clock(run.started_at));
    let took =
        run.ended_at.map(|end| format!(", took {}", span(end.saturating_sub(run.started_at))));
    let again = match run.resumed {
        0 => String::new(),
        times => format!(", resumed {times}x"),
    };
    let Counts { passed, open, other } = counts;
    format!(
        "{id} {status:<9} {name}  {since}{}, {passed} passed, {open} open, {other} not passed{again}",
        took.unwrap_or_default()
    )
}

/// What is said of a run as JSON, without its document and values.
pub(crate) fn summary(id: RunId, run: &RunRecord) -> Value {
    json!({
        "run": id,
        "name": run.name,
        "status": run.status,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "resumed": run.resumed,
        "resumed_at": run.resumed_at,
        "document_hash": run.document_hash,
        "input_hash": run.input_hash,
    })
}
