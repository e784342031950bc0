//! Carries a link's frames over one socket, until either ends or another socket takes its place.
//!
//! Nothing waits for a slow reader but its own pump: frames stay in the link, which is bounded.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use crate::server::link::{Counts, End, Link};

/// Longest that a socket gets to say what it still has to say, once it is to close.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// Close codes of our own, in the range that is free for it.
const SWAPPED: u16 = 4000;
const TAKEN_OVER: u16 = 4001;
const TORN_DOWN: u16 = 4002;
const SILENT: u16 = 4003;
const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;

/// Carries frames until the socket or the link ends, or `swapped` says that another is there.
pub(super) async fn pump(link: &Link, socket: WebSocket, swapped: CancellationToken) {
    let (mut sink, mut stream) = socket.split();
    let unheard = AtomicU32::new(0);
    let close = tokio::select! {
        // The end of a link is told even to who sends without a pause.
        biased;
        () = link.ended.cancelled() => Some(why(link)),
        () = swapped.cancelled() => Some((SWAPPED, "another socket took the place of this one")),
        () = read(link, &mut stream, &unheard) => None,
        () = write(link, &mut sink) => None,
        () = watch(link, &unheard) => {
            Counts::add(&link.counts.silent);
            Some((SILENT, "no sign of life"))
        }
    };
    let Some((code, reason)) = close else { return };
    let message = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    let ending = async {
        let _ = sink.send(message).await;
        // What the peer said before it heard of the end still counts.
        read(link, &mut stream, &unheard).await;
    };
    let _ = timeout(CLOSE_TIME, ending).await;
}

fn why(link: &Link) -> (u16, &'static str) {
    match link.ended() {
        Some(End::LoggedOut) => (NORMAL, "logged out"),
        Some(End::TakenOver(_)) => (TAKEN_OVER, "another login took over"),
        Some(End::Lapsed) => (TORN_DOWN, "torn down"),
        Some(End::TokenEnded) => (TORN_DOWN, "the token that it was opened with is over"),
        Some(End::Stopped) | None => (GOING_AWAY, "the server ends"),
    }
}

/// Sends what is not settled, oldest first, and then whatever comes. A ping carries the number of
/// the last frame before it, so its pong says what the peer has read.
async fn write(link: &Link, sink: &mut SplitSink<WebSocket, Message>) {
    let every = link.cfg.ping;
    let mut tick = interval_at(tokio::time::Instant::now() + every, every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = 0;
    loop {
        let mut unconfirmed = false;
        while let Some((seq, text, wants_reply)) = link.next_after(sent) {
            if sink.send(Message::Text(text)).await.is_err() {
                return;
            }
            sent = seq;
            unconfirmed |= !wants_reply;
        }
        if !unconfirmed {
            tokio::select! {
                () = link.news.notified() => continue,
                _ = tick.tick() => {}
            }
        }
        let number = Bytes::copy_from_slice(&sent.to_be_bytes());
        if sink.send(Message::Ping(number)).await.is_err() {
            return;
        }
    }
}

/// Takes what comes. Whatever it is, it is a sign of life.
async fn read(link: &Link, stream: &mut SplitStream<WebSocket>, unheard: &AtomicU32) {
    while let Some(Ok(message)) = stream.next().await {
        unheard.store(0, Ordering::Relaxed);
        match message {
            Message::Text(text) => link.take_reply(&text),
            Message::Pong(number) => {
                if let Ok(number) = <[u8; 8]>::try_from(number.as_ref()) {
                    link.was_read(u64::from_be_bytes(number));
                }
            }
            Message::Binary(_) => Counts::add(&link.counts.dropped_replies),
            Message::Ping(_) => {}
            Message::Close(_) => return,
        }
    }
}

/// Ends once a peer gave no sign of life for as many pings as it may.
async fn watch(link: &Link, unheard: &AtomicU32) {
    let mut tick = tokio::time::interval(link.cfg.ping);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if unheard.fetch_add(1, Ordering::Relaxed) > link.cfg.missed_pings {
            return;
        }
    }
}
