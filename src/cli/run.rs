//! `pillion run`: serve.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::Path;

use tracing_subscriber::EnvFilter;

use super::EX_FAILURE;
use super::check::EX_CONFIG;
use crate::app::{self, App};
use crate::config::{self, Config, Environment, Log, LogFormat};
use crate::plan::{Action, Address, Plan};

/// Serves until a signal has drained it, and returns the exit code.
pub fn run(config: Option<&Path>, env: &Environment) -> u8 {
    let mut err = std::io::stderr();
    let config = match config::load(config, env) {
        Ok(config) => config,
        Err(problems) => {
            let _ = writeln!(err, "{problems}");
            return EX_CONFIG;
        }
    };
    log(&config.log);
    let app = match App::new(config) {
        Ok(app) => app,
        Err(error) => {
            let _ = writeln!(err, "pillion: {error}");
            return EX_FAILURE;
        }
    };
    let _ = write!(err, "{}", banner(&app));
    match app::run(app) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(err, "pillion: {error}");
            EX_FAILURE
        }
    }
}

/// Sends `tracing` events, and pingora's `log` lines among them, to standard error.
fn log(settings: &Log) {
    // Behind the configured directives, so that these stay: what h2 and hyper say at debug level holds header values.
    let quiet = "h2=warn,hyper=warn,rustls=warn,pingora_core=warn,pingora_runtime=warn";
    let filter = EnvFilter::new(format!("{},{quiet}", settings.level));
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = settings.format == LogFormat::Json || (settings.format == LogFormat::Auto && !terminal);
    let installed = if json { builder.json().try_init() } else { builder.with_ansi(terminal).try_init() };
    if let Err(e) = installed {
        let _ = writeln!(std::io::stderr(), "pillion: no log: {e}");
    }
    // Where, and not what: a panic's message may hold anything.
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(at, "a defect of Pillion's own: panicked");
    }));
}

/// What is listening where, what is on, and what to put into the bot's environment.
fn banner(app: &App) -> String {
    let config = app.config();
    let mut text = String::new();
    let source = config.source.as_ref().map_or("built-in default".into(), |path| path.display().to_string());
    let _ = writeln!(text, "pillion {} ({source})", env!("CARGO_PKG_VERSION"));
    for (address, route) in app.listeners() {
        let label = route.map_or("data".to_owned(), |route| format!("route {route}"));
        let _ = writeln!(text, "listening on {} ({label})", url(address));
    }
    let _ = writeln!(text, "listening on {} (admin)", url(app.admin()));
    for plan in &config.routes {
        let path = if plan.prefix.is_empty() { "/" } else { &plan.prefix };
        let target = &plan.upstream;
        let _ = writeln!(
            text,
            "route {}: {path} -> {}://{}{} ({}: {})",
            plan.name,
            target.scheme,
            target.authority,
            target.base_path,
            plan.preset,
            features(plan, config.redis.is_none())
        );
    }
    for note in &config.notes {
        let _ = writeln!(text, "note: {note}");
    }
    let _ = write!(text, "{}", for_the_bot(app, config));
    text
}

fn features(plan: &Plan, alone: bool) -> String {
    let mut on = Vec::new();
    let policy = plan.rules.iter().find_map(|rule| match &rule.action {
        Action::Cache(policy) => Some(policy),
        _ => None,
    });
    match policy {
        Some(policy) if policy.shadow => on.push("shadow of a cache".to_owned()),
        // Nobody knows when the last write was.
        Some(_) if alone && !plan.settle.is_zero() => {
            on.push(format!("cache from {} s on", plan.settle.as_secs_f64()));
        }
        Some(_) => on.push("cache".to_owned()),
        None if plan.rules.iter().any(|rule| matches!(rule.action, Action::Embeddings(_))) => {
            on.push("cache of embeddings".to_owned());
        }
        None => {}
    }
    if plan.rules.iter().any(|rule| rule.retry.enabled) {
        on.push("retry".to_owned());
    }
    if plan.rules.iter().any(|rule| rule.window.as_ref().is_some_and(|window| window.enabled)) {
        on.push("window".to_owned());
    }
    on.push("timing".to_owned());
    on.join(", ")
}

fn for_the_bot(app: &App, config: &Config) -> String {
    let lines: Vec<String> =
        config
            .routes
            .iter()
            .flat_map(|plan| {
                let base =
                    app.listeners()
                        .find(|(_, route)| {
                            if plan.listen.is_empty() { route.is_none() } else { *route == Some(&plan.name) }
                        })
                        .map(|(address, _)| format!("{}{}", reachable(address), plan.prefix))
                        .unwrap_or_default();
                // Where the upstream's own path ends in the version, the bot's must not say it again.
                let versioned = plan.upstream.base_path.ends_with("/v1");
                plan.bot_env.iter().map(move |line| {
                    let line = if versioned { line.replace("{url}/v1", "{url}") } else { line.clone() };
                    line.replace("{url}", &base)
                })
            })
            .collect();
    if lines.is_empty() {
        return String::new();
    }
    let mut text = String::from("in the bot's environment:\n");
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
    text.push_str("  NO_PROXY=127.0.0.1,localhost\n");
    text
}

fn url(address: &Address) -> String {
    match address {
        Address::Tcp(text) => format!("http://{text}"),
        Address::Unix(_) => address.to_string(),
    }
}

/// As the bot on the same machine or in the same pod reaches it.
fn reachable(address: &Address) -> String {
    url(address).replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//127.0.0.1:")
}
