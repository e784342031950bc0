//! What a link keeps, settles, refuses and hands on, without any socket.

use super::*;

fn link(cfg: LinkCfg) -> Arc<Link> {
    Arc::new(Link::new("op-1".to_owned(), 7, cfg, Arc::default()))
}

fn task() -> TaskId {
    TaskId::from_bits(1)
}

fn reply(link: &Link, seq: u64, word: &str) -> String {
    let req_id = link.inner().kept[&seq].req_id.clone();
    json!({ "type": word, "req_id": req_id, "value": seq }).to_string()
}

fn dropped(link: &Link) -> u64 {
    link.counts.dropped_replies.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_reply_settles_its_request_once() {
    let link = link(LinkCfg::default());
    let asked = link.ask(Kind::Ask, 1, &task(), Map::new()).unwrap();
    let text = reply(&link, 1, "answer");
    link.take_reply(&text);
    link.take_reply(&text);
    assert!(matches!(asked.told().await, Ok(Told::Reply(reply)) if reply.value == Some(json!(1))));
    assert_eq!((dropped(&link), link.inner().bytes), (1, 0));
    assert!(link.next_after(0).is_none(), "nothing is left to say");
}

#[tokio::test]
async fn a_reply_of_another_kind_or_generation_settles_nothing() {
    let link = link(LinkCfg::default());
    let _asked = link.ask(Kind::Spawn, 1, &task(), Map::new()).unwrap();
    link.take_reply(&reply(&link, 1, "answer"));
    let mut older: Value = serde_json::from_str(&reply(&link, 1, "spawn_ack")).unwrap();
    older["generation"] = json!(6);
    link.take_reply(&older.to_string());
    link.take_reply("no json");
    assert_eq!((dropped(&link), link.standing().unanswered), (3, 1));
}

#[tokio::test]
async fn what_was_sent_and_not_settled_is_sent_again_unchanged() {
    let link = link(LinkCfg::default());
    let _first = link.ask(Kind::Ask, 1, &task(), Map::new()).unwrap();
    link.tell(Kind::HookAfter, 2, Some(&task()), Map::new()).unwrap();
    let sent = [link.next_after(0).unwrap(), link.next_after(1).unwrap()];
    assert!(link.next_after(2).is_none());
    assert_eq!([link.next_after(0).unwrap(), link.next_after(1).unwrap()], sent);
    link.was_read(2);
    assert_eq!(link.next_after(1), None, "what wants no reply is settled by being read");
    assert!(link.next_after(0).is_some(), "a request waits for its reply");
}

#[tokio::test]
async fn a_request_that_is_dropped_is_withdrawn_where_it_was_sent() {
    let link = link(LinkCfg::default());
    drop(link.ask(Kind::Spawn, 1, &task(), Map::new()).unwrap());
    assert!(link.next_after(0).is_none(), "nobody saw it");
    let asked = link.ask(Kind::Spawn, 2, &task(), Map::new()).unwrap();
    let (_, spawn, _) = link.next_after(0).unwrap();
    drop(asked);
    let (_, withdrawn, wants_reply) = link.next_after(0).unwrap();
    let frames = [spawn, withdrawn].map(|text| serde_json::from_str::<Value>(&text).unwrap());
    assert_eq!(frames[1]["withdrawn"], frames[0]["req_id"]);
    assert!(!wants_reply);
}

#[tokio::test]
async fn a_full_link_says_so_by_count_by_bytes_and_by_frame() {
    let cfg = LinkCfg { kept_frames: 2, kept_bytes: 1000, frame_bytes: 600, ..LinkCfg::default() };
    let link = link(cfg);
    let big = |bytes: usize| Map::from_iter([("question".to_owned(), json!("x".repeat(bytes)))]);
    let refusal = |fields| match link.ask(Kind::Ask, 1, &task(), fields) {
        Ok(_) => panic!("it was taken"),
        Err(refused) => format!("{refused:?}"),
    };
    assert!(refusal(big(600)).contains("at most 600 are taken"));
    let _one = link.ask(Kind::Ask, 1, &task(), big(400)).unwrap();
    assert!(refusal(big(430)).contains("at most 1000 may"));
    let _two = link.ask(Kind::Ask, 2, &task(), Map::new()).unwrap();
    assert!(refusal(Map::new()).contains("2 frames wait for it, at most 2 may"));
    assert_eq!(link.counts.refused_frames.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn what_was_asked_moves_to_who_takes_over_and_is_refused_at_other_ends() {
    let (first, second) = (link(LinkCfg::default()), link(LinkCfg::default()));
    let asked = first.ask(Kind::Ask, 1, &task(), Map::new()).unwrap();
    assert!(first.end(End::TakenOver(second.clone())));
    assert!(!first.end(End::LoggedOut), "the first reason counts");
    assert!(matches!(asked.told().await, Ok(Told::Moved(next)) if Arc::ptr_eq(&next, &second)));
    let late = first.ask(Kind::Ask, 1, &task(), Map::new());
    assert!(matches!(late, Err(Refused::Moved(_))));
    let asked = second.ask(Kind::Ask, 1, &task(), Map::new()).unwrap();
    second.end(End::Lapsed);
    let why = asked.told().await.map(|_| ()).unwrap_err();
    assert!(why.contains("lapsed"), "{why}");
}
