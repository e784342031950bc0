//! What layers are made of: a worker with something to do after its join, and a spawner that
//! shows the one below it a changed context.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use adjutant_actors::launch::{Worker, WorkerError};
use adjutant_actors::model::ids::{TaskId, WorkerId};
use adjutant_actors::model::token::CapToken;
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::ctx::Ctx;
use crate::engine::Engine;
use crate::spawner::{SpawnError, SpawnerAdapter};

type End = Result<(), WorkerError>;
type EndFuture = Pin<Box<dyn Future<Output = End> + Send>>;
type After = Box<dyn FnOnce(End) -> EndFuture + Send>;

/// A worker whose end somebody looks at. Dropping it, or its join, drops the worker inside.
struct AfterJoin {
    inner: Box<dyn Worker>,
    after: After,
}

/// Lets `after` look at the end of a worker, and decide what is passed on.
pub(crate) fn after_join<F, Fut>(inner: Box<dyn Worker>, after: F) -> Box<dyn Worker>
where
    F: FnOnce(End) -> Fut + Send + 'static,
    Fut: Future<Output = End> + Send + 'static,
{
    Box::new(AfterJoin { inner, after: Box::new(move |end| Box::pin(after(end))) })
}

#[async_trait]
impl Worker for AfterJoin {
    fn id(&self) -> &WorkerId {
        self.inner.id()
    }

    fn cancel_token(&self) -> CancellationToken {
        self.inner.cancel_token()
    }

    async fn join(self: Box<Self>) -> End {
        let Self { inner, after } = *self;
        let end = inner.join().await;
        after(end).await
    }
}

/// A spawner that shows the one below it a changed context.
pub(crate) struct Rewritten<F> {
    inner: Arc<dyn SpawnerAdapter>,
    rewrite: F,
}

/// Lets `rewrite` change the context that the spawner below is shown.
pub(crate) fn rewritten<F>(inner: Arc<dyn SpawnerAdapter>, rewrite: F) -> Arc<dyn SpawnerAdapter>
where
    F: Fn(&mut Ctx) + Send + Sync + 'static,
{
    Arc::new(Rewritten { inner, rewrite })
}

#[async_trait]
impl<F> SpawnerAdapter for Rewritten<F>
where
    F: Fn(&mut Ctx) + Send + Sync,
{
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        let mut ctx = ctx.clone();
        (self.rewrite)(&mut ctx);
        self.inner.spawn(engine, &ctx, task_id, attempt, token).await
    }

    fn launch_restarts(&self) -> u32 {
        self.inner.launch_restarts()
    }
}
