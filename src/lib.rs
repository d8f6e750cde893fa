//! Pillion: a sidecar reverse proxy that rides behind a chatbot.
//!
//! The crate is one binary; it is a library only so that its tests reach the parts. Modules are listed from
//! the top of the house to its ground: a module imports what stands below it, siblings never import each
//! other, and `tests/architecture.rs` fails when that is broken. `docs/architecture.md` tells why.

pub mod cli;

pub mod app;

pub mod server;

pub mod proxy;

pub mod config;

pub mod exchange;
pub mod plan;

pub mod cache;
pub mod conversations;
pub mod metrics;
pub mod retry;
pub mod upstream;
pub mod window;

pub mod body;
pub mod redis;

pub mod error;
pub mod json;
pub mod shard;
