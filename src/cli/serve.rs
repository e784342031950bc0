//! `adjutant serve`: the engine over HTTP until a signal ends it.

use std::path::PathBuf;
use std::sync::Arc;

use adjutant::server::{
    About, AdminToken, DataSink, MemoryShelf, RecentErrors, Server, ServerCfg, Shelf,
    raise_descriptor_limit,
};
use adjutant::store::SqliteStore;
use adjutant::{CancellationToken, Engine, EngineCfg, LayerRegistry};
use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::args::{LogArgs, ServeArgs};
use crate::cli::client::Card;
use crate::cli::config::{Flags, sources};
use crate::cli::place::Place;
use crate::cli::settings::{Config, Settings};
use crate::cli::{code, drive, log, print_line, say, spans, usage};

pub(crate) fn main(args: ServeArgs, logs: &LogArgs) -> anyhow::Result<i32> {
    let flags = flags(&args, logs);
    let settings = match Settings::load(&sources(&args.settings, flags)) {
        Ok(settings) => settings,
        Err(mistakes) => return Ok(usage(&mistakes.to_string())),
    };
    settings.notes.iter().for_each(|note| say(&format!("adjutant: {note}")));
    let config = &settings.config;
    if !config.listen.ip().is_loopback() && config.server.hosts.is_empty() {
        return Ok(usage(&format!(
            "{} is not loopback: give the name that it is asked for under with --host NAME",
            config.listen
        )));
    }
    drive::block_on(command(settings))
}

/// What the command line says of settings.
fn flags(args: &ServeArgs, logs: &LogArgs) -> Flags {
    Flags::default()
        .text("server.listen", "--listen", args.listen.as_deref())
        .text("store.path", "--store", args.store.as_deref())
        .text("server.admin_token_file", "--admin-token-file", args.admin_token_file.as_deref())
        .number("server.grace_secs", "--grace", args.grace)
        .number("server.linger_secs", "--linger", args.linger)
        .number("limits.live_runs", "--runs", args.runs)
        .list("server.hosts", "--host", &args.hosts)
        .list("server.origins", "--origin", &args.origins)
        .list("programs.allow", "--program", &args.programs)
        .log(logs)
}

async fn command(settings: Settings) -> anyhow::Result<i32> {
    // Before anything else, so that no signal finds the process without an ear for it.
    let signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let errors = RecentErrors::default();
    let shown = settings.json();
    let Config { listen, admin_token_file, linger, grace, server, store, kept, engine, .. } =
        settings.config.clone();
    let spans = begin_log(&settings.config, errors.clone())?;
    if let Err(error) = raise_descriptor_limit() {
        say(&format!("adjutant: the limit of descriptors stays as it is: {error}"));
    }
    let store = Place::named(store).open_with(kept)?;
    let folder = store.as_ref().map(|store| store.path().to_owned());
    let beside = folder.as_ref().map(|folder| folder.join("admin-token"));
    let Some(file) = admin_token_file.or(beside) else {
        bail!(
            "without a store, name the file of the admin's token with --admin-token-file; or name a \
             store with --store DIR"
        );
    };
    let admin = AdminToken::in_file(&file).with_context(|| format!("{}", file.display()))?;
    let sink = DataSink::default();
    let layers = sink.layers(LayerRegistry::standard());
    let (engine, shelf) = open_engine(store, engine, layers).await?;
    let lapses = engine.start_detach_loop();
    let about = About { settings: shown, store: folder.clone(), errors };
    let cfg = ServerCfg { about, shelf, sink, ..server };
    let server = Server::bind(engine.clone(), listen, admin, cfg)
        .await
        .with_context(|| format!("{listen} cannot be listened on"))?;
    say(&format!("adjutant: the admin's token is in {}", file.display()));
    let url = format!("http://{}", server.local_addr()?);
    let card = leave_card(&url, folder.as_deref(), file)?;
    print_line(&url)?;
    // For a person's eyes, once; not through the log.
    say(&format!(
        "adjutant: the page, for one browser within ten minutes: {}",
        server.page_link()?
    ));
    let stop = CancellationToken::new();
    let signals = tokio::spawn(self::listen(signals, stop.clone()));
    let ended = server.run(stop, linger, grace).await;
    drop(card);
    signals.abort();
    lapses.abort();
    let report = ended?;
    say(&format!("adjutant: {report}"));
    spans.end().await;
    if let Some(error) = engine.journal_failure() {
        bail!("{error}");
    }
    Ok(code::PASS)
}

/// The engine on its store; what could not be read of that is said.
pub(crate) async fn open_engine(
    store: Option<SqliteStore>,
    mut cfg: EngineCfg,
    layers: LayerRegistry,
) -> anyhow::Result<(Engine, Arc<dyn Shelf>)> {
    let Some(store) = store else {
        let engine = Engine::new_with_layers(cfg, layers);
        return Ok((engine, Arc::new(MemoryShelf::default())));
    };
    cfg.token_keys = store.keys();
    let store = Arc::new(store);
    let engine = Engine::open(cfg, layers, store.clone()).await?;
    for row in &engine.recovery().set_aside {
        say(&format!("adjutant: {} {}: {}", row.table, row.key, row.why));
    }
    Ok((engine, store))
}

/// Starts the log, and the sending of spans where that is asked for.
pub(crate) fn begin_log(config: &Config, errors: RecentErrors) -> anyhow::Result<spans::Sending> {
    let mut layers = vec![log::to_stderr(config.log, &config.log_level)?, log::remembering(errors)];
    let (layer, sending) = spans::begin(config)?;
    layers.extend(layer);
    log::start(layers);
    Ok(sending)
}

/// Says in the store how the server is reached.
fn leave_card(
    url: &str,
    folder: Option<&std::path::Path>,
    token_file: PathBuf,
) -> anyhow::Result<Option<crate::cli::client::CardGuard>> {
    let token_file = std::path::absolute(token_file)?;
    let card = Card { url: url.to_owned(), pid: std::process::id(), token_file };
    folder.map(|folder| card.leave(folder)).transpose()
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
