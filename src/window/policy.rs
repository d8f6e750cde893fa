//! How a conversation is trimmed, as the configuration says it.

use super::tokens::Encoding;

/// How a conversation is trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Off: nothing is read or changed.
    pub enabled: bool,
    /// Report what would be trimmed, change nothing.
    pub shadow: bool,
    /// Where the history is, and what its elements are.
    pub dialect: Dialect,
    /// Messages forwarded besides the leading system and developer messages; 0 is no limit.
    pub max_messages: usize,
    /// The cut moves only every so many messages; 1 moves it each time.
    pub step: usize,
    /// Bytes of history forwarded; 0 is no limit.
    pub max_bytes: u64,
    /// Tokens of history forwarded; 0 is no limit, and none are counted.
    pub max_tokens: u64,
    /// How tokens are counted.
    pub encoding: Encoding,
}

/// Whose requests carry the conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's chat completions: `messages`.
    #[default]
    Chat,
    /// OpenAI's Responses: `input`.
    Responses,
    /// Anthropic's Messages: `messages`.
    Messages,
}

impl Dialect {
    /// The word in presets and in what `pillion check` prints.
    pub const fn word(self) -> &'static str {
        match self {
            Dialect::Chat => "chat",
            Dialect::Responses => "responses",
            Dialect::Messages => "messages",
        }
    }

    /// The top-level member that holds the history.
    pub(super) const fn history(self) -> &'static str {
        match self {
            Dialect::Chat | Dialect::Messages => "messages",
            Dialect::Responses => "input",
        }
    }

    /// The top-level member that holds a system prompt besides the history.
    pub(super) const fn system(self) -> Option<&'static str> {
        match self {
            Dialect::Chat => None,
            Dialect::Responses => Some("instructions"),
            Dialect::Messages => Some("system"),
        }
    }

    /// Whether thinking of earlier turns is bound to what was before it, too. Anthropic refuses what does not fit;
    /// OpenAI leaves it out, which matters to the turn that is under way only.
    pub(super) const fn binds_across_turns(self) -> bool {
        match self {
            Dialect::Chat | Dialect::Messages => true,
            Dialect::Responses => false,
        }
    }
}
