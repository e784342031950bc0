//! Settings of the engine: its limits, and how long it remembers.

use std::time::Duration;

use super::{Key, wide};
use crate::cli::settings::value::{Kind, Value};

pub(super) const LIMITS: &[Key] = &[
    number!(
        "limits.prompt_bytes",
        "Bytes of a prompt, and of a task's directive, which becomes one.",
        engine.limits.prompt_bytes
    ),
    number!(
        "limits.value_bytes",
        "Bytes of a result, an answer or a question.",
        engine.limits.value_bytes
    ),
    number!(
        "limits.inline_bytes",
        "Bytes above which a body is kept once and by reference.",
        engine.limits.inline_bytes
    ),
    number!("limits.attempts_per_task", "Attempts of a task.", engine.limits.attempts_per_task),
    number!(
        "limits.outputs_per_attempt",
        "Output events of an attempt.",
        engine.limits.outputs_per_attempt
    ),
    number!(
        "limits.output_bytes_per_attempt",
        "Bytes of output of an attempt.",
        engine.limits.output_bytes_per_attempt
    ),
    number!("limits.children_per_task", "Sub-tasks of a task.", engine.limits.children_per_task),
    number!(
        "limits.live_tasks_per_tree",
        "Unsettled tasks below one task.",
        engine.limits.live_tasks_per_tree
    ),
    number!("limits.live_tasks", "Unsettled tasks.", engine.limits.live_tasks),
    number!("limits.sessions", "Sessions.", engine.limits.sessions),
    number!("limits.tokens", "Tokens.", engine.limits.tokens),
    number!("limits.resources", "Named resources.", engine.limits.resources),
    number!("limits.open_runs", "Open runs.", engine.limits.open_runs),
    number!("limits.live_runs", "Runs that are carried on at a time.", server.runs),
    number!(
        "limits.waiting_dispatches",
        "Dispatches of single tasks that wait for their agent.",
        server.dispatches
    ),
    number!(
        "limits.dispatch_bytes",
        "Bytes of the documents and prompts that these keep.",
        server.dispatch_bytes
    ),
    number!("limits.event_tail", "Events kept in memory.", engine.limits.event_tail),
    number!(
        "limits.broadcast_capacity",
        "Events that a subscriber may lag behind.",
        engine.limits.broadcast_capacity
    ),
    number!(
        "limits.spawn_depth",
        "First depth of sub-tasks that is refused.",
        engine.max_spawn_depth
    ),
    number!(
        "limits.queued_turns",
        "Turns that may wait; and dispatches that wait for a resume.",
        engine.queue_limit
    ),
    key!(
        "limits.attempt_secs",
        Number,
        "Longest life of an attempt; 0 for none of its own.",
        |c| Value::Number(c.engine.attempt_timeout.map_or(0, |time| time.as_secs())),
        |c, value| {
            let secs = value.number()?;
            c.engine.attempt_timeout = (secs > 0).then(|| Duration::from_secs(secs));
            Ok(())
        }
    ),
    secs!(
        "limits.cancel_grace_secs",
        "Time between asking a worker to stop and stopping it.",
        engine.cancel_grace
    ),
    secs!(
        "limits.worker_token_secs",
        "Life of a worker's token where its attempt has no limit.",
        engine.worker_token_ttl
    ),
    secs!("limits.hold_secs", "Longest wait of a poll.", engine.long_hold.max_hold),
    secs!(
        "limits.session_secs",
        "Longest life of a session that is attached over HTTP.",
        server.session_time
    ),
    secs!(
        "limits.session_beat_secs",
        "How often sessions are to beat.",
        engine.long_hold.heartbeat_interval
    ),
    number!(
        "limits.session_missed_beats",
        "Beats missed after which a session lapses.",
        engine.long_hold.heartbeat_miss_threshold
    ),
];

pub(super) const RETENTION: &[Key] = &[
    number!(
        "retention.settled_tasks",
        "Settled tasks that are remembered.",
        engine.retention.settled_tasks
    ),
    secs!(
        "retention.settled_age_secs",
        "Longest that a settled task is remembered.",
        engine.retention.settled_age
    ),
    secs!(
        "retention.session_age_secs",
        "Longest that a detached session is remembered.",
        engine.retention.session_age
    ),
    number!("retention.ended_runs", "Ended runs that are remembered.", engine.retention.ended_runs),
    secs!("retention.sweep_secs", "How often the sweeper looks.", engine.retention.sweep_interval),
];
