//! `adjutant doctor`: looks at the settings, the stores and the running server. Works without one.

use std::path::Path;

use adjutant::server::{Finding, Level, look_at_folder, look_at_process};
use adjutant::store::View;
use serde_json::{Value, json};

use crate::cli::args::DoctorArgs;
use crate::cli::client::{Card, Client, Refusal};
use crate::cli::config::{Flags, sources};
use crate::cli::place::{Place, holder};
use crate::cli::remote::tell;
use crate::cli::settings::Settings;
use crate::cli::{code, drive, print_line};

/// Seconds by which the clocks of both sides may differ.
const CLOCKS: i64 = 5;
/// Open questions that are counted, at most.
const QUESTIONS_MAX: usize = 1000;

/// One place that was looked at, and what was found there.
struct Room {
    name: String,
    findings: Vec<Value>,
    /// What else a server tells.
    more: Value,
}

impl Room {
    fn new(name: impl Into<String>, findings: &[Finding]) -> Self {
        let findings = findings.iter().map(|finding| json!(finding)).collect();
        Self { name: name.into(), findings, more: Value::Null }
    }
}

pub(crate) fn main(args: &DoctorArgs) -> anyhow::Result<i32> {
    let mut rooms = vec![here(args)];
    let stores = Place::of(&args.remote.store)?.stores().unwrap_or_default();
    rooms.extend(stores.iter().filter(|store| store.exists()).map(|store| look_at_store(store)));
    match drive_server(args)? {
        Ok(Some(room)) => rooms.push(room),
        Ok(None) => {}
        Err(refusal) if args.remote.server.is_some() => {
            return Ok(tell(&refusal, args.remote.json));
        }
        Err(refusal) => {
            let hint = "look into its log, or end it";
            rooms.push(Room::new("server", &[Finding::fail("server", refusal.to_string(), hint)]));
        }
    }
    show(&rooms, args.remote.json)?;
    let fails = rooms.iter().flat_map(|room| &room.findings).any(|f| f["level"] == "fail");
    Ok(if fails { code::FAILED } else { code::PASS })
}

/// The program itself: its version, its settings, its limits, its clock.
fn here(args: &DoctorArgs) -> Room {
    let mut found = vec![Finding::ok("version", env!("CARGO_PKG_VERSION"))];
    match Settings::load(&sources(&args.settings, Flags::default())) {
        Ok(settings) => {
            let own = settings.shown().filter(|(_, _, origin)| origin.to_string() != "default");
            let own: Vec<_> =
                own.map(|(key, value, _)| format!("{} = {value}", key.name)).collect();
            let shown = match own.is_empty() {
                true => "all are the defaults".to_owned(),
                false => own.join(", "),
            };
            found.push(Finding::ok("settings", shown));
            found.extend(settings.notes.iter().map(|note| {
                Finding::warn("settings", note.clone(), "rename the variable, or unset it")
            }));
        }
        Err(mistakes) => {
            let hint = "mend them; `adjutant config show` tells each value's origin";
            found.push(Finding::fail("settings", mistakes.to_string(), hint));
        }
    }
    found.extend(look_at_process());
    let now = jiff::Timestamp::now();
    // A machine without a clock that was set shows a time before this program was written.
    found.push(match now.as_second() > 1_760_000_000 {
        true => Finding::ok("clock", now.to_string()),
        false => Finding::fail("clock", now.to_string(), "set the clock: tokens end by it"),
    });
    Room::new("program", &found)
}

/// A store, without its lock.
fn look_at_store(store: &Path) -> Room {
    let mut found = Vec::new();
    let holder = holder(store);
    found.push(match holder {
        Some(pid) => Finding::ok("lock", format!("held by process {pid}")),
        None => Finding::ok("lock", "nobody holds it"),
    });
    match View::open(store) {
        Ok(view) => {
            let state = view.state();
            let tasks = format!("{} tasks, {} live", state.task_count(), state.live_tasks());
            found.push(Finding::ok("records", tasks));
            let hint = "`adjutant fsck` names them; they are kept aside and nothing uses them";
            if let rows @ 1.. = view.set_aside().len() {
                let shown = format!("{rows} records cannot be read");
                found.push(Finding::warn("records", shown, hint));
            }
            let questions = state.open_questions(QUESTIONS_MAX).len();
            found.push(Finding::ok("questions", format!("{questions} open")));
            let left = state.left_groups().len();
            let hint = "the next `adjutant serve` or `resume` on this store ends them";
            found.push(match left > 0 && holder.is_none() {
                true => Finding::warn("children", format!("{left} attempts left some"), hint),
                false => Finding::ok("children", "none is left behind"),
            });
        }
        Err(error) => {
            let hint = "`adjutant fsck` tells more; a copy of the folder keeps what is there";
            found.push(Finding::fail("records", error.to_string(), hint));
        }
    }
    found.extend(look_at_folder(store));
    Room::new(format!("store {}", store.display()), &found)
}

/// The running server, if there is one or one was named.
fn drive_server(args: &DoctorArgs) -> anyhow::Result<Result<Option<Room>, Refusal>> {
    let named = args.remote.server.is_some();
    let stores = Place::of(&args.remote.store)?.stores().unwrap_or_default();
    if !named && !stores.iter().any(|store| Card::of(store).is_some()) {
        return Ok(Ok(None));
    }
    let client = match Client::of(&args.remote) {
        Ok(client) => client,
        Err(error) => return error.downcast::<Refusal>().map(Err),
    };
    let mut room = None;
    drive::block_on(async {
        room = Some(ask(&client).await);
        Ok(code::PASS)
    })?;
    Ok(room.transpose())
}

async fn ask(client: &Client) -> Result<Room, Refusal> {
    let mut report = client.get("/v1/doctor").await?;
    let mut room = Room::new(format!("server {}", client.base), &[]);
    if let Value::Array(findings) = report["findings"].take() {
        room.findings = findings;
    }
    let theirs = report["now"].as_i64().unwrap_or_default();
    let apart = jiff::Timestamp::now().as_second() - theirs;
    if apart.abs() > CLOCKS {
        let shown = format!("the server's differs by {apart} s");
        let finding = Finding::warn("clocks", shown, "set both by the same time service");
        room.findings.push(json!(finding));
    }
    if report["version"] != env!("CARGO_PKG_VERSION") {
        let shown = format!("the server is {}", report["version"].as_str().unwrap_or("another"));
        let finding = Finding::warn("versions", shown, "use the program of the same version");
        room.findings.push(json!(finding));
    }
    room.more = report;
    Ok(room)
}

fn show(rooms: &[Room], json: bool) -> anyhow::Result<()> {
    if json {
        let all = rooms.iter().map(|room| {
            let mut shown = json!({ "place": room.name, "findings": room.findings });
            for name in ["settings", "errors"] {
                if !room.more[name].is_null() {
                    shown[name] = room.more[name].clone();
                }
            }
            shown
        });
        print_line(&json!({ "places": all.collect::<Vec<_>>() }).to_string())?;
        return Ok(());
    }
    for room in rooms {
        print_line(&room.name)?;
        for finding in &room.findings {
            let text = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
            let found = text("found").escape_debug().to_string();
            print_line(&format!("  {:<5}{:<12} {found}", text("level"), text("check")))?;
            if finding["level"] != json!(Level::Ok) {
                print_line(&format!("       {:<12} {}", "", text("hint")))?;
            }
        }
    }
    Ok(())
}
