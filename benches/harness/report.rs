//! A report: tables as they come on the terminal; then as JSON, Markdown and a chart below
//! `target/bench/`, where `benches/refresh` takes them from.
#![expect(clippy::print_stdout, reason = "a bench prints its tables")]

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Round, Scale, Summary};

/// Which side of a bound is the good one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    /// The figure must reach it.
    AtLeast,
    /// The figure must not pass it.
    AtMost,
}

/// Figures of one bench.
pub(crate) struct Report {
    name: &'static str,
    quick: bool,
    rows: Vec<Value>,
    targets: String,
    tables: String,
    in_loops: bool,
    in_figures: bool,
}

impl Report {
    /// An empty report with its heading printed.
    pub(crate) fn new(name: &'static str, what: &str, scale: Scale) -> Self {
        let quick = if scale.quick { " (a quick run: it proves nothing)" } else { "" };
        println!("\n# {name}: {what}{quick}");
        let tables = format!("### `{name}`: {what}{quick}\n");
        let targets = String::new();
        let (in_loops, in_figures) = (false, false);
        Self { name, quick: scale.quick, rows: Vec::new(), targets, tables, in_loops, in_figures }
    }

    /// Begins a group of rows.
    pub(crate) fn heading(&mut self, text: &str) {
        println!("\n## {text}");
        let _ = write!(self.tables, "\n**{text}**\n");
        (self.in_loops, self.in_figures) = (false, false);
    }

    /// Adds a group of closed loops; the first row is the baseline of all.
    pub(crate) fn loops(&mut self, group: &str, rows: &[(&str, Vec<Round>)]) -> Vec<Summary> {
        self.heading(group);
        let baseline = rows.first().map_or(&[][..], |(_, rounds)| rounds);
        rows.iter().map(|(row, rounds)| self.row(group, row, rounds, baseline)).collect()
    }

    fn row(&mut self, group: &str, row: &str, rounds: &[Round], baseline: &[Round]) -> Summary {
        let sum = Summary::of(rounds, baseline);
        let Summary { rate, ratio, p50, p99, p999, max, refused } = sum;
        let percent = refused * 100.0;
        println!(
            "{row:<34} {rate:>11.0}/s {ratio:>8.3}x  p50 {p50:>9.1}  p99 {p99:>9.1}  \
             p999 {p999:>9.1}  max {max:>9.1} us  refused {percent:.2} %"
        );
        if !std::mem::replace(&mut self.in_loops, true) {
            let head = "| | per second | ratio | p50 µs | p99 µs | p999 µs | max µs | refused |";
            let _ = write!(self.tables, "\n{head}\n|---|--:|--:|--:|--:|--:|--:|--:|\n");
        }
        let _ = writeln!(
            self.tables,
            "| {row} | {rate:.0} | {ratio:.3} × | {p50:.1} | {p99:.1} | {p999:.1} | {max:.1} | \
             {percent:.2} % |"
        );
        self.rows.push(json!({
            "group": group, "row": row, "per_second": rate, "ratio": ratio, "p50_us": p50,
            "p99_us": p99, "p999_us": p999, "max_us": max, "refused": refused
        }));
        sum
    }

    /// Adds a single figure to the group that was begun last.
    pub(crate) fn figure(&mut self, group: &str, row: &str, value: f64, unit: &str) {
        println!("{row:<72} {value:>14.3} {unit}");
        if !std::mem::replace(&mut self.in_figures, true) {
            let _ = write!(self.tables, "\n| | | |\n|---|--:|---|\n");
        }
        let _ = writeln!(self.tables, "| {row} | {} | {unit} |", short(value));
        self.rows.push(json!({ "group": group, "row": row, "value": value, "unit": unit }));
    }

    /// Says how a figure stands to what it must reach and to what it would be good to reach.
    pub(crate) fn target(
        &mut self,
        measure: &str,
        value: f64,
        bound: Bound,
        must: f64,
        stretch: Option<f64>,
        unit: &str,
    ) {
        let reaches = |line: f64| match bound {
            Bound::AtLeast => value >= line,
            Bound::AtMost => value <= line,
        };
        let standing = match stretch {
            Some(line) if reaches(line) => "stretch",
            _ if reaches(must) => "met",
            _ => "**missed**",
        };
        let sign = if bound == Bound::AtLeast { "≥" } else { "≤" };
        let far = stretch.map_or(String::new(), |line| format!("{sign} {} {unit}", short(line)));
        let _ = writeln!(
            self.targets,
            "| {measure} | {} {unit} | {sign} {} {unit} | {far} | {standing} |",
            short(value),
            short(must)
        );
        self.rows.push(json!({
            "target": measure, "value": value, "must": must, "stretch": stretch, "unit": unit,
            "standing": standing.trim_matches('*')
        }));
    }

    /// Writes everything below `target/bench/`. `chart` draws the file whose path it is given.
    pub(crate) fn write(self, chart: impl FnOnce(&std::path::Path) -> Result<(), String>) {
        if !self.targets.is_empty() {
            println!("\n## against what it must reach\n\n{}", self.targets);
        }
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        let path = |kind: &str| folder.join(format!("{}.{kind}", self.name));
        let quick = if self.quick { " (a quick run: it proves nothing)" } else { "" };
        let head = "| measure | this run | must | stretch | |\n|---|--:|--:|--:|---|";
        let short = format!("### `{}`{quick}\n\n{head}\n{}", self.name, self.targets);
        let json = format!("{:#}\n", json!(self.rows));
        let written = std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(path("json"), json))
            .and_then(|()| std::fs::write(path("md"), &self.tables))
            .and_then(|()| std::fs::write(path("targets.md"), short))
            .map_err(|error| error.to_string())
            .and_then(|()| chart(&path("svg")));
        let name = self.name;
        match written {
            Ok(()) => println!("written: target/bench/{name}.json, .md, .targets.md, .svg"),
            Err(error) => println!("not written to {}: {error}", folder.display()),
        }
    }
}

/// A figure with as many digits as it deserves.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
