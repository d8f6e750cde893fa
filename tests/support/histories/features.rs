//! What a conversation may have in it that makes it impossible to cut, or that nobody but the vendor may cut.

use fastrand::Rng;

use super::write::Writer;
use super::{History, Made, Maker, Role};
use crate::strict::Dialect;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Feature {
    /// The input of Responses is a string.
    StringInput,
    /// No user speaks.
    NoUser,
    /// The vendor has part of the history, or cuts it itself.
    ServerState,
    /// An item stands for one that the vendor has.
    ItemReference,
    /// An element stands for all before it.
    Compaction,
    /// A member that says what an element is comes twice.
    Duplicate,
    /// An element does not say what it is.
    Unreadable,
    Bom,
    Invalid,
    TooDeep,
    NotUtf8,
    Thinking,
    Breakpoint,
}

impl Feature {
    pub(super) fn choose(dialect: Dialect, rng: &mut Rng) -> Option<Self> {
        const ANY: [Feature; 6] = [
            Feature::Duplicate,
            Feature::Unreadable,
            Feature::Bom,
            Feature::Invalid,
            Feature::TooDeep,
            Feature::NotUtf8,
        ];
        const MORE: [&[Feature]; 3] = [
            &[Feature::NoUser],
            &[
                Feature::StringInput,
                Feature::NoUser,
                Feature::ServerState,
                Feature::ItemReference,
                Feature::Compaction,
            ],
            &[Feature::ServerState, Feature::Compaction],
        ];
        if rng.u8(..10) > 0 {
            return None;
        }
        let more = MORE[dialect as usize];
        let place = rng.usize(..ANY.len() + 2 * more.len());
        Some(ANY.get(place).copied().unwrap_or_else(|| more[(place - ANY.len()) % more.len()]))
    }

    /// Whether a conversation with it is not cut, whatever the limits say.
    pub(crate) const fn hinders(self) -> bool {
        !matches!(self, Feature::StringInput | Feature::NoUser | Feature::Thinking | Feature::Breakpoint)
    }

    /// Whether not every parser reads a body with it.
    pub(crate) const fn is_no_json(self) -> bool {
        matches!(self, Feature::Bom | Feature::Invalid | Feature::TooDeep | Feature::NotUtf8)
    }
}

/// Puts it among the elements.
pub(super) fn insert(maker: &mut Maker, feature: Option<Feature>) {
    let head = maker.made.iter().take_while(|made| made.role == Role::Author).count();
    let dialect = maker.dialect;
    let w = &mut maker.writer;
    let text = match (feature, dialect) {
        (Some(Feature::ItemReference), _) => match w.rng.u8(..3) {
            0 => r#"{"id":"msg_old"}"#.to_owned(),
            1 => r#"{"type":null,"id":"msg_old"}"#.to_owned(),
            _ => w.object(&[("id", "\"msg_old\"".to_owned()), ("type", "\"item_reference\"".to_owned())]),
        },
        (Some(Feature::Compaction), Dialect::Messages) => {
            let content = w.text();
            let block = w.object(&[("type", "\"compaction\"".to_owned()), ("content", content)]);
            let content = w.array(&[block]);
            w.object(&[("role", "\"assistant\"".to_owned()), ("content", content)])
        }
        (Some(Feature::Compaction), _) => {
            let content = w.base64();
            let content = w.string(&content);
            let content = w.no_text(content, 0);
            w.object(&[("type", "\"compaction\"".to_owned()), ("encrypted_content", content)])
        }
        (Some(Feature::Duplicate), _) => w
            .pick(&[
                r#"{"role":"user","content":"a","role":"user"}"#,
                r#"{"role":"user","content":"a","ro\u006ce":"assistant"}"#,
                r#"{"content":"a","role":"assistant","content":"b"}"#,
                r#"{"role":"user","content":[{"type":"text","text":"a","type":"text"}]}"#,
            ])
            .to_owned(),
        (Some(Feature::Unreadable), Dialect::Responses) => {
            w.pick(&["4", "[]", "{}", "null", "\"user\"", r#"{"role":1,"type":"message"}"#]).to_owned()
        }
        (Some(Feature::Unreadable), _) => {
            w.pick(&["4", "[]", "{}", "null", "\"user\"", r#"{"role":1,"content":"a"}"#]).to_owned()
        }
        _ => return,
    };
    let role = Role::Other;
    let opaque = std::mem::take(&mut w.opaque);
    let made = Made { text, role, turn: false, thinking: 0, breakpoint: false, opaque, media: 0 };
    let place = maker.writer.rng.usize(head..=maker.made.len());
    maker.made.insert(place, made);
}

/// Puts it beside the history. What looks like it and is harmless may be there too.
pub(super) fn beside(
    w: &mut Writer,
    dialect: Dialect,
    feature: Option<Feature>,
    members: &mut Vec<(&str, String)>,
) {
    const NOTHING: &str = "null";
    match feature {
        Some(Feature::ServerState) if dialect == Dialect::Messages => {
            members.push(("context_management", r#"{"edits":[]}"#.to_owned()));
        }
        Some(Feature::ServerState) => {
            let (name, value) = w.pick(&[
                ("previous_response_id", "\"resp_1\""),
                ("conversation", "\"conv_1\""),
                ("conversation", r#"{"id":"conv_1"}"#),
                ("context_management", r#"[{"type":"compaction"}]"#),
                ("truncation", "\"auto\""),
            ]);
            members.push((name, value.to_owned()));
        }
        Some(Feature::TooDeep) => {
            members.push(("x_deep", format!("{}1{}", "[".repeat(200), "]".repeat(200))));
        }
        Some(Feature::NotUtf8) => members.push(("x_note", "\"!utf8!\"".to_owned())),
        // The other place where it may be, besides the elements, which have it already.
        Some(Feature::Duplicate) if w.once_in(4) => members.push((dialect.member(), "[]".to_owned())),
        _ => {}
    }
    if dialect == Dialect::Responses && feature != Some(Feature::ServerState) && w.once_in(6) {
        for name in ["previous_response_id", "conversation", "context_management"] {
            members.push((name, NOTHING.to_owned()));
        }
        members.push(("truncation", "\"disabled\"".to_owned()));
    }
    if dialect == Dialect::Messages && w.once_in(6) {
        // Of the whole request: the vendor places it itself.
        members.push(("cache_control", r#"{"type":"ephemeral"}"#.to_owned()));
    }
}

/// Breaks the bytes.
pub(super) fn spoil(w: &mut Writer, feature: Option<Feature>, history: &mut History) {
    let body = &mut history.body;
    match feature {
        Some(Feature::Bom) => _ = body.splice(0..0, *b"\xef\xbb\xbf"),
        Some(Feature::NotUtf8) => {
            let place = memchr::memmem::find(body, b"!utf8!").unwrap_or_default();
            body[place] = 0xff;
        }
        Some(Feature::Invalid) => match w.rng.u8(..3) {
            0 => body.push(b'}'),
            1 => {
                let end = body.iter().rposition(|byte| *byte == b'}').unwrap_or_default();
                body.insert(end, b',');
            }
            _ => {
                let end = body.iter().rposition(|byte| *byte == b'}').unwrap_or_default();
                body.truncate(w.rng.usize(..=end));
            }
        },
        _ => {}
    }
}
