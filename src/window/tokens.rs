//! How many tokens a message is: by OpenAI's own encodings where the model has one of them, else by an estimate.
//!
//! What is counted of a message is told in `docs/window.md`. It follows OpenAI's recipe for chats
//! (<https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken>): three for each message, and its texts.

use std::collections::VecDeque;
use std::hash::Hasher;
use std::ops::Range;

use memchr::memmem;
use quick_cache::sync::Cache;
use siphasher::sip128::{Hasher128, SipHasher13};
use tiktoken::CoreBpe;

use super::responses::PICTURE;
use crate::json::{self, Invalid, Kind, Scanner, Text};

/// Messages whose tokens are remembered: those of some hundred conversations.
const REMEMBERED: usize = 16 * 1024;
/// Of every message.
const PER_MESSAGE: u64 = 3;
/// Long texts are counted in pieces of so many bytes, so that no more is counted than the limit asks for. Each joint may
/// make a token of one into two.
const PIECE: usize = 64 * 1024;

/// How tokens are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// By the request's `model`; estimated where that is none of OpenAI's.
    #[default]
    Auto,
    /// `o200k_base`: GPT-4o and later.
    O200k,
    /// `cl100k_base`: GPT-4 and GPT-3.5.
    Cl100k,
    /// A token for every four bytes.
    Estimate,
}

impl Encoding {
    /// The word of the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Encoding::Auto => "auto",
            Encoding::O200k => "o200k_base",
            Encoding::Cl100k => "cl100k_base",
            Encoding::Estimate => "estimate",
        }
    }

    /// That of a request. `None` where tokens are estimated.
    pub(super) fn of(self, body: &[u8]) -> Option<&'static CoreBpe> {
        let name = match self {
            Encoding::Auto => tiktoken::model_to_encoding(&model(body)?)?,
            Encoding::Estimate => return None,
            named => named.word(),
        };
        tiktoken::get_encoding(name)
    }
}

/// The model that a request names. It may stand behind the history, so this looks through the request once more.
fn model(body: &[u8]) -> Option<String> {
    let mut model = None;
    json::top_level(body, |name, value| {
        if name.is("model") {
            model = body.get(value).and_then(json::pointer::string).map(std::borrow::Cow::into_owned);
        }
    })
    .ok()?;
    model
}

/// Counts tokens, and remembers those of messages that it has counted: a conversation comes again with each turn.
pub struct Counter {
    known: Cache<u128, u32>,
    /// Nobody can make up messages that are taken for each other.
    keys: [u64; 2],
}

impl Default for Counter {
    fn default() -> Self {
        Self { known: Cache::new(REMEMBERED), keys: [fastrand::u64(..), fastrand::u64(..)] }
    }
}

impl std::fmt::Debug for Counter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counter").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

impl Counter {
    /// One that knows no message yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the tables of an encoding, which takes a tenth of a second, before a request has to wait for it.
    pub fn load(encoding: Encoding) {
        for named in [Encoding::O200k, Encoding::Cl100k] {
            if encoding == named || encoding == Encoding::Auto {
                tiktoken::get_encoding(named.word());
            }
        }
    }

    /// Tokens of a message, all but its media. More than `most` may be told as `most` and some.
    fn tokens(&self, by: &'static CoreBpe, message: &[u8], most: u64) -> u64 {
        let [a, b] = self.keys;
        let mut hasher = SipHasher13::new_with_keys(a, b);
        hasher.write_usize(std::ptr::from_ref(by).addr());
        hasher.write(message);
        let name = hasher.finish128().as_u128();
        if let Some(known) = self.known.get(&name) {
            return u64::from(known);
        }
        let is_picture = memmem::find(message, PICTURE).is_some();
        let mut counting = Counting { by, message, is_picture, most, counted: PER_MESSAGE };
        // It was read before, and is JSON.
        let _ = counting.value(&mut Scanner::new(message));
        if counting.counted <= most {
            self.known.insert(name, u32::try_from(counting.counted).unwrap_or(u32::MAX));
        }
        counting.counted
    }
}

/// One message being counted.
struct Counting<'m> {
    by: &'static CoreBpe,
    message: &'m [u8],
    /// Its `result` is no text.
    is_picture: bool,
    most: u64,
    counted: u64,
}

impl Counting<'_> {
    fn value(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Invalid> {
        match scanner.kind()? {
            Kind::String => self.text(&scanner.string()?),
            Kind::Array => {
                let mut elements = scanner.array()?;
                while elements.next(scanner)? {
                    self.value(scanner)?;
                }
            }
            Kind::Object => {
                let mut members = scanner.object()?;
                while let Some(name) = members.next(scanner)? {
                    if is_read_by_no_model(&name) || self.is_picture && name.is("result") {
                        scanner.skip()?;
                    } else if name.is("input") && scanner.kind()? == Kind::Object {
                        // The arguments of a call, whatever they are named.
                        let span = scanner.skip()?;
                        self.text(&Text { raw: self.message.get(span).unwrap_or_default() });
                    } else {
                        self.value(scanner)?;
                    }
                }
            }
            Kind::Number | Kind::Literal => _ = scanner.skip()?,
        }
        Ok(())
    }

    fn text(&mut self, text: &Text<'_>) {
        // Half of a surrogate pair is no text; models get something else in its place.
        let bytes = text.decode().unwrap_or(text.raw.into());
        let mut rest = &*String::from_utf8_lossy(&bytes);
        while !rest.is_empty() && self.counted <= self.most {
            let end =
                (0..=PIECE.min(rest.len())).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or_default();
            let (piece, behind) = rest.split_at(end);
            self.counted += self.by.count(piece) as u64;
            rest = behind;
        }
    }
}

/// Names what is not text to a model, or is counted otherwise.
fn is_read_by_no_model(name: &Text<'_>) -> bool {
    const NAMES: [&str; 17] = [
        "cache_control",
        "call_id",
        "data",
        "encrypted_content",
        "file",
        "file_data",
        "file_url",
        "id",
        "image_url",
        "input_audio",
        "prompt_cache_breakpoint",
        "signature",
        "source",
        "status",
        "tool_call_id",
        "tool_use_id",
        "type",
    ];
    NAMES.iter().any(|known| name.is(known))
}

/// The messages that may be forwarded, counted as far as they have to be: from the last one back until the limit is reached,
/// and each once. What is beyond the limit is so for good, since messages only become more.
pub(super) struct Weighing<'a> {
    counter: &'a Counter,
    by: &'static CoreBpe,
    body: &'a [u8],
    most: u64,
    messages: VecDeque<Weighed>,
    /// Messages before those.
    before: usize,
    /// Of the first so many the tokens are known, and are so many together.
    known: (usize, u64),
}

struct Weighed {
    span: Range<usize>,
    /// Those of its media until they are known.
    tokens: u64,
}

impl std::fmt::Debug for Weighing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weighing").field("messages", &self.messages.len()).finish_non_exhaustive()
    }
}

impl<'a> Weighing<'a> {
    pub(super) fn new(counter: &'a Counter, by: &'static CoreBpe, body: &'a [u8], most: u64) -> Self {
        Self { counter, by, body, most, messages: VecDeque::new(), before: 0, known: (0, 0) }
    }

    /// The next message, with the tokens of its media.
    pub(super) fn push(&mut self, span: Range<usize>, media: u64) {
        self.messages.push_back(Weighed { span, tokens: media });
        if self.messages.len() as u64 > self.most / PER_MESSAGE {
            self.pop();
        }
    }

    fn pop(&mut self) -> bool {
        let Some(message) = self.messages.pop_front() else { return false };
        self.before += 1;
        if self.known.0 > 0 {
            self.known = (self.known.0 - 1, self.known.1 - message.tokens);
        }
        true
    }

    pub(super) fn forget_before(&mut self, index: usize) {
        while self.before < index && self.pop() {}
    }

    /// The index of the first message from which on all of them are within the limit.
    pub(super) fn first_within(&mut self) -> usize {
        let (known, mut sum) = (self.known.0, 0_u64);
        let mut beyond = None;
        for (at, message) in self.messages.iter_mut().enumerate().skip(known).rev() {
            let bytes = self.body.get(message.span.clone()).unwrap_or_default();
            message.tokens = message.tokens.saturating_add(self.counter.tokens(self.by, bytes, self.most));
            sum = sum.saturating_add(message.tokens);
            if sum > self.most {
                sum -= message.tokens;
                beyond = Some(at);
                break;
            }
        }
        match beyond {
            Some(at) => {
                self.before += at + 1;
                self.messages.drain(..=at);
                self.known = (self.messages.len(), sum);
            }
            None => self.known = (self.messages.len(), self.known.1.saturating_add(sum)),
        }
        while self.known.1 > self.most && self.pop() {}
        self.before
    }
}
