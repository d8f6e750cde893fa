//! The fences of a write under way, here and in other instances.

use std::time::Duration;

use crate::cache::fence::Write;
use crate::cache::shared::writes::Writing;

/// The fences that a write has up: this process's own, and those in Redis. In the order in which they come down.
#[derive(Debug)]
pub(super) struct Fenced {
    pub(super) own: Write,
    pub(super) others: Option<Writing>,
}

impl Fenced {
    /// Others are told before the write is forwarded.
    pub(super) async fn begin(&self) {
        if let Some(others) = &self.others {
            others.begin().await;
        }
    }

    /// The outcome is unknown: the store may still apply it within this time.
    pub(super) fn may_come_later(&mut self, within: Duration) {
        self.own.may_come_later(within);
        if let Some(others) = &mut self.others {
            others.may_come_later(within);
        }
    }

    /// The store has answered, and every search sees what was written: nothing is left to settle.
    pub(super) fn is_visible(&mut self) {
        self.own.is_visible();
        if let Some(others) = &mut self.others {
            others.is_visible();
        }
    }

    /// Of a write that is over as it begins. Whether others know of it.
    pub(super) async fn tell(self) -> bool {
        drop(self.own);
        match self.others {
            Some(others) => others.tell().await,
            None => false,
        }
    }

    /// The outcome is known.
    pub(super) async fn end(self) {
        drop(self.own);
        if let Some(others) = self.others {
            others.end().await;
        }
    }
}
