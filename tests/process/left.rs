//! Processes that a dead engine left behind: the next one ends them, and nothing but them.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use adjutant::store::{SqliteStore, StoreCfg};
use adjutant::{
    CapToken, Engine, EngineCfg, HoldPolicy, InProcSpawner, LayerRegistry, ProcessGroup,
    ProcessSpawner, Role, SpawnerAdapter, TaskId, TaskSpec, TaskStatus,
};

use crate::census::{alone, eventually, marked};

const PLACE: &str = "ADJUTANT_TEST_LEFT_PLACE";
const HOUR: Duration = Duration::from_secs(3600);

async fn open(place: &Path) -> Engine {
    let store = SqliteStore::open(place, StoreCfg::default()).unwrap();
    let token_secret = store.secret().to_vec();
    // A child that ignores being asked costs half of the grace.
    let cancel_grace = Duration::from_millis(200);
    let hold_policy = HoldPolicy::Warn;
    let cfg = EngineCfg { token_secret, cancel_grace, hold_policy, ..EngineCfg::default() };
    Engine::open(cfg, LayerRegistry::new(), Arc::new(store)).await.unwrap()
}

async fn begin(engine: &Engine, spawner: Arc<dyn SpawnerAdapter>) -> (CapToken, TaskId) {
    let token = engine.attach("ann", Role::Operator, HOUR).await.unwrap();
    let task = engine.start_task(&token, TaskSpec::new("any", "x")).await.unwrap();
    let (inside, ann) = (engine.clone(), token.clone());
    tokio::spawn(async move { inside.dispatch_attempt_with(&ann, &task, &spawner).await });
    (token, task)
}

/// A process of its own that runs an engine with a child until it is killed.
#[test]
fn an_engine_in_a_process_of_its_own() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let place = Path::new(&place);
    alone(async {
        let engine = open(&place.join("store")).await;
        let script = "trap '' HUP TERM; sleep 1000 & touch ready; while :; do wait; done";
        let child = ProcessSpawner::run(script)
            .cwd(place)
            .env("LEFT_MARK", place.to_str().unwrap())
            .use_stdin(false);
        begin(&engine, Arc::new(child)).await;
        std::future::pending().await
    });
}

#[test]
fn the_children_of_a_killed_engine_are_gone_when_the_next_one_is_open() {
    alone(async {
        let dir = tempfile::tempdir().unwrap();
        let mark = format!("LEFT_MARK={}", dir.path().display());
        let mut engine = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "left::an_engine_in_a_process_of_its_own", "--nocapture"])
            .env(PLACE, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("a child that ignores hangups", || dir.path().join("ready").exists()).await;
        engine.kill().unwrap();
        engine.wait().unwrap();
        assert_eq!(marked(&mark), 2, "the shell and its sleeper outlive the engine");
        let engine = open(&dir.path().join("store")).await;
        assert_eq!(marked(&mark), 0);
        let [(task, 1)] = engine.recovery().interrupted[..] else {
            panic!("{:?}", engine.recovery())
        };
        let state = engine.with_state("look", move |state| state.task(&task)).await.unwrap();
        assert_eq!(state.unwrap().status, TaskStatus::Blocked);
        let left = engine.with_state("left", |state| state.left_groups()).await.unwrap();
        assert_eq!(left, [], "it is looked for once");
        engine.shutdown(Duration::from_secs(5)).await;
    });
}

/// Somebody's process with a group of its own.
struct Stranger {
    child: Child,
    group: ProcessGroup,
}

impl Stranger {
    fn start(script: &str) -> Self {
        let mut command = Command::new("sh");
        let child = command.args(["-c", script]).process_group(0).spawn().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let fields: Vec<_> = stat[stat.rfind(')').unwrap() + 1..].split_whitespace().collect();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let group = ProcessGroup {
            number: child.id(),
            session: fields[3].parse().unwrap(),
            start: fields[19].parse().unwrap(),
            boot: boot.trim().into(),
        };
        Self { child, group }
    }

    fn members(&self) -> usize {
        let group = self.group.number.to_string();
        let table = std::fs::read_dir("/proc").unwrap();
        let stats =
            table.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
        stats
            .filter(|stat| {
                let fields = stat[stat.rfind(')').unwrap() + 1..].split_whitespace();
                let fields: Vec<_> = fields.take(3).collect();
                fields[2] == group && fields[0] != "Z"
            })
            .count()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let group = format!("-{}", self.group.number);
        let _ = Command::new("kill").args(["-9", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

/// Lets an engine remember this group for an attempt that is interrupted, and opens the next one.
async fn remembered_by_a_dead_engine(group: ProcessGroup) {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let mut agents = InProcSpawner::new();
    agents.register("any", |_| std::future::pending());
    let (token, task) = begin(&engine, Arc::new(agents)).await;
    let mut running = false;
    while !running {
        running = engine.read_task_state(&token, &task).await.unwrap().attempt == 1;
    }
    let remember = move |state: &mut adjutant::EngineState| state.remember_group(task, 1, group);
    engine.with_state("remember", remember).await.unwrap().unwrap();
    engine.shutdown(Duration::from_secs(1)).await;
    drop(engine);
    let next = open(dir.path()).await;
    let left = next.with_state("left", |state| state.left_groups()).await.unwrap();
    assert_eq!(left, []);
    next.shutdown(Duration::from_secs(5)).await;
}

#[test]
fn a_number_that_another_process_has_by_now_is_left_alone() {
    alone(async {
        let stranger = Stranger::start("exec sleep 1000");
        let real = stranger.group.clone();
        let earlier = ProcessGroup { start: real.start - 1, ..real.clone() };
        let later = ProcessGroup { start: real.start + 1, ..real.clone() };
        let rebooted = ProcessGroup { boot: "another boot".into(), ..real.clone() };
        for group in [earlier, later, rebooted] {
            remembered_by_a_dead_engine(group).await;
            assert_eq!(stranger.members(), 1);
        }
        // The same way ends the process that is the remembered one.
        remembered_by_a_dead_engine(real).await;
        assert_eq!(stranger.members(), 0);
    });
}

#[test]
fn a_group_without_its_leader_is_ended_only_where_all_of_it_fits() {
    alone(async {
        let mut stranger = Stranger::start("sleep 1000 & sleep 1000 &");
        stranger.child.wait().unwrap();
        assert_eq!(stranger.members(), 2);
        let real = stranger.group.clone();
        let later = ProcessGroup { start: real.start + 100_000, ..real.clone() };
        let elsewhere = ProcessGroup { session: real.session + 1, ..real.clone() };
        for group in [later, elsewhere] {
            remembered_by_a_dead_engine(group).await;
            assert_eq!(stranger.members(), 2);
        }
        remembered_by_a_dead_engine(real).await;
        assert_eq!(stranger.members(), 0);
    });
}

#[test]
fn a_child_that_ended_is_not_remembered() {
    alone(async {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path()).await;
        let token = engine.attach("ann", Role::Operator, HOUR).await.unwrap();
        let task = engine.start_task(&token, TaskSpec::new("any", "x")).await.unwrap();
        let spawner: Arc<dyn SpawnerAdapter> = Arc::new(ProcessSpawner::run("cat"));
        engine.dispatch_attempt_with(&token, &task, &spawner).await.unwrap();
        let left = engine.with_state("left", |state| state.left_groups()).await.unwrap();
        assert_eq!(left, []);
        engine.shutdown(Duration::from_secs(5)).await;
    });
}
