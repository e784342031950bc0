//! House rules that keep threats away, and the page that says which test proves which answer.

use std::fs;

use super::{none, root, shipped};

/// Rows of the page, by the letter before their numbers.
const ROWS: [(char, usize); 2] = [('T', 27), ('S', 11)];

fn page() -> String {
    fs::read_to_string(root().join("docs/security.md")).unwrap()
}

/// What stands between back-quotes and names a test: its file and its function.
fn named(line: &str) -> Vec<(&str, &str)> {
    line.split('`').filter_map(|part| part.split_once(".rs: ")).collect()
}

#[test]
fn every_threat_has_its_tests_and_each_is_there() {
    let page = page();
    let mut broken = Vec::new();
    for (letter, count) in ROWS {
        for number in 1..=count {
            let start = format!("| {letter}{number} |");
            let tests = page.lines().find(|line| line.starts_with(&start)).map(named);
            match tests {
                Some(tests) if !tests.is_empty() => {}
                _ => broken.push(format!("{letter}{number} names no test")),
            }
        }
    }
    for (file, name) in page.lines().flat_map(named) {
        let text = fs::read_to_string(root().join(format!("{file}.rs"))).unwrap_or_default();
        let at = text.find(&format!("fn {name}("));
        let marked = at.is_some_and(|at| {
            let before: Vec<_> = text[..at].lines().rev().take(6).collect();
            before.iter().any(|line| line.contains("#[test]") || line.contains("tokio::test"))
        });
        if !marked {
            broken.push(format!("{file}.rs has no test {name}"));
        }
    }
    none("docs/security.md", &broken);
}

#[test]
fn no_secret_is_compared_byte_by_byte() {
    const SECRETS: [&str; 5] = ["sig_hex", "nonce", "secret", "bearer", "handle"];
    let mut broken = Vec::new();
    for source in shipped() {
        for (at, line) in source.code_without_tests() {
            for (left, right) in
                [" == ", " != "].into_iter().filter_map(|sign| line.split_once(sign))
            {
                let left = left.rsplit([' ', '(', '&', '*', '!']).next().unwrap_or_default();
                let right = right.trim_start_matches(['&', '*']);
                let right = right.split([' ', ')', '(', ',']).next().unwrap_or_default();
                let is = |side: &str| {
                    SECRETS.iter().any(|word| side.split('.').next_back() == Some(word))
                };
                if is(left) || is(right) {
                    broken.push(format!("{}:{at}: {}", source.path, line.trim()));
                }
            }
        }
    }
    none("compare hashes, or by `constant_time_eq`", &broken);
}

#[test]
fn errors_are_logged_as_quoted_texts() {
    let mut broken = Vec::new();
    for source in shipped() {
        for (at, line) in source.code() {
            if line.contains("%error") || line.contains("%why") || line.contains("%reason") {
                broken.push(format!("{}:{at}", source.path));
            }
        }
    }
    let rule = "a worker's text may be in an error, and `%` writes it as it is: \
                `error = error.to_string()`";
    none(rule, &broken);
}

#[test]
fn the_fast_hasher_is_the_tables_own() {
    const FAST: [&str; 5] = ["hashbrown", "foldhash", "ahash", "rustc_hash", "fnv"];
    let mut broken = Vec::new();
    for source in shipped().iter().filter(|source| source.path != "actors/src/shards.rs") {
        for (at, line) in source.code() {
            if FAST.iter().any(|name| line.contains(&format!("{name}::"))) {
                broken.push(format!("{}:{at}", source.path));
            }
        }
    }
    none("what a caller may choose is hashed by the standard library's hasher", &broken);
}
