//! Live progress: a line per open task on a terminal, plain lines otherwise.

use std::collections::HashMap;
use std::io::IsTerminal;

use adjutant::{Event, TaskId};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::cli::say;

/// Lines that a terminal shows at once; more open tasks are counted in the last line.
const LINES_MAX: usize = 16;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Not at all.
    Silent,
    /// A line for each change.
    Plain,
    /// A line that lives as long as its task.
    Live,
}

impl Style {
    /// The style that fits stderr.
    pub(crate) fn detect(silent: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        match (silent, std::io::stderr().is_terminal() && !dumb) {
            (true, _) => Self::Silent,
            (false, true) => Self::Live,
            (false, false) => Self::Plain,
        }
    }
}

struct Row {
    agent: String,
    attempt: u32,
    status: &'static str,
    since: Instant,
    bar: Option<ProgressBar>,
}

/// The open tasks of a run, as events tell of them.
pub(crate) struct Board {
    style: Style,
    start: Instant,
    bars: MultiProgress,
    summary: Option<ProgressBar>,
    rows: HashMap<TaskId, Row>,
    passed: usize,
    blocked: usize,
    cancelled: usize,
}

impl Board {
    pub(crate) fn new(style: Style) -> Self {
        let bars = MultiProgress::new();
        let summary = (style == Style::Live).then(|| {
            let bar = bars.add(ProgressBar::new_spinner());
            bar.set_style(template("{spinner} {msg}"));
            bar.enable_steady_tick(std::time::Duration::from_millis(120));
            bar
        });
        Self {
            style,
            start: Instant::now(),
            bars,
            summary,
            rows: HashMap::new(),
            passed: 0,
            blocked: 0,
            cancelled: 0,
        }
    }

    /// The bars, for whoever has to write between them.
    pub(crate) fn bars(&self) -> MultiProgress {
        self.bars.clone()
    }

    /// Takes one event; `agent` names the agent of a task that was created.
    pub(crate) fn apply(&mut self, event: &Event, agent: Option<String>) {
        let Some(task) = event.task_id() else { return };
        match event {
            Event::TaskCreated { .. } => self.open(task, agent.unwrap_or_default()),
            Event::TaskAttemptStarted { attempt, .. } => {
                if let Some(row) = self.rows.get_mut(&task) {
                    row.attempt = *attempt;
                }
                self.show(task, "running");
            }
            Event::TaskSuspended { .. } => self.show(task, "waits for the senior"),
            Event::TaskResumed { .. } => self.show(task, "resumed"),
            Event::TaskPass { .. } => self.close(task, "passed"),
            Event::TaskBlocked { .. } => self.close(task, "blocked"),
            Event::TaskCancelled { .. } => self.close(task, "cancelled"),
            _ => {}
        }
    }

    fn open(&mut self, task: TaskId, agent: String) {
        let live = self.style == Style::Live;
        let shown = self.rows.values().filter(|row| row.bar.is_some()).count();
        let bar = (live && shown < LINES_MAX).then(|| {
            let place = shown;
            let bar = self.bars.insert(place, ProgressBar::new_spinner());
            bar.set_style(template("{spinner} {msg} {elapsed}"));
            bar.enable_steady_tick(std::time::Duration::from_millis(120));
            bar
        });
        let row = Row { agent, attempt: 0, status: "pending", since: Instant::now(), bar };
        self.rows.insert(task, row);
        self.show(task, "pending");
    }

    fn show(&mut self, task: TaskId, status: &'static str) {
        let Some(row) = self.rows.get_mut(&task) else { return };
        row.status = status;
        let line = line(task, row);
        match (self.style, &row.bar) {
            (Style::Plain, _) if status != "pending" => self.say(&line),
            (Style::Live, Some(bar)) => bar.set_message(line),
            _ => {}
        }
        self.sum_up();
    }

    fn close(&mut self, task: TaskId, status: &'static str) {
        match status {
            "passed" => self.passed += 1,
            "blocked" => self.blocked += 1,
            _ => self.cancelled += 1,
        }
        if let Some(mut row) = self.rows.remove(&task) {
            row.status = status;
            let age = row.since.elapsed().as_secs_f64();
            let line = format!("{} after {age:.1}s", line(task, &row));
            if let Some(bar) = row.bar.take() {
                bar.finish_and_clear();
                self.bars.remove(&bar);
            }
            match self.style {
                Style::Plain => self.say(&line),
                Style::Live if status != "passed" => {
                    let _ = self.bars.println(line);
                }
                _ => {}
            }
        }
        self.sum_up();
    }

    /// Clears the live lines and says the totals.
    pub(crate) fn finish(&mut self) {
        for row in self.rows.values_mut() {
            if let Some(bar) = row.bar.take() {
                bar.finish_and_clear();
            }
        }
        if let Some(bar) = self.summary.take() {
            bar.finish_and_clear();
        }
        if self.style != Style::Silent {
            self.say(&self.totals());
        }
    }

    fn sum_up(&self) {
        if let Some(bar) = &self.summary {
            bar.set_message(self.totals());
        }
    }

    fn totals(&self) -> String {
        let Self { passed, blocked, cancelled, .. } = self;
        let open = self.rows.len();
        format!("{passed} passed, {blocked} blocked, {cancelled} cancelled, {open} open")
    }

    fn say(&self, line: &str) {
        say(&format!("[{:7.1}s] {line}", self.start.elapsed().as_secs_f64()));
    }
}

fn line(task: TaskId, row: &Row) -> String {
    let id = task.to_string();
    let short = id.get(..10).unwrap_or(&id);
    format!("{short} {:<16} attempt {}  {}", row.agent, row.attempt, row.status)
}

fn template(text: &str) -> ProgressStyle {
    ProgressStyle::with_template(text).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
