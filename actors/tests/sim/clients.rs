//! The clients of a simulation: what each does next is drawn, and whom it leaves waiting too.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::messages::{Change, Until};
use adjutant_actors::model::ids::{ResumeKey, TaskId};
use adjutant_actors::state::EngineState;
use adjutant_actors::state::attempts::Begin;
use adjutant_actors::state::resumes::Answer;
use adjutant_actors::state::verdicts::Marking;
use adjutant_actors::system::{ActorSystem, PollStart};
use tokio::task::JoinHandle;

use crate::call::carry::{begun, new_attempt};
use crate::call::{Call, Said, Who, plain, session_of};
use crate::shared::Shared;
use crate::worker::{Fate, SimLaunch};

/// One client with what it left running.
pub(crate) struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) system: ActorSystem,
    /// Whether it ends actors.
    pub(crate) faults: bool,
    /// Whether it ends the root too, and all with it.
    pub(crate) root_too: bool,
    pub(crate) left: Vec<(String, JoinHandle<()>)>,
}

/// An id that does not stand in the order of its making.
fn id(number: usize) -> u128 {
    (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) >> 1
}

pub(crate) fn fresh_task(shared: &Shared) -> TaskId {
    shared.known(|known| {
        known.tasks.push(TaskId::from_bits(id(known.tasks.len())));
        known.tasks[known.tasks.len() - 1]
    })
}

/// Puts a question for a task.
pub(crate) async fn ask(
    shared: &Arc<Shared>,
    system: &ActorSystem,
    task: TaskId,
) -> Option<ResumeKey> {
    let key = shared.known(|known| {
        known.questions.push(ResumeKey::from_bits(id(known.questions.len())));
        known.questions[known.questions.len() - 1]
    });
    let asked = Call::Ask { who: Who::Host, task, key, value: shared.small() };
    system.transact("ask", shared.turn(asked)).await.ok().map(|_| key)
}

impl Client {
    /// Does so many things, one after the other.
    pub(crate) async fn run(mut self, steps: usize) -> Self {
        for _ in 0..steps {
            self.step().await;
            let most = [0, 3, 40, 400, 3_000][self.shared.draw(5).min(self.shared.draw(5))];
            self.shared.linger(most).await;
            if self.shared.chance(25) {
                self.audit().await;
            }
        }
        self
    }

    async fn audit(&self) {
        let audit = self.system.with_state("audit", |state| state.audit()).await;
        assert!(matches!(audit, Ok(Ok(())) | Err(_)), "{audit:?}");
    }

    async fn call(&self, call: Call) -> Option<Said> {
        let reply = self.system.transact("client", self.shared.turn(call)).await;
        if let Err(EngineError::Internal(text)) = &reply {
            assert!(text.contains("state actor ended"), "{text}");
        }
        reply.ok()
    }

    async fn step(&mut self) {
        let shared = self.shared.clone();
        let (who, value) = (shared.who(), shared.small());
        let task = shared.pick(|known| &known.tasks).unwrap_or(TaskId::from_bits(0));
        let key = shared.pick(|known| &known.questions).unwrap_or(ResumeKey::from_bits(0));
        match shared.draw(100) {
            0..6 => self.attach().await,
            6..12 => self.beat().await,
            12..14 => drop(self.call(Call::Detach { who, revoke: value.is_multiple_of(2) }).await),
            14..32 => self.start(who, task).await,
            32..52 => self.dispatch(who, task),
            52..62 => self.poll(task),
            62..66 => drop(self.call(Call::Cancel { who, task }).await),
            66..70 => {
                if let Some(key) = ask(&shared, &self.system, task).await {
                    self.await_answer(key);
                }
            }
            70..77 => drop(self.call(Call::Answer { who: Who::Host, key, value }).await),
            77..80 => {
                let marking =
                    if value.is_multiple_of(2) { Marking::Operator } else { Marking::Senior };
                drop(
                    self.call(Call::Mark {
                        who,
                        marking,
                        task,
                        ok: value.is_multiple_of(3),
                        value,
                    })
                    .await,
                );
            }
            80..82 => drop(self.call(Call::Inject { who, task, text: value }).await),
            82..86 => {
                drop(self.call(Call::Pause { who: Who::Host, on: value.is_multiple_of(3) }).await)
            }
            86..88 => self.mint(who, task).await,
            88..91 => drop(self.call(Call::Lapse { budget: 1_000 }).await),
            91..93 => drop(self.call(Call::Read { who, task }).await),
            93..95 => drop(self.call(Call::Session { who }).await),
            _ => self.end_an_actor(),
        }
    }

    async fn attach(&self) {
        let (token, role) = (self.shared.token(), adjutant_actors::model::role::Role::Operator);
        let (operator, life) = (self.shared.small() % 2, 60_000);
        if self.call(Call::Attach { token, role, operator, life, uses: None }).await.is_some() {
            self.shared.known(|known| known.sessions.push(token));
        }
    }

    async fn beat(&self) {
        let Some(token) = self.shared.pick(|known| &known.sessions) else { return };
        let beat = self.system.heartbeat(session_of(token), Who::Token(token).access()).await;
        self.shared.trace(format!("beat {token} {beat:?}"));
    }

    async fn start(&self, who: Who, parent: TaskId) {
        let shared = &self.shared;
        let parent = Some(parent).filter(|_| shared.chance(30));
        let key = Some(shared.small() % 4).filter(|_| shared.chance(20));
        let (id, agent, retry) = (fresh_task(shared), shared.small() % 2, shared.chance(30));
        drop(self.call(Call::Start { who, id, agent, parent, key, retry }).await);
    }

    async fn mint(&self, who: Who, task: TaskId) {
        let (token, uses) = (self.shared.token(), Some(1));
        let minted = self.call(Call::Mint { who, task, token, life: 5_000, uses }).await;
        if minted.is_some() {
            let read = || Call::Read { who: Who::Token(token), task };
            tokio::join!(self.call(read()), self.call(read()));
        }
    }

    /// Leaves something running; its caller may go away in the middle.
    fn leave(&mut self, what: String, work: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(work);
        if self.shared.chance(20) {
            let (shared, abort) = (self.shared.clone(), handle.abort_handle());
            tokio::spawn(async move {
                shared.linger(60).await;
                abort.abort();
            });
        }
        self.left.push((what, handle));
    }

    fn dispatch(&mut self, who: Who, task: TaskId) {
        let shared = self.shared.clone();
        let token = shared.token();
        let key = Some(shared.small() % 3).filter(|_| shared.chance(30));
        let prompt = Some(shared.small()).filter(|_| shared.chance(30));
        let timeout = shared.chance(40).then(|| Duration::from_millis(shared.draw(400) as u64));
        let call = Call::Dispatch { who, task, token, key, prompt, life: 30_000 };
        let work = dispatch(shared, self.system.unanchored(), call.clone(), timeout);
        self.leave(format!("{call:?}"), work);
    }

    fn poll(&mut self, task: TaskId) {
        let (shared, system) = (self.shared.clone(), self.system.unanchored());
        let hold = [0, 50, 5_000, 864_000_000][shared.draw(4)];
        let look = move |state: &mut EngineState, _first: bool| {
            let gone = || EngineError::TaskNotFound(task.to_string());
            let (status, _) = state.glance(&task).ok_or_else(gone)?;
            if status.ends_poll() {
                return Ok(PollStart::Ready(Some(status)));
            }
            Ok(PollStart::Wait(task, Until::Ended))
        };
        let accept = |change: Change| Some(change.task.map(|task| task.status));
        self.leave(format!("poll {task} for {hold} ms"), async move {
            let hold = Duration::from_millis(hold);
            let ended = system.wait_for("poll", hold, look, accept).await;
            shared.trace(format!("polled {task} {ended:?}"));
            if let Ok(Some(status)) = ended {
                assert!(status.ends_poll(), "a poll of {task} ended at {status}");
            }
        });
    }

    fn await_answer(&mut self, key: ResumeKey) {
        let (shared, system) = (self.shared.clone(), self.system.unanchored());
        let look = move |state: &mut EngineState, _first: bool| {
            Ok(match state.read_answer(key)? {
                Answer::Open { task, revision } => PollStart::Wait(task, Until::Past(revision)),
                over => PollStart::Ready(over),
            })
        };
        self.leave(format!("await {key}"), async move {
            let answer = system.wait_for("await", Duration::MAX, look, |_: Change| None).await;
            shared.trace(format!("awaited {key} {answer:?}"));
        });
    }

    /// Ends an actor, the state actor or even the root among them, without asking.
    fn end_an_actor(&self) {
        let Some(root) = self.system.root_cell().filter(|_| self.faults) else { return };
        let mut below = root.get_children();
        below.sort_unstable_by_key(|actor| actor.get_id());
        let count = below.len() + usize::from(self.root_too);
        let nth = self.shared.draw(count.max(1));
        if count == 0 {
            return;
        }
        let victim = below.get(nth).cloned().unwrap_or(root);
        let kill = nth >= below.len() || self.shared.chance(70);
        self.shared.trace(format!("end of actor {nth} of {}, kill {kill}", below.len()));
        if kill { victim.kill() } else { victim.stop(None) }
    }
}

/// A dispatch as the engine makes it.
async fn dispatch(shared: Arc<Shared>, system: ActorSystem, call: Call, timeout: Option<Duration>) {
    let Call::Dispatch { who, task, token, .. } = call else { return };
    let known = Arc::new(OnceLock::new());
    let (found, log, launched, handle) =
        (known.clone(), shared.clone(), shared.clone(), system.clone());
    let begin = move |state: &mut EngineState| {
        let now = log.now();
        let begin = state.begin_attempt(who.access(), new_attempt(&call, now), now);
        let reply = begin.as_ref().map(begun).map_err(|error| plain(error.clone()));
        log.log(call.clone(), now, Some(reply));
        match begin? {
            Begin::Begun(plan) => Ok(Some(plan)),
            Begin::Known(attempt) => {
                let _ = found.set(attempt);
                Err(EngineError::Cancelled)
            }
            Begin::Paused(_) => Ok(None),
        }
    };
    let launch = move |plan: &adjutant_actors::state::attempts::Plan| {
        let fate = Fate::draw(&launched);
        let (shared, attempt) = (launched, plan.attempt);
        shared.trace(format!("launch {task} {attempt} {fate:?}"));
        Arc::new(SimLaunch { shared, system: handle, task, attempt, token, fate }) as Arc<_>
    };
    let verdict = system.dispatch(task, timeout, begin, launch).await;
    shared.trace(format!("dispatched {task} {verdict:?}"));
    let Some(attempt) = known.get().copied() else { return };
    let look = move |state: &mut EngineState, _first: bool| {
        let gone = || EngineError::TaskNotFound(task.to_string());
        let (_, revision) = state.glance(&task).ok_or_else(gone)?;
        Ok(match state.verdict_of(task, attempt)? {
            Some(verdict) => PollStart::Ready(verdict),
            None => PollStart::Wait(task, Until::Past(revision)),
        })
    };
    let again = system.wait_for("again", Duration::MAX, look, |_: Change| None).await;
    shared.trace(format!("known before {task} {attempt} {again:?}"));
}
