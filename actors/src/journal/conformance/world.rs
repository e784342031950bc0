//! A state that takes random turns from a seed, cut into batches, with every batch's outcome.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::EngineCfg;
use crate::errors::EngineError;
use crate::journal::Batch;
use crate::model::event::EventRecord;
use crate::model::ids::{ResumeKey, RunId, StepKey, TaskId};
use crate::model::mint::Mint;
use crate::model::output::{ContentRef, OutputEvent};
use crate::model::role::Role;
use crate::model::session::SessionFaces;
use crate::model::task::TaskSpec;
use crate::model::token::{TokenRequest, TokenSigner};
use crate::state::attempts::{AttemptEnd, NewAttempt};
use crate::state::auth::{Access, NewToken};
use crate::state::effect::Now;
use crate::state::images::{Image, Mark, TableName, Touched};
use crate::state::outputs::NewOutput;
use crate::state::resumes::Measured;
use crate::state::runs::{NewRun, RunStatus};
use crate::state::sessions::NewSession;
use crate::state::tasks::NewTask;
use crate::state::{EngineState, Rules};

/// Records by table and key, as JSON.
pub type Rows = BTreeMap<(TableName, String), Vec<u8>>;

type Change = ((TableName, String), Option<Vec<u8>>);

fn change(image: &Image) -> Change {
    let mut json = Vec::new();
    image.encode(&mut json).expect("a record can be written");
    ((image.key().table(), image.key().text()), (!image.is_removal()).then_some(json))
}

/// Every record of a state.
///
/// # Panics
/// Never: no record that passed the engine's door refuses to be written.
#[must_use]
pub fn rows_of(state: &EngineState) -> Rows {
    let mut touched = Touched::default();
    state.note_all(&mut touched);
    let images = state.images(&mut touched).into_iter();
    let present = images.filter(|image| !image.is_removal());
    let rows = present.map(|image| change(&image)).filter_map(|(place, json)| Some((place, json?)));
    rows.collect()
}

/// A state, the source of its turns, and what each of its batches left.
///
/// The same seed makes the same world:
///
/// ```
/// use adjutant_actors::journal::conformance::{Rows, World, append, rows_of};
/// use adjutant_actors::journal::{Journal, NoJournal};
///
/// let mut world = World::new(7);
/// world.epoch = NoJournal.lead()?;
/// append(&NoJournal, world.batch())?;
/// let (rows, mark): (Rows, _) = world.outcome(1);
/// assert_eq!(rows_of(world.state()), rows);
/// assert_eq!((world.events().len() as u64, World::new(8).events().len()), (mark.last_seq, 0));
/// assert!(World::rules().retention.settled_tasks < 1_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct World {
    /// What batches carry.
    pub epoch: u64,
    state: EngineState,
    signer: TokenSigner,
    mint: Mint,
    now: Now,
    seed: u64,
    ids: u128,
    number: u64,
    tasks: Vec<TaskId>,
    open: Vec<ResumeKey>,
    runs: Vec<RunId>,
    changes: Vec<(Vec<Change>, Mark)>,
    events: Vec<EventRecord>,
}

impl World {
    /// An empty world. The same seed takes the same turns and mints the same tokens, in any process.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            epoch: 0,
            state: EngineState::new(Self::rules()),
            signer: TokenSigner::new([7; 32]),
            mint: Mint::seeded(seed),
            now: Now { unix: 1_700_000_000, ms: 1_000 },
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            ids: u128::from(seed) << 64,
            number: 0,
            tasks: Vec::new(),
            open: Vec::new(),
            runs: Vec::new(),
            changes: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The rules of its state: few settled tasks are remembered, so that records go as well.
    #[must_use]
    pub fn rules() -> Rules {
        let mut rules = Rules::from(&EngineCfg::default());
        rules.retention.settled_tasks = 20;
        rules.limits.inline_bytes = 512;
        rules.limits.event_tail = 10_000;
        rules
    }

    /// The records and counters as batch `number` left them.
    ///
    /// # Panics
    /// Where there was no such batch, or the images of all batches do not add up to the state.
    #[must_use]
    pub fn outcome(&self, number: u64) -> (Rows, Mark) {
        assert!(number <= self.number, "batch {number} was not made");
        let count = usize::try_from(number).expect("a count that is kept in memory");
        let (mut rows, mut last) = (Rows::new(), Mark::default());
        for (changes, mark) in self.changes.iter().take(count) {
            last = *mark;
            for (place, image) in changes {
                match image {
                    Some(image) => drop(rows.insert(place.clone(), image.clone())),
                    None => drop(rows.remove(place)),
                }
            }
        }
        let differs = number == self.number && rows != rows_of(&self.state);
        assert!(!differs, "the batches' images do not add up to the state");
        (rows, last)
    }

    /// Every event that was made.
    #[must_use]
    pub fn events(&self) -> &Vec<EventRecord> {
        &self.events
    }

    /// The state as it stands.
    #[must_use]
    pub fn state(&self) -> &EngineState {
        &self.state
    }

    /// Takes some turns and cuts the next batch.
    pub fn batch(&mut self) -> Batch {
        let (mut touched, mut effects) = (Touched::default(), Vec::new());
        for _ in 0..=self.draw(6) {
            self.now.ms += 1 + self.draw(50);
            self.now.unix += self.draw(2);
            match self.turn() {
                Ok(()) => {
                    self.state.note_touched(&mut touched);
                    self.state.commit(&mut effects);
                }
                Err(_) => self.state.rollback(),
            }
        }
        self.number += 1;
        let (number, epoch) = (self.number, self.epoch);
        let batch = Batch::cut(&self.state, &mut touched, &effects, number, epoch, self.now);
        self.events.extend(batch.events.iter().map(|record| (**record).clone()));
        self.changes.push((batch.images.iter().map(change).collect(), batch.mark));
        batch
    }

    /// A number below `end`.
    fn draw(&mut self, end: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) % end.max(1)
    }

    fn task(&mut self) -> TaskId {
        let count = self.tasks.len() as u64;
        let newest = self.draw(count.min(12));
        let at = usize::try_from(count - 1 - newest.min(count - 1)).unwrap_or(0);
        self.tasks[at]
    }

    fn turn(&mut self) -> Result<(), EngineError> {
        let (kind, now) = (self.draw(100), self.now);
        if kind < 25 || self.tasks.is_empty() {
            return self.create();
        }
        let task = self.task();
        let attempt = self.state.task_attempt(task)?;
        match kind {
            25..45 => self.begin(task),
            45..65 => self.output(task, attempt),
            65..72 => self.ask(task),
            72..78 => self.answer(),
            78..90 => {
                let end = AttemptEnd::Done;
                self.state.finish_attempt(task, attempt, end, now);
                Ok(())
            }
            90..93 => self.state.cancel_task(Access::Trusted, task, now),
            93..96 => {
                let value = json!({ "n": self.draw(1_000), "x": 0.1 * self.draw(1_000) as f64 });
                let name = format!("r/{}", self.draw(9));
                self.state.set_resource(name, Arc::new(value))
            }
            96..98 => {
                let paused = self.draw(4) == 0;
                self.state.set_paused(Access::Trusted, paused, now)
            }
            98 => self.attach(),
            _ => self.run(),
        }
    }

    /// Opens a run, starts a step of the newest one, notes how one ended, or ends the run.
    fn run(&mut self) -> Result<(), EngineError> {
        let now = self.now;
        self.ids += 1;
        match (self.draw(4), self.runs.last().copied()) {
            (0, Some(run)) => {
                self.runs.pop();
                let report = Arc::new(json!({ "outcome": "pass" }));
                self.state.end_run(run, RunStatus::Pass, report, now)
            }
            (1 | 2, Some(run)) => {
                let (id, key) = (TaskId::from_bits(self.ids), StepKey::from_bits(self.ids % 5));
                let spec = Arc::new(TaskSpec::new("coder", "take the step"));
                let new = NewTask::new(id, spec);
                let task = self.state.start_step(Access::Trusted, run, key, new, now)?;
                self.state.note_told(task, Arc::new(json!({ "end": "timeout" })));
                self.tasks.push(task);
                Ok(())
            }
            _ => {
                let run = RunId::from_bits(self.ids);
                let (document, input) = (Arc::new(json!({ "id": "r" })), Arc::new(Value::Null));
                let new = NewRun {
                    name: "r".into(),
                    document,
                    document_hash: "d".into(),
                    input,
                    input_hash: "i".into(),
                    settings: Arc::new(Value::Null),
                    sessions: Vec::new(),
                };
                self.runs.push(run);
                self.state.open_run(run, new, now)
            }
        }
    }

    fn token(&mut self, role: Role) -> NewToken {
        let (token, signed) = self.signer.mint_at(TokenRequest {
            agent_id: "ann".to_owned(),
            role,
            scopes: vec!["*".to_owned()],
            issued_at: self.now.unix,
            ttl: Duration::from_secs(3_600),
            max_uses: None,
            nonce: self.mint.nonce(),
        });
        NewToken { token, signed, deadline_ms: self.now.ms + 3_600_000 }
    }

    fn attach(&mut self) -> Result<(), EngineError> {
        let (role, token) = (Role::Operator, self.token(Role::Operator));
        let new =
            NewSession { operator_id: "ann".into(), role, faces: SessionFaces::default(), token };
        self.state.attach(new, self.now).map(drop)
    }

    fn create(&mut self) -> Result<(), EngineError> {
        self.ids += 1;
        let id = TaskId::from_bits(self.ids);
        let spec = Arc::new(TaskSpec::new("coder", "write the part and test it"));
        let parent = (!self.tasks.is_empty() && self.draw(4) == 0).then(|| self.task());
        self.state.create_task(
            Access::Trusted,
            NewTask { parent, key: self.key(3), ..NewTask::new(id, spec) },
            self.now,
        )?;
        self.tasks.push(id);
        Ok(())
    }

    /// A fresh idempotency key, for one of so many.
    fn key(&self, of: u128) -> Option<Arc<str>> {
        self.ids.is_multiple_of(of).then(|| Arc::from(format!("key {}", self.ids)))
    }

    fn begin(&mut self, task: TaskId) -> Result<(), EngineError> {
        self.ids += 1;
        let handle = self.signer.handle_key(&self.ids.to_string());
        let prompt = (self.draw(2) == 0).then(|| Arc::from("go on"));
        let (token, key) = (self.token(Role::Worker), self.key(2));
        let new = NewAttempt { task, token, handle, prompt, key };
        self.state.begin_attempt(Access::Trusted, new, self.now).map(drop)
    }

    fn output(&mut self, task: TaskId, attempt: u32) -> Result<(), EngineError> {
        let long = usize::try_from(self.draw(4)).unwrap_or(0) * 400;
        let value = json!({ "text": "y".repeat(long), "n": self.draw(8) });
        let content = ContentRef::inline(value);
        let event = match self.draw(3) {
            0 => OutputEvent::Progress { stage: "read".to_owned(), note: None },
            1 => OutputEvent::Artifact { name: "log".to_owned(), content },
            _ => OutputEvent::Final { content, ok: self.draw(4) > 0 },
        };
        let new = NewOutput::prepare(event, &Self::rules().limits)?;
        self.state.append_output(Access::Trusted, task, attempt, new, self.now)
    }

    fn ask(&mut self, task: TaskId) -> Result<(), EngineError> {
        self.ids += 1;
        let key = ResumeKey::from_bits(self.ids);
        let question = Measured { value: Arc::new(json!("which way?")), bytes: 12 };
        self.state.query_senior(Access::Trusted, task, key, question, self.now)?;
        self.open.push(key);
        Ok(())
    }

    fn answer(&mut self) -> Result<(), EngineError> {
        let Some(key) = self.open.pop() else { return Ok(()) };
        let answer = Measured { value: Arc::new(Value::Null), bytes: 4 };
        self.state.answer_query(Access::Trusted, key, answer, self.now).map(drop)
    }
}
