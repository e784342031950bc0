//! Runs over the wire: started, shown, waited for, cancelled, resumed, left.
//!
//! A run lives in an actor of its own under the [`Keeper`], never in a request. It is a kept run,
//! so what the engine keeps of it is the truth; here is only who carries it on at the moment.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::{RunId, TaskId};
use adjutant_actors::model::task::TaskStatus;
use adjutant_actors::state::runs::{RunRecord, RunStatus};
use axum::http::StatusCode;
use ractor::{Actor, ActorRef};
use serde_json::{Value, json};

use crate::blueprint::{Blueprint, Program, RunOptions, kept};
use crate::engine::Engine;
use crate::engine::pauses::Pauses;
use crate::server::problem::{Problem, Setting};
use crate::server::programs;
use crate::server::shelf::ClaimedRun;
use crate::server::{ServerCfg, on_shelf};
use keeper::{Job, Keeper, KeeperMsg};
use live::{Live, Stage};
use view::TASKS_SHOWN;

mod keeper;
mod list;
mod live;
pub(crate) mod routes;
mod view;
mod wish;

pub(crate) use list::RunFilter;
#[cfg(feature = "mcp")]
pub(crate) use list::standings;
pub(crate) use view::{RunView, Standing};
pub(crate) use wish::{NewRun, OperatorWish, Source};

/// Tasks under way that are looked at, to tell whether a run waits.
const LOOKED_AT: usize = 64;

/// Locks that starts under a key share.
const KEY_LOCKS: usize = 64;

type LiveRuns = Mutex<HashMap<RunId, Arc<Live>>>;

/// The runs of a server. All of it is for callers that were authorized before.
pub(crate) struct Runs {
    engine: Engine,
    cfg: Arc<ServerCfg>,
    live: Arc<LiveRuns>,
    keeper: ActorRef<KeeperMsg>,
    leaving: AtomicBool,
    /// Held by whoever starts a run under a key; which one is by the key's hash.
    keys: [tokio::sync::Mutex<()>; KEY_LOCKS],
}

impl Drop for Runs {
    fn drop(&mut self) {
        // What is still carried on stops with the keeper and stays open.
        self.keeper.kill();
    }
}

fn lock(live: &LiveRuns) -> MutexGuard<'_, HashMap<RunId, Arc<Live>>> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runs {
    /// Starts the keeper. Needs a runtime.
    pub(crate) async fn new(engine: Engine, cfg: Arc<ServerCfg>) -> std::io::Result<Self> {
        let (keeper, _) = Actor::spawn(None, Keeper, ()).await.map_err(std::io::Error::other)?;
        let leaving = AtomicBool::new(false);
        let keys = std::array::from_fn(|_| tokio::sync::Mutex::default());
        Ok(Self { engine, cfg, live: Arc::default(), keeper, leaving, keys })
    }

    /// Starts a run and gives it once it is kept: from then on it outlives the caller, and where
    /// there is a store the process. The same again under the same key gives the same run; a key
    /// is used up by a run that began, not by one that was refused.
    pub(crate) async fn start(&self, new: NewRun) -> Result<RunView, Problem> {
        if self.leaving.load(Ordering::Acquire) {
            return Err(EngineError::Stopped("it is shutting down".to_owned()).into());
        }
        let Some(key) = &new.key else {
            let id = self.engine.mint().run_id();
            return self.start_as(id, &new, None).await;
        };
        let key = kept::digest(&json!([new.principal, key]));
        // One at a time, so that between the look and the claim nobody else has the key.
        let _turn = self.keys[usize::from(key.as_bytes()[0]) % KEY_LOCKS].lock().await;
        let name = key.to_hex().to_string();
        if let Some(run) = self.run_of(&name, &new).await? {
            return self.view(run).await;
        }
        self.start_as(self.engine.mint().run_id(), &new, Some(name)).await
    }

    /// The run that a key was used for, once the engine keeps it; none where that was refused or
    /// is forgotten.
    async fn run_of(&self, name: &str, new: &NewRun) -> Result<Option<RunId>, Problem> {
        let name = name.to_owned();
        let Some(held) = on_shelf(&self.cfg.shelf, move |shelf| shelf.claimed_run(&name)).await?
        else {
            return Ok(None);
        };
        let live = self.live(held.run);
        if live.is_none() && self.engine.read_run(held.run).await?.is_none() {
            return Ok(None);
        }
        if held.body != new.digest() {
            let detail = "the key was used for another run";
            return Err(Problem::new(StatusCode::CONFLICT, "key_conflict", detail)
                .with("run_id", json!(held.run)));
        }
        if let Some(live) = live {
            opened(&live).await?;
        }
        Ok(Some(held.run))
    }

    /// Checks what is wanted, claims the key and begins.
    async fn start_as(
        &self,
        id: RunId,
        new: &NewRun,
        key: Option<String>,
    ) -> Result<RunView, Problem> {
        let input = programs::checked_input(new.input.clone())?;
        let blueprint = programs::of_source(&self.engine, &self.cfg, &new.blueprint).await?;
        let program = programs::program(&self.engine, &self.cfg, &blueprint).await?;
        new.operator.check(&self.engine)?;
        if let Some(key) = key {
            let claim = ClaimedRun { run: id, body: new.digest() };
            let now = self.engine.now()?.unix;
            on_shelf(&self.cfg.shelf, move |shelf| shelf.claim_run(&key, &claim, now)).await?;
        }
        self.begin(id, program, Some(input), new.settings()).await?;
        self.view(id).await
    }

    /// Has the keeper carry a run on, and waits until the engine keeps it.
    async fn begin(
        &self,
        id: RunId,
        program: Arc<Program>,
        input: Option<Value>,
        settings: Value,
    ) -> Result<(), Problem> {
        let (live, is_new) = self.enter(id)?;
        if is_new {
            let options = self.options(id, &live, settings);
            let engine = self.engine.clone();
            let job = Job { engine, id, program, input, options, live: live.clone() };
            // Nothing is awaited before this, so a caller that goes away leaves no run half begun.
            if self.keeper.cast(KeeperMsg::Carry(Box::new(job))).is_err() {
                live.end(Err(EngineError::Stopped("its runs have ended".to_owned())));
            }
        }
        opened(&live).await
    }

    /// Takes a place for a run; that which it has, where it is carried on already.
    fn enter(&self, id: RunId) -> Result<(Arc<Live>, bool), Problem> {
        let mut live = lock(&self.live);
        if let Some(known) = live.get(&id) {
            return Ok((known.clone(), false));
        }
        if live.len() >= self.cfg.runs {
            let detail = format!("{} runs are carried on, as many as may be", live.len());
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_runs", detail)
                .because_of(Setting::LiveRuns));
        }
        let entry = Arc::new(Live::new(id, Arc::downgrade(&self.live)));
        live.insert(id, entry.clone());
        Ok((entry, true))
    }

    fn options(&self, id: RunId, live: &Arc<Live>, settings: Value) -> RunOptions {
        RunOptions {
            observer: live.clone(),
            cancel: live.cancel.clone(),
            leave: live.leave.clone(),
            id: Some(id),
            ..wish::options(&self.engine, settings)
        }
    }

    fn live(&self, id: RunId) -> Option<Arc<Live>> {
        lock(&self.live).get(&id).cloned()
    }

    /// Shows a run.
    pub(crate) async fn view(&self, id: RunId) -> Result<RunView, Problem> {
        let record = self.engine.read_run(id).await?.ok_or(EngineError::RunNotFound(id))?;
        let status = self.standing(id, &record).await?;
        let tasks = self.engine.run_tasks(id, TASKS_SHOWN).await?;
        let report = record.report.as_deref().cloned();
        Ok(RunView { report, tasks: Some(tasks), ..RunView::of(id, &record, status) })
    }

    /// Where a run stands.
    async fn standing(&self, id: RunId, record: &RunRecord) -> Result<Standing, Problem> {
        if let Some(ended) = Standing::of_end(record.status) {
            return Ok(ended);
        }
        let Some(live) = self.live(id) else {
            let leaving = self.leaving.load(Ordering::Acquire);
            return Ok(if leaving { Standing::Left } else { Standing::Interrupted });
        };
        let waits = self.waits(live.open_tasks(LOOKED_AT)).await?;
        Ok(if waits { Standing::Waiting } else { Standing::Running })
    }

    /// Whether one of these tasks has an open question.
    async fn waits(&self, tasks: Vec<TaskId>) -> Result<bool, EngineError> {
        let look = move |state: &mut adjutant_actors::state::EngineState| {
            let mut stands = tasks.iter().filter_map(|task| state.glance(task));
            stands.any(|(status, _)| status == TaskStatus::Suspended)
        };
        self.engine.with_state("run_waits", look).await
    }

    /// Shows a run once it has ended or was left, or after a time as it is then.
    pub(crate) async fn wait(&self, id: RunId, time: Duration) -> Result<RunView, Problem> {
        let time = time.min(self.engine.cfg().long_hold.max_hold);
        if let Some(live) = self.live(id) {
            let mut stage = live.stage();
            let over = stage.wait_for(|stage| matches!(stage, Stage::Over(_)));
            let _ = tokio::time::timeout(time, over).await;
        }
        self.view(id).await
    }

    /// Cancels a run and its open tasks; shows it then. A cancelled run stays as it is.
    pub(crate) async fn cancel(&self, id: RunId) -> Result<RunView, Problem> {
        if let Some(live) = self.live(id) {
            live.cancel.cancel();
            let view = self.wait(id, self.cfg.request_time).await?;
            // The run may have been carried on here and ended otherwise in the same moment.
            return over(id, view);
        }
        match self.engine.cancel_run(id).await {
            Ok(()) | Err(EngineError::RunState { .. }) => over(id, self.view(id).await?),
            Err(error) => Err(error.into()),
        }
    }

    /// Goes on with the open runs that this server or one before it started. Gives how many, and
    /// those that found no place or a busy engine.
    pub(crate) async fn resume_open(&self) -> Result<(usize, Vec<RunId>), EngineError> {
        let (mut resumed, mut later) = (0, Vec::new());
        for (id, record) in self.engine.list_runs().await? {
            let own = record.settings.as_deref().is_some_and(wish::is_own);
            if record.status != RunStatus::Open || !own {
                continue;
            }
            match self.resume(id, &record).await {
                Ok(()) => resumed += 1,
                Err(problem) => {
                    tracing::warn!(run = %id, why = problem.detail(), "a run was not resumed");
                    if problem.is_retryable() {
                        later.push(id);
                    }
                }
            }
        }
        Ok((resumed, later))
    }

    /// Goes on with these runs as places come free, until none is left or the server goes down.
    pub(crate) async fn resume_later(&self, runs: Vec<RunId>) {
        let (mut left, mut pauses) = (VecDeque::from(runs), Pauses::default());
        while let Some(id) = left.pop_front() {
            pauses.next().await;
            if self.leaving.load(Ordering::Acquire) {
                return;
            }
            let resumed = match self.count() < self.cfg.runs {
                true => Some(self.resume_if_open(id).await),
                false => None,
            };
            match resumed {
                Some(Ok(())) => pauses = Pauses::default(),
                Some(Err(problem)) if !problem.is_retryable() => {
                    tracing::warn!(run = %id, why = problem.detail(), "a run was not resumed");
                }
                _ => left.push_back(id),
            }
        }
    }

    async fn resume_if_open(&self, id: RunId) -> Result<(), Problem> {
        match self.engine.read_run(id).await? {
            Some(record) if record.status == RunStatus::Open => self.resume(id, &record).await,
            _ => Ok(()),
        }
    }

    async fn resume(&self, id: RunId, record: &RunRecord) -> Result<(), Problem> {
        let document = record.document.as_deref().cloned().unwrap_or_default();
        let blueprint: Blueprint = serde_json::from_value(document)
            .map_err(|error| EngineError::InvalidArgument(error.to_string()))?;
        let program = programs::program(&self.engine, &self.cfg, &blueprint).await?;
        let settings = record.settings.as_deref().cloned().unwrap_or_default();
        self.begin(id, program, None, settings).await
    }

    /// Takes no new runs, waits until no run makes progress by itself or the time is over, and
    /// leaves the open ones to whoever opens the store next.
    pub(crate) async fn leave(&self, time: Duration) {
        self.leaving.store(true, Ordering::Release);
        let _ = tokio::time::timeout(time, self.at_rest()).await;
        let left: Vec<_> = lock(&self.live).values().cloned().collect();
        for live in &left {
            live.leave.cancel();
        }
        let ends = left.iter().map(|live| async {
            let _ = live.stage().wait_for(|stage| matches!(stage, Stage::Over(_))).await;
        });
        let _ = tokio::time::timeout(LEAVE_TIME, futures::future::join_all(ends)).await;
    }

    /// Ends when each run has ended or waits for an answer.
    async fn at_rest(&self) {
        loop {
            let all: Vec<_> = lock(&self.live).values().cloned().collect();
            let mut busy = false;
            for live in &all {
                busy |= !self.waits(live.open_tasks(LOOKED_AT)).await.unwrap_or(true);
            }
            if !busy {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// How many runs are carried on.
    pub(crate) fn count(&self) -> usize {
        lock(&self.live).len()
    }
}

/// Ends when the engine keeps a run, or has refused it.
async fn opened(live: &Live) -> Result<(), Problem> {
    let mut stage = live.stage();
    let stage = stage.wait_for(|stage| *stage != Stage::Beginning).await;
    match stage.as_deref() {
        Ok(Stage::Over(Err(error))) => Err(error.clone().into()),
        Ok(_) => Ok(()),
        Err(_) => Err(EngineError::Stopped("its runs have ended".to_owned()).into()),
    }
}

/// Longest that runs get to hear that they are left.
const LEAVE_TIME: Duration = Duration::from_secs(2);

/// How often a server that goes down looks whether its runs are at rest.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A run that was to be cancelled and has ended otherwise is a conflict.
fn over(id: RunId, view: RunView) -> Result<RunView, Problem> {
    match view.status {
        Standing::Cancelled => Ok(view),
        _ => Err(EngineError::RunState { run: id, state: "has ended" }.into()),
    }
}
