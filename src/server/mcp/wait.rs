//! Waiting inside a call without leaving the client in the dark: a bound, and progress meanwhile.

use std::time::Duration;

use rmcp::model::ProgressNotificationParam;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::server::mcp::tool::Call;

/// Longest that a call takes whose client hears of no progress.
pub(crate) const SILENT_MAX: Duration = Duration::from_secs(50);
/// Longest that a call takes whose client does.
const TOLD_MAX: Duration = Duration::from_secs(600);
/// How often progress is told at least.
const PROGRESS: Duration = Duration::from_secs(12);

/// How long a call may wait that would wait for `wanted`.
pub(crate) fn bound(call: &Call, wanted: Duration) -> Duration {
    let told = call.context.meta.get_progress_token().is_some();
    wanted.min(if told { TOLD_MAX } else { SILENT_MAX })
}

/// What the work comes to within the bound; nothing where it takes longer, or where the client has
/// withdrawn its call. The work is dropped then.
///
/// The client is told `what` goes on every few seconds, if it wants to be.
pub(crate) async fn within<T>(
    call: &Call,
    wanted: Duration,
    what: &str,
    work: impl Future<Output = T>,
) -> Option<T> {
    let (began, mut work) = (Instant::now(), std::pin::pin!(work));
    let mut end = std::pin::pin!(tokio::time::sleep(bound(call, wanted)));
    let every = PROGRESS.min(call.app.cfg.heartbeat);
    let mut ticks = interval_at(began + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = call.context.ct.cancelled() => return None,
            () = call.app.closing.cancelled() => return None,
            () = &mut end => return None,
            _ = ticks.tick() => tell(call, began, what).await,
        }
    }
}

async fn tell(call: &Call, began: Instant, what: &str) {
    let Some(token) = call.context.meta.get_progress_token() else { return };
    let progress = ProgressNotificationParam::new(token, began.elapsed().as_secs_f64());
    // A client that cannot be told has gone, which ends the call by itself.
    let _ = call.context.peer.notify_progress(progress.with_message(what)).await;
}
