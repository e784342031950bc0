//! One operator's link: what was asked of it and is not settled, whatever becomes of its sockets.
//!
//! The link outlives each socket. What is asked while none is there is kept until one comes or the
//! link is torn down; what was sent and not settled is sent again on the next one. It holds no
//! socket and no task: `keeper.rs` keeps a task for each link, `pump.rs` carries its frames over
//! one socket, `faces.rs` is what the engine sees. All is bounded by count and by bytes.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adjutant_actors::model::ids::TaskId;
use axum::extract::ws::Utf8Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use cfg::LinkCfg;
use frames::{Kind, Reply, Stamp};

mod cfg;
pub(crate) mod faces;
pub(crate) mod frames;
pub(crate) mod keeper;
#[cfg(feature = "mcp")]
mod polled;
mod pump;
#[cfg(test)]
mod tests;

/// What is counted over all links since the server started.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Sockets that took the place of another one that was still there.
    pub(crate) swaps: AtomicU64,
    /// Logins whose roles another login took.
    pub(crate) taken_over: AtomicU64,
    /// Links that were torn down, whatever for.
    pub(crate) torn_down: AtomicU64,
    /// Sockets that were given up because their peer was silent.
    pub(crate) silent: AtomicU64,
    /// Replies to what was never asked, is settled, or is of an older holder; frames that are none.
    pub(crate) dropped_replies: AtomicU64,
    /// Frames that were refused because a link keeps as many as it may.
    pub(crate) refused_frames: AtomicU64,
}

impl Counts {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why a link is no more.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// Its holder logged out.
    LoggedOut,
    /// It was away for too long.
    Lapsed,
    /// The token is over that it was opened with.
    TokenEnded,
    /// Another login took its roles, and what was asked of it.
    TakenOver(Arc<Link>),
    /// The server ends, or the link's task did.
    Stopped,
}

impl End {
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::LoggedOut => "logged_out",
            Self::Lapsed => "lapsed",
            Self::TokenEnded => "token_ended",
            Self::TakenOver(_) => "taken_over",
            Self::Stopped => "stopped",
        }
    }
}

/// What comes of a request.
#[derive(Debug)]
pub(crate) enum Told {
    Reply(Reply),
    /// To be asked of the login that took over.
    Moved(Arc<Link>),
}

/// A frame that is not settled.
struct Kept {
    kind: Kind,
    req_id: String,
    task: Option<TaskId>,
    text: Utf8Bytes,
    /// None for what wants no reply: that is settled once the peer is known to have read it.
    reply: Option<oneshot::Sender<Told>>,
    sent: bool,
}

#[derive(Default)]
struct Inner {
    last_seq: u64,
    kept: BTreeMap<u64, Kept>,
    asked: HashMap<String, u64>,
    bytes: usize,
    connected: bool,
    /// Calls for frames that are waiting.
    callers: usize,
    end: Option<End>,
}

/// How a link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) connected: bool,
    /// Frames that no socket took yet.
    pub(crate) parked: usize,
    /// Requests without a reply, the parked ones among them.
    pub(crate) unanswered: usize,
    /// All frames that are not settled.
    pub(crate) kept: usize,
}

/// One login's link.
pub(crate) struct Link {
    pub(crate) sid: String,
    pub(crate) generation: u64,
    cfg: LinkCfg,
    counts: Arc<Counts>,
    inner: Mutex<Inner>,
    /// There is a frame to send.
    news: Notify,
    /// Somebody began or ended a call for frames.
    called: Notify,
    ended: CancellationToken,
    /// What was handed over and is not taken back yet.
    lent: TaskTracker,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("sid", &self.sid).finish_non_exhaustive()
    }
}

impl Link {
    pub(crate) fn new(sid: String, generation: u64, cfg: LinkCfg, counts: Arc<Counts>) -> Self {
        let (inner, news, ended) = (Mutex::default(), Notify::new(), CancellationToken::new());
        let lent = TaskTracker::new();
        lent.close();
        let called = Notify::new();
        Self { sid, generation, cfg, counts, inner, news, called, ended, lent }
    }

    /// No change is left half done, so a holder's panic leaves the tables usable.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks something. Dropping what it gives withdraws the request.
    ///
    /// # Errors
    /// Why nothing can be asked: the link is torn down or keeps as much as it may.
    pub(crate) fn ask(
        self: &Arc<Self>,
        kind: Kind,
        id: u128,
        task: &TaskId,
        fields: Map<String, Value>,
    ) -> Result<Asked, Refused> {
        let (reply, wait) = oneshot::channel();
        let seq = self.keep(kind, id, Some(task), fields, Some(reply))?;
        Ok(Asked { link: self.clone(), seq, wait })
    }

    /// Tells something that wants no reply.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) fn tell(
        &self,
        kind: Kind,
        id: u128,
        task: Option<&TaskId>,
        fields: Map<String, Value>,
    ) -> Result<(), Refused> {
        self.keep(kind, id, task, fields, None).map(|_| ())
    }

    fn keep(
        &self,
        kind: Kind,
        id: u128,
        task: Option<&TaskId>,
        fields: Map<String, Value>,
        reply: Option<oneshot::Sender<Told>>,
    ) -> Result<u64, Refused> {
        let req_id = format!("{}-{}-{}", self.sid, kind.mark(), uuid(id));
        let mut inner = self.inner();
        if let Some(end) = &inner.end {
            return Err(match end {
                End::TakenOver(next) => Refused::Moved(next.clone()),
                other => Refused::No(self.gone(other)),
            });
        }
        let seq = inner.last_seq + 1;
        let stamp = Stamp { kind, req_id: &req_id, generation: self.generation, seq };
        let text = frames::text(&stamp, task, fields);
        let (bytes, frames) = (text.len(), inner.kept.len());
        let full = if bytes > self.cfg.frame_bytes {
            format!("the frame has {bytes} bytes, at most {} are taken", self.cfg.frame_bytes)
        } else if frames >= self.cfg.kept_frames {
            format!("{frames} frames wait for it, at most {} may", self.cfg.kept_frames)
        } else if inner.bytes + bytes > self.cfg.kept_bytes {
            format!("{} bytes wait for it, at most {} may", inner.bytes, self.cfg.kept_bytes)
        } else {
            inner.last_seq = seq;
            inner.bytes += bytes;
            inner.asked.insert(req_id.clone(), seq);
            let (task, text) = (task.copied(), text.into());
            inner.kept.insert(seq, Kept { kind, req_id, task, text, reply, sent: false });
            drop(inner);
            self.news.notify_one();
            return Ok(seq);
        };
        drop(inner);
        Counts::add(&self.counts.refused_frames);
        Err(Refused::No(format!("operator {} takes nothing more: {full}", self.sid)))
    }

    fn gone(&self, end: &End) -> String {
        format!("operator {} is gone: {}", self.sid, end.word())
    }

    /// The oldest unsettled frame after this number, which counts as sent from here on, with
    /// whether it wants a reply.
    fn next_after(&self, seq: u64) -> Option<(u64, Utf8Bytes, bool)> {
        let mut inner = self.inner();
        let (seq, kept) = inner.kept.range_mut((Bound::Excluded(seq), Bound::Unbounded)).next()?;
        kept.sent = true;
        Some((*seq, kept.text.clone(), kept.reply.is_some()))
    }

    /// Takes a frame of the operator's. What settles nothing is dropped and counted.
    fn take_reply(&self, text: &str) {
        if !serde_json::from_str(text).is_ok_and(|reply| self.settle(reply)) {
            Counts::add(&self.counts.dropped_replies);
        }
    }

    fn settle(&self, reply: Reply) -> bool {
        if reply.generation.is_some_and(|generation| generation != self.generation) {
            return false;
        }
        let mut inner = self.inner();
        let Some(seq) = inner.asked.get(&reply.req_id).copied() else { return false };
        let fits = |kept: &Kept| kept.kind.reply() == Some(reply.word.as_str());
        if !inner.kept.get(&seq).is_some_and(fits) {
            return false;
        }
        let settled = inner.remove(seq);
        drop(inner);
        settled
            .and_then(|kept| kept.reply)
            .is_some_and(|asked| asked.send(Told::Reply(reply)).is_ok())
    }

    /// The peer has read all frames up to this number: what wants no reply is settled.
    fn was_read(&self, upto: u64) {
        let mut inner = self.inner();
        let told = |(_, kept): &(&u64, &Kept)| kept.sent && kept.reply.is_none();
        let done: Vec<_> = inner.kept.range(..=upto).filter(told).map(|(seq, _)| *seq).collect();
        for seq in done {
            inner.remove(seq);
        }
    }

    /// A request is of no use any more; who may be at work on it is told.
    fn withdraw(&self, seq: u64) {
        let mut inner = self.inner();
        let Some(kept) = inner.remove(seq) else { return };
        drop(inner);
        if kept.sent {
            let fields = Map::from_iter([("withdrawn".to_owned(), json!(kept.req_id))]);
            // Where there is no room for the word, the operator's reply is dropped when it comes.
            let _ = self.tell(Kind::Withdrawn, u128::from(seq), kept.task.as_ref(), fields);
        }
    }

    /// Says whether a socket is there.
    fn set_connected(&self, connected: bool) {
        self.inner().connected = connected;
    }

    /// Ends the link, for the first reason that is given. What was asked of it goes to the login
    /// that took over, or is refused.
    pub(crate) fn end(&self, end: End) -> bool {
        let mut inner = self.inner();
        if inner.end.is_some() {
            return false;
        }
        inner.end = Some(end.clone());
        inner.asked.clear();
        inner.bytes = 0;
        let kept = std::mem::take(&mut inner.kept);
        drop(inner);
        Counts::add(&self.counts.torn_down);
        if let End::TakenOver(next) = end {
            for asked in kept.into_values().filter_map(|kept| kept.reply) {
                let _ = asked.send(Told::Moved(next.clone()));
            }
        }
        self.ended.cancel();
        true
    }

    /// Waits until nothing that was handed over by an ended link is of use.
    pub(crate) async fn taken_back(&self) {
        self.lent.wait().await;
    }

    /// Whether somebody waits in a call for frames.
    fn is_called(&self) -> bool {
        self.inner().callers > 0
    }

    /// Why the link is no more; none while it is.
    pub(crate) fn ended(&self) -> Option<End> {
        self.inner().end.clone()
    }

    pub(crate) fn standing(&self) -> Standing {
        let inner = self.inner();
        Standing {
            connected: (inner.connected || inner.callers > 0) && inner.end.is_none(),
            parked: inner.kept.values().filter(|kept| !kept.sent).count(),
            unanswered: inner.kept.values().filter(|kept| kept.reply.is_some()).count(),
            kept: inner.kept.len(),
        }
    }
}

impl Inner {
    fn remove(&mut self, seq: u64) -> Option<Kept> {
        let kept = self.kept.remove(&seq)?;
        self.asked.remove(&kept.req_id);
        self.bytes -= kept.text.len();
        Some(kept)
    }
}

/// Why a link took no frame.
#[derive(Debug)]
pub(crate) enum Refused {
    /// To be said to the login that took over.
    Moved(Arc<Link>),
    No(String),
}

/// A request that waits for its reply.
pub(crate) struct Asked {
    link: Arc<Link>,
    seq: u64,
    wait: oneshot::Receiver<Told>,
}

impl Asked {
    /// Waits for what comes of it. There is no deadline here: the run has one.
    ///
    /// # Errors
    /// Why no reply comes.
    pub(crate) async fn told(mut self) -> Result<Told, String> {
        let told = (&mut self.wait).await;
        told.map_err(|_| self.link.gone(&self.link.ended().unwrap_or(End::Stopped)))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.link.withdraw(self.seq);
    }
}

/// 128 bits in the usual groups.
pub(crate) fn uuid(bits: u128) -> String {
    let hex = format!("{bits:032x}");
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    format!("{a}-{b}-{c}-{d}-{e}")
}
