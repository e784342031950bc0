//! Who may call what: the roles, the verbs, and the table that joins them.
//!
//! A verb stands for one kind of call. The table is a plain value that is fixed when the engine
//! is built; it never looks at a task, a session or a token.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a token holder is to the engine. The wire form is snake_case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// Starts tasks and dispatches them.
    Operator,
    /// Does one attempt of one task, and may start tasks below it.
    Worker,
    /// Watches and changes nothing.
    Observer,
    /// Answers questions and corrects verdicts.
    Senior,
}

impl Role {
    /// Every role, in the order of the wire numbers.
    pub const ALL: &'static [Self] = &[Self::Operator, Self::Worker, Self::Observer, Self::Senior];

    /// The number that is signed. It stays with its role for ever.
    #[must_use]
    pub const fn wire(self) -> u8 {
        match self {
            Self::Operator => 1,
            Self::Worker => 2,
            Self::Observer => 3,
            Self::Senior => 4,
        }
    }

    /// The wire text, such as `operator`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Worker => "worker",
            Self::Observer => "observer",
            Self::Senior => "senior",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a role is one of operator, worker, observer, senior")]
pub struct RoleParseError;

impl FromStr for Role {
    type Err = RoleParseError;

    fn from_str(text: &str) -> Result<Self, RoleParseError> {
        Self::ALL.iter().copied().find(|role| role.as_str() == text).ok_or(RoleParseError)
    }
}

macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident = $number:literal $text:literal,)+) => {
        /// One kind of call that the gate allows or refuses. The wire form is snake_case.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Verb {
            $($(#[$doc])* $name,)+
        }

        impl Verb {
            /// Every verb, in the order of the wire numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The number of the verb, below 32. It stays with its verb for ever.
            #[must_use]
            pub const fn wire(self) -> u8 {
                match self { $(Self::$name => $number,)+ }
            }

            /// The wire text, such as `start_task`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

verbs! {
    /// Create a task.
    StartTask = 0 "start_task",
    /// Run one attempt of a task.
    DispatchAttempt = 1 "dispatch_attempt",
    /// Ask for a further token of a live attempt.
    MintWorkerToken = 2 "mint_worker_token",
    /// Read a task.
    ReadTaskState = 3 "read_task_state",
    /// Cancel a task.
    CancelTask = 4 "cancel_task",
    /// Put a question to a senior and suspend the task.
    QuerySenior = 5 "query_senior",
    /// Settle a task as passed.
    MarkPass = 6 "mark_pass",
    /// Settle a task as blocked.
    MarkBlocked = 7 "mark_blocked",
    /// Open a session.
    AttachSession = 8 "attach_session",
    /// End the caller's own session.
    DetachSession = 9 "detach_session",
    /// Keep the caller's own session alive.
    Heartbeat = 10 "heartbeat",
    /// Wait until a task settles or is suspended.
    PollTask = 11 "poll_task",
    /// Pull the prompt of the live attempt.
    FetchPrompt = 12 "fetch_prompt",
    /// Read a named value.
    FetchData = 13 "fetch_data",
    /// Store a result on a task.
    PostResult = 14 "post_result",
    /// Ask whether the caller's own token stands.
    VerifyToken = 15 "verify_token",
    /// Append an output event to the live attempt.
    EmitOutput = 16 "emit_output",
    /// Follow the events.
    SubscribeEvents = 17 "subscribe_events",
    /// Read what has been recorded.
    ReadTrace = 18 "read_trace",
    /// Answer the question that a task is suspended on.
    AnswerQuery = 19 "answer_query",
    /// Replace the verdict of a task.
    OverrideVerdict = 20 "override_verdict",
    /// Hold back new dispatches.
    PauseLoop = 21 "pause_loop",
    /// Let dispatches go on.
    ResumeLoop = 22 "resume_loop",
    /// Set the prompt of a task's next attempt.
    InjectDirective = 23 "inject_directive",
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a worker needs to do its own attempt.
const LEAF: &[Verb] =
    &[Verb::FetchPrompt, Verb::FetchData, Verb::PostResult, Verb::VerifyToken, Verb::EmitOutput];

/// What a worker needs to run tasks of its own.
const SWARM: &[Verb] = &[
    Verb::StartTask,
    Verb::DispatchAttempt,
    Verb::ReadTaskState,
    Verb::PollTask,
    Verb::CancelTask,
];

/// What every role may do with its own session.
const OWN_SESSION: &[Verb] = &[Verb::DetachSession, Verb::Heartbeat];

const OPERATOR: &[Verb] = &[
    Verb::StartTask,
    Verb::DispatchAttempt,
    Verb::MintWorkerToken,
    Verb::ReadTaskState,
    Verb::CancelTask,
    Verb::QuerySenior,
    Verb::MarkPass,
    Verb::MarkBlocked,
    Verb::AttachSession,
    Verb::PollTask,
];

const OBSERVER: &[Verb] = &[Verb::ReadTaskState, Verb::SubscribeEvents, Verb::ReadTrace];

const SENIOR: &[Verb] = &[
    Verb::AnswerQuery,
    Verb::OverrideVerdict,
    Verb::PauseLoop,
    Verb::ResumeLoop,
    Verb::InjectDirective,
];

/// The allow-table: which role may use which verb. What is not allowed is refused.
///
/// It is a set of bits for each role, so copying and asking cost nothing.
///
/// ```
/// use adjutant_actors::model::role::{Role, RoleVerbGate, Verb};
///
/// let gate = RoleVerbGate::new().allow(Role::Observer, &[Verb::ReadTaskState]);
/// assert!(gate.is_allowed(Role::Observer, Verb::ReadTaskState));
/// assert!(!gate.is_allowed(Role::Observer, Verb::CancelTask));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct RoleVerbGate {
    allowed: [u32; Role::ALL.len()],
}

impl RoleVerbGate {
    /// A table that allows nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { allowed: [0; Role::ALL.len()] }
    }

    /// The table with these verbs allowed to the role as well.
    #[must_use]
    pub const fn allow(mut self, role: Role, verbs: &[Verb]) -> Self {
        let mut at = 0;
        while at < verbs.len() {
            self.allowed[row(role)] |= bit(verbs[at]);
            at += 1;
        }
        self
    }

    /// Whether the role may use the verb.
    #[must_use]
    pub const fn is_allowed(&self, role: Role, verb: Verb) -> bool {
        self.allowed[row(role)] & bit(verb) != 0
    }
}

const fn row(role: Role) -> usize {
    role.wire() as usize - 1
}

const fn bit(verb: Verb) -> u32 {
    1 << verb.wire()
}

impl fmt::Debug for RoleVerbGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verbs_of = |role: Role| {
            Verb::ALL.iter().filter(|verb| self.is_allowed(role, **verb)).collect::<Vec<_>>()
        };
        f.debug_map().entries(Role::ALL.iter().map(|role| (role, verbs_of(*role)))).finish()
    }
}

/// The table that an engine has unless its host gives another.
///
/// Operators run tasks, workers do them (and may run tasks of their own), observers watch,
/// seniors answer and correct. Every role may keep alive and end its own session.
#[must_use]
pub const fn default_role_verb_table() -> RoleVerbGate {
    RoleVerbGate::new()
        .allow(Role::Operator, OPERATOR)
        .allow(Role::Operator, OWN_SESSION)
        .allow(Role::Worker, LEAF)
        .allow(Role::Worker, SWARM)
        .allow(Role::Worker, OWN_SESSION)
        .allow(Role::Observer, OBSERVER)
        .allow(Role::Observer, OWN_SESSION)
        .allow(Role::Senior, SENIOR)
        .allow(Role::Senior, OWN_SESSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_table_is_the_documented_one() {
        // One row a verb, in wire order; o, w, b, s: operator, worker, observer, senior.
        let table = "start_task ow\ndispatch_attempt ow\nmint_worker_token o\n\
            read_task_state owb\ncancel_task ow\nquery_senior o\nmark_pass o\nmark_blocked o\n\
            attach_session o\ndetach_session owbs\nheartbeat owbs\npoll_task ow\n\
            fetch_prompt w\nfetch_data w\npost_result w\nverify_token w\nemit_output w\n\
            subscribe_events b\nread_trace b\nanswer_query s\noverride_verdict s\n\
            pause_loop s\nresume_loop s\ninject_directive s";
        let gate = default_role_verb_table();
        let actual = Verb::ALL.iter().map(|verb| {
            let roles = Role::ALL.iter().zip("owbs".chars());
            let may = roles.filter(|(role, _)| gate.is_allowed(**role, *verb));
            format!("{verb} {}", may.map(|(_, letter)| letter).collect::<String>())
        });
        assert_eq!(actual.collect::<Vec<_>>().join("\n"), table);
    }

    #[test]
    fn the_texts_are_those_of_the_wire_and_read_back() {
        for role in Role::ALL {
            assert_eq!(serde_json::to_value(role).unwrap(), role.to_string());
            assert_eq!(role.to_string().parse(), Ok(*role));
        }
        for verb in Verb::ALL {
            assert_eq!(serde_json::to_value(verb).unwrap(), verb.to_string());
        }
        assert_eq!("Operator".parse::<Role>(), Err(RoleParseError));
    }

    #[test]
    fn wire_numbers_are_their_place_in_the_lists() {
        for (at, role) in Role::ALL.iter().enumerate() {
            assert_eq!(usize::from(role.wire()), at + 1);
        }
        for (at, verb) in Verb::ALL.iter().enumerate() {
            assert_eq!(usize::from(verb.wire()), at);
        }
        assert!(Verb::ALL.len() <= 32, "the gate has 32 bits a role");
    }

    #[test]
    fn allowing_adds_and_never_takes_away() {
        let gate = RoleVerbGate::new()
            .allow(Role::Worker, LEAF)
            .allow(Role::Worker, &[Verb::PollTask])
            .allow(Role::Worker, &[]);
        assert!(gate.is_allowed(Role::Worker, Verb::FetchPrompt));
        assert!(gate.is_allowed(Role::Worker, Verb::PollTask));
        assert!(!gate.is_allowed(Role::Operator, Verb::PollTask));
        assert_eq!(RoleVerbGate::default(), RoleVerbGate::new());
        let shown = "{Operator: [], Worker: [PollTask, FetchPrompt, FetchData, PostResult, \
                     VerifyToken, EmitOutput], Observer: [], Senior: []}";
        assert_eq!(format!("{gate:?}"), shown);
    }
}
