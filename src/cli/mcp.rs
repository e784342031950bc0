//! `adjutant mcp`: the engine for one client of the Model Context Protocol, over standard streams.

use std::time::Duration;

use adjutant::server::{ServerCfg, serve_stdio};
use adjutant::{CancellationToken, EngineCfg};
use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::args::McpArgs;
use crate::cli::place::Place;
use crate::cli::serve::{listen, open_engine};
use crate::cli::{code, drive, say};

pub(crate) fn main(args: McpArgs) -> anyhow::Result<i32> {
    drive::block_on(command(args))
}

async fn command(args: McpArgs) -> anyhow::Result<i32> {
    // Before anything else, so that no signal finds the process without an ear for it.
    let signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let place = Place::of(&args.store)?;
    let store = tokio::task::spawn_blocking(move || place.open_for_run()).await??;
    let (engine, shelf) = open_engine(store, EngineCfg::default()).await?;
    let lapses = engine.start_detach_loop();
    let stop = CancellationToken::new();
    let signals = tokio::spawn(listen(signals, stop.clone()));
    let grace = Duration::from_secs(args.grace);
    let cfg = ServerCfg { programs: args.programs, shelf, ..ServerCfg::default() };
    let ended = serve_stdio(engine.clone(), cfg, stop, grace).await;
    signals.abort();
    lapses.abort();
    say(&format!("adjutant: {}", ended?));
    if let Some(error) = engine.journal_failure() {
        bail!("{error}");
    }
    Ok(code::PASS)
}
