//! What lies in the mailboxes is counted by the kind of actor, and comes to nothing again.
//!
//! The runtime has one thread, so nobody takes a message up before the test lets it.

use adjutant::Mailboxes;
use futures::poll;

use crate::world::{LONG, World, eventually};

async fn mailboxes(world: &World) -> Mailboxes {
    world.engine.supervision().await.mailboxes
}

async fn are_empty(world: &World) {
    eventually("empty mailboxes", || async { mailboxes(world).await == Mailboxes::default() })
        .await;
}

#[tokio::test]
async fn beats_of_a_session_lie_until_its_actor_takes_them_up() {
    let world = World::new().await;
    world.engine.heartbeat(&world.operator).await.unwrap();
    are_empty(&world).await;
    let mut beats: Vec<_> =
        (0..5).map(|_| Box::pin(world.engine.heartbeat(&world.operator))).collect();
    for beat in &mut beats {
        assert!(poll!(beat).is_pending());
    }
    assert_eq!(mailboxes(&world).await, Mailboxes { sessions: 5, ..Mailboxes::default() });
    for beat in beats {
        beat.await.unwrap();
    }
    are_empty(&world).await;
}

#[tokio::test]
async fn the_word_of_callers_that_left_lies_until_their_waiter_takes_it_up() {
    let world = World::new().await;
    let task = world.start("any").await;
    let mut polls: Vec<_> =
        (0..3).map(|_| Box::pin(world.engine.poll_task(&world.operator, &task, LONG))).collect();
    for parked in &mut polls {
        assert!(poll!(parked).is_pending());
    }
    assert_eq!(mailboxes(&world).await.state, 3, "each is a turn first");
    are_empty(&world).await;
    drop(polls);
    assert_eq!(mailboxes(&world).await, Mailboxes { waiters: 3, ..Mailboxes::default() });
    are_empty(&world).await;
}

#[tokio::test]
async fn the_roots_mailbox_is_one_of_them() {
    let world = World::new().await;
    let mut first = Box::pin(world.engine.supervision());
    assert!(poll!(&mut first).is_pending());
    let second = world.engine.supervision().await;
    assert_eq!(second.mailboxes, Mailboxes { supervisors: 1, ..Mailboxes::default() });
    assert_eq!(first.await.mailboxes, Mailboxes::default());
    are_empty(&world).await;
}
