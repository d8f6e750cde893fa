//! What Redis does in one step. The comments are in the scripts.

use crate::redis::Script;

/// Every script starts with how a stamp is read.
macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(include_str!("scripts/stamp.lua"), "\n", include_str!($file)))
    };
}

#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) join: Script,
    pub(super) look: Script,
    pub(super) store: Script,
    pub(super) shift: Script,
    pub(super) forget: Script,
    pub(super) tick: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            join: script!("scripts/join.lua"),
            look: script!("scripts/look.lua"),
            store: script!("scripts/store.lua"),
            shift: script!("scripts/move.lua"),
            forget: script!("scripts/forget.lua"),
            tick: script!("scripts/tick.lua"),
        }
    }
}
