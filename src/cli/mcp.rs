//! `adjutant mcp`: one client of the Model Context Protocol over standard streams, served by an
//! engine of its own, or carried to a running server.

use std::time::Duration;

use adjutant::server::{About, RecentErrors, ServerCfg, serve_stdio};
use adjutant::{CancellationToken, LayerRegistry};
use anyhow::bail;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::args::{LogArgs, McpArgs, RemoteArgs, StoreArg};
use crate::cli::config::{Flags, sources};
use crate::cli::place::Place;
use crate::cli::remote::on_server;
use crate::cli::serve::{begin_log, listen, open_engine};
use crate::cli::settings::{Config, Settings};
use crate::cli::{code, drive, log, say, usage};

mod bridge;
mod wire;

/// Grace where no setting says otherwise: clients wait for no program as long as servers are waited
/// for.
const GRACE: Duration = Duration::from_secs(8);

pub(crate) fn main(args: &McpArgs, logs: &LogArgs) -> anyhow::Result<i32> {
    let flags = Flags::default()
        .text("store.path", "--store", args.store.as_deref())
        .number("server.grace_secs", "--grace", args.grace)
        .list("programs.allow", "--program", &args.programs)
        .log(logs);
    let mut settings = match Settings::load(&sources(&args.settings, flags)) {
        Ok(settings) => settings,
        Err(mistakes) => return Ok(usage(&mistakes.to_string())),
    };
    settings.notes.iter().for_each(|note| say(&format!("adjutant: {note}")));
    if settings.is_default("server.grace_secs") {
        settings.config.grace = GRACE;
    }
    match &args.server {
        Some(url) => bridge_to(url, args, &settings.config),
        None => drive::block_on(command(settings)),
    }
}

/// So that no signal finds the process without an ear for it.
fn signals() -> std::io::Result<(Signal, Signal)> {
    Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
}

fn bridge_to(url: &str, args: &McpArgs, config: &Config) -> anyhow::Result<i32> {
    log::start(vec![log::to_stderr(config.log, &config.log_level)?]);
    let remote = RemoteArgs {
        server: Some(url.to_owned()),
        token_file: args.token_file.clone(),
        store: StoreArg { store: config.store.clone() },
        json: false,
    };
    on_server(&remote, async |client| {
        let stop = CancellationToken::new();
        let signals = tokio::spawn(listen(signals().map_err(anyhow::Error::from)?, stop.clone()));
        let carried = bridge::carry(client, stop, config.grace).await;
        signals.abort();
        carried.map(|()| code::PASS)
    })
}

async fn command(settings: Settings) -> anyhow::Result<i32> {
    let signals = signals()?;
    let errors = RecentErrors::default();
    let shown = settings.json();
    let spans = begin_log(&settings.config, errors.clone())?;
    let Config { grace, server, store, kept, engine, .. } = settings.config;
    let place = Place::named(store);
    let store = tokio::task::spawn_blocking(move || place.open_with(kept)).await??;
    let folder = store.as_ref().map(|store| store.path().to_owned());
    let (engine, shelf) = open_engine(store, engine, LayerRegistry::standard()).await?;
    let lapses = engine.start_detach_loop();
    let stop = CancellationToken::new();
    let signals = tokio::spawn(listen(signals, stop.clone()));
    let about = About { settings: shown, store: folder, errors };
    let cfg = ServerCfg { about, shelf, ..server };
    let ended = serve_stdio(engine.clone(), cfg, stop, grace).await;
    signals.abort();
    lapses.abort();
    let ended = ended?;
    say(&format!("adjutant: {ended}"));
    spans.end().await;
    if let Some(error) = engine.journal_failure() {
        bail!("{error}");
    }
    Ok(code::PASS)
}
