//! Attempts and their outputs by the oracle: begun once, ended once, known again by their key.

use std::sync::Arc;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::event::Event;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::output::{ContentRef, OutputEvent, WorkerPayload};
use adjutant_actors::model::role::Role;
use adjutant_actors::model::task::TaskStatus;
use adjutant_actors::state::attempts::Verdict;
use adjutant_actors::state::effect::Effect;
use serde_json::{Value, json};

use crate::call::{Call, End, Out, Reply, Said, Who, json_text, text};
use crate::oracle::auth::Reach;
use crate::oracle::tasks::refused;
use crate::oracle::{Attempt, Ended, Key, Oracle, Token};

impl Oracle {
    pub(super) fn attempts(&mut self, call: &Call) -> Reply {
        match call.clone() {
            Call::Dispatch { who, task, token, key, prompt, life } => {
                self.dispatch(who, task, (token, life), key, prompt)
            }
            Call::Mint { who, task, token, life, uses } => {
                let grant = self.check(who, Reach::Below(task))?;
                let attempt = self.live(task).ok_or_else(refused)?;
                self.room_for_token()?;
                self.spend(&grant)?;
                self.store_worker_token(token, (task, attempt), life, uses);
                Ok(Said::Number(attempt as usize))
            }
            Call::Pull { who, task } => {
                let grant = self.check(who, Reach::Own(task))?;
                let payload = self.payload(task)?;
                self.spend(&grant)?;
                Ok(Said::Payload(payload))
            }
            Call::Output { who, task, attempt, out, result } => {
                self.output(who, (task, attempt), out)?;
                if result {
                    let body = out_value(out);
                    self.tasks.get_mut(&task).unwrap().result = body;
                }
                Ok(Said::Nothing)
            }
            Call::Bake { task, attempt, text } => {
                self.task(task)?;
                self.attempts.get_mut(&(task, attempt)).ok_or_else(refused)?.system = text;
                Ok(Said::Nothing)
            }
            Call::Finish { task, attempt, end } => {
                Ok(Said::Verdict(self.finish(task, attempt, end)))
            }
            Call::Verdict { task, attempt } => self.verdict(task, attempt).map(Said::Verdict),
            Call::InterruptAll { reason } => {
                let live = self.live_attempts();
                for (task, attempt) in &live {
                    if let Some(verdict) =
                        self.finish(*task, *attempt, End::Interrupted(reason.clone()))
                    {
                        self.effect(Effect::Stop(*task, *attempt, verdict));
                    }
                }
                Ok(Said::Number(live.len()))
            }
            Call::Handle { token } => self.handle(token),
            other => unreachable!("{other:?} is not about an attempt"),
        }
    }

    /// The live attempt of a task.
    pub(super) fn live(&self, id: TaskId) -> Option<u32> {
        let attempt = self.tasks.get(&id)?.attempt;
        self.attempts.get(&(id, attempt)).filter(|held| held.live).map(|_| attempt)
    }

    fn store_worker_token(
        &mut self,
        number: usize,
        bound: (TaskId, u32),
        life: u64,
        uses: Option<u32>,
    ) {
        let token = Token {
            agent: format!("worker-of-{}", bound.0),
            role: Role::Worker,
            session: self.tasks[&bound.0].session,
            bound: Some(bound),
            uses,
            revoked: false,
            deadline: self.now.ms + life,
        };
        self.tokens.insert(number, token);
        self.attempts.get_mut(&bound).unwrap().tokens.push(number);
    }

    /// Whether a task waits for its retry: it says so, and its newest attempt was interrupted.
    fn awaits_retry(&self, id: TaskId) -> bool {
        let task = &self.tasks[&id];
        let newest = self.attempts.get(&(id, task.attempt));
        let ended = newest.and_then(|newest| newest.ended.as_ref());
        task.retry
            && task.status == TaskStatus::Blocked
            && matches!(ended, Some(Ended::Interrupted(_)))
    }

    /// The attempt that was begun under a key before, unless it is to be begun again.
    fn begun_before(
        &self,
        id: TaskId,
        key: &Key,
        prompt: Option<u8>,
    ) -> Result<Option<u32>, EngineError> {
        let of_task = self.attempts.range((id, 0)..=(id, u32::MAX));
        let mut found = of_task.filter_map(|(place, held)| {
            let (own, prompted) = held.key.as_ref()?;
            (own == key).then_some((place.1, *prompted, held.prompt))
        });
        let Some((attempt, prompted, before)) = found.next() else { return Ok(None) };
        assert_eq!(found.next(), None, "one key names two attempts");
        if prompted != prompt.is_some() || (prompted && before != prompt) {
            let key = text(key.1).to_string();
            return Err(EngineError::KeyConflict { key, differs: vec!["prompt"] });
        }
        let again = self.tasks[&id].attempt == attempt && self.awaits_retry(id);
        Ok((!again).then_some(attempt))
    }

    fn dispatch(
        &mut self,
        who: Who,
        id: TaskId,
        (token, life): (usize, u64),
        key: Option<u8>,
        prompt: Option<u8>,
    ) -> Reply {
        let grant = self.check(who, Reach::Below(id))?;
        let key = key.map(|key| self.owned_key(who, key));
        if let Some(key) = &key
            && let Some(attempt) = self.begun_before(id, key, prompt)?
        {
            return Ok(Said::Known(attempt));
        }
        let task = self.task(id)?;
        let (status, root) = (task.status, task.root);
        let ready = [TaskStatus::Pending, TaskStatus::Running, TaskStatus::Blocked];
        if self.live(id).is_some() || !ready.contains(&status) {
            return Err(refused());
        }
        let (current, max) =
            (u64::from(task_attempt(self, id)), self.rules.limits.attempts_per_task);
        if current >= max {
            return Err(EngineError::TableFull { what: "attempts of the task", current, max });
        }
        if status == TaskStatus::Blocked {
            self.room_to_live(root)?;
        }
        self.room_for_token()?;
        if self.paused {
            return Ok(Said::Paused);
        }
        self.spend(&grant)?;
        let newest = self.attempts.get(&(id, task_attempt(self, id)));
        let before = newest.filter(|_| self.awaits_retry(id)).cloned();
        self.become_(id, TaskStatus::Running);
        let task = self.tasks.get_mut(&id).unwrap();
        task.attempt += 1;
        let (attempt, injected, session) = (task.attempt, task.directive.take(), task.session);
        let key = key.map(|key| (key, prompt.is_some()));
        let key = key.or(before.as_ref().and_then(|before| before.key.clone()));
        let others = self.attempts.range_mut((id, 0)..=(id, u32::MAX));
        others
            .filter(|(_, held)| key.is_some() && same_key(&held.key, &key))
            .for_each(|(_, held)| held.key = None);
        let held = Attempt {
            live: true,
            tokens: Vec::new(),
            handle: token,
            prompt: prompt.or(injected).or(before.and_then(|before| before.prompt)),
            system: None,
            outputs: Vec::new(),
            output_bytes: 0,
            last_final: None,
            noted: key.is_some(),
            key,
            ended: None,
        };
        self.attempts.insert((id, attempt), held);
        self.store_worker_token(token, (id, attempt), life, None);
        self.event(Event::TaskAttemptStarted { task_id: id, attempt });
        let session = session.is_some_and(|session| self.sessions.contains_key(&session));
        Ok(Said::Begun(attempt, session))
    }

    fn payload(&self, id: TaskId) -> Result<WorkerPayload, EngineError> {
        let task = self.task(id)?;
        let attempt = task.attempt.max(1);
        let held = self.attempts.get(&(id, attempt));
        let words = |number: Option<u8>| number.map(|number| text(number).to_string());
        Ok(WorkerPayload {
            task_id: id,
            attempt,
            agent: task.spec.agent.clone(),
            system: words(held.and_then(|held| held.system)),
            prompt: words(held.and_then(|held| held.prompt))
                .unwrap_or_else(|| task.spec.initial_directive.clone()),
        })
    }

    fn output(&mut self, who: Who, place: (TaskId, u32), out: Out) -> Result<(), EngineError> {
        let grant = self.check(who, Reach::Own(place.0))?;
        let own = grant.bound.is_none_or(|(_, bound)| bound == place.1);
        if !own || self.live(place.0) != Some(place.1) {
            self.task(place.0)?;
            return Err(refused());
        }
        let (limits, held) = (&self.rules.limits, &self.attempts[&place]);
        for (unit, current, max) in [
            ("events", held.outputs.len() as u64 + 1, limits.outputs_per_attempt),
            ("bytes", held.output_bytes + out_bytes(out), limits.output_bytes_per_attempt),
        ] {
            if current > max {
                return Err(EngineError::OutputLimitExceeded { unit, current, max });
            }
        }
        self.spend(&grant)?;
        let event = self.shown(out);
        let held = self.attempts.get_mut(&place).unwrap();
        if matches!(out, Out::Final(..) | Out::File(_)) {
            held.last_final = Some(held.outputs.len());
        }
        held.outputs.push(out);
        held.output_bytes += out_bytes(out);
        self.event(Event::WorkerOutput { task_id: place.0, attempt: place.1, event });
        Ok(())
    }

    /// The text of a body that is kept once, apart from the events.
    pub(super) fn large_body(&self, out: Out) -> Option<&'static str> {
        let (Out::Artifact(body) | Out::Final(body, _)) = out else { return None };
        Some(json_text(body)).filter(|text| text.len() as u64 > self.rules.limits.inline_bytes)
    }

    /// An output as events show it.
    fn shown(&self, out: Out) -> OutputEvent {
        let mut event = out.event();
        if let (
            Some(text),
            OutputEvent::Artifact { content, .. } | OutputEvent::Final { content, .. },
        ) = (self.large_body(out), &mut event)
        {
            let hash = format!("b3-{}", blake3::hash(text.as_bytes()).to_hex());
            *content = ContentRef::Stored { hash, bytes: text.len() as u64 };
        }
        if let (Out::Partial(body), OutputEvent::Partial { chunk }) = (out, &mut event) {
            let bytes = json_text(body).len() as u64;
            if bytes > self.rules.limits.inline_bytes {
                *chunk = json!({ "omitted_bytes": bytes });
            }
        }
        event
    }

    fn last_final(&self, task: TaskId, attempt: u32) -> Option<Out> {
        let held = self.attempts.get(&(task, attempt))?;
        held.outputs.get(held.last_final?).copied()
    }

    /// The attempt is over: its tokens and its handle end with it.
    pub(super) fn part(&mut self, task: TaskId, attempt: u32) {
        let held = self.attempts.get_mut(&(task, attempt)).unwrap();
        held.live = false;
        for token in std::mem::take(&mut held.tokens) {
            self.revoke(token);
        }
    }

    pub(super) fn note_end(&mut self, task: TaskId, attempt: u32, ended: Ended) {
        let Some(held) = self.attempts.get_mut(&(task, attempt)) else { return };
        if held.noted || matches!(ended, Ended::Interrupted(_)) {
            held.noted = true;
            held.ended = Some(ended);
        }
    }

    fn finish(&mut self, task: TaskId, attempt: u32, end: End) -> Option<Verdict> {
        if self.live(task) != Some(attempt) {
            return None;
        }
        let asked = self.open_question(task);
        let verdict = match (&end, self.last_final(task, attempt), asked) {
            (End::TimedOut, _, Some(_)) => return None,
            (End::Done, Some(out), _) => {
                let ok = matches!(out, Out::Final(_, true) | Out::File(true));
                let result = out_value(out).expect("a Final has a body");
                let shown = self.shown(out).content().expect("a Final has a body").to_value();
                self.decide(task, attempt, ok, result.clone(), shown);
                if ok {
                    Verdict::Pass(Arc::new(result))
                } else {
                    Verdict::Blocked(Arc::new(result))
                }
            }
            (_, _, Some(key)) => {
                self.part(task, attempt);
                Verdict::Suspended(key)
            }
            (end, _, None) => {
                let reason = match end {
                    End::Done => "the worker ended without a Final".to_owned(),
                    End::Failed(reason) => reason.clone(),
                    End::TimedOut => "the attempt ran out of time".to_owned(),
                    End::Interrupted(reason) => format!("interrupted: {reason}"),
                };
                let result = json!({ "error": reason });
                self.decide(task, attempt, false, result.clone(), result);
                match end {
                    End::TimedOut => Verdict::Timeout,
                    _ => Verdict::Failed(reason),
                }
            }
        };
        let ended = match (&verdict, end) {
            (Verdict::Failed(reason), End::Interrupted(_)) => Ended::Interrupted(reason.clone()),
            _ => Ended::As(verdict.clone()),
        };
        self.note_end(task, attempt, ended);
        Some(verdict)
    }

    fn decide(&mut self, id: TaskId, attempt: u32, ok: bool, result: Value, shown: Value) {
        self.part(id, attempt);
        self.close_question(id);
        self.event(Event::TaskAttemptCompleted { task_id: id, attempt, result: shown.clone() });
        self.settle(id, ok, result, shown);
    }

    /// How an attempt ended, for who comes again under its key.
    fn verdict(&self, id: TaskId, attempt: u32) -> Result<Option<Verdict>, EngineError> {
        self.task(id)?;
        if self.live(id) == Some(attempt) {
            return Ok(None);
        }
        let lost = "what the attempt came to is not known any more".to_owned();
        let held = self.attempts.get(&(id, attempt));
        let verdict = match held.and_then(|held| held.ended.clone()) {
            Some(Ended::As(Verdict::Pass(_) | Verdict::Blocked(_)))
                if self.last_final(id, attempt).is_none() =>
            {
                Verdict::Failed(lost)
            }
            Some(Ended::As(verdict)) => verdict,
            Some(Ended::Interrupted(reason)) => Verdict::Failed(reason),
            None => Verdict::Failed(lost),
        };
        Ok(Some(verdict))
    }

    fn handle(&self, number: usize) -> Reply {
        let missing = || EngineError::TokenNotFound(String::new());
        let standing = self.attempts.values().any(|held| held.live && held.handle == number);
        let token = self.tokens.get(&number).filter(|_| standing).ok_or_else(missing)?;
        if token.revoked {
            return Err(EngineError::TokenRevoked);
        }
        if self.now.ms >= token.deadline {
            return Err(EngineError::TokenExpired);
        }
        let (task, attempt) = token.bound.ok_or_else(missing)?;
        Ok(Said::Bound(task, attempt))
    }
}

fn task_attempt(oracle: &Oracle, id: TaskId) -> u32 {
    oracle.tasks[&id].attempt
}

fn same_key(one: &Option<(Key, bool)>, other: &Option<(Key, bool)>) -> bool {
    one.as_ref().map(|key| &key.0) == other.as_ref().map(|key| &key.0)
}

/// The body of an output as a task's result.
fn out_value(out: Out) -> Option<Value> {
    out.event().content().map(ContentRef::to_value)
}

/// Bytes that an output counts.
fn out_bytes(out: Out) -> u64 {
    let counted = match out {
        Out::Progress => "half".len(),
        Out::Partial(body) | Out::Final(body, _) => json_text(body).len(),
        Out::Artifact(body) => "part".len() + json_text(body).len(),
        Out::File(_) => r#"{"file_ref":"a/b","mime":null,"size_hint":null}"#.len(),
    };
    counted as u64
}
