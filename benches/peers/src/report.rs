//! The report: one table in Markdown on the standard output, and the same rows as JSON.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its table")]

use std::path::Path;

use serde_json::{Value, json};

use crate::closed_loop::{Round, Scale};

/// What one contender reached in one group, beside the rates that it is compared with.
pub(crate) struct Row {
    /// The work.
    pub(crate) work: &'static str,
    /// How many callers did it.
    pub(crate) callers: usize,
    /// Who did it.
    pub(crate) contender: String,
    /// Its middle round.
    pub(crate) round: Round,
    /// What adjutant reached.
    pub(crate) adjutant: f64,
    /// What bare ractor reached, in the work that it is the baseline of.
    pub(crate) ractor: Option<f64>,
}

impl Row {
    /// A latency in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "a latency needs no 53 bits")]
    fn micros(&self, quantile: f64) -> f64 {
        self.round.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    fn markdown(&self) -> String {
        let ractor = self.ractor.map_or(String::new(), |rate| ratio(self.round.rate / rate));
        format!(
            "| {} | {} | {} | {:.0} | {} | {ractor} | {:.1} | {:.1} | {:.1} | {:.1} % |",
            self.work,
            self.callers,
            self.contender,
            self.round.rate,
            ratio(self.adjutant / self.round.rate),
            self.micros(0.5),
            self.micros(0.99),
            self.micros(0.999),
            self.round.refused_percent(),
        )
    }

    fn json(&self) -> Value {
        json!({
            "work": self.work, "callers": self.callers, "contender": self.contender,
            "per_second": self.round.rate,
            "adjutant_to_this": self.adjutant / self.round.rate,
            "this_to_ractor": self.ractor.map(|rate| self.round.rate / rate),
            "p50_us": self.micros(0.5), "p99_us": self.micros(0.99), "p999_us": self.micros(0.999),
            "served": self.round.served, "refused": self.round.refused,
            "refused_percent": self.round.refused_percent()
        })
    }
}

fn ratio(ratio: f64) -> String {
    if ratio.is_finite() { format!("{ratio:.2} ×") } else { "–".to_owned() }
}

/// Says on the standard error which group is under way.
pub(crate) fn under_way(work: &str, callers: usize) {
    eprintln!("{work}, {callers} callers");
}

/// Prints the table.
pub(crate) fn print(rows: &[Row]) {
    println!(
        "\n| work | callers | contender | per second | adjutant ÷ this | this ÷ ractor \
         | p50 µs | p99 µs | p999 µs | refused |"
    );
    println!("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for row in rows {
        println!("{}", row.markdown());
    }
}

/// Writes the rows to `target/bench/peers.json` of the repository.
pub(crate) fn write(rows: &[Row], scale: Scale) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = root.join("target/bench");
    let text = json!({
        "rounds": scale.rounds,
        "window_ms": u64::try_from(scale.window.as_millis()).unwrap_or(u64::MAX),
        "rows": rows.iter().map(Row::json).collect::<Vec<_>>()
    });
    let written = std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(folder.join("peers.json"), format!("{text:#}\n")));
    match written {
        Ok(()) => eprintln!("\nwritten to target/bench/peers.json"),
        Err(error) => eprintln!("\nnot written to {}: {error}", folder.display()),
    }
}
