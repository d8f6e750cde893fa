//! Stored responses of vector searches: when one may be used, and what makes it unusable.

mod policy;

pub use policy::{Policy, Settle, StoreIf};
