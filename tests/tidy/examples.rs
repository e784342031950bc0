//! Examples: what is public is shown by an example, and what is not yet is counted.
//!
//! A text scan. An item is shown by an example of its own, and where another one names it: for a
//! trait and a free function one of its own file, for a type and a method one of its room, so that
//! an example on a type may serve its fields, its faults and its small getters.

use std::collections::BTreeMap;

use crate::{Source, none, sources};

/// A public item: whether it is a function, its name, whether it stands alone (a free
/// function, a trait), and whether it has an example of its own.
struct Item {
    function: bool,
    name: String,
    alone: bool,
    shown: bool,
}

/// The text of all examples of a file, without their fences.
fn examples(text: &str) -> String {
    let mut found = String::new();
    let mut inside = false;
    for line in text.lines() {
        let line = line.trim_start();
        let doc = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        let Some(doc) = doc.map(str::trim_start) else {
            inside = false;
            continue;
        };
        if doc.starts_with("```") {
            inside = !inside;
        } else if inside {
            found.push_str(doc);
            found.push('\n');
        }
    }
    found
}

/// Kind and name of the public item that a line opens.
fn opens_item(line: &str) -> Option<(&str, &str)> {
    let mut rest = line.trim_start().strip_prefix("pub ")?;
    while let Some(cut) = ["const ", "async "].iter().find_map(|word| rest.strip_prefix(word)) {
        rest = cut;
    }
    let (kind, rest) = rest.split_once(' ')?;
    let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    let name = &rest[..end.unwrap_or(rest.len())];
    let counts = ["fn", "struct", "enum", "trait", "type"].contains(&kind) && !name.is_empty();
    counts.then_some((kind, name))
}

/// The public items of a text, up to its own tests.
fn items(text: &str) -> Vec<Item> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        let start = line.trim_start();
        if start.starts_with("mod tests {") {
            break;
        }
        if let Some((kind, name)) = opens_item(line) {
            let function = kind == "fn";
            let alone = kind == "trait" || (function && !line.starts_with(' '));
            found.push(Item { function, name: name.to_owned(), alone, shown: fenced });
        }
        // An attribute over several lines stands between; its lines are no code and no blank.
        let goes_on = start.starts_with("///") || start.starts_with("#[");
        if start.starts_with("/// ```") {
            fenced = true;
        } else if !goes_on && (start.is_empty() || start.ends_with(['{', '}', ';', ','])) {
            fenced = false;
        }
    }
    found
}

/// Whether a text names a word, called where it is a function's name.
fn names(text: &str, word: &str, called: bool) -> bool {
    let inner = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.match_indices(word).any(|(at, _)| {
        let after = &text[at + word.len()..];
        let after = after
            .strip_prefix("::<")
            .map_or(after, |rest| rest.split_once('>').map_or(rest, |(_, rest)| rest));
        !text[..at].ends_with(inner)
            && if called { after.starts_with('(') } else { !after.starts_with(inner) }
    })
}

/// The folder of a file, or that which the file opens: `a/b.rs` and `a/b/c.rs` are both of `a/b`.
fn room<'a>(path: &'a str, openers: &BTreeMap<&'a str, String>) -> &'a str {
    let own = path.trim_end_matches(".rs");
    let opens =
        openers.keys().any(|other| other.strip_prefix(own).is_some_and(|r| r.starts_with('/')));
    if opens { own } else { path.rsplit_once('/').map_or("", |(folder, _)| folder) }
}

/// The public items of these files that no example shows.
fn not_shown(files: &[Source]) -> Vec<String> {
    let shown: BTreeMap<_, _> =
        files.iter().map(|file| (file.path.as_str(), examples(&file.text))).collect();
    let mut rooms: BTreeMap<&str, String> = BTreeMap::new();
    for (path, text) in &shown {
        rooms.entry(room(path, &shown)).or_default().push_str(text);
    }
    let mut found = Vec::new();
    for file in files {
        let (own, around) = (&shown[file.path.as_str()], &rooms[room(&file.path, &shown)]);
        for item in items(&file.text) {
            let text = if item.alone { own } else { around };
            if !item.shown && !names(text, &item.name, item.function) {
                found.push(format!("{}: {}", file.path, item.name));
            }
        }
    }
    found
}

#[test]
fn every_public_item_is_shown_by_an_example() {
    none("public items that no example shows", &not_shown(&sources(&["src"])));
}

/// What no example shows under the engine's package. Strike a name that gets one; none is added.
const NOT_SHOWN: [&str; 8] = [
    // What one actor says to another. No caller ever holds it.
    "actors/src/messages.rs: RootMsg",
    "actors/src/messages.rs: SessionMsg",
    "actors/src/messages.rs: StateMsg",
    // Opaque: what the actors of one engine share.
    "actors/src/system.rs: Core",
    "actors/src/system.rs: Links",
    // Called through the engine, whose methods of these names show them.
    "actors/src/state/attempts.rs: mint_worker_token",
    "actors/src/state/outputs.rs: append_result",
    "actors/src/state/outputs.rs: body_ref",
];

#[test]
fn nothing_more_under_the_engine_goes_without_an_example() {
    let found = not_shown(&sources(&["actors/src"]));
    let fresh = found.iter().filter(|item| !NOT_SHOWN.contains(&item.as_str()));
    none("public items that no example shows", &fresh.cloned().collect::<Vec<_>>());
    let shown = NOT_SHOWN.iter().filter(|item| !found.iter().any(|other| other == *item));
    let shown: Vec<_> = shown.map(|item| (*item).to_owned()).collect();
    none("shown by now: strike them from the list", &shown);
}

#[test]
fn the_scan_of_examples_sees_what_is_shown() {
    let text = "/// A type.\n///\n/// ```\n/// let _ = Shown::new().length();\n/// ```\n#[derive(Debug)]\npub struct Shown;\n\nimpl Shown {\n    /// One.\n    pub fn new() -> Self {\n        Self\n    }\n\n    pub async fn other(&self) {}\n}\n\npub struct Hidden;\n\npub fn length() {}\n\npub fn late() {}\n";
    let file = Source { path: "src/a.rs".to_owned(), text: text.to_owned() };
    let broken = ["src/a.rs: other", "src/a.rs: Hidden", "src/a.rs: late"];
    assert_eq!(not_shown(&[file]), broken);
}
