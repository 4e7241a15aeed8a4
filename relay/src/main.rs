//! `manyhands-relay`: starts the relay, says where it is, and stops it on SIGINT or SIGTERM.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use relay::settings::{Flags, LogFormat};
use relay::{Relay, Settings};
use tracing_subscriber::EnvFilter;

/// The relay cannot start.
const EXIT_CANNOT_START: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manyhands-relay: {error:#}");
            ExitCode::from(EXIT_CANNOT_START)
        }
    }
}

async fn run(mut flags: Flags) -> Result<()> {
    let is_json = flags.json;
    let command = flags.command.take();
    let settings = Settings::from_flags(flags)?;
    let filter = EnvFilter::try_new(&settings.log)
        .with_context(|| format!("the log filter {:?} is wrong; try warn,relay=info (--log)", settings.log))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    if let Some(command) = command {
        return command.run(settings, is_json).await;
    }
    let shutdown = shutdown_signal().context("cannot wait for signals")?;
    let relay = Relay::bind(settings).await?;
    announce(&relay, is_json).context("cannot write to standard output")?;
    relay.run(shutdown).await;
    Ok(())
}

/// The first line on standard output: for programs with `--json`, else for people.
fn announce(relay: &Relay, is_json: bool) -> std::io::Result<()> {
    let http = format!("http://{}", relay.http());
    let addresses = relay.addresses();
    let mut output = std::io::stdout().lock();
    if is_json {
        let line = serde_json::json!({ "http": http, "peer": relay.peer(), "addrs": addresses });
        writeln!(output, "{line}")?;
    } else {
        writeln!(output, "Relay {} at {http}", relay.peer())?;
        for address in addresses {
            writeln!(output, "  {address}")?;
        }
    }
    output.flush()
}

/// Completes on SIGINT or SIGTERM; the handlers are in place when this returns.
#[cfg(unix)]
fn shutdown_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
    })
}

/// Completes on Ctrl-C.
#[cfg(not(unix))]
fn shutdown_signal() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without Ctrl-C the relay runs until it is killed.
        let _ = tokio::signal::ctrl_c().await;
    })
}
