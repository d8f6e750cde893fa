//! Conversations that the vendors take, in every form that their APIs have, and what is in them: so that a test needs no
//! parser of its own to know what is to come of one. The same seed makes the same conversation.

#![allow(dead_code, reason = "each test binary uses its own part")]

mod chat;
mod features;
mod messages;
mod responses;
pub(crate) mod write;

use std::ops::Range;

use fastrand::Rng;

pub(crate) use features::Feature;
use write::Writer;

use crate::strict::Dialect;

/// Stands where the signature of thinking goes; made as long as one.
pub(crate) const UNSIGNED: &str = "bound-????????????????";

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// System and developer.
    Author,
    User,
    Assistant,
    /// Results of tools, whoever brings them.
    Result,
    /// Calls, reasoning, and what else has no role.
    Other,
}

/// A message or item as it is written, and what is in it.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) text: String,
    pub(crate) role: Role,
    /// A turn begins here: the user speaks, brings no results, and no call waits for any.
    pub(crate) turn: bool,
    /// How many thinking blocks or signed reasoning items are in it.
    pub(crate) thinking: usize,
    /// A breakpoint of the provider's prompt cache is in it.
    pub(crate) breakpoint: bool,
    /// Bytes that are no text.
    pub(crate) opaque: u64,
    /// Tokens that stand for pictures, sounds and files.
    pub(crate) media: u64,
}

/// The same in a body.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    pub(crate) span: Range<usize>,
    pub(crate) role: Role,
    pub(crate) turn: bool,
    pub(crate) thinking: usize,
    pub(crate) breakpoint: bool,
    pub(crate) opaque: u64,
    pub(crate) media: u64,
}

/// A request with a conversation in it.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) dialect: Dialect,
    pub(crate) body: Vec<u8>,
    pub(crate) model: &'static str,
    /// The messages or items, in order; one for an input that is a string.
    pub(crate) elements: Vec<Element>,
    /// How many of them are the leading ones of the bot's author.
    pub(crate) head: usize,
    /// Besides `Thinking` and `Breakpoint`, which the elements tell, one at most.
    pub(crate) features: Vec<Feature>,
}

impl History {
    pub(crate) fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }

    /// The one thing in it that makes it impossible, or not ours, to cut.
    pub(crate) fn hindrance(&self) -> Option<Feature> {
        self.features.iter().copied().find(|feature| feature.hinders())
    }

    pub(crate) fn behind_head(&self) -> &[Element] {
        &self.elements[self.head..]
    }

    /// Who speaks, a letter each: `U` where a turn begins, `u` where the user speaks within one; `~` behind thinking,
    /// `!` behind a breakpoint of the prompt cache, `|` behind the head.
    pub(crate) fn shape(&self) -> String {
        let mut shape = String::new();
        for (n, element) in self.elements.iter().enumerate() {
            if n == self.head {
                shape.push('|');
            }
            shape.push(match element.role {
                Role::Author => 's',
                Role::User if element.turn => 'U',
                Role::User => 'u',
                Role::Assistant => 'a',
                Role::Result => 'r',
                Role::Other => 'o',
            });
            shape.extend((element.thinking > 0).then_some('~'));
            shape.extend(element.breakpoint.then_some('!'));
        }
        shape
    }
}

/// What a conversation is like, all of it.
#[derive(Clone, Copy)]
pub(crate) struct Taste {
    pub(crate) thinks: bool,
    pub(crate) breakpoints: bool,
    /// Some outputs of calls come when others have spoken.
    pub(crate) late: bool,
}

/// Writes one conversation, turn by turn.
pub(crate) struct Maker {
    pub(crate) writer: Writer,
    pub(crate) dialect: Dialect,
    pub(crate) taste: Taste,
    pub(crate) made: Vec<Made>,
    /// Outputs of Responses that come late.
    late: Vec<Made>,
    /// A question of Responses is open that nobody has to answer. Who speaks passes over it.
    asked: bool,
    /// Of the element being written.
    thinking: usize,
    breakpoint: bool,
}

impl Maker {
    pub(crate) fn new(dialect: Dialect, rng: Rng, taste: Taste) -> Self {
        let writer = Writer::new(rng);
        Self {
            writer,
            dialect,
            taste,
            made: Vec::new(),
            late: Vec::new(),
            asked: false,
            thinking: 0,
            breakpoint: false,
        }
    }

    /// What the bot's author says first.
    pub(crate) fn head(&mut self) {
        match self.dialect {
            Dialect::Chat => self.chat_head(),
            Dialect::Responses => self.responses_head(),
            Dialect::Messages => self.messages_head(),
        }
    }

    /// What the user says next.
    pub(crate) fn ask(&mut self) {
        match self.dialect {
            Dialect::Chat => self.chat_ask(),
            Dialect::Responses => self.responses_ask(),
            Dialect::Messages => self.messages_ask(),
        }
    }

    /// One answer, calls or text. Whether it made calls.
    pub(crate) fn answer(&mut self, calls: bool) {
        match self.dialect {
            Dialect::Chat => self.chat_answer(calls),
            Dialect::Responses => self.responses_answer(calls),
            Dialect::Messages => self.messages_answer(calls),
        }
    }

    /// A turn: what the user says, and what comes of it.
    pub(crate) fn turn(&mut self, answered: bool) {
        for _ in 0..if self.writer.once_in(12) { 2 } else { 1 } {
            self.ask();
        }
        for _ in 0..self.writer.pick(&[0, 0, 0, 1, 1, 2, 4]) {
            self.answer(true);
            if self.writer.once_in(10) {
                self.author();
            }
        }
        if answered {
            self.answer(false);
            if self.writer.once_in(16) {
                self.author();
            }
        }
    }

    /// The bot's author speaks in the middle.
    fn author(&mut self) {
        match self.dialect {
            Dialect::Chat => self.chat_author(),
            Dialect::Responses => self.responses_author(),
            Dialect::Messages => self.messages_author(),
        }
    }

    /// Ends an element.
    fn push(&mut self, role: Role, text: String) {
        let waits = self.asked || !self.late.is_empty();
        self.asked &= role != Role::Assistant;
        let made = Made {
            text,
            role,
            turn: role == Role::User && !waits,
            thinking: std::mem::take(&mut self.thinking),
            breakpoint: std::mem::take(&mut self.breakpoint),
            opaque: std::mem::take(&mut self.writer.opaque),
            media: std::mem::take(&mut self.writer.media),
        };
        self.made.push(made);
    }

    /// Adds a breakpoint of the prompt cache to a message or a part, in conversations that have them.
    fn mark(&mut self, members: &mut Vec<(&str, String)>) {
        if !self.taste.breakpoints || !self.writer.once_in(8) {
            return;
        }
        let name =
            if self.dialect == Dialect::Messages { "cache_control" } else { "prompt_cache_breakpoint" };
        if self.writer.once_in(4) {
            // None is meant.
            members.push((name, "null".to_owned()));
            return;
        }
        members.push((name, self.writer.object(&[("type", "\"ephemeral\"".to_owned())])));
        self.breakpoint = true;
    }
}

const MODELS: [&str; 4] = ["gpt-4o", "gpt-4-turbo", "claude-opus-5-5", "my-own-model"];

/// The conversation of this number.
pub(crate) fn generate(dialect: Dialect, seed: u64) -> History {
    let mut rng = Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ dialect as u64);
    let feature = Feature::choose(dialect, &mut rng);
    let taste = Taste { thinks: rng.u8(..5) == 0, breakpoints: rng.u8(..10) == 0, late: true };
    let turns = match rng.u8(..40) {
        0 => rng.usize(20..50),
        1..=8 => rng.usize(8..20),
        _ => rng.usize(1..8),
    };
    let mut maker = Maker::new(dialect, rng, taste);
    maker.head();
    if feature == Some(Feature::NoUser) || dialect != Dialect::Messages && maker.writer.once_in(12) {
        // A greeting.
        maker.answer(false);
    }
    for turn in 0..turns {
        if feature == Some(Feature::NoUser) {
            maker.answer(false);
            continue;
        }
        let usual = turn + 1 < turns;
        let answered = if usual { !maker.writer.once_in(12) } else { maker.writer.once_in(4) };
        maker.turn(answered);
    }
    maker.catch_up();
    features::insert(&mut maker, feature);
    assemble(maker, feature)
}

/// Puts the messages into a request, with all that stands beside them.
pub(crate) fn assemble(mut maker: Maker, feature: Option<Feature>) -> History {
    let dialect = maker.dialect;
    let made = std::mem::take(&mut maker.made);
    let w = &mut maker.writer;
    let model = w.pick(&MODELS);
    let quoted = w.string(model);
    let mut members: Vec<(&str, String)> = vec![("model", quoted)];
    for (name, chance) in [("metadata", 3), ("temperature", 3), ("stop", 6), ("seed", 6)] {
        if w.once_in(chance) {
            let value = match name {
                "metadata" => w.junk_object(3),
                "stop" => w.text(),
                _ => w.number(),
            };
            members.push((name, value));
        }
    }
    if w.once_in(3) {
        let schema = w.junk_object(2);
        let tool = w.object(&[("name", "\"look_up\"".to_owned()), ("parameters", schema)]);
        members.push(("tools", w.array(&[tool])));
    }
    let author = match dialect {
        Dialect::Chat => None,
        Dialect::Responses => Some("instructions"),
        Dialect::Messages => Some("system"),
    };
    if let Some(author) = author.filter(|_| w.once_in(2)) {
        members.push((author, w.text()));
    }
    features::beside(w, dialect, feature, &mut members);
    w.rng.shuffle(&mut members);
    let place = w.rng.usize(..=members.len());
    members.insert(place, (dialect.member(), String::new()));

    let as_string = dialect == Dialect::Responses && feature == Some(Feature::StringInput);
    let mut out = String::from(w.gap());
    out.push('{');
    let mut elements = Vec::new();
    for (n, (name, value)) in members.into_iter().enumerate() {
        let name = w.string(name);
        out.extend([if n == 0 { "" } else { "," }, w.gap(), &name, w.gap(), ":", w.gap()]);
        if n != place {
            out.extend([&value, w.gap()]);
        } else if as_string {
            let start = out.len();
            out.push_str(&w.text());
            elements.push(Element::of(&made_of_string(), start..out.len()));
        } else {
            history(w, &made, &mut out, &mut elements);
        }
    }
    out.push('}');
    out.push_str(w.gap());
    let head = elements.iter().take_while(|element| element.role == Role::Author).count();
    let mut features: Vec<Feature> = feature.into_iter().collect();
    features.extend(elements.iter().any(|element| element.thinking > 0).then_some(Feature::Thinking));
    features.extend(elements.iter().any(|element| element.breakpoint).then_some(Feature::Breakpoint));
    let mut history = History { dialect, body: out.into_bytes(), model, elements, head, features };
    features::spoil(w, feature, &mut history);
    history
}

fn made_of_string() -> Made {
    Made {
        text: String::new(),
        role: Role::User,
        turn: true,
        thinking: 0,
        breakpoint: false,
        opaque: 0,
        media: 0,
    }
}

fn history(w: &mut Writer, made: &[Made], out: &mut String, elements: &mut Vec<Element>) {
    out.push('[');
    for (n, made) in made.iter().enumerate() {
        out.extend([if n == 0 { "" } else { "," }, w.gap()]);
        let start = out.len();
        out.push_str(&made.text);
        elements.push(Element::of(made, start..out.len()));
        out.push_str(w.gap());
    }
    out.push(']');
}

impl Element {
    fn of(made: &Made, span: Range<usize>) -> Self {
        Self {
            span,
            role: made.role,
            turn: made.turn,
            thinking: made.thinking,
            breakpoint: made.breakpoint,
            opaque: made.opaque,
            media: made.media,
        }
    }
}
