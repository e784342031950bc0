//! `adjutant serve`: the engine over HTTP until a signal ends it.

use std::sync::Arc;
use std::time::Duration;

use adjutant::server::{AdminToken, MemoryShelf, Server, ServerCfg, Shelf, raise_descriptor_limit};
use adjutant::store::SqliteStore;
use adjutant::{CancellationToken, Engine, EngineCfg, LayerRegistry};
use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::args::ServeArgs;
use crate::cli::drive;
use crate::cli::place::Place;
use crate::cli::{code, print_line, say, usage};

pub(crate) fn main(args: ServeArgs) -> anyhow::Result<i32> {
    if !args.listen.ip().is_loopback() && args.hosts.is_empty() {
        return Ok(usage("an address that is not loopback needs --host NAME"));
    }
    drive::block_on(command(args))
}

async fn command(args: ServeArgs) -> anyhow::Result<i32> {
    // Before anything else, so that no signal finds the process without an ear for it.
    let signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    if let Err(error) = raise_descriptor_limit() {
        say(&format!("adjutant: the limit of descriptors stays as it is: {error}"));
    }
    let store = Place::of(&args.store).open_for_run()?;
    let beside = store.as_ref().map(|store| store.path().join("admin-token"));
    let Some(file) = args.admin_token_file.or(beside) else {
        bail!("without a store, name the file of the admin's token with --admin-token-file");
    };
    let admin = AdminToken::in_file(&file).with_context(|| format!("{}", file.display()))?;
    let (engine, shelf) = open_engine(store).await?;
    let lapses = engine.start_detach_loop();
    let cfg = ServerCfg {
        hosts: args.hosts,
        origins: args.origins,
        programs: args.programs,
        runs: args.runs,
        shelf,
        ..ServerCfg::default()
    };
    let server = Server::bind(engine.clone(), args.listen, admin, cfg)
        .await
        .with_context(|| format!("{} cannot be listened on", args.listen))?;
    say(&format!("adjutant: the admin's token is in {}", file.display()));
    print_line(&format!("http://{}", server.local_addr()?))?;
    // For a person's eyes, once; not through the log.
    say(&format!(
        "adjutant: the page, for one browser within ten minutes: {}",
        server.page_link()?
    ));
    let stop = CancellationToken::new();
    let signals = tokio::spawn(listen(signals, stop.clone()));
    let seconds = Duration::from_secs;
    let ended = server.run(stop, seconds(args.linger), seconds(args.grace)).await;
    signals.abort();
    lapses.abort();
    let report = ended?;
    say(&format!("adjutant: {report}"));
    if let Some(error) = engine.journal_failure() {
        bail!("{error}");
    }
    Ok(code::PASS)
}

/// The engine on its store; what could not be read of that is said.
pub(crate) async fn open_engine(
    store: Option<SqliteStore>,
) -> anyhow::Result<(Engine, Arc<dyn Shelf>)> {
    let mut cfg = EngineCfg::default();
    let Some(store) = store else {
        let engine = Engine::new_with_layers(cfg, LayerRegistry::standard());
        return Ok((engine, Arc::new(MemoryShelf::default())));
    };
    cfg.token_keys = store.keys();
    let store = Arc::new(store);
    let engine = Engine::open(cfg, LayerRegistry::standard(), store.clone()).await?;
    for row in &engine.recovery().set_aside {
        say(&format!("adjutant: {} {}: {}", row.table, row.key, row.why));
    }
    Ok((engine, store))
}

/// The first signal asks for the end, the second one is the end.
pub(crate) async fn listen((mut term, mut int): (Signal, Signal), stop: CancellationToken) {
    either(&mut term, &mut int).await;
    stop.cancel();
    either(&mut term, &mut int).await;
    std::process::exit(code::INTERRUPTED);
}

async fn either(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
