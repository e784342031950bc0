//! Secrets are planted, and every text that something holding one has is searched for them.

use std::fmt::{Debug, Write};
use std::time::Duration;

use adjutant::blueprint::SubprocessSpec;
use adjutant::spawner::process::{ChildCommand, ChildSpec, Credentials};
use adjutant::{
    CapToken, Engine, EngineCfg, EngineError, OpenOptions, Role, SigningKey, TaskId, TokenRequest,
    TokenSigner, Verb, WorkerInvocation,
};
use adjutant_actors::model::mint::Mint;
use adjutant_actors::model::token::WorkerHandle;
use adjutant_actors::state::auth::NewToken;
use tokio::sync::oneshot;

use crate::rights::{at_work, copy};
use crate::world::{World, calm, done};

/// A secret of 32 bytes.
const SECRET: &[u8; 32] = b"canary-of-a-secret-of-32-bytes-!";

/// A value that a child finds in its environment.
const VALUE: &str = "canary-of-a-variable";

/// Texts of things, and what must not be in them.
#[derive(Default)]
struct Search {
    shown: String,
    hidden: Vec<String>,
}

impl Search {
    /// A secret, in whichever form bytes are printed.
    fn hide(&mut self, secret: &[u8]) {
        let number = |byte: &u8| byte.to_string();
        let numbers = |between| secret.iter().map(number).collect::<Vec<_>>().join(between);
        let hex = secret.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        self.hidden.extend([numbers(", "), numbers(",\n    "), hex.to_uppercase(), hex]);
        self.hidden.extend(String::from_utf8(secret.to_vec()));
    }

    fn hide_token(&mut self, token: &CapToken) {
        self.hide(token.nonce.as_bytes());
        self.hide(token.sig_hex.as_bytes());
        self.hide(token.encode().as_bytes());
    }

    fn show(&mut self, thing: &impl Debug) {
        write!(self.shown, "{thing:?}\n{thing:#?}\n").unwrap();
    }

    fn show_error<T>(&mut self, refused: Result<T, EngineError>) {
        let Err(error) = refused else { panic!("it was to be refused") };
        self.show(&error);
        writeln!(self.shown, "{error}").unwrap();
    }

    #[track_caller]
    fn finds_nothing(&self) {
        for secret in &self.hidden {
            assert!(secret.len() > 8, "{secret} is too short to be searched");
            let found = self.shown.find(secret.as_str());
            assert_eq!(found.map(|at| &self.shown[at.saturating_sub(80)..at]), None, "before one");
        }
    }
}

#[test]
fn the_search_finds_what_is_shown() {
    let plain = String::from_utf8(SECRET.to_vec()).unwrap();
    for shown in [format!("{SECRET:?}"), format!("{SECRET:#?}"), plain] {
        let mut search = Search { shown, ..Search::default() };
        search.hide(SECRET);
        let found = search.hidden.iter().any(|secret| search.shown.contains(secret.as_str()));
        assert!(found, "{}", search.shown);
    }
}

#[test]
fn what_holds_a_secret_shows_none_of_it() {
    let mut search = Search::default();
    search.hide(SECRET);
    search.hide(VALUE.as_bytes());

    let key = SigningKey::new(7, *SECRET);
    let cfg = EngineCfg { token_secret: SECRET.to_vec(), ..calm() };
    search.show(&cfg);
    search.show(&EngineCfg { token_keys: vec![key.clone()], ..cfg });
    search.show(&key);
    search.show(&OpenOptions::default());

    let mint = Mint::seeded(9);
    search.show(&mint);
    let signer = TokenSigner::new(SECRET);
    let (token, signed) = signer.mint_at(TokenRequest {
        agent_id: "ann".to_owned(),
        role: Role::Worker,
        scopes: Vec::new(),
        issued_at: 1,
        ttl: Duration::from_secs(60),
        max_uses: None,
        nonce: mint.nonce(),
    });
    search.hide_token(&token);
    search.show(&(&signer, &token, signed));
    search.show(&NewToken { token: token.clone(), signed, deadline_ms: 1 });

    let handle = WorkerHandle::draw(&mint);
    search.hide(handle.expose().as_bytes());
    search.show(&handle);
    search.show(&signer.handle_key(handle.expose()));

    let task: TaskId = mint.task_id();
    let mut command = ChildCommand::program("agent");
    command.push_arg(VALUE);
    let mut spec = ChildSpec::new(command);
    spec.set_var("KEY", VALUE);
    spec.credentials = Some(Credentials::new(&token.encode(), handle.expose(), &task));
    search.show(&spec);
    search.show(&(&spec.command, &spec.credentials));
    let line = SubprocessSpec { args: vec![VALUE.into()], ..SubprocessSpec::default() };
    search.show(&SubprocessSpec { env: [("KEY".into(), VALUE.into())].into(), ..line });
    search.finds_nothing();
}

#[tokio::test]
async fn secrets_are_in_no_debug_text_no_error_and_no_event() {
    let world = World::with(EngineCfg { token_secret: SECRET.to_vec(), ..calm() }).await;
    let engine = &world.engine;
    let mut search = Search::default();
    search.hide(SECRET);

    let (given, call) = oneshot::channel();
    let given = std::sync::Mutex::new(Some(given));
    let mut spawner = adjutant::InProcSpawner::new();
    spawner.register("told", move |call: WorkerInvocation| {
        let given = given.lock().unwrap().take();
        async move {
            let sent = given.is_some_and(|given| given.send(call).is_ok());
            done(serde_json::json!(sent), sent)
        }
    });
    let told = world.start("told").await;
    let spawner: std::sync::Arc<dyn adjutant::SpawnerAdapter> = std::sync::Arc::new(spawner);
    engine.dispatch_attempt_with(&world.operator, &told, &spawner).await.unwrap();
    let call = call.await.unwrap();
    search.show(&call);

    let task = world.start("any").await;
    let (token, run) = at_work(&world, task).await;
    engine.cancel_task(&world.operator, &task).await.unwrap();
    for token in [&token, &call.token, &world.operator, &world.senior, &world.observer] {
        search.hide_token(token);
    }
    search.show(engine);
    search.show(engine.signer());
    search.show(&copy(engine).await);
    search.show(&world.events().await);
    search.shown += &serde_json::to_string(&world.events().await).unwrap();
    let state = copy(engine).await;
    search.shown += &format!("{:?}", state.token_record(token.fingerprint()));

    let forged = CapToken { role: Role::Operator, ..token.clone() };
    search.show_error(engine.read_task_state(&token, &task).await);
    search.show_error(engine.heartbeat(&forged).await);
    search.show_error(engine.verify_token(&world.observer, Verb::CancelTask).await);
    let stranger = Engine::new(calm());
    search.show_error(stranger.heartbeat(&world.operator).await);
    search.show_error(stranger.revoke_token(token.fingerprint()).await);
    search.show(&CapToken::decode(&format!("{}0", token.encode())));
    search.finds_nothing();
    assert!(!search.shown.contains("wh-"));
    drop(run);
}
