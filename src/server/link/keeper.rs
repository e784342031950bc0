//! The task behind a link: takes its sockets as they come, one in place of another, and ends the
//! link that stays without one, or without the right that it stands on.
//!
//! It is a task of the server's and of no request. Each socket has a pump in a task below it; one
//! that panics costs its socket, and the link is away until the operator comes back.

use std::sync::Arc;

use adjutant_actors::model::token::TokenFingerprint;
use axum::extract::ws::WebSocket;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::server::link::pump::pump;
use crate::server::link::{Counts, End, Link};

/// The socket that frames go over.
struct Current {
    pump: AbortHandle,
    swapped: CancellationToken,
}

/// Ends the link with its task, however that ends.
struct EndWithTask(Arc<Link>);

impl Drop for EndWithTask {
    fn drop(&mut self) {
        self.0.end(End::Stopped);
    }
}

/// Keeps a link until it ends.
pub(crate) async fn keep(link: Arc<Link>, mut arrivals: mpsc::Receiver<WebSocket>) {
    let _end = EndWithTask(link.clone());
    let mut pumps = JoinSet::new();
    let mut current: Option<Current> = None;
    let lapse = tokio::time::sleep(link.cfg.away);
    tokio::pin!(lapse);
    loop {
        tokio::select! {
            biased;
            () = link.ended.cancelled() => break,
            Some(socket) = arrivals.recv() => {
                if let Some(old) = current.take() {
                    old.swapped.cancel();
                    Counts::add(&link.counts.swaps);
                }
                current = Some(start(&mut pumps, &link, socket));
                link.set_connected(true);
            }
            Some(ended) = pumps.join_next_with_id(), if !pumps.is_empty() => {
                if current.as_ref().is_some_and(|current| current.pump.id() == id_of(&link, ended)) {
                    current = None;
                    link.set_connected(false);
                    lapse.as_mut().reset(tokio::time::Instant::now() + link.cfg.away);
                }
            }
            () = link.called.notified() => {
                lapse.as_mut().reset(tokio::time::Instant::now() + link.cfg.away);
            }
            () = &mut lapse, if current.is_none() && !link.is_called() => {
                link.end(End::Lapsed);
            }
        }
    }
    // The pumps say goodbye, each within its time.
    while pumps.join_next().await.is_some() {}
}

/// Ends a link once the token is over that its login was opened with. It is looked at as often as a
/// connected operator is pinged, and at once where the login comes from the server before.
pub(crate) async fn watch(link: &Link, engine: &Engine, opener: Option<TokenFingerprint>) {
    let Some(opener) = opener else { return };
    let mut look = tokio::time::interval(link.cfg.ping);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = link.ended.cancelled() => return,
            _ = look.tick() => {}
        }
        // An engine that is busy is asked again.
        if engine.is_token_live(opener).await == Ok(false) {
            link.end(End::TokenEnded);
        }
    }
}

fn start(pumps: &mut JoinSet<()>, link: &Arc<Link>, socket: WebSocket) -> Current {
    let (swapped, link) = (CancellationToken::new(), link.clone());
    let stop = swapped.clone();
    let pump = pumps.spawn(async move { pump(&link, socket, stop).await });
    Current { pump, swapped }
}

fn id_of(link: &Link, ended: Result<(Id, ()), JoinError>) -> Id {
    match ended {
        Ok((id, ())) => id,
        Err(error) => {
            tracing::error!(
                sid = link.sid,
                error = error.to_string(),
                "a socket's task did not end by itself"
            );
            error.id()
        }
    }
}
