//! What reasoning is bound to: everything before it, as the vendor saw it when it made the reasoning.
//!
//! A vendor signs it with a key; here it is a hash, which the validator and whatever plays the vendor make alike.

use std::hash::{DefaultHasher, Hasher};

use serde_json::Value;

use super::{Dialect, elements, strings};

/// Marks of prompt caches say what is to be kept, not what was said: moving them on changes no conversation.
const MARKS: [&str; 2] = ["cache_control", "prompt_cache_breakpoint"];

/// A conversation up to some place.
#[derive(Clone)]
pub(crate) struct Prefix {
    seen: DefaultHasher,
    role: String,
}

impl Prefix {
    /// What comes before the first message.
    pub(crate) fn of(dialect: Dialect, request: &Value) -> Self {
        let mut prefix = Self { seen: DefaultHasher::new(), role: String::new() };
        let author = if dialect == Dialect::Messages { "system" } else { "instructions" };
        for member in [author, "tools"] {
            feed(&mut prefix.seen, request.get(member).unwrap_or(&Value::Null));
        }
        prefix
    }

    /// All of a conversation.
    pub(crate) fn all(dialect: Dialect, request: &Value) -> Self {
        let mut prefix = Self::of(dialect, request);
        for element in elements(request, dialect.member()) {
            prefix.add(dialect, element);
        }
        prefix
    }

    /// One more message or item.
    pub(crate) fn add(&mut self, dialect: Dialect, element: &Value) {
        if dialect != Dialect::Messages {
            self.block(element);
            return;
        }
        self.role(strings(element, "role").unwrap_or_default());
        match element.get("content") {
            Some(Value::Array(blocks)) => {
                for block in blocks {
                    self.block(block);
                }
            }
            Some(Value::String(text)) => self.text(text),
            _ => {}
        }
    }

    /// Who speaks from here on. Messages of one role in a row are one to Anthropic.
    pub(crate) fn role(&mut self, role: &str) {
        if self.role != role {
            role.clone_into(&mut self.role);
            self.seen.write_u8(0xFE);
            self.seen.write(role.as_bytes());
        }
    }

    /// One more block of a message.
    pub(crate) fn block(&mut self, block: &Value) {
        match (strings(block, "type"), strings(block, "text")) {
            (Some("text"), Some(text)) => self.text(text),
            _ => feed(&mut self.seen, block),
        }
    }

    /// A text means the same as a string and as a block of its own.
    fn text(&mut self, text: &str) {
        self.seen.write_u8(0xFD);
        self.seen.write(text.as_bytes());
    }

    /// The signature of reasoning that comes here.
    pub(crate) fn signature(&self) -> String {
        format!("bound-{:016x}", self.seen.finish())
    }
}

/// The signature of a thinking block that begins the answer to this request.
pub(crate) fn sign(dialect: Dialect, request: &Value) -> String {
    let mut prefix = Prefix::all(dialect, request);
    if dialect == Dialect::Messages {
        prefix.role("assistant");
    }
    prefix.signature()
}

/// The reasoning items of a Responses request that were made after something else than what is before them now. The
/// vendor does not refuse them, it leaves them out.
pub(crate) fn mismatches(request: &Value) -> Vec<String> {
    let mut prefix = Prefix::of(Dialect::Responses, request);
    let mut found = Vec::new();
    for item in elements(request, "input") {
        let bound = strings(item, "encrypted_content").filter(|content| content.starts_with("bound-"));
        if bound.is_some_and(|bound| bound != prefix.signature()) {
            found.push(strings(item, "id").unwrap_or_default().to_owned());
        }
        prefix.add(Dialect::Responses, item);
    }
    found
}

/// Whether there is anything in these messages that is bound to what is before it.
pub(super) fn any(messages: &[Value]) -> bool {
    messages.iter().any(|message| elements(message, "content").iter().any(is_bound))
}

/// Whether a block of a message is thinking.
pub(super) fn is_bound(block: &Value) -> bool {
    matches!(strings(block, "type"), Some("thinking" | "redacted_thinking"))
}

fn feed(seen: &mut DefaultHasher, value: &Value) {
    match value {
        Value::Null => seen.write_u8(0),
        Value::Bool(value) => seen.write_u8(1 + u8::from(*value)),
        Value::Number(number) => {
            seen.write_u8(3);
            seen.write(number.to_string().as_bytes());
        }
        Value::String(text) => {
            seen.write_u8(4);
            seen.write_usize(text.len());
            seen.write(text.as_bytes());
        }
        Value::Array(elements) => {
            seen.write_u8(5);
            for element in elements {
                feed(seen, element);
            }
            seen.write_u8(6);
        }
        Value::Object(members) => {
            seen.write_u8(7);
            let told = members.iter().filter(|(name, _)| !MARKS.contains(&name.as_str()));
            for (name, value) in told {
                seen.write(name.as_bytes());
                feed(seen, value);
            }
            seen.write_u8(8);
        }
    }
}
