//! Stub for the policy type, to be replaced.

/// How a conversation is trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Off: nothing is read or changed.
    pub enabled: bool,
    /// Report what would be trimmed, change nothing.
    pub shadow: bool,
    /// Messages forwarded besides the leading system and developer messages; 0 is no limit.
    pub max_messages: usize,
    /// The cut moves only every so many messages; 1 moves it each time.
    pub step: usize,
    /// Bytes of history forwarded; 0 is no limit.
    pub max_bytes: u64,
}
