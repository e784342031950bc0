//! Tidy: house rules that a compiler does not know, as ordinary tests over the source texts.
//!
//! A rule that stands in the way of better code is changed here, with its reason, in the same
//! commit; it is never worked around.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/security.rs"]
mod security;

/// Longest source file, tests included.
const FILE_LINES_MAX: usize = 400;
/// Longest function, from its first line to its closing brace.
const FUNCTION_LINES_MAX: usize = 60;

/// A source file: its path from the root of the repository, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    /// Code lines with their numbers; comments are left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// As [`Self::code`], up to the file's own tests.
    fn code_without_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code().take_while(|(_, line)| line.trim() != "#[cfg(test)]")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// The Rust files below these folders, in the order of their paths.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut paths);
    }
    paths.sort_unstable();
    assert!(!paths.is_empty(), "{folders:?} hold no source");
    let read = |path: PathBuf| Source {
        path: path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(),
        text: fs::read_to_string(&path).unwrap(),
    };
    paths.into_iter().map(read).collect()
}

/// What ships.
fn shipped() -> Vec<Source> {
    sources(&["src", "actors/src"])
}

/// What ships and what tests, benches and shows it; this file, which names what it forbids, apart.
fn everything() -> Vec<Source> {
    let folders = [
        "src",
        "actors/src",
        "actors/tests",
        "tests",
        "benches",
        "examples",
        "fuzz/src",
        "fuzz/fuzz_targets",
    ];
    let mut all = sources(&folders);
    all.retain(|source| source.path != "tests/tidy.rs");
    all
}

/// Fails with every broken place, not only the first.
fn none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn no_source_file_is_too_long() {
    let too_long = |source: &Source| {
        let lines = source.text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{}: {lines} lines", source.path))
    };
    let broken: Vec<_> = shipped().iter().filter_map(too_long).collect();
    none(&format!("over {FILE_LINES_MAX} lines; split by who changes together"), &broken);
}

/// Whether a line opens a function, and its indentation.
fn opens_function(line: &str) -> Option<usize> {
    const BEFORE: [&str; 8] = [
        "pub ",
        "pub(crate) ",
        "pub(super) ",
        "default ",
        "const ",
        "async ",
        "unsafe ",
        "extern ",
    ];
    let mut rest = line.trim_start();
    let indent = line.len() - rest.len();
    while let Some(cut) = BEFORE.iter().find_map(|word| rest.strip_prefix(word)) {
        rest = cut;
    }
    rest.starts_with("fn ").then_some(indent)
}

/// The functions of a text that are longer than `max`, as line, length and first line.
///
/// Reads indentation, which rustfmt guarantees: a function ends at the closing brace that stands
/// as far in as its first line.
fn long_functions(text: &str, max: usize) -> Vec<(usize, usize, String)> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(indent) = opens_function(line) else { continue };
        let closes = |line: &&str| {
            let rest = line.trim_start();
            line.len() - rest.len() == indent && (rest == "}" || rest.ends_with(';'))
        };
        if line.ends_with([';', '}']) {
            continue;
        }
        let body = lines.iter().skip(start + 1).position(closes);
        let length = body.map_or(lines.len() - start, |at| at + 2);
        if length > max {
            found.push((start + 1, length, line.trim().to_owned()));
        }
    }
    found
}

#[test]
fn no_function_is_too_long() {
    let mut broken = Vec::new();
    for source in shipped() {
        for (line, length, first) in long_functions(&source.text, FUNCTION_LINES_MAX) {
            broken.push(format!("{}:{line}: {length} lines: {first}", source.path));
        }
    }
    none(&format!("functions over {FUNCTION_LINES_MAX} lines"), &broken);
}

#[test]
fn the_function_scan_sees_nested_and_multi_line_ones() {
    let text = "impl A {\n    pub(crate) async fn b(\n        c: u8,\n    ) -> u8 {\n        c\n    }\n\n    fn d(&self);\n}\n";
    assert_eq!(long_functions(text, 4), [(2, 5, "pub(crate) async fn b(".to_owned())]);
    assert_eq!(long_functions(text, 5), []);
}

#[test]
fn every_file_opens_by_saying_what_it_owns() {
    let says = |source: &&Source| !source.text.starts_with("//! ");
    let broken: Vec<_> =
        everything().iter().filter(says).map(|source| source.path.clone()).collect();
    none("files that do not open with `//! `", &broken);
}

#[test]
fn no_file_has_a_name_that_says_nothing() {
    const EMPTY: [&str; 6] =
        ["mod.rs", "utils.rs", "util.rs", "helpers.rs", "common.rs", "misc.rs"];
    let empty = |source: &&Source| EMPTY.contains(&source.name());
    let broken: Vec<_> =
        everything().iter().filter(empty).map(|source| source.path.clone()).collect();
    none("files named after nothing", &broken);
}

#[test]
fn values_and_transitions_know_no_runtime_no_clock_and_no_randomness() {
    const FORBIDDEN: [&str; 6] =
        ["tokio", "ractor", "Instant", "SystemTime", "getrandom", "tracing::span"];
    // Each with its reason; nothing else is excused.
    let excused = |path: &str, word: &str| match (path, word) {
        // The one source of ids and nonces draws its seed once.
        ("actors/src/model/mint.rs", "getrandom") => true,
        // The shorthands without a time argument, which the documented signer has; the engine
        // mints through `mint_at` with the time of its own clock.
        ("actors/src/model/token/signer.rs", "SystemTime") => true,
        _ => false,
    };
    let mut broken = Vec::new();
    let rooms = ["actors/src/model", "actors/src/state"];
    let mut pure = sources(&rooms);
    pure.extend(shipped().into_iter().filter(|source| {
        [
            "actors/src/model.rs",
            "actors/src/state.rs",
            "actors/src/table.rs",
            "actors/src/shards.rs",
        ]
        .contains(&source.path.as_str())
    }));
    for source in &pure {
        for (at, line) in source.code_without_tests() {
            for word in FORBIDDEN {
                if line.contains(word) && !excused(&source.path, word) {
                    broken.push(format!("{}:{at}: {word}", source.path));
                }
            }
        }
    }
    none("values and transitions take time and ids as arguments", &broken);
}

/// The shipped files, apart from those allowed, that hold this text in their code.
fn users_of(call: &str, allowed: &[&str]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in shipped() {
        if allowed.contains(&source.path.as_str()) {
            continue;
        }
        let lines = source.code().filter(|(_, line)| line.contains(call));
        broken.extend(lines.map(|(at, _)| format!("{}:{at}", source.path)));
    }
    broken
}

#[test]
fn only_the_state_actor_and_the_burial_of_a_tree_lock_the_state() {
    let allowed =
        ["actors/src/state_actor.rs", "actors/src/system.rs", "actors/src/system/tree.rs"];
    none("callers of lock_state", &users_of("lock_state(", &allowed));
}

#[test]
fn only_settle_and_the_burial_of_a_tree_send_events() {
    let allowed =
        ["actors/src/state_actor.rs", "actors/src/system.rs", "actors/src/system/tree.rs"];
    none("callers of announce", &users_of("announce(", &allowed));
    let makers = users_of("push(Effect::Announce", &["actors/src/state.rs"]);
    none("makers of announcements beside `record`", &makers);
}

#[test]
fn no_actor_file_imports_another() {
    let mut files = sources(&["actors/src"]);
    files.retain(|source| source.code().any(|(_, line)| line.contains("impl Actor for ")));
    let stem = |source: &Source| source.name().strip_suffix(".rs").unwrap().to_owned();
    let actors: Vec<_> = files.iter().map(stem).collect();
    assert!(actors.len() > 4, "only {actors:?} hold actors");
    let mut broken = Vec::new();
    for (source, own) in files.iter().zip(&actors) {
        // The root starts the state actor and the spawners, so it alone knows two of the others.
        let known = |name: &str| own == "root" && matches!(name, "state_actor" | "spawner_actor");
        for (at, line) in source.code() {
            for other in actors.iter().filter(|name| *name != own && !known(name)) {
                if line.contains(&format!("crate::{other}")) {
                    broken.push(format!("{}:{at}: {other}", source.path));
                }
            }
        }
    }
    none("actors depend on the wire, not on each other", &broken);
}

#[test]
fn no_actor_has_a_name_in_the_process() {
    let mut broken = Vec::new();
    for source in shipped() {
        for (at, line) in source.code() {
            let spawns = ["spawn(Some(", "spawn_linked(Some(", "spawn_instant(Some("];
            let named = spawns.iter().any(|spawn| line.contains(spawn))
                || line.contains("spawn_linked_instant(Some(")
                || line.contains("ractor::registry")
                || line.contains("ractor::pg");
            if named {
                broken.push(format!("{}:{at}", source.path));
            }
        }
    }
    none("two engines in one process must not meet", &broken);
}

#[test]
fn nothing_is_left_to_do_later() {
    const LEFT: [&str; 7] =
        ["todo!", "unimplemented!", "dbg!", "#[ignore", "// TODO", "// FIXME", "#[allow("];
    let mut broken = Vec::new();
    for source in everything() {
        for (at, line) in source.text.lines().enumerate() {
            for word in LEFT.iter().filter(|word| line.contains(**word)) {
                broken.push(format!("{}:{}: {word}", source.path, at + 1));
            }
        }
    }
    none("do it now, or open an issue; `#[expect]` with a reason instead of `#[allow]`", &broken);
}

#[test]
fn the_code_map_names_every_room() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let missing = |source: &Source| {
        let (folder, name) = source.path.rsplit_once('/').unwrap();
        let room = folder.rsplit('/').next().unwrap();
        // A folder is named as `room/` or `house/room/`; what lies flat in `src` is named by its file.
        let called = [format!("`{room}/`"), format!("/{room}/`")];
        let named = page.contains(&format!("`{name}`"))
            || (room != "src" && called.iter().any(|called| page.contains(called)));
        (!named).then(|| source.path.clone())
    };
    let broken: Vec<_> = shipped().iter().filter_map(missing).collect();
    none("ARCHITECTURE.md names neither the file nor its folder", &broken);
}

#[test]
fn the_runtime_and_the_substrate_are_there_once() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lock.lines() {
        if let Some(name) = line.strip_prefix("name = ") {
            *count.entry(name.trim_matches('"')).or_default() += 1;
        }
    }
    for name in ["tokio", "ractor", "serde", "serde_json", "blake3", "tracing"] {
        assert_eq!(count.get(name), Some(&1), "versions of {name} in Cargo.lock");
    }
}

#[test]
fn the_readme_has_the_block_that_ci_runs() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, after) = readme.split_once("\n<!-- ci: test -->\n").expect("the marker is there, once");
    assert!(!after.contains("<!-- ci: test -->"), "the marker is there once");
    let (_, block) = after.split_once("```").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    assert!(block.contains("cargo test"), "{block}");
}
