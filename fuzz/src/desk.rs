//! A server with a real socket, and the bytes that go over it.
//!
//! One desk serves many inputs and is then replaced, so that what they leave behind stays bounded.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use adjutant::server::{AdminToken, Server, ServerCfg};
use adjutant::{CancellationToken, CapToken, Engine, EngineCfg, HoldPolicy, LayerRegistry, Role};
use adjutant::{TaskId, TaskSpec};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use super::attempt::{self, Given};

/// Long enough that only a hang reaches it.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Inputs that one desk serves.
const INPUTS: u32 = 512;

/// A server, who may ask it, one task, and another one with a worker at it.
pub(crate) struct Desk {
    pub(crate) engine: Engine,
    pub(crate) address: SocketAddr,
    pub(crate) admin: String,
    pub(crate) operator: CapToken,
    pub(crate) observer: CapToken,
    pub(crate) senior: CapToken,
    pub(crate) task: TaskId,
    pub(crate) worker: Given,
    left: u32,
    _folder: TempDir,
    /// Last, so that all else goes while it is there.
    runtime: Runtime,
}

/// The answer to a request: its status, and the head and body that came.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

thread_local! {
    static DESK: RefCell<Option<Desk>> = const { RefCell::new(None) };
}

/// Does something at a desk.
pub(crate) fn with(work: impl AsyncFnOnce(&Desk)) {
    DESK.with_borrow_mut(|desk| {
        if desk.as_ref().is_none_or(|desk| desk.left == 0) {
            *desk = None;
            *desk = Some(Desk::new());
        }
        let desk = desk.as_mut().expect("it was just made");
        desk.left -= 1;
        desk.runtime.block_on(work(desk));
    });
}

impl Desk {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime can be built");
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let path = folder.path().join("admin");
        let token = AdminToken::in_file(&path).expect("the file can be made");
        let admin = std::fs::read_to_string(&path).expect("it was made").trim().to_owned();
        let cfg = EngineCfg { hold_policy: HoldPolicy::Warn, ..EngineCfg::default() };
        let engine = Engine::new_with_layers(cfg, LayerRegistry::standard());
        let (address, people, task, worker) = runtime.block_on(async {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let bound = Server::bind(engine.clone(), any, token, ServerCfg::default()).await;
            let server = bound.expect("loopback has a free port");
            let address = server.local_addr().expect("it is bound");
            tokio::spawn(server.run(CancellationToken::new(), Duration::ZERO, LONG));
            let day = Duration::from_secs(24 * 3600);
            let attach = async |role| engine.attach("fuzz", role, day).await.expect("it may");
            let operator = attach(Role::Operator).await;
            let task = engine.start_task(&operator, TaskSpec::new("echo", "x")).await;
            let worker = attempt::begin(&engine, &operator).await;
            let people = [operator, attach(Role::Observer).await, attach(Role::Senior).await];
            (address, people, task.expect("it may"), worker)
        });
        let ([operator, observer, senior], left) = (people, INPUTS);
        let desk = Self {
            engine,
            address,
            admin,
            operator,
            observer,
            senior,
            task,
            worker,
            left,
            _folder: folder,
            runtime,
        };
        // A handle that was good is let in however many guesses come.
        let first = format!(
            "GET /v1/worker/prompt HTTP/1.1\r\nhost: {address}\r\n\
             authorization: Bearer {}\r\nconnection: close\r\n\r\n",
            desk.worker.handle
        );
        let known = desk.runtime.block_on(desk.ask(first.as_bytes(), LONG));
        assert_eq!(known.expect("it is answered").status, 200);
        desk
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the server takes connections")
    }

    /// Sends a request and reads its answer; none where none came in time.
    pub(crate) async fn ask(&self, request: &[u8], within: Duration) -> Option<Answer> {
        let mut socket = self.connect().await;
        // A server that refuses early does not read the rest.
        let _ = socket.write_all(request).await;
        tokio::time::timeout(within, answer(&mut socket)).await.ok()
    }
}

/// Reads a head, and as much of a body as it says.
pub(crate) async fn answer(socket: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        let read = socket.read_buf(&mut bytes).await.unwrap_or(0);
        assert!(read > 0, "closed without an answer: {:?}", String::from_utf8_lossy(&bytes));
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let mut body = bytes.split_off(end + 4);
    let status = head.get(9..12).and_then(|digits| digits.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {head}"));
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
    while body.len() < length && socket.read_buf(&mut body).await.unwrap_or(0) > 0 {}
    Answer { status, head, body }
}
