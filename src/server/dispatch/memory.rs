//! What dispatches keep in memory: compiled programs, one for each content, the agents of tasks for
//! a retry, and what waits for its agent. All of it is bounded, whatever documents come.
//!
//! A program counts with the bytes of its document for as long as anybody holds it. It starts
//! nothing and asks no engine.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use adjutant_actors::model::ids::TaskId;
use axum::http::StatusCode;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::blueprint::{Program, kept};
use crate::server::problem::{Problem, Setting};

/// Tasks whose agent is remembered for a retry; the oldest go first.
const REMEMBERED: usize = 10_000;

/// Bytes that are counted until this is dropped.
struct Charge {
    bytes: usize,
    used: Arc<AtomicUsize>,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// A program that all dispatches of its content share, and with it the limits of its agents.
pub(crate) struct SharedProgram {
    pub(crate) program: Arc<Program>,
    _charge: Charge,
}

/// A place among the dispatches that wait, with the bytes that it holds meanwhile. It is given up by
/// whoever learns first that the attempt has begun, or when all have let go of it.
#[derive(Clone)]
pub(crate) struct Waiting(Arc<Mutex<Option<(OwnedSemaphorePermit, Charge)>>>);

impl Waiting {
    /// Gives the place up.
    pub(crate) fn over(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// A program and the agent of it that a task was dispatched with, and the number of the dispatch.
struct Dispatch {
    program: Arc<SharedProgram>,
    agent: String,
    number: u64,
}

/// A note of a dispatch, and the one of the task's dispatch before.
pub(crate) struct Noted {
    number: u64,
    before: Option<Dispatch>,
}

/// What dispatches keep.
pub(crate) struct Dispatched {
    waiting: usize,
    places: Arc<Semaphore>,
    bytes: usize,
    used: Arc<AtomicUsize>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    programs: HashMap<blake3::Hash, Weak<SharedProgram>>,
    by_task: HashMap<TaskId, Dispatch>,
    order: VecDeque<TaskId>,
    /// Dispatches that were noted.
    noted: u64,
}

impl Inner {
    /// Forgets the task that was remembered first, and says whether there was one.
    fn forget_oldest(&mut self) -> bool {
        let oldest = self.order.pop_front();
        oldest.is_some_and(|oldest| self.by_task.remove(&oldest).is_some())
    }
}

impl Dispatched {
    /// With bounds for how many wait, and for the bytes of documents and prompts.
    pub(crate) fn new(waiting: usize, bytes: usize) -> Self {
        let waiting = waiting.min(Semaphore::MAX_PERMITS);
        Self {
            waiting,
            places: Arc::new(Semaphore::new(waiting)),
            bytes,
            used: Arc::default(),
            inner: Mutex::default(),
        }
    }

    /// The maps agree between any two changes, so a holder's panic leaves them usable.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program of a document: that which there is, or else what `compiled` gives.
    pub(crate) async fn program(
        &self,
        document: &Value,
        compiled: impl Future<Output = Result<Arc<Program>, Problem>>,
    ) -> Result<Arc<SharedProgram>, Problem> {
        let hash = kept::digest(document);
        let known = self.lock().programs.get(&hash).and_then(Weak::upgrade);
        if let Some(known) = known {
            return Ok(known);
        }
        let charge = self.charge(document.to_string().len())?;
        let program = compiled.await?;
        let mut inner = self.lock();
        if let Some(known) = inner.programs.get(&hash).and_then(Weak::upgrade) {
            return Ok(known);
        }
        inner.programs.retain(|_, program| program.strong_count() > 0);
        let shared = Arc::new(SharedProgram { program, _charge: charge });
        inner.programs.insert(hash, Arc::downgrade(&shared));
        Ok(shared)
    }

    /// A place for a dispatch that may have to wait for its agent.
    pub(crate) fn wait(&self, prompt: Option<&str>) -> Result<Waiting, Problem> {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            let detail = format!("{} dispatches wait for their agents already", self.waiting);
            return Err(too_many(detail, Setting::WaitingDispatches));
        };
        let charge = self.charge(prompt.map_or(0, str::len))?;
        Ok(Waiting(Arc::new(Mutex::new(Some((place, charge))))))
    }

    /// Counts bytes; what is only remembered makes room for them.
    fn charge(&self, bytes: usize) -> Result<Charge, Problem> {
        let mut inner = self.lock();
        let fits = |used: usize| used.saturating_add(bytes) <= self.bytes;
        if fits(0) {
            while !fits(self.used.load(Ordering::Acquire)) && inner.forget_oldest() {}
        }
        if !fits(self.used.load(Ordering::Acquire)) {
            let detail = format!("dispatches keep {} bytes at most", self.bytes);
            return Err(too_many(detail, Setting::DispatchBytes));
        }
        self.used.fetch_add(bytes, Ordering::AcqRel);
        Ok(Charge { bytes, used: self.used.clone() })
    }

    /// Notes which program and agent a task is dispatched with.
    pub(crate) fn remember(
        &self,
        task: TaskId,
        program: Arc<SharedProgram>,
        agent: String,
    ) -> Noted {
        let mut inner = self.lock();
        inner.noted += 1;
        let number = inner.noted;
        let before = inner.by_task.insert(task, Dispatch { program, agent, number });
        if before.is_none() {
            inner.order.push_back(task);
        }
        if inner.order.len() > REMEMBERED {
            inner.forget_oldest();
        }
        Noted { number, before }
    }

    /// Takes a note back, since the dispatch was refused: that of the one before counts again.
    pub(crate) fn take_back(&self, task: TaskId, noted: Noted) {
        let mut inner = self.lock();
        if inner.by_task.get(&task).is_none_or(|last| last.number != noted.number) {
            return;
        }
        match noted.before {
            Some(before) => drop(inner.by_task.insert(task, before)),
            None => {
                inner.by_task.remove(&task);
                inner.order.retain(|other| *other != task);
            }
        }
    }

    /// Which program and agent a task was dispatched with.
    pub(crate) fn of(&self, task: TaskId) -> Option<(Arc<SharedProgram>, String)> {
        let inner = self.lock();
        inner.by_task.get(&task).map(|last| (last.program.clone(), last.agent.clone()))
    }
}

fn too_many(detail: String, setting: Setting) -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_dispatches", detail).because_of(setting)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::blueprint::{Functions, compile, parse_blueprint};
    use crate::{Engine, EngineCfg};

    async fn program(text: &str) -> (Value, Arc<Program>) {
        let flow = json!({ "kind": "step", "ref": "e", "in": { "op": "lit", "value": text },
            "out": { "op": "path", "at": "$.x" } });
        let agent = json!({ "name": "e", "kind": "rust_fn", "spec": { "fn_id": "identity" } });
        let document = json!({ "id": "echo", "agents": [agent], "flow": flow });
        let blueprint = parse_blueprint(&document.to_string(), None).unwrap();
        let engine = Engine::new(EngineCfg::default());
        let program = compile(&engine, &blueprint, &Functions::new()).await.unwrap();
        (serde_json::to_value(&blueprint).unwrap(), Arc::new(program))
    }

    #[tokio::test]
    async fn one_content_is_compiled_once_and_counted_once_until_nobody_holds_it() {
        let kept = Dispatched::new(1, 1 << 20);
        let (document, first) = program("a").await;
        let one = kept.program(&document, async { Ok(first) }).await.unwrap();
        let never = async { panic!("it was compiled again") };
        let other = kept.program(&document, never).await.unwrap();
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(kept.used.load(Ordering::Acquire), document.to_string().len());
        drop((one, other));
        assert_eq!(kept.used.load(Ordering::Acquire), 0);
        let (document, program) = program("b").await;
        let _held = kept.program(&document, async { Ok(program) }).await.unwrap();
        assert_eq!(kept.lock().programs.len(), 1, "the former one left its place");
    }

    #[tokio::test]
    async fn what_is_remembered_makes_room_and_what_is_held_does_not() {
        let (document, compiled) = program("a").await;
        let kept = Dispatched::new(2, document.to_string().len() + 10);
        let held = kept.program(&document, async { Ok(compiled) }).await.unwrap();
        let task = TaskId::from_bits(1);
        let _ = kept.remember(task, held.clone(), "e".to_owned());
        let waiting = kept.wait(Some("0123456789")).unwrap();
        let refused = kept.wait(Some("0")).err().unwrap();
        assert_eq!(refused.code(), "too_many_dispatches");
        assert!(kept.of(task).is_none(), "it was forgotten for the room, and is still held");
        drop((held, waiting));
        let both = (kept.wait(None).unwrap(), kept.wait(None).unwrap());
        assert!(kept.wait(None).is_err());
        drop(both);
        assert_eq!(kept.used.load(Ordering::Acquire), 0);
    }

    #[tokio::test]
    async fn a_refused_dispatch_leaves_the_agent_of_the_one_that_was_taken() {
        let (document, compiled) = program("a").await;
        let kept = Dispatched::new(1, 1 << 20);
        let held = kept.program(&document, async { Ok(compiled) }).await.unwrap();
        let task = TaskId::from_bits(1);
        let note = |agent: &str| kept.remember(task, held.clone(), agent.to_owned());
        let agent = || kept.of(task).map(|(_, agent)| agent);
        let refused = note("refused");
        kept.take_back(task, refused);
        assert!(agent().is_none() && kept.lock().order.is_empty());
        let (taken, refused) = (note("taken"), note("refused"));
        kept.take_back(task, refused);
        assert_eq!(agent().as_deref(), Some("taken"));
        let _later = note("later");
        kept.take_back(task, taken);
        assert_eq!(agent().as_deref(), Some("later"));
    }
}
