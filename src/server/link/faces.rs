//! The three faces of one login, as the engine sees them: senior bridge, spawn hook, operator.
//!
//! A face asks its link and waits; where another login took over meanwhile, it asks that one, with
//! a fresh handle and a fresh token for the worker, so what the older holder was given is of no use.

use std::sync::Arc;

use adjutant_actors::launch::WorkerError;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::token::CapToken;
use async_trait::async_trait;
use serde_json::{Map, Value, json};

use crate::ctx::Ctx;
use crate::engine::Engine;
use crate::middleware::DATA_SINK_ENDPOINT;
use crate::operator::{Operator, SeniorBridge, SpawnHook, WorkerBinding, WorkerResult};
use crate::server::leases::Leases;
use crate::server::link::frames::{Kind, Reply};
use crate::server::link::{Link, Refused, Told};

/// Longest reason or error of an operator's that is kept.
const REASON_BYTES_MAX: usize = 4096;

/// One login's faces.
pub(crate) struct Faces {
    pub(crate) link: Arc<Link>,
    pub(crate) leases: Arc<Leases>,
    /// Does not keep the engine alive.
    pub(crate) engine: Engine,
}

impl Faces {
    /// Asks the link, or the login that took over from it.
    async fn ask_of(
        &self,
        kind: Kind,
        task: &TaskId,
        fields: Map<String, Value>,
    ) -> Result<Reply, String> {
        let mut link = self.link.clone();
        loop {
            match self.once(&link, kind, task, fields.clone()).await? {
                Told::Reply(reply) => return Ok(reply),
                Told::Moved(next) => link = next,
            }
        }
    }

    async fn once(
        &self,
        link: &Arc<Link>,
        kind: Kind,
        task: &TaskId,
        fields: Map<String, Value>,
    ) -> Result<Told, String> {
        match link.ask(kind, self.engine.mint().bits128(), task, fields) {
            Ok(asked) => asked.told().await,
            Err(Refused::Moved(next)) => Ok(Told::Moved(next)),
            Err(Refused::No(why)) => Err(why),
        }
    }

    /// One try at having an attempt's work done. What the worker is given for it ends with it.
    async fn spawn_once(
        &self,
        link: &Arc<Link>,
        ctx: &Ctx,
        worker: Option<&WorkerBinding>,
    ) -> Result<Told, String> {
        let (task, attempt) = (&ctx.task_id, ctx.attempt);
        let _lent = link.lent.token();
        let token = self.leases.token(&self.engine, task).await;
        let token = token.map_err(|error| format!("mint the worker's token: {error}"))?;
        let handle = self.leases.handle(&self.engine, link.clone(), (*task, attempt));
        let mut fields = about(ctx);
        fields.insert("capability_token".to_owned(), token.token.encode().into());
        fields.insert("worker_handle".to_owned(), handle.text.clone().into());
        if let Some(worker) = worker {
            fields.insert("worker".to_owned(), json!(worker));
        }
        if let Some(sink) = ctx.meta.runtime.get(DATA_SINK_ENDPOINT) {
            fields.insert(DATA_SINK_ENDPOINT.to_owned(), sink.clone());
        }
        fields.insert("directive".to_owned(), directive(ctx, worker).into());
        let told = self.once(link, Kind::Spawn, task, fields).await;
        token.revoke().await;
        told
    }
}

/// What the frames of an attempt say of it.
fn about(ctx: &Ctx) -> Map<String, Value> {
    Map::from_iter([
        ("agent".to_owned(), json!(ctx.agent)),
        ("attempt".to_owned(), json!(ctx.attempt)),
    ])
}

/// What to do, for an operator that is a model.
fn directive(ctx: &Ctx, worker: Option<&WorkerBinding>) -> String {
    let who = match worker {
        Some(worker) => format!("the sub-agent `{}`", worker.definition),
        None => format!("a sub-agent for `{}`", ctx.agent),
    };
    format!(
        "Start {who}. With worker_handle as its bearer it reads what to do from \
         GET /v1/worker/prompt and sends its result to POST /v1/worker/submit. \
         Once it has ended, reply with spawn_ack and this req_id."
    )
}

/// A reason as it may be kept: not longer than is of use.
fn short(mut text: String) -> String {
    let end = (0..=REASON_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
    text
}

#[async_trait]
impl SeniorBridge for Faces {
    async fn ask(&self, task_id: &TaskId, question: Value) -> Result<Value, String> {
        let fields = Map::from_iter([("question".to_owned(), question)]);
        let reply = self.ask_of(Kind::Ask, task_id, fields).await?;
        reply.value.ok_or_else(|| "the operator's answer has no value".to_owned())
    }
}

#[async_trait]
impl SpawnHook for Faces {
    async fn before(&self, ctx: &Ctx) -> Result<(), String> {
        let reply = self.ask_of(Kind::HookBefore, &ctx.task_id, about(ctx)).await?;
        if reply.ok {
            return Ok(());
        }
        Err(short(reply.reason.unwrap_or_else(|| "the operator refused the spawn".to_owned())))
    }

    async fn after(&self, ctx: &Ctx, result: &Value) -> Result<(), String> {
        let mut link = self.link.clone();
        let mut shown = result.clone();
        loop {
            let mut fields = about(ctx);
            fields.insert("result".to_owned(), shown.clone());
            let id = self.engine.mint().bits128();
            match link.tell(Kind::HookAfter, id, Some(&ctx.task_id), fields) {
                Ok(()) => return Ok(()),
                Err(Refused::Moved(next)) => link = next,
                // A result that is too large for the link is named by its size.
                Err(Refused::No(_)) if shown == *result && !result.is_null() => {
                    shown = json!({ "too_large": result.to_string().len() });
                }
                Err(Refused::No(why)) => return Err(why),
            }
        }
    }
}

#[async_trait]
impl Operator for Faces {
    /// The prompt and the system prompt stay here: the worker pulls them with its handle.
    async fn execute(
        &self,
        ctx: &Ctx,
        _system: Option<String>,
        _prompt: String,
        worker: Option<WorkerBinding>,
        _worker_token: CapToken,
    ) -> Result<WorkerResult, WorkerError> {
        let mut link = self.link.clone();
        let reply = loop {
            let told = self.spawn_once(&link, ctx, worker.as_ref()).await;
            match told.map_err(WorkerError::Failed)? {
                Told::Reply(reply) => break reply,
                Told::Moved(next) => link = next,
            }
        };
        match reply.error {
            Some(error) => Err(WorkerError::Failed(short(error))),
            None => Ok(WorkerResult { value: reply.value.unwrap_or_default(), ok: reply.ok }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_between_two_characters() {
        let long = "é".repeat(REASON_BYTES_MAX);
        assert_eq!(short(long.clone()).len(), REASON_BYTES_MAX);
        assert_eq!(short(format!("a{long}")).len(), REASON_BYTES_MAX - 1);
        assert_eq!(short("no".to_owned()), "no");
    }
}
