//! Lifecycles of tasks as batches, made by transitions alone: what a store is filled with quickly.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use adjutant::journal::Batch;
use adjutant::{
    Access, AttemptEnd, ContentRef, EngineCfg, EngineState, Mint, Now, OutputEvent, Role, TaskSpec,
    TokenRequest, TokenSigner,
};
use adjutant_actors::state::Rules;
use adjutant_actors::state::attempts::NewAttempt;
use adjutant_actors::state::auth::NewToken;
use adjutant_actors::state::effect::Effect;
use adjutant_actors::state::images::Touched;
use adjutant_actors::state::outputs::NewOutput;
use adjutant_actors::state::tasks::NewTask;

/// Lifecycles of tasks, cut into batches.
pub(crate) struct Flow {
    pub(crate) state: EngineState,
    signer: TokenSigner,
    mint: Mint,
    now: Now,
    number: u64,
    pub(crate) epoch: u64,
}

impl Flow {
    /// Nothing is ever forgotten.
    pub(crate) fn rules() -> Rules {
        let mut rules = Rules::from(&EngineCfg::default());
        rules.retention.settled_tasks = u64::MAX;
        rules
    }

    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            state: EngineState::new(Self::rules()),
            signer: TokenSigner::new([7; 32]),
            mint: Mint::seeded(1),
            now: Now { unix: 1_700_000_000, ms: 0 },
            number: 0,
            epoch: 1,
        }
    }

    /// Runs `count` lifecycles, `finish` of which end, and cuts them into one batch.
    pub(crate) fn batch(&mut self, count: usize, finish: usize) -> Batch {
        let (mut touched, mut effects) = (Touched::default(), Vec::new());
        let limits = EngineCfg::default().limits;
        for at in 0..count {
            self.now.ms += 1;
            let now = self.now;
            let task = self.mint.task_id();
            let spec = Arc::new(TaskSpec::new("coder", "write the part, test it, report"));
            let new = NewTask::new(task, spec);
            self.turn(&mut touched, &mut effects, |state| {
                state.create_task(Access::Trusted, new, now).expect("a lawful move");
            });
            if at >= finish {
                continue;
            }
            let (token, signed) = self.signer.mint_at(TokenRequest {
                agent_id: "W-1".to_owned(),
                role: Role::Worker,
                scopes: vec!["*".to_owned()],
                issued_at: now.unix,
                ttl: Duration::from_secs(3600),
                max_uses: None,
                nonce: self.mint.nonce(),
            });
            let handle = self.signer.handle_key(&self.mint.nonce());
            let token = NewToken { token, signed, deadline_ms: now.ms + 3_600_000 };
            let new = NewAttempt { task, token, handle, prompt: None, key: None };
            self.turn(&mut touched, &mut effects, |state| {
                state.begin_attempt(Access::Trusted, new, now).expect("a lawful move");
            });
            let content = ContentRef::inline(serde_json::json!({ "answer": "x".repeat(100) }));
            let new = NewOutput::prepare(OutputEvent::Final { content, ok: true }, &limits)
                .expect("a lawful move");
            self.turn(&mut touched, &mut effects, |state| {
                state.append_output(Access::Trusted, task, 1, new, now).expect("a lawful move");
            });
            self.turn(&mut touched, &mut effects, |state| {
                state.finish_attempt(task, 1, AttemptEnd::Done, now).expect("a lawful move");
            });
        }
        self.number += 1;
        Batch::cut(&self.state, &mut touched, &effects, self.number, self.epoch, self.now)
    }

    fn turn(
        &mut self,
        touched: &mut Touched,
        effects: &mut Vec<Effect>,
        act: impl FnOnce(&mut EngineState),
    ) {
        act(&mut self.state);
        self.state.note_touched(touched);
        self.state.commit(effects);
    }
}
