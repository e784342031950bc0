//! Configuration: every number that an embedder may set, with its default and its presets.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::model::token::SigningKey;

/// What happens when a `with_state` closure holds the state for longer than `max_hold_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HoldPolicy {
    /// The closure's change is kept and the caller that brought it panics.
    Panic,
    /// The closure's change is kept, the hold is counted and logged.
    Warn,
}

/// Settings of an engine. All fields are public; use the struct update syntax.
///
/// ```
/// use adjutant_actors::config::EngineCfg;
/// let cfg = EngineCfg { max_spawn_depth: 2, ..EngineCfg::default() };
/// assert_eq!(cfg.max_retry, 3);
/// ```
#[derive(Clone)]
pub struct EngineCfg {
    /// Refuse at once with `LockBusy` where the turn queue is full.
    pub try_only: bool,
    /// Retries that the waiting budget is made of: the sum of `backoff_ms_step` × n, n from 1.
    pub max_retry: u32,
    /// Milliseconds; see `max_retry`.
    pub backoff_ms_step: u64,
    /// Longest that a state closure may run, in milliseconds.
    pub max_hold_ms: u128,
    /// What an overlong closure leads to.
    pub hold_policy: HoldPolicy,
    /// Root of the signing keys. Fresh random bytes by default; set it for tokens that outlive a
    /// restart. Must not be empty.
    pub token_secret: Vec<u8>,
    /// Signing keys by their ids, at most four, in place of `token_secret` where there are any:
    /// all of them verify, the one with the highest id signs. Such as `SqliteStore::keys`.
    pub token_keys: Vec<SigningKey>,
    /// Waits and heartbeats.
    pub long_hold: LongHoldConfig,
    /// First depth of nested tasks that is refused: a task at `depth >= max_spawn_depth`.
    pub max_spawn_depth: u32,
    /// Turns that may wait in the queue at once; and dispatches that wait while dispatching is paused.
    pub queue_limit: usize,
    /// Longest life of an attempt; its clock stands still while its task is Suspended. `None`
    /// leaves attempts without a time-out.
    pub attempt_timeout: Option<Duration>,
    /// Time between asking a worker to stop and stopping it by force.
    pub cancel_grace: Duration,
    /// Life of a worker token where the attempt has no time-out.
    pub worker_token_ttl: Duration,
    /// Whether cancelling a task cancels the sub-tasks that it started.
    pub cancel_subtasks: bool,
    /// Whether an operator's work may be delegated for any kind, not only MainAi and Composite.
    pub delegate_any_kind: bool,
    /// Whether `link` fails on hints and faces that resolve to nothing, instead of warning.
    pub strict_link: bool,
    /// How many launches after the first an attempt gets when its launch panics before any output.
    pub launch_restarts: u32,
    /// Sizes and counts.
    pub limits: Limits,
    /// How long finished things are remembered.
    pub retention: Retention,
}

/// Waits and heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongHoldConfig {
    /// Wait that a server uses where its caller names none; slow attempts are reported after it.
    pub default_hold: Duration,
    /// Longest wait; longer ones are clamped.
    pub max_hold: Duration,
    /// How often sessions are to beat, and are looked at.
    pub heartbeat_interval: Duration,
    /// Intervals without a beat after which a session lapses.
    pub heartbeat_miss_threshold: u32,
    /// Whether the tasks of a lapsed session go on; otherwise its open tasks are cancelled.
    pub keepalive_on_idle: bool,
}

/// Largest sizes and counts. What is above is refused with an error that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a prompt or system prompt.
    pub prompt_bytes: u64,
    /// Bytes of the JSON text of a result, answer, question, resource or output body.
    pub value_bytes: u64,
    /// Bytes of a body above which it is kept once under its content hash, and by reference in
    /// events. An event tells of a larger chunk only how many bytes it has. Names and notes of
    /// output have at most so many bytes.
    pub inline_bytes: u64,
    /// Attempts of one task.
    pub attempts_per_task: u64,
    /// Output events of one attempt.
    pub outputs_per_attempt: u64,
    /// Bytes of output of one attempt.
    pub output_bytes_per_attempt: u64,
    /// Sub-tasks of one task.
    pub children_per_task: u64,
    /// Unsettled tasks below one operator's task, itself included.
    pub live_tasks_per_tree: u64,
    /// Unsettled tasks in the engine.
    pub live_tasks: u64,
    /// Sessions.
    pub sessions: u64,
    /// Tokens.
    pub tokens: u64,
    /// Named resources.
    pub resources: u64,
    /// Open runs of programs.
    pub open_runs: u64,
    /// Events kept for readers that missed them.
    pub event_tail: usize,
    /// Events that a slow subscriber may lag behind before it misses some.
    pub broadcast_capacity: usize,
}

/// How long finished things are remembered. What is forgotten is gone with all it owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Settled tasks that are remembered; the oldest go first.
    pub settled_tasks: u64,
    /// Longest that a settled task is remembered; one with sub-tasks is let go right after these.
    pub settled_age: Duration,
    /// Longest that a detached session is remembered, once its token is expired or revoked.
    pub session_age: Duration,
    /// Ended runs that are remembered, at most for the age of settled tasks; the oldest go first.
    /// What an open run has done is remembered for as long as it is open.
    pub ended_runs: u64,
    /// How often the sweeper looks.
    pub sweep_interval: Duration,
}

impl Default for EngineCfg {
    fn default() -> Self {
        Self {
            try_only: false,
            max_retry: 3,
            backoff_ms_step: 10,
            max_hold_ms: 50,
            hold_policy: if cfg!(debug_assertions) { HoldPolicy::Panic } else { HoldPolicy::Warn },
            token_secret: fresh_secret(),
            token_keys: Vec::new(),
            long_hold: LongHoldConfig::default(),
            max_spawn_depth: 4,
            queue_limit: 65_536,
            attempt_timeout: None,
            cancel_grace: Duration::from_secs(5),
            worker_token_ttl: Duration::from_secs(48 * 3600),
            cancel_subtasks: true,
            delegate_any_kind: false,
            strict_link: false,
            launch_restarts: 0,
            limits: Limits::default(),
            retention: Retention::default(),
        }
    }
}

impl EngineCfg {
    /// Refuses instead of waiting, and panics on overlong closures.
    #[must_use]
    pub fn strict() -> Self {
        Self {
            try_only: true,
            max_retry: 0,
            backoff_ms_step: 0,
            max_hold_ms: 10,
            hold_policy: HoldPolicy::Panic,
            ..Self::default()
        }
    }

    /// Waits longer and allows longer closures.
    #[must_use]
    pub fn relaxed() -> Self {
        Self { max_retry: 10, backoff_ms_step: 50, max_hold_ms: 200, ..Self::default() }
    }

    /// The longest that a call waits for a place in the turn queue.
    #[must_use]
    pub fn retry_budget(&self) -> Duration {
        let rounds = u64::from(self.max_retry);
        let steps = rounds.saturating_mul(rounds.saturating_add(1)) / 2;
        Duration::from_millis(self.backoff_ms_step.saturating_mul(steps))
    }
}

/// Takes 32 bytes from the operating system.
fn fresh_secret() -> Vec<u8> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    getrandom::fill(bytes.as_mut()).expect("the operating system gives random bytes");
    bytes.to_vec()
}

impl std::fmt::Debug for EngineCfg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineCfg")
            .field("try_only", &self.try_only)
            .field("max_retry", &self.max_retry)
            .field("backoff_ms_step", &self.backoff_ms_step)
            .field("max_hold_ms", &self.max_hold_ms)
            .field("hold_policy", &self.hold_policy)
            .field("long_hold", &self.long_hold)
            .field("max_spawn_depth", &self.max_spawn_depth)
            .field("queue_limit", &self.queue_limit)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("limits", &self.limits)
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}

impl Default for LongHoldConfig {
    fn default() -> Self {
        Self {
            default_hold: Duration::from_secs(3600),
            max_hold: Duration::from_secs(48 * 3600),
            heartbeat_interval: Duration::from_secs(300),
            heartbeat_miss_threshold: 3,
            keepalive_on_idle: true,
        }
    }
}

impl LongHoldConfig {
    /// The time without a beat after which a session lapses.
    #[must_use]
    pub fn lapse_after(&self) -> Duration {
        self.heartbeat_interval.saturating_mul(self.heartbeat_miss_threshold.max(1))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            prompt_bytes: 4 << 20,
            value_bytes: 16 << 20,
            inline_bytes: 25 << 10,
            attempts_per_task: 10_000,
            outputs_per_attempt: 100_000,
            output_bytes_per_attempt: 256 << 20,
            children_per_task: 10_000,
            live_tasks_per_tree: 100_000,
            live_tasks: 1_000_000,
            sessions: 1_000_000,
            tokens: 4_000_000,
            resources: 100_000,
            open_runs: 10_000,
            event_tail: 1024,
            broadcast_capacity: 256,
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            settled_tasks: 100_000,
            settled_age: Duration::from_secs(7 * 24 * 3600),
            session_age: Duration::from_secs(24 * 3600),
            ended_runs: 1_000,
            sweep_interval: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_retry_budget_is_the_sum_of_the_back_offs() {
        assert_eq!(EngineCfg::default().retry_budget(), Duration::from_millis(60));
        assert_eq!(EngineCfg::strict().retry_budget(), Duration::ZERO);
        assert_eq!(EngineCfg::relaxed().retry_budget(), Duration::from_millis(2750));
    }

    #[test]
    fn two_default_configurations_share_no_secret() {
        assert_ne!(EngineCfg::default().token_secret, EngineCfg::default().token_secret);
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let token_keys = vec![SigningKey::new(1, [171; 32])];
        let cfg = EngineCfg { token_secret: vec![171; 32], token_keys, ..EngineCfg::default() };
        assert!(!format!("{cfg:?} {:?}", cfg.token_keys).contains("171"));
    }
}
