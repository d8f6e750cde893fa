//! A real Pillion in this process, between a raw client and a scripted upstream, over real sockets.
//!
//! One file per capability. Names of conformance tests carry the section of the RFC they hold Pillion to.

#![expect(clippy::float_cmp, reason = "what the tests compare of metrics are counts")]
#![expect(clippy::format_collect, reason = "a test may take the short way")]

// The lints that are lifted in tests know them by this attribute; the crate itself is one all the same.
#[cfg(test)]
#[path = "../support/mod.rs"]
mod support;

#[cfg(test)]
#[path = "../presets/table.rs"]
mod table;

#[cfg(test)]
mod admin;
#[cfg(test)]
mod answers;
#[cfg(test)]
mod breaker;
#[cfg(test)]
mod cache_equal;
#[cfg(test)]
mod cache_failing;
#[cfg(test)]
mod cache_flight;
#[cfg(test)]
mod cache_hits;
#[cfg(test)]
mod cache_invalidate;
#[cfg(test)]
mod cache_keys;
#[cfg(test)]
mod cache_settle;
#[cfg(test)]
mod cache_shadow;
#[cfg(test)]
mod cache_shared;
#[cfg(test)]
mod cache_shared_faults;
#[cfg(test)]
mod cache_shared_lost;
#[cfg(test)]
mod cache_shared_tls;
#[cfg(test)]
mod cache_storing;
#[cfg(test)]
mod cache_writes;
#[cfg(test)]
mod cancel;
#[cfg(test)]
mod conversations;
#[cfg(test)]
mod embeddings;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod framing;
#[cfg(test)]
mod hops;
#[cfg(test)]
mod http2;
#[cfg(test)]
mod in_flight;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod names;
#[cfg(test)]
mod presets;
#[cfg(test)]
mod races;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod retries;
#[cfg(test)]
mod retry_terms;
#[cfg(test)]
mod reuse;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod timeouts;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod window;
