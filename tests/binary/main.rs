//! The real binary: what it prints, how it ends, where it listens, how it stops.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

#[path = "../support/process.rs"]
mod process;

mod commands;
mod conversations;
mod lifecycle;
mod listeners;
mod upstream;

/// A configuration with one route, on ports that the system chooses.
fn one_route(upstream: std::net::SocketAddr, more: &str) -> String {
    format!(
        "version: 1\nlisten: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\nroutes:\n  - {{name: openai, path: /openai, \
         upstream: 'http://{upstream}', preset: openai}}\n{more}"
    )
}
