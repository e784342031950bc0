//! Sockets that come, go, are swapped or are silent, and what that does to what was asked.

use std::time::Duration;

use adjutant::DispatchOutcome;
use adjutant::server::{LinkCfg, ServerCfg};
use futures::StreamExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::desk::{Desk, calm};
use crate::line::{Line, bearing, refusal};

async fn desk(links: LinkCfg) -> Desk {
    Desk::with(calm(), ServerCfg { links, ..ServerCfg::default() }).await
}

#[tokio::test]
async fn what_is_asked_of_who_is_away_waits_for_a_socket() {
    let desk = Desk::new().await;
    let login = desk.log_in(json!({})).await;
    let dispatch = desk.dispatch(&login.sid, "count").await;
    let shown = desk.until(&login, "parked", json!(1)).await;
    assert_eq!((&shown["link"], &shown["unanswered"]), (&json!("away"), &json!(1)));
    assert_eq!(desk.metric("operator_parked_frames").await, 1);
    let mut line = Line::open(&desk, &login).await;
    let spawn = line.expect("spawn").await;
    let shown = desk.until(&login, "parked", json!(0)).await;
    assert_eq!(shown["link"], "connected");
    assert_eq!(desk.metric("operators_connected").await, 1);
    line.reply(&spawn, "spawn_ack", json!({ "value": 1 })).await;
    assert_eq!(dispatch.end().await.unwrap(), DispatchOutcome::Pass(json!(1)));
}

#[tokio::test]
async fn more_than_may_wait_is_a_clear_error_at_once() {
    let desk = desk(LinkCfg { kept_frames: 2, ..LinkCfg::default() }).await;
    let login = desk.log_in(json!({})).await;
    let (one, two) = (desk.dispatch(&login.sid, "1").await, desk.dispatch(&login.sid, "2").await);
    desk.until(&login, "parked", json!(2)).await;
    let why = desk.dispatch(&login.sid, "3").await.failure().await;
    assert!(why.contains("2 frames wait for it, at most 2 may"), "{why}");
    let mut line = Line::open(&desk, &login).await;
    for value in 1..=2 {
        let spawn = line.expect("spawn").await;
        line.reply(&spawn, "spawn_ack", json!({ "value": value })).await;
    }
    let ends = [one.end().await.unwrap(), two.end().await.unwrap()];
    assert!(ends.iter().all(|end| matches!(end, DispatchOutcome::Pass(_))), "{ends:?}");
    assert_eq!(desk.metric("operator_refused_frames_total").await, 1);
}

#[tokio::test]
async fn a_client_that_is_killed_in_a_spawn_finds_it_again() {
    let desk = Desk::new().await;
    let login = desk.log_in(json!({})).await;
    let mut line = Line::open(&desk, &login).await;
    let dispatch = desk.dispatch(&login.sid, "count").await;
    let spawn = line.expect("spawn").await;
    line.die();
    desk.until(&login, "link", json!("away")).await;
    let mut line = Line::open(&desk, &login).await;
    let again = line.expect("spawn").await;
    assert_eq!(again, spawn, "the same request, with the same handle");
    line.reply(&again, "spawn_ack", json!({ "value": 1 })).await;
    assert_eq!(dispatch.end().await.unwrap(), DispatchOutcome::Pass(json!(1)));
}

#[tokio::test]
async fn the_next_socket_takes_the_place_of_the_last_and_nothing_is_lost_or_doubled() {
    let desk = Desk::new().await;
    let login = desk.log_in(json!({})).await;
    let mut first = Line::open(&desk, &login).await;
    let mut dispatches = Vec::new();
    for number in 0..20 {
        dispatches.push(desk.dispatch(&login.sid, &number.to_string()).await);
    }
    let mut spawns = Vec::new();
    for _ in 0..20 {
        spawns.push(first.expect("spawn").await);
    }
    for spawn in &spawns[..10] {
        first.reply(spawn, "spawn_ack", json!({ "value": spawn["seq"] })).await;
    }
    // Some of these are still on their way: they count wherever they are read.
    let mut second = Line::open(&desk, &login).await;
    for spawn in &spawns {
        second.reply(spawn, "spawn_ack", json!({ "value": spawn["seq"] })).await;
    }
    assert_eq!(first.close_code().await, 4000);
    let mut values = Vec::new();
    for dispatch in dispatches {
        match dispatch.end().await.unwrap() {
            DispatchOutcome::Pass(value) => values.push(value.as_u64().unwrap()),
            other => panic!("{other:?}"),
        }
    }
    values.sort_unstable();
    assert_eq!(values, (1..=20).collect::<Vec<_>>(), "each was answered with its own answer");
    while desk.metric("operator_dropped_replies_total").await < 10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(desk.metric("operator_dropped_replies_total").await, 10);
    assert_eq!(desk.metric("operator_swaps_total").await, 1);
    assert_eq!(desk.shown(&login).await["kept"], 0);
}

#[tokio::test]
async fn a_word_that_wants_no_reply_is_kept_until_it_was_read() {
    let desk = Desk::new().await;
    let login = desk.log_in(json!({})).await;
    let mut deaf = Line::open(&desk, &login).await;
    let dispatch = desk.dispatch(&login.sid, "wait").await;
    deaf.expect("spawn").await;
    desk.engine.cancel_task(&dispatch.token, &dispatch.task).await.unwrap();
    assert_eq!(dispatch.end().await.unwrap(), DispatchOutcome::Cancelled);
    desk.until(&login, "kept", json!(1)).await;
    // The first socket never reads it; the second one does, and so the third one has no need to.
    let mut second = Line::open(&desk, &login).await;
    second.expect("withdrawn").await;
    let reading = tokio::spawn(async move { while second.socket.next().await.is_some() {} });
    desk.until(&login, "kept", json!(0)).await;
    let mut third = Line::open(&desk, &login).await;
    let dispatch = desk.dispatch(&login.sid, "count").await;
    let spawn = third.expect("spawn").await;
    third.reply(&spawn, "spawn_ack", json!({ "value": 1 })).await;
    dispatch.end().await.unwrap();
    reading.await.unwrap();
}

#[tokio::test]
async fn a_silent_peer_loses_its_socket_and_one_that_answers_keeps_it() {
    let desk = desk(LinkCfg { ping: Duration::from_millis(40), ..LinkCfg::default() }).await;
    let (silent, alive) = (desk.log_in(json!({})).await, desk.log_in(json!({})).await);
    let _unread = Line::open(&desk, &silent).await;
    let mut line = Line::open(&desk, &alive).await;
    desk.until(&silent, "connected", json!(true)).await;
    let mut pings = 0;
    while pings < 12 {
        pings += u32::from(matches!(line.message().await, Some(Ok(Message::Ping(_)))));
    }
    let reading = tokio::spawn(async move { while line.socket.next().await.is_some() {} });
    let shown = desk.until(&silent, "connected", json!(false)).await;
    assert_eq!(shown["link"], "away", "the login stands, its socket does not");
    assert_eq!(desk.shown(&alive).await["link"], "connected");
    assert_eq!(desk.metric("operator_silent_sockets_total").await, 1);
    desk.stop.cancel();
    reading.await.unwrap();
}

#[tokio::test]
async fn who_stays_away_is_torn_down_and_what_was_asked_is_refused() {
    let desk = desk(LinkCfg { away: Duration::from_millis(300), ..LinkCfg::default() }).await;
    let login = desk.log_in(json!({ "roles": ["desk"] })).await;
    let dispatch = desk.dispatch("desk", "count").await;
    let why = dispatch.failure().await;
    assert!(why.contains("lapsed"), "{why}");
    let shown = desk.until(&login, "link", json!("torn_down")).await;
    assert_eq!((&shown["reason"], &shown["connected"]), (&json!("lapsed"), &json!(false)));
    let (status, code) = refusal(bearing(&desk, &login.sid, &login.token)).await;
    assert_eq!((status, code.as_str()), (410, "operator_gone"));
    let why = desk.dispatch("desk", "count").await.failure().await;
    assert!(why.contains("no operator desk is registered"), "{why}");
    desk.log_in(json!({ "roles": ["desk"] })).await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_up_nobody_and_nothing_grows() {
    let links = LinkCfg { kept_frames: 10_000, kept_bytes: 1 << 20, ..LinkCfg::default() };
    let desk = desk(links).await;
    let (slow, quick) = (desk.log_in(json!({})).await, desk.log_in(json!({})).await);
    let _unread = Line::open(&desk, &slow).await;
    let mut line = Line::open(&desk, &quick).await;
    let mut refused = 0;
    let mut waiting = Vec::new();
    while refused == 0 {
        for _ in 0..100 {
            waiting.push(desk.dispatch(&slow.sid, "count").await);
        }
        refused = desk.metric("operator_refused_frames_total").await;
        assert!(waiting.len() < 10_000, "it takes no end");
    }
    let dispatch = desk.dispatch(&quick.sid, "count").await;
    let spawn = line.expect("spawn").await;
    line.reply(&spawn, "spawn_ack", json!({ "value": 1 })).await;
    assert_eq!(dispatch.end().await.unwrap(), DispatchOutcome::Pass(json!(1)));
}
