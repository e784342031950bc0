//! One child and its process group: spawned together, ended together, reaped.
//! It reads and writes no pipe. Dropped before its end, it kills the whole group at once and
//! leaves the reaping to the runtime.

use std::io::{self, Write};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adjutant_actors::model::group::ProcessGroup;
use command_fds::{CommandFdExt, FdMapping};
use process_wrap::tokio::{ChildWrapper, CommandWrap, KillOnDrop, ProcessGroup as Grouped};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::group::{Group, Left};
use super::left::identify;
use super::run::ChildError;
use super::spec::{ChildSpec, Credentials};

/// Where the child finds its credentials: the first number after the three standard pipes.
const CREDENTIALS_FD: i32 = 3;

/// How long a killed child may take to die: only the kernel can hold it up.
const DEATH_MAX: Duration = Duration::from_secs(5);

/// How long members of the group may take to die after their leader.
const EMPTY_MAX: Duration = Duration::from_secs(1);

/// Pauses between two looks at a group, from the first to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The pipes of a child, as this side holds them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::spawner::process::{ChildCommand, ChildGroup, ChildPipes, ChildSpec};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let spec = ChildSpec::new(ChildCommand::program("cat"));
/// let (mut group, ChildPipes { mut stdin, mut stdout, .. }) = ChildGroup::spawn(&spec)?;
/// stdin.write_all(b"hello").await?;
/// drop(stdin);
/// let mut said = String::new();
/// stdout.read_to_string(&mut said).await?;
/// assert!(said == "hello" && group.exited().await?.success());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ChildPipes {
    /// What the child reads.
    pub stdin: ChildStdin,
    /// What the child writes as its output.
    pub stdout: ChildStdout,
    /// What the child writes beside it.
    pub stderr: ChildStderr,
}

/// A running child with the group that it leads.
///
/// Dropping it kills the group. The child is then reaped by the runtime, which must still run.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::spawner::process::{ChildCommand, ChildGroup, ChildSpec};
/// use std::time::Duration;
///
/// let spec = ChildSpec::new(ChildCommand::shell("sleep 1000 & wait"));
/// let (mut group, _pipes) = ChildGroup::spawn(&spec)?;
/// assert!(group.id().is_some());
/// group.terminate(Duration::from_secs(2)).await; // asks both the shell and the sleep
/// let status = group.finish().await?; // and kills what did not listen
/// assert!(!status.success());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ChildGroup {
    child: Box<dyn ChildWrapper>,
    /// Forgotten as soon as the group is seen empty: the number may then belong to others.
    group: Option<Group>,
}

impl ChildGroup {
    /// Starts a child in a group of its own, with a cleared environment and all three standard
    /// streams as pipes. Must be called within a runtime.
    ///
    /// # Errors
    /// The program cannot be started, or its credentials cannot be handed over.
    pub fn spawn(spec: &ChildSpec) -> Result<(Self, ChildPipes), ChildError> {
        let mut command = Command::new(spec.command.executable());
        command.args(spec.command.arguments());
        set_environment(&mut command, spec);
        if let Some(folder) = &spec.cwd {
            command.current_dir(folder);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(credentials) = &spec.credentials {
            hand_over(&mut command, credentials)?;
        }
        let mut command = CommandWrap::from(command);
        command.wrap(Grouped::leader()).wrap(KillOnDrop);
        let failed = |source| ChildError::Spawn { program: spec.command.executable(), source };
        let mut child = command.spawn().map_err(failed)?;
        let group = child.id().and_then(Group::of_leader);
        let pipes = (child.stdin().take(), child.stdout().take(), child.stderr().take());
        let whole = Self { child, group };
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(failed(io::Error::other("a standard stream is no pipe")));
        };
        Ok((whole, ChildPipes { stdin, stdout, stderr }))
    }

    /// Holds the child itself up, and says what identifies its group; `None`, with nothing held up,
    /// where the system does not tell. Until [`exited`](Self::exited) reaps it the number is its own.
    pub(super) fn hold(&self) -> Option<ProcessGroup> {
        let group = self.group?;
        let found = identify(self.id()?)?;
        group.hold_leader();
        Some(found)
    }

    /// Lets a child go on that was held up.
    pub(super) fn go_on(&self) {
        if let (Some(group), Some(_)) = (self.group, self.id()) {
            group.go_on();
        }
    }

    /// The child's process id, until it was reaped.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for the child itself and reaps it; others of its group may live on. Cancel-safe.
    ///
    /// # Errors
    /// The system does not tell how the child ended.
    pub async fn exited(&mut self) -> Result<ExitStatus, ChildError> {
        // The wrapper's own wait blocks a thread on every adopted member of the group before it
        // is killed, so the child beneath it is asked.
        self.child.inner_mut().wait().await.map_err(ChildError::Wait)
    }

    /// Asks the whole group to end and gives it `grace` to do so. Returns early when nothing in
    /// it runs any more. What is left is for [`finish`](Self::finish). Dropping this future
    /// shortens the grace.
    pub async fn terminate(&mut self, grace: Duration) {
        let Some(group) = self.group else { return };
        if group.ask_to_end() == Left::Nothing {
            return;
        }
        // The leader is often a shell that dies at once; the grace is for those it started.
        let gone = async {
            let _ = self.exited().await;
            until_gone(group, Group::look).await;
        };
        let _ = timeout(grace, gone).await;
    }

    /// Kills what is left of the group, whether or not the child has ended, and reaps the child.
    /// Call it after a normal end too: a process that the child left behind holds its pipes.
    ///
    /// # Errors
    /// The child cannot be waited for, or the kernel does not let it die.
    pub async fn finish(&mut self) -> Result<ExitStatus, ChildError> {
        if let Some(group) = self.group {
            count_kill(group.kill());
        }
        let reaped = timeout(DEATH_MAX, self.child.wait()).await;
        let status = reaped.map_err(|_| ChildError::NotReaped)?.map_err(ChildError::Wait)?;
        if let Some(group) = self.group {
            // Members forked while the first signal was on its way get the next one.
            if timeout(EMPTY_MAX, until_gone(group, Group::kill)).await.is_err() {
                tracing::warn!("a child's process group does not die");
            }
        }
        self.group = None;
        Ok(status)
    }
}

impl Drop for ChildGroup {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            count_kill(group.kill());
        }
    }
}

/// Groups that were killed while something of them was left, in this process.
static KILLS: AtomicU64 = AtomicU64::new(0);

/// How many groups were killed while something of them was left.
#[cfg(feature = "server")]
pub(crate) fn kills() -> u64 {
    KILLS.load(Ordering::Relaxed)
}

fn count_kill(left: Left) {
    if left == Left::Members {
        KILLS.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reaches for the group again and again until nothing in it runs.
async fn until_gone(group: Group, reach: fn(Group) -> Left) {
    let mut pause = PAUSES.0;
    while reach(group) == Left::Members && running(group).await {
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Looks into the process table off the runtime's own threads.
async fn running(group: Group) -> bool {
    spawn_blocking(move || group.running()).await.unwrap_or(true)
}

fn set_environment(command: &mut Command, spec: &ChildSpec) {
    let inherited = std::env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(|name| spec.inherits(name)));
    command.env_clear().envs(inherited);
    command.envs(spec.vars.iter().map(|(name, value)| (name, value)));
}

/// Puts the credentials into a pipe and its read end into the child. Only this child inherits
/// it: on this side both ends close at every other exec.
fn hand_over(command: &mut Command, credentials: &Credentials) -> Result<(), ChildError> {
    let bytes = credentials.bytes().ok_or(ChildError::CredentialsTooLong)?;
    let (reader, mut writer) = io::pipe().map_err(ChildError::Credentials)?;
    writer.write_all(bytes).map_err(ChildError::Credentials)?;
    drop(writer);
    let mapping = FdMapping { parent_fd: reader.into(), child_fd: CREDENTIALS_FD };
    let mapped = command.fd_mappings(vec![mapping]);
    mapped.map_err(|e| ChildError::Credentials(io::Error::other(e)))?;
    command.env("ADJUTANT_CREDENTIALS_FD", CREDENTIALS_FD.to_string());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spawner::process::ChildCommand;

    /// The signals meet the leader while it forks, which they do rarely with a single command.
    #[tokio::test]
    async fn nothing_of_a_child_that_was_held_up_stays_behind() {
        let forks = "for i in 1 2 3 4 5 6 7 8 9 10; do (:); done; (:) | (:) | cat";
        for round in 0..400 {
            let spec = ChildSpec::new(ChildCommand::shell(forks));
            let (mut child, pipes) = ChildGroup::spawn(&spec).unwrap();
            drop(pipes.stdin);
            // Another moment of the child's first milliseconds each time.
            std::thread::sleep(Duration::from_micros(round * 37 % 3_000));
            if child.hold().is_some() {
                child.go_on();
            }
            let ended = timeout(Duration::from_secs(30), child.exited()).await;
            assert!(ended.is_ok(), "the child of round {round} never ends");
        }
    }
}
