//! The doctor: looks at the process, the folder of the store and the engine, and says of each
//! what is wrong and what to do. It changes nothing but a file of its own in the folder, which it
//! writes to measure the disk and removes.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adjutant_actors::model::role::Role;
use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::server::caller::Admin;
use crate::server::openapi::Doctor;
use crate::server::{App, Shared};

/// Errors that are remembered, at most.
const ERRORS_MAX: usize = 32;
/// Bytes of one of them, at most.
const ERROR_BYTES: usize = 512;
/// Flushes that are measured; the middle one counts.
const FLUSHES: usize = 5;
/// A flush that takes longer makes every change slow.
const SLOW_FLUSH: Duration = Duration::from_millis(50);
const MIB: u64 = 1 << 20;
/// Open questions that are counted, at most.
const QUESTIONS_MAX: usize = 1000;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and may not for long.
    ///
    /// ```
    /// use adjutant::server::{Finding, Level};
    ///
    /// let full = Finding::warn("disk", "3 % are free", "make room");
    /// assert_eq!((full.level, full.hint.as_deref()), (Level::Warn, Some("make room")));
    /// assert_eq!(Finding::ok("disk", "all well").hint, None);
    /// assert_eq!(Finding::fail("disk", "read-only", "mount it anew").level, Level::Fail);
    /// ```
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema, JsonSchema)]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at, a stable word.
    pub check: String,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    /// All is well.
    #[must_use]
    pub fn ok(check: &str, found: impl Into<String>) -> Self {
        Self { check: check.to_owned(), level: Level::Ok, found: found.into(), hint: None }
    }

    /// It works, and may not for long.
    #[must_use]
    pub fn warn(check: &str, found: impl Into<String>, hint: &str) -> Self {
        Self { level: Level::Warn, hint: Some(hint.to_owned()), ..Self::ok(check, found) }
    }

    /// It does not work.
    #[must_use]
    pub fn fail(check: &str, found: impl Into<String>, hint: &str) -> Self {
        Self { level: Level::Fail, ..Self::warn(check, found, hint) }
    }
}

/// The newest errors and warnings, for whoever looks. Cheap to clone; all clones are one list.
///
/// ```
/// let errors = adjutant::server::RecentErrors::default();
/// errors.clone().push("the disk is slow".into());
/// assert_eq!(errors.list(), ["the disk is slow"]);
/// ```
#[derive(Debug, Clone, Default)]
pub struct RecentErrors(Arc<Mutex<VecDeque<String>>>);

impl RecentErrors {
    /// Remembers one, and forgets the oldest where there are too many.
    pub fn push(&self, mut text: String) {
        if text.len() > ERROR_BYTES {
            let end = (0..=ERROR_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
        }
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() >= ERRORS_MAX {
            list.pop_front();
        }
        list.push_back(text);
    }

    /// All of them, the oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Looks at the limits of this process.
///
/// ```
/// use adjutant::server::{Level, look_at_process};
///
/// for finding in look_at_process() {
///     if finding.level != Level::Ok {
///         eprintln!("{}: {}", finding.check, finding.found);
///     }
/// }
/// ```
#[must_use]
pub fn look_at_process() -> Vec<Finding> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let shown = limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    let hint = "raise the limit of open files (ulimit -n, LimitNOFILE=): each socket and each \
                child's pipe takes one";
    vec![match limit {
        Some(limit) if limit < 1024 => Finding::warn("descriptors", shown, hint),
        _ => Finding::ok("descriptors", shown),
    }]
}

/// Looks at the folder of a store: free space, and how long a flush takes. Blocks on the disk.
///
/// ```
/// let dir = tempfile::tempdir()?;
/// assert!(!adjutant::server::look_at_folder(dir.path()).is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn look_at_folder(folder: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    match rustix::fs::statvfs(folder) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize) / MIB;
            let shown = format!("{free} MiB free");
            let hint = "free some space, or move the store: it stops at the first failed write";
            found.push(match free {
                0..100 => Finding::fail("disk", shown, hint),
                100..1024 => Finding::warn("disk", shown, hint),
                _ => Finding::ok("disk", shown),
            });
        }
        Err(error) => {
            let hint = "name a folder that is there and may be read";
            found.push(Finding::fail("disk", error.to_string(), hint));
            return found;
        }
    }
    found.push(match measure(&folder.join("doctor.probe")) {
        Ok(took) => {
            let shown = format!("{:.1} ms for a flush", took.as_secs_f64() * 1e3);
            let hint = "a slow or shared disk; `store.durability` trades safety for speed";
            match took > SLOW_FLUSH {
                true => Finding::warn("fsync", shown, hint),
                false => Finding::ok("fsync", shown),
            }
        }
        Err(error) => {
            let hint = "the folder must be writable for whoever serves it";
            Finding::fail("fsync", error.to_string(), hint)
        }
    });
    found
}

/// The middle one of a few flushes of a file that is made for that and removed.
fn measure(path: &Path) -> std::io::Result<Duration> {
    let probe = |file: &mut File| -> std::io::Result<Duration> {
        let mut times = Vec::with_capacity(FLUSHES);
        for _ in 0..FLUSHES {
            let begun = Instant::now();
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        Ok(times.get(FLUSHES / 2).copied().unwrap_or_default())
    };
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
    let took = probe(&mut options.open(path)?);
    let removed = std::fs::remove_file(path);
    took.and_then(|took| removed.map(|()| took))
}

/// Looks at the server: each finding with what to do about it.
#[utoipa::path(get, path = "/v1/doctor", tag = "operations", operation_id = "doctor",
    responses((status = 200, body = Doctor)))]
pub(crate) async fn read(State(app): State<Shared>, _: Admin) -> Json<Report> {
    Json(report(&app).await)
}

/// All that the doctor says, with what the server knows of its set-up. For the admin.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Report {
    /// The version of the program.
    version: &'static str,
    /// The number of the newest event.
    last_seq: Option<u64>,
    /// Unix seconds.
    now: Option<u64>,
    /// The server's process.
    pid: u32,
    /// What was looked at, each with how bad it is and what to do about it.
    findings: Vec<Finding>,
    /// Each setting with its value and where that came from. A secret is not shown.
    settings: Value,
    /// Errors and warnings of late, the oldest first.
    errors: Vec<String>,
}

impl Report {
    /// Whether nothing fails; something may still be about to.
    #[cfg(feature = "mcp")]
    pub(crate) fn is_well(&self) -> bool {
        self.findings.iter().all(|finding| finding.level != Level::Fail)
    }
}

/// The whole report.
pub(crate) async fn report(app: &App) -> Report {
    let mut findings = vec![Finding::ok("version", env!("CARGO_PKG_VERSION"))];
    findings.extend(look_at_process());
    if let Some(folder) = app.cfg.about.store.clone() {
        findings.push(Finding::ok("store", folder.display().to_string()));
        let look = tokio::task::spawn_blocking(move || look_at_folder(&folder));
        findings.extend(look.await.unwrap_or_default());
    } else {
        let hint = "serve with --store DIR, so that tasks and sessions outlive the process";
        findings.push(Finding::warn("store", "nothing is kept", hint));
    }
    findings.push(match app.engine.journal_failure() {
        None => Finding::ok("journal", "takes changes"),
        Some(error) => {
            let hint = "make room or repair the disk, look with `adjutant fsck`, start anew";
            Finding::fail("journal", error.to_string(), hint)
        }
    });
    findings.extend(look_at_engine(app).await);
    findings.push(errors(app));
    Report {
        version: env!("CARGO_PKG_VERSION"),
        last_seq: app.engine.with_state("doctor", |state| state.last_seq()).await.ok(),
        now: app.engine.now().map(|now| now.unix).ok(),
        pid: std::process::id(),
        findings,
        settings: match &app.cfg.about.settings {
            // An embedder says nothing of them.
            Value::Null => Value::Array(Vec::new()),
            settings => settings.clone(),
        },
        errors: app.cfg.about.errors.list(),
    }
}

/// What the engine says of itself.
async fn look_at_engine(app: &App) -> Vec<Finding> {
    let mut found = Vec::new();
    found.push(match app.engine.now() {
        Ok(now) => Finding::ok("clock", format!("{} s since 1970", now.unix)),
        Err(error) => Finding::fail("clock", error.to_string(), "set the clock of the machine"),
    });
    let rows = app.engine.recovery().set_aside.len();
    let hint = "`adjutant export` shows them; they are kept aside and nothing uses them";
    found.push(match rows {
        0 => Finding::ok("records", "all were read at the start"),
        _ => Finding::warn("records", format!("{rows} could not be read"), hint),
    });
    let look = |state: &mut adjutant_actors::state::EngineState| {
        let questions = state.open_questions(QUESTIONS_MAX).len();
        let seniors = state.attached_sessions(Role::Senior);
        (questions, state.attached_sessions(Role::Operator), seniors, state.left_groups().len())
    };
    let Ok((questions, operators, seniors, left)) = app.engine.with_state("doctor", look).await
    else {
        found.push(Finding::fail("engine", "has stopped", "start the server anew"));
        return found;
    };
    found.push(Finding::ok("operators", format!("{operators} attached, {seniors} seniors")));
    let shown = format!("{questions} open");
    let hint = "answer with `adjutant answer`, or attach a senior";
    found.push(match questions > 0 && seniors == 0 {
        true => Finding::warn("questions", shown, hint),
        false => Finding::ok("questions", shown),
    });
    let hint = "they are of attempts that are over; a start of the server ends them";
    found.push(match left {
        0 => Finding::ok("children", "none is left behind"),
        _ => Finding::warn("children", format!("{left} attempts left some behind"), hint),
    });
    let tree = app.engine.supervision().await;
    let dead: Vec<_> = tree.spawners.iter().filter(|s| !s.alive).map(|s| &*s.name).collect();
    let hint = "look into the log for why it panics; it is not started again by itself";
    found.push(match dead.is_empty() {
        true => Finding::ok("supervision", format!("{} attempts in flight", tree.attempts)),
        false => Finding::fail("supervision", format!("left dead: {}", dead.join(", ")), hint),
    });
    found
}

fn errors(app: &App) -> Finding {
    match app.cfg.about.errors.list().last() {
        None => Finding::ok("errors", "none of late"),
        Some(last) => Finding::warn(
            "errors",
            last.clone(),
            "the log has all; `adjutant doctor --json` the last",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_measured_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let found = look_at_folder(folder.path());
        let checks: Vec<_> = found.iter().map(|finding| finding.check.as_str()).collect();
        assert_eq!(checks, ["disk", "fsync"]);
        assert!(found.iter().all(|finding| finding.found.contains(' ')), "{found:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_not_there_fails_with_a_hint() {
        let found = look_at_folder(Path::new("/nowhere/at/all"));
        assert_eq!(found.len(), 1);
        assert!(found[0].level == Level::Fail && found[0].hint.is_some());
    }

    #[test]
    fn only_the_newest_errors_are_remembered_and_none_is_long() {
        let errors = RecentErrors::default();
        for number in 0..ERRORS_MAX + 3 {
            errors.push(format!("{number} {}", "ä".repeat(ERROR_BYTES)));
        }
        let list = errors.list();
        assert_eq!(list.len(), ERRORS_MAX);
        assert!(list[0].starts_with("3 ") && list.iter().all(|text| text.len() <= ERROR_BYTES));
    }
}
