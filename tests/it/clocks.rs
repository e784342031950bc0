//! Clocks that jump: no token lives longer for it, nobody is detached, and nothing breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adjutant::{Clock, Engine, EngineError, LayerRegistry, Now, Role, TaskSpec};
use tokio::time::Instant;

use crate::world::{World, agents, calm};

const DAY: u64 = 24 * 3600;

/// Seconds by which a token may seem to come from the future.
const SKEW: u64 = 60;

/// The wall clock is set by hand, the monotonic one is the runtime's.
struct Jumping {
    start: Instant,
    /// Unix seconds; 0 stands for a clock before 1970.
    wall: AtomicU64,
}

impl Jumping {
    fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), wall: AtomicU64::new(2_000_000_000) })
    }

    fn set(&self, wall: u64) {
        self.wall.store(wall, Ordering::SeqCst);
    }
}

impl Clock for Jumping {
    fn now(&self) -> Result<Now, EngineError> {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap();
        match self.wall.load(Ordering::SeqCst) {
            0 => Err(EngineError::Internal("before 1970".to_owned())),
            unix => Ok(Now { unix, ms }),
        }
    }
}

async fn world(clock: &Arc<Jumping>) -> World {
    World::around(Engine::with_clock(calm(), LayerRegistry::new(), clock.clone())).await
}

/// A row of numbers that look drawn at random.
fn draw(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

#[tokio::test(start_paused = true)]
async fn however_the_wall_clock_jumps_no_token_outlives_its_time() {
    let clock = Jumping::new();
    let world = world(&clock).await;
    let engine = &world.engine;
    let (mut seed, mut served) = (7, 0);
    for round in 0..60 {
        let base = 2_000_000_000;
        clock.set(base);
        let minute = Duration::from_secs(60);
        let token = engine.attach("guest", Role::Operator, minute).await.unwrap();
        let minted = Instant::now();
        for _ in 0..12 {
            let reach = [100, 2 * DAY][usize::try_from(draw(&mut seed) % 2).unwrap()];
            let wall = base - reach / 2 + draw(&mut seed) % reach;
            clock.set(wall);
            let beat = engine.heartbeat(&token).await;
            let old = minted.elapsed() >= minute;
            let fits = wall < token.expire_at && token.issued_at <= wall + SKEW;
            served += u32::from(beat.is_ok());
            // Where either clock says that it is over, it is.
            assert_eq!(beat.is_ok(), !old && fits, "round {round}: {beat:?}");
            tokio::time::sleep(Duration::from_secs(draw(&mut seed) % 12)).await;
        }
        world.audit().await;
    }
    assert!((100..620).contains(&served), "{served} of 720 calls were served");
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_detaches_nobody_and_times_no_attempt_out() {
    let clock = Jumping::new();
    let world = world(&clock).await;
    let task = world.start("hang").await;
    let run = world.run(task, &agents());
    tokio::time::sleep(Duration::from_secs(1)).await;
    clock.set(2_000_000_000 + DAY);
    tokio::time::sleep(Duration::from_secs(120)).await;
    let session = world.engine.read_session(&world.operator).await.unwrap();
    assert!(session.attached, "a jump of the wall clock is no silence");
    assert!(!run.is_finished());
    // Set back, tokens come from the future and are refused, and still nobody is detached.
    clock.set(2_000_000_000 - DAY);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(world.engine.heartbeat(&world.operator).await, Err(EngineError::TokenExpired));
    clock.set(2_000_000_000 + 1);
    assert!(world.engine.read_session(&world.operator).await.unwrap().attached);
    world.engine.cancel_task(&world.operator, &task).await.unwrap();
    run.await.unwrap().unwrap();
    world.at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_before_1970_refuses_what_needs_it_and_breaks_nothing() {
    let clock = Jumping::new();
    let world = world(&clock).await;
    let task = world.start("hang").await;
    let run = world.run(task, &agents());
    tokio::time::sleep(Duration::from_secs(1)).await;
    clock.set(0);
    let refused = world.engine.start_task(&world.operator, TaskSpec::new("any", "x")).await;
    assert!(matches!(refused, Err(EngineError::Internal(_))), "{refused:?}");
    tokio::time::sleep(Duration::from_secs(7200)).await;
    clock.set(2_000_000_000);
    world.engine.cancel_task(&world.operator, &task).await.unwrap();
    run.await.unwrap().unwrap();
    world.at_rest().await;
}

#[tokio::test]
async fn a_token_may_come_from_sixty_seconds_ahead_and_no_more() {
    let clock = Jumping::new();
    let world = world(&clock).await;
    let issued = world.operator.issued_at;
    clock.set(issued - SKEW);
    assert!(world.engine.heartbeat(&world.operator).await.is_ok());
    clock.set(issued - SKEW - 1);
    let early = world.engine.heartbeat(&world.operator).await;
    assert_eq!(early, Err(EngineError::TokenExpired));
}

#[tokio::test(start_paused = true)]
async fn a_token_of_less_than_a_second_says_a_second_and_ends_when_it_was_to() {
    let clock = Jumping::new();
    let world = world(&clock).await;
    let short = Duration::from_millis(300);
    let token = world.engine.attach("guest", Role::Operator, short).await.unwrap();
    assert_eq!(token.expire_at - token.issued_at, 1);
    tokio::time::sleep(Duration::from_millis(299)).await;
    assert!(world.engine.heartbeat(&token).await.is_ok());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(world.engine.heartbeat(&token).await, Err(EngineError::TokenExpired));
}
