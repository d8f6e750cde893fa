//! What the fences and the store have from outside: atomics, and the time. `tests/model` runs the same sources with
//! atomics that its scheduler sees and a clock that it sets.

/// Counts of writes under way.
pub(super) type AtomicU32 = std::sync::atomic::AtomicU32;
/// Generations, and times.
pub(super) type AtomicU64 = std::sync::atomic::AtomicU64;
/// Of tokio's clock, which tests can pause.
pub(super) type Instant = tokio::time::Instant;
