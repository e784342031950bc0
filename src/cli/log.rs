//! What is logged, in which form, and the errors that the doctor remembers. Logs go to stderr.

use std::fmt::{Debug, Write};
use std::str::FromStr;

use adjutant::server::RecentErrors;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::cli::args::LogArgs;

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// The form of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    /// One object a line.
    Json,
}

impl Format {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("is neither text nor json"),
        }
    }
}

/// Starts the log of a command that has no settings of its own.
pub(crate) fn start_plain(args: &LogArgs) -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    let level = args.log_level.clone().or_else(|| variable("ADJUTANT_LOG_LEVEL"));
    let level = level.or_else(|| variable("RUST_LOG")).unwrap_or_else(|| "error".to_owned());
    let named = variable("ADJUTANT_LOG_FORMAT").and_then(|word| word.parse().ok());
    let format = args.log.or(named).unwrap_or(Format::Text);
    start(vec![to_stderr(format, &level)?]);
    Ok(())
}

/// Starts the log, once in the life of the process.
pub(crate) fn start(layers: Vec<Boxed>) {
    tracing_subscriber::registry().with(layers).init();
}

/// What is let through. The library of the Model Context Protocol tells ids of sessions, and in
/// detail whole requests with what is secret in them, so its warnings alone are; its client tells
/// such ids in errors too, which are told by who uses it.
pub(crate) fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    let filter = EnvFilter::try_new(level)?.add_directive("rmcp=warn".parse()?);
    Ok(filter.add_directive("rmcp::transport::streamable_http_client=off".parse()?))
}

/// Lines on stderr.
pub(crate) fn to_stderr(format: Format, level: &str) -> anyhow::Result<Boxed> {
    let filter = filter(level)?;
    let layer = fmt::layer().with_writer(std::io::stderr);
    Ok(match format {
        Format::Text => layer.with_filter(filter).boxed(),
        Format::Json => layer.json().flatten_event(true).with_filter(filter).boxed(),
    })
}

/// Remembers errors and warnings for the doctor.
pub(crate) fn remembering(errors: RecentErrors) -> Boxed {
    Remember(errors).with_filter(LevelFilter::WARN).boxed()
}

struct Remember(RecentErrors);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Remember {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line(String::new());
        let metadata = event.metadata();
        let word = if *metadata.level() == Level::ERROR { "error" } else { "warning" };
        let _ = write!(line.0, "{word}: {}:", metadata.target());
        event.record(&mut line);
        self.0.push(line.0);
    }
}

/// An event in one line.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
