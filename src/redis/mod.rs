//! Redis, as those need it who keep something there: never needed to answer a request, and never waited for long.
//!
//! [`Keeper`] has one connection for commands and says whether it works: a call without one fails at once, which is all
//! that the breaker is. [`listen`] opens one of its own that only listens. What is kept in Redis, and what it
//! means, is not decided here. This is the only module that names the `redis` crate.

mod address;
mod breaker;
mod keeper;
mod link;
mod reply;
mod script;
mod stream;
mod subscription;

pub use address::{Address, BadAddress};
pub use keeper::{Join, Keeper};
pub use link::Link;
pub use reply::Reply;
pub use script::Script;
pub use stream::Tls;
pub use subscription::{Listen, listen};

use std::time::Duration;

/// A connection is made, greeted and asked who it is within this time, or not at all.
pub const CONNECT: Duration = Duration::from_secs(1);

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no connection: nothing was sent.
    Down,
    /// No answer in time. It may be carried out all the same.
    Timeout,
    /// The connection cannot be made, or broke. It may be carried out all the same. Why, without any secret.
    Lost(String),
    /// Redis refused it.
    Refused {
        /// The first word of its answer (`READONLY`, `OOM`), or `ERR`.
        code: String,
        /// The whole of it.
        text: String,
    },
}

impl Failure {
    /// Whether Redis refused with this word.
    pub fn is(&self, word: &str) -> bool {
        matches!(self, Failure::Refused { code, .. } if code == word)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Down => f.write_str("no connection"),
            Failure::Timeout => f.write_str("no answer in time"),
            Failure::Lost(why) => f.write_str(why),
            // Not the text: a script's error may quote what it was given.
            Failure::Refused { code, .. } => write!(f, "refused: {code}"),
        }
    }
}
