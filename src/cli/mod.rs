//! The command line: what each command is told, and how it ends.

pub mod check;
pub mod demo;
pub mod health;
pub mod http;
pub mod invalidate;
pub mod presets;
pub mod report;
pub mod run;
pub mod schema;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Environment;

/// The exit code of a failure while running.
const EX_FAILURE: u8 = 1;
/// The exit code of a command line that does not hold (`EX_USAGE` of sysexits.h).
const EX_USAGE: u8 = 64;

/// A sidecar reverse proxy behind a chatbot: caches vector searches, retries upstream calls, trims conversations, times
/// everything
#[derive(Debug, Parser)]
#[command(name = "pillion", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve
    Run {
        /// The configuration [default: `$PILLION_CONFIG`, ./pillion.yaml, /etc/pillion/pillion.yaml, else built in]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print the configuration in force, or everything that is wrong with it
    Check {
        /// The configuration [default: as for run]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Ask Redis, too, if there is one: prints how long it takes to answer
        #[arg(long)]
        probe: bool,
    },
    /// Show before and after on this machine, with nothing else installed
    Demo(demo::Args),
    /// Print the performance summary of a running Pillion
    Report(report::Args),
    /// Drop stored responses of a running Pillion
    Invalidate(invalidate::Args),
    /// Ask a running Pillion whether it is ready: exit 0 if so, 1 if not
    Health(health::Args),
    /// List what is built in, or print one preset
    Presets {
        /// The preset to print
        name: Option<String>,
        /// The configuration whose own presets count too [default: as for run]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print the JSON Schema of the configuration
    Schema,
}

/// Runs the command line: exit 0, 64 usage, 78 configuration, 1 anything else.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come this way too.
            let code = if error.use_stderr() { EX_USAGE } else { 0 };
            let _ = error.print();
            return code.into();
        }
    };
    let env: Environment = std::env::vars().collect();
    let code = match cli.command {
        Command::Run { config } => run::run(config.as_deref(), &env),
        Command::Check { config, probe } => check::run(config.as_deref(), probe, &env),
        Command::Demo(args) => told(block_on(2, demo::run(&args))),
        Command::Report(args) => told(block_on(1, report::run(&args))),
        Command::Invalidate(args) => told(block_on(1, invalidate::run(&args))),
        Command::Health(args) => told(block_on(1, health::run(&args))),
        Command::Presets { name, config } => presets::run(name.as_deref(), config.as_deref(), &env),
        Command::Schema => schema::run(),
    };
    code.into()
}

/// Runs a command that needs a runtime of its own.
fn block_on(threads: usize, command: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|e| format!("no runtime: {e}"))?
        .block_on(command)
}

fn told(outcome: Result<(), String>) -> u8 {
    match outcome {
        Ok(()) => 0,
        Err(text) => {
            let _ = writeln!(std::io::stderr(), "pillion: {text}");
            EX_FAILURE
        }
    }
}
