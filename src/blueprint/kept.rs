//! What makes a run survive: the key of each call of a step, the calls that have their task from
//! before, and the comparison of a program with the one that a run was started with.
//!
//! A resumed run is evaluated again from its start. A call's key follows from the step's name, the
//! hash of its input and how many equal calls came before, so it finds the task that it had.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adjutant_actors::model::ids::{RunId, StepKey};
use adjutant_actors::model::task::TaskStatus;
use adjutant_actors::state::runs::KeptStep;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::blueprint::document::Blueprint;
use crate::blueprint::run::StepEnd;

/// Places that a comparison names at most.
const DIFFERENCES_MAX: usize = 8;
/// Hex digits of a hash that a person is shown.
const SHOWN_DIGITS: usize = 12;
/// What is kept of a step that the flow let go of: the loser of a race.
const DROPPED: &str = "dropped";

/// A call of a step: its key, and what is kept of it from before.
pub(crate) struct Call {
    pub(crate) key: StepKey,
    pub(crate) kept: Option<KeptStep>,
}

/// The memory of one run.
pub(crate) struct Kept {
    pub(crate) run: RunId,
    /// Stops the evaluation and leaves the run open.
    pub(crate) leave: CancellationToken,
    /// Set when the evaluation as a whole was let go: what is dropped then is not the loser of a
    /// race and may be done again.
    pub(crate) over: Arc<AtomicBool>,
    steps: Mutex<HashMap<StepKey, KeptStep>>,
    calls: Mutex<HashMap<blake3::Hash, u64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    pub(crate) fn new(run: RunId, leave: CancellationToken, steps: Vec<KeptStep>) -> Self {
        Self {
            run,
            leave,
            over: Arc::new(AtomicBool::new(false)),
            steps: Mutex::new(steps.into_iter().map(|step| (step.key, step)).collect()),
            calls: Mutex::new(HashMap::new()),
        }
    }

    /// The key of the next call of `step` with this input.
    pub(crate) fn call(&self, step: &str, input: &Value) -> Call {
        let mut call = blake3::Hasher::new();
        call.update(&(step.len() as u64).to_le_bytes()).update(step.as_bytes());
        call.update(digest(input).as_bytes());
        let (call, mut calls) = (call.finalize(), lock(&self.calls));
        let before = calls.entry(call).or_default();
        let mut key = blake3::Hasher::new();
        key.update(call.as_bytes()).update(&before.to_le_bytes());
        *before += 1;
        let mut bits = [0; 16];
        bits.copy_from_slice(&key.finalize().as_bytes()[..16]);
        let key = StepKey::from_bits(u128::from_be_bytes(bits));
        Call { key, kept: lock(&self.steps).remove(&key) }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// How a call of a step goes on that has its task from before.
pub(crate) enum Replay {
    /// It ended, and the flow was told so.
    End(StepEnd),
    /// The flow let go of it before it ended.
    Dropped,
    /// It has not ended.
    Open,
}

/// What the kept record of a call says.
pub(crate) fn replay(kept: &KeptStep) -> Replay {
    if let Some(told) = &kept.told {
        if told["end"] == DROPPED {
            return Replay::Dropped;
        }
        if let Ok(end) = serde_json::from_value(Value::clone(told)) {
            return Replay::End(end);
        }
    }
    let result = kept.result.as_deref().cloned().unwrap_or_default();
    match kept.status {
        TaskStatus::Pass => Replay::End(StepEnd::Pass(result)),
        TaskStatus::Cancelled => Replay::End(StepEnd::Cancelled),
        TaskStatus::Blocked if !kept.interrupted => Replay::End(StepEnd::Blocked(result)),
        _ => Replay::Open,
    }
}

/// What is kept of the end of a step; nothing where its task tells.
pub(crate) fn told(end: &StepEnd) -> Option<Value> {
    match end {
        StepEnd::Pass(_) => None,
        end => serde_json::to_value(end).ok(),
    }
}

/// What is kept of a step that the flow let go of.
pub(crate) fn dropped() -> Value {
    json!({ "end": DROPPED })
}

/// The hash of a value, the same however its objects are ordered.
pub(crate) fn digest(value: &Value) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    feed(&mut hasher, value);
    hasher.finalize()
}

fn feed(hasher: &mut blake3::Hasher, value: &Value) {
    let sized = |hasher: &mut blake3::Hasher, kind: &[u8], len: usize| {
        hasher.update(kind).update(&(len as u64).to_le_bytes());
    };
    let text = |hasher: &mut blake3::Hasher, kind: &[u8], text: &str| {
        sized(hasher, kind, text.len());
        hasher.update(text.as_bytes());
    };
    match value {
        Value::Null => drop(hasher.update(b"n")),
        Value::Bool(is) => drop(hasher.update(if *is { b"t" } else { b"f" })),
        Value::Number(number) => text(hasher, b"#", &number.to_string()),
        Value::String(string) => text(hasher, b"s", string),
        Value::Array(items) => {
            sized(hasher, b"[", items.len());
            items.iter().for_each(|item| feed(hasher, item));
        }
        Value::Object(fields) => {
            sized(hasher, b"{", fields.len());
            let mut names: Vec<_> = fields.keys().collect();
            names.sort_unstable();
            for name in names {
                text(hasher, b"s", name);
                feed(hasher, &fields[name]);
            }
        }
    }
}

/// Where a document differs from the one that a run was started with: each place with the hashes
/// of what stands there, never the values. Fields that a later version of the format added with
/// their defaults are no difference.
pub(crate) fn document_differences(before: &Value, now: &Value) -> Vec<String> {
    let read = serde_json::from_value::<Blueprint>(before.clone());
    let before = read.and_then(serde_json::to_value).unwrap_or_else(|_| before.clone());
    differences("the blueprint", &before, now)
}

/// Where a value differs from another one.
pub(crate) fn differences(what: &str, before: &Value, now: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(String::new(), before, now, &mut found);
    let more = found.len().saturating_sub(DIFFERENCES_MAX);
    found.truncate(DIFFERENCES_MAX);
    let mut named: Vec<_> = found.iter().map(|place| format!("{what}: {place}")).collect();
    if more > 0 {
        named.push(format!("{what}: {more} more places"));
    }
    named
}

fn compare(place: String, before: &Value, now: &Value, found: &mut Vec<String>) {
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => compare_fields(&place, before, now, found),
        (Value::Array(before), Value::Array(now)) => match (named(before), named(now)) {
            (Some(before), Some(now)) => compare_fields(&place, &before, &now, found),
            _ if before.len() == now.len() => {
                for (at, (before, now)) in before.iter().zip(now).enumerate() {
                    compare(format!("{place}[{at}]"), before, now, found);
                }
            }
            _ => {
                let (was, is) = (before.len(), now.len());
                found.push(format!("{place} had {was} entries and has {is}"));
            }
        },
        _ if digest(before) == digest(now) => {}
        _ => {
            let place = if place.is_empty() { "it" } else { &place };
            found.push(format!("{place} changed ({} -> {})", short(before), short(now)));
        }
    }
}

fn compare_fields(
    place: &str,
    before: &Map<String, Value>,
    now: &Map<String, Value>,
    found: &mut Vec<String>,
) {
    let names: BTreeSet<_> = before.keys().chain(now.keys()).collect();
    for name in names {
        let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
        match (before.get(name), now.get(name)) {
            (Some(before), Some(now)) => compare(place, before, now, found),
            (Some(before), None) => found.push(format!("{place} was removed ({})", short(before))),
            (None, Some(now)) => found.push(format!("{place} was added ({})", short(now))),
            (None, None) => {}
        }
    }
}

/// A list whose entries all have a name of their own, by these: agents and operators.
fn named(items: &[Value]) -> Option<Map<String, Value>> {
    let mut map = Map::new();
    for item in items {
        let name = item.get("name")?.as_str()?;
        if map.insert(name.to_owned(), item.clone()).is_some() {
            return None;
        }
    }
    (!map.is_empty()).then_some(map)
}

fn short(value: &Value) -> String {
    let hex = digest(value).to_hex();
    hex[..SHOWN_DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_calls_are_told_apart_by_their_count_and_others_by_what_they_are() {
        let keys = |calls: &[(&str, Value)]| {
            let kept = Kept::new(RunId::from_bits(1), CancellationToken::new(), Vec::new());
            calls.iter().map(|(step, input)| kept.call(step, input).key).collect::<Vec<_>>()
        };
        let calls = [("a", json!(1)), ("a", json!(1)), ("a", json!("1")), ("b", json!(1))];
        let all = keys(&calls);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), calls.len());
        assert_eq!(keys(&calls), all, "the same calls have the same keys in every process");
    }

    #[test]
    fn a_hash_depends_on_what_a_value_is_and_not_on_the_order_of_its_fields() {
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let (one, other) = (read(r#"{"a":1,"b":[2]}"#), read(r#"{"b":[2],"a":1}"#));
        assert_eq!(digest(&one), digest(&other));
        let values = [json!([1, [2]]), json!([[1], 2]), json!("1"), json!(1), json!([]), json!({})];
        let hashes = values.iter().map(|value| digest(value).to_hex().to_string());
        assert_eq!(hashes.collect::<BTreeSet<_>>().len(), values.len());
    }

    #[test]
    fn a_difference_names_the_agent_and_the_key_and_shows_no_value() {
        let before = json!({ "agents": [{ "name": "a", "spec": { "env": { "K": "secret-1" } } }] });
        let now = json!({ "agents": [
            { "name": "b" }, { "name": "a", "spec": { "env": { "K": "secret-2" } } }
        ] });
        let found = differences("the blueprint", &before, &now);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("the blueprint: agents.a.spec.env.K changed ("), "{found:?}");
        assert!(found[1].starts_with("the blueprint: agents.b was added ("), "{found:?}");
        assert!(!found.concat().contains("secret"), "{found:?}");
        assert_eq!(differences("it", &now, &now), Vec::<String>::new());
    }
}
