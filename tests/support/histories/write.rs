//! Writes JSON the way nobody would, and still correctly: odd spacing, escapes where none are needed, members in any
//! order, numbers no type holds, names that mean something elsewhere.

use fastrand::Rng;

use super::UNSIGNED;

/// Tokens that stand for what is no text (`docs/window.md`).
pub(crate) const IMAGE: u64 = 765;
pub(crate) const AUDIO: u64 = 300;
pub(crate) const FILE: u64 = 6000;

const NUMBERS: [&str; 10] =
    ["0", "-0", "1", "1.50e0", "1E+2", "0.1e-7", "-12.0", "123456789012345678901234567890", "1e0", "3.14159"];
const GAPS: [&str; 6] = [" ", "\n", "\t", "\r\n", "  ", "\n\t "];
/// Names that the window reads, elsewhere.
const TRAPS: [&str; 8] =
    ["role", "messages", "input", "type", "tool_calls", "cache_control", "content", "previous_response_id"];
const WORDS: [&str; 16] = [
    "the",
    "weather",
    "in",
    "Oslo",
    "is",
    "] } , { [",
    "naïve",
    "\u{1F600}",
    "日本語",
    "\"quoted\"",
    "a\\b",
    "\n",
    "{\"role\":\"user\"}",
    "e\u{301}",
    "user",
    "tool_use",
];

pub(crate) struct Writer {
    pub(crate) rng: Rng,
    /// Whether anything is written oddly at all: most bots do not.
    odd: bool,
    spaced: bool,
    /// Of the element being written: bytes that are no text, and the tokens that stand for them.
    pub(crate) opaque: u64,
    pub(crate) media: u64,
    ids: u64,
}

impl Writer {
    pub(crate) fn new(mut rng: Rng) -> Self {
        let (odd, spaced) = (rng.u8(..2) == 0, rng.u8(..3) == 0);
        Self { rng, odd, spaced, opaque: 0, media: 0, ids: 0 }
    }

    /// One time in so many.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.rng.usize(..times) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(..from.len())]
    }

    /// An identifier that was not given before.
    pub(crate) fn id(&mut self, prefix: &str) -> String {
        self.ids += 1;
        format!("{prefix}_{:x}", self.ids)
    }

    /// White space between two tokens.
    pub(crate) fn gap(&mut self) -> &'static str {
        if !self.spaced {
            ""
        } else if self.odd {
            self.pick(&GAPS)
        } else {
            " "
        }
    }

    /// A string of JSON that means this text.
    pub(crate) fn string(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + 2);
        out.push('"');
        let escapes = self.odd && self.once_in(4);
        for character in text.chars() {
            self.character(character, escapes, &mut out);
        }
        out.push('"');
        out
    }

    fn character(&mut self, character: char, escapes: bool, out: &mut String) {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '/' if escapes => out.push_str("\\/"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other if escapes && self.once_in(6) => {
                // Beyond the first plane that is a surrogate pair.
                for unit in other.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            other => out.push(other),
        }
    }

    /// Some text, never empty.
    pub(crate) fn words(&mut self) -> String {
        let count = match self.rng.u8(..60) {
            0 => self.rng.usize(100..300),
            1..=3 => self.rng.usize(20..60),
            _ => self.rng.usize(1..12),
        };
        let mut text = String::from("t");
        for _ in 0..count {
            text.push(' ');
            let word = if self.odd { self.pick(&WORDS) } else { self.pick(&WORDS[..5]) };
            text.push_str(word);
        }
        text
    }

    /// Some text, as a string of JSON.
    pub(crate) fn text(&mut self) -> String {
        let words = self.words();
        self.string(&words)
    }

    /// The same, and now and then nothing but white space, or nothing.
    pub(crate) fn loose_text(&mut self) -> String {
        match self.rng.u8(..24) {
            0 => "\"\"".to_owned(),
            1 => "\" \"".to_owned(),
            2 => "\"\\n\\t\\u0020\"".to_owned(),
            _ => self.text(),
        }
    }

    /// JSON inside a string, as arguments of calls are.
    pub(crate) fn nested(&mut self) -> String {
        let inner = self.junk(2);
        self.string(&inner)
    }

    /// Something that is no text to a model.
    pub(crate) fn base64(&mut self) -> String {
        let length = if self.once_in(20) { self.rng.usize(..3000) } else { self.rng.usize(..100) };
        std::iter::repeat_with(|| self.rng.alphanumeric()).take(length).collect()
    }

    /// The value of a member that is no text, which stands for so many tokens.
    pub(crate) fn no_text(&mut self, value: String, tokens: u64) -> String {
        self.opaque += value.len() as u64;
        self.media += tokens;
        value
    }

    /// Stands where a signature goes: found again by its bytes, so none of them is escaped.
    pub(crate) fn unsigned() -> String {
        format!("\"{UNSIGNED}\"")
    }

    pub(crate) fn number(&mut self) -> String {
        self.pick(&NUMBERS).to_owned()
    }

    pub(crate) fn object(&mut self, members: &[(&str, String)]) -> String {
        let mut order: Vec<usize> = (0..members.len()).collect();
        if self.odd {
            self.rng.shuffle(&mut order);
        }
        let mut out = String::from("{");
        for (n, place) in order.into_iter().enumerate() {
            let (name, value) = &members[place];
            let name = self.string(name);
            let gaps = [self.gap(), self.gap(), self.gap()];
            let comma = if n == 0 { "" } else { "," };
            out.extend([comma, gaps[0], &name, gaps[1], ":", gaps[2], value, self.gap()]);
        }
        out.push('}');
        out
    }

    pub(crate) fn array(&mut self, elements: &[String]) -> String {
        let mut out = String::from("[");
        for (n, element) in elements.iter().enumerate() {
            out.extend([if n == 0 { "" } else { "," }, self.gap(), element, self.gap()]);
        }
        out.push(']');
        out
    }

    /// A value that nobody reads: any kind, names twice, names that mean something elsewhere.
    pub(crate) fn junk(&mut self, depth: usize) -> String {
        match self.rng.u8(..if depth == 0 { 5 } else { 8 }) {
            0 => self.number(),
            1 => self.pick(&["true", "false", "null"]).to_owned(),
            2 | 3 => self.loose_text(),
            4 => "[]".to_owned(),
            5 => {
                let elements: Vec<String> = (0..self.rng.usize(..3)).map(|_| self.junk(depth - 1)).collect();
                self.array(&elements)
            }
            _ => self.junk_object(depth - 1),
        }
    }

    pub(crate) fn junk_object(&mut self, depth: usize) -> String {
        let mut members: Vec<(&str, String)> = Vec::new();
        for _ in 0..self.rng.usize(..4) {
            let name = if self.once_in(3) { self.pick(&TRAPS) } else { self.pick(&["a", "b", "query"]) };
            let value = self.junk(depth);
            if self.odd && self.once_in(6) {
                members.push((name, self.number()));
            }
            members.push((name, value));
        }
        self.object(&members)
    }
}
