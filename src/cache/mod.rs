//! Stored responses of vector searches: when one may be used, and what makes it unusable. And stored embeddings, which
//! nothing but time does ([`embeddings`]).
//!
//! A stored response is used only while its lifetime lasts, and only if no write has been seen in its scope since the
//! request that fetched it was sent ([`fence`]). Identical searches under way share one fetch ([`flight`]). Nothing
//! here may ever serve an answer that a write has passed, nor one client's answer to another's credentials.

pub mod embeddings;
pub mod fence;
pub mod flight;
pub mod key;
pub mod memo;
mod policy;
pub mod shared;
pub mod store;
mod sync;
pub mod unshared;

pub use policy::{Policy, StoreIf};
