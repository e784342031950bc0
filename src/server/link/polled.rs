//! An operator that calls for what is asked of it instead of holding a socket.
//!
//! It is the same link with the same rules: what was given out and not settled is given out again.
//! Each call is a sign of life, so the link lapses only when the calls stop.

use axum::extract::ws::Utf8Bytes;
use serde_json::Value;

use crate::server::link::frames::Reply;
use crate::server::link::{Counts, Link};

/// Counts a call as long as it lasts.
struct Calling<'a>(&'a Link);

impl<'a> Calling<'a> {
    fn on(link: &'a Link) -> Self {
        link.inner().callers += 1;
        link.called.notify_one();
        Self(link)
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        self.0.inner().callers -= 1;
        self.0.called.notify_one();
    }
}

impl Link {
    /// The oldest unsettled frame after this number with its own number, once there is one; none
    /// where the link has ended. What wants no reply is settled by this. Dropping the future
    /// settles nothing.
    pub(crate) async fn call_for(&self, after: u64) -> Option<(u64, Utf8Bytes)> {
        let _calling = Calling::on(self);
        loop {
            if self.ended().is_some() {
                return None;
            }
            if let Some((seq, text, wants_reply)) = self.next_after(after) {
                if !wants_reply {
                    self.was_read(seq);
                }
                // Who else waits looks again: the word of a frame wakes one alone.
                self.news.notify_one();
                return Some((seq, text));
            }
            tokio::select! {
                () = self.news.notified() => {}
                () = self.ended.cancelled() => return None,
            }
        }
    }

    /// Replies to a request. False where it is not open, or wants no reply.
    pub(crate) fn answer(
        &self,
        req_id: &str,
        value: Option<Value>,
        ok: bool,
        error: Option<String>,
    ) -> bool {
        let asked = {
            let inner = self.inner();
            let kept = inner.asked.get(req_id).and_then(|seq| inner.kept.get(seq));
            kept.and_then(|kept| kept.kind.reply())
        };
        let settled = asked.is_some_and(|word| {
            let (word, req_id, reason) = (word.to_owned(), req_id.to_owned(), error.clone());
            self.settle(Reply { word, req_id, generation: None, value, ok, reason, error })
        });
        if !settled {
            Counts::add(&self.counts.dropped_replies);
        }
        settled
    }
}
