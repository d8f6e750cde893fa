//! Why a conversation was forwarded as it came.

use crate::json;

/// Why a body was not trimmed, or not as far as its limits say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Untouched {
    /// The content is encoded, or signed.
    Encoded,
    /// Not JSON, by RFC 8259 to the letter.
    InvalidJson,
    /// It begins with a byte order mark (RFC 8259 section 8.1 forbids to send one).
    Bom,
    /// Nested deeper than [`json::MAX_DEPTH`].
    TooDeep,
    /// The top level is not an object.
    NotObject,
    /// There is no history, or it is no array.
    NoMessages,
    /// A member that the window reads comes twice: parsers disagree about which one holds (RFC 8259 section 4).
    Duplicate,
    /// An element of the history is not an object that says what it is.
    UnreadableMessage,
    /// A limit is exceeded, but there is no user message to cut before.
    NoUserTurn,
    /// A limit is exceeded, but the bytes are not UTF-8 (RFC 8259 section 8.1).
    NotUtf8,
    /// The upstream keeps or edits the history itself: `previous_response_id`, `conversation`, `context_management`,
    /// `truncation: auto`.
    ServerState,
    /// An element stands for one that the upstream keeps.
    ItemReference,
    /// An element stands for all that was before it.
    Compaction,
    /// Thinking that stays is bound to what was before it, so the cut stays where it was when that was thought.
    Thinking,
    /// What would be left out has a breakpoint of the provider's prompt cache in it.
    CacheBreakpoint,
    /// The upstream has refused this conversation trimmed, and took it whole.
    Refused,
}

impl Untouched {
    /// Every reason, for label sets.
    pub const ALL: [Untouched; 16] = [
        Untouched::Encoded,
        Untouched::InvalidJson,
        Untouched::Bom,
        Untouched::TooDeep,
        Untouched::NotObject,
        Untouched::NoMessages,
        Untouched::Duplicate,
        Untouched::UnreadableMessage,
        Untouched::NoUserTurn,
        Untouched::NotUtf8,
        Untouched::ServerState,
        Untouched::ItemReference,
        Untouched::Compaction,
        Untouched::Thinking,
        Untouched::CacheBreakpoint,
        Untouched::Refused,
    ];

    /// The labels, in the order of the variants.
    pub const WORDS: [&'static str; 16] = {
        let mut words = [""; 16];
        let mut at = 0;
        while at < words.len() {
            #[expect(clippy::indexing_slicing, reason = "evaluated while compiling")]
            {
                words[at] = Untouched::ALL[at].word();
            }
            at += 1;
        }
        words
    };

    /// The label of metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Untouched::Encoded => "encoded",
            Untouched::InvalidJson => "invalid_json",
            Untouched::Bom => "bom",
            Untouched::TooDeep => "too_deep",
            Untouched::NotObject => "not_object",
            Untouched::NoMessages => "no_messages",
            Untouched::Duplicate => "duplicate_member",
            Untouched::UnreadableMessage => "unreadable_message",
            Untouched::NoUserTurn => "no_user_turn",
            Untouched::NotUtf8 => "not_utf8",
            Untouched::ServerState => "server_state",
            Untouched::ItemReference => "item_reference",
            Untouched::Compaction => "compaction",
            Untouched::Thinking => "thinking",
            Untouched::CacheBreakpoint => "cache_breakpoint",
            Untouched::Refused => "refused",
        }
    }
}

impl From<json::Invalid> for Untouched {
    fn from(invalid: json::Invalid) -> Self {
        match invalid {
            json::Invalid::Syntax => Untouched::InvalidJson,
            json::Invalid::TooDeep => Untouched::TooDeep,
            json::Invalid::NotObject => Untouched::NotObject,
        }
    }
}
