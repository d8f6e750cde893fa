//! Requests for embeddings taken apart into their inputs, and answers put together from elements.
//!
//! The vector of an input mostly does not depend on the inputs beside it, so each is stored for itself: of a batch only
//! what is not known is asked for. What is spliced are raw spans: an element is given as the upstream sent it, all but its
//! `index`, which says its place. Whatever is not understood to the last member is not taken apart (`None` here), and
//! passes as it came.
//!
//! Pure: bytes in, bytes out (<https://platform.openai.com/docs/api-reference/embeddings>).

mod answer;

use std::borrow::Cow;
use std::ops::Range;

pub use answer::{Answer, Element, merge};

use crate::json::{self, Kind, Scanner};

/// The most inputs of one request that are taken apart. OpenAI takes 2,048; an answer grows with their number, however
/// small the request.
const MAX_INPUTS: usize = 2048;
/// The most members of a request. There are five.
const MAX_MEMBERS: usize = 64;
/// Members under which the vector of an input does not depend on the inputs beside it, as their services document them:
/// which model, what of it (`dimensions`), for what task or under what instruction, in what form it is given, and what
/// becomes of a text that is too long. Others may tie inputs together, as Jina's `late_chunking` does, which embeds all of
/// them as one text.
const OF_EACH: [&str; 16] = [
    // OpenAI and Azure.
    "model",
    "dimensions",
    "encoding_format",
    // Jina.
    "task",
    "embedding_type",
    "normalized",
    // Voyage, NVIDIA, Azure AI: whether it is a question or a document.
    "input_type",
    // Voyage and Mistral.
    "output_dimension",
    "output_dtype",
    // Jina, NVIDIA, Ollama and Hugging Face; Voyage; vLLM.
    "truncate",
    "truncation",
    "truncate_prompt_tokens",
    // Hugging Face's text-embeddings-inference.
    "normalize",
    "prompt_name",
    "truncation_direction",
    // vLLM: one token more at either end of each text.
    "add_special_tokens",
];
/// The largest answer that is taken apart or put together, in bytes: 2,048 vectors of 3,072 dimensions in base64.
pub const MAX_ANSWER: usize = 40 * 1024 * 1024;

/// A request for embeddings, by the places of its parts.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The members that every element depends on, by name and value, sorted by name: all but `input` and `user`.
    pub members: Vec<(Cow<'a, [u8]>, &'a [u8])>,
    /// Where the inputs are.
    pub inputs: Inputs,
}

/// Where the inputs of a request are in its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// A text, or the numbers of one text's tokens.
    One(Range<usize>),
    /// A list of texts or of token lists.
    List {
        /// The list, with its brackets.
        whole: Range<usize>,
        /// Its elements.
        each: Vec<Range<usize>>,
    },
}

impl<'a> Batch<'a> {
    /// Takes a request's content apart. `None` where it is not JSON in UTF-8, names a member twice, has no input or one
    /// of a form that is not known, or a member that may belong to its inputs one by one.
    pub fn read(content: &'a [u8]) -> Option<Self> {
        if !json::is_utf8(content) {
            return None;
        }
        let (mut members, mut clear) = (Vec::new(), true);
        json::top_level(content, |name, value| match (name.decode(), content.get(value.clone())) {
            (Some(name), Some(text)) if members.len() < MAX_MEMBERS => members.push((name, text, value)),
            _ => clear = false,
        })
        .ok()?;
        members.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
        if !clear || members.windows(2).any(|pair| matches!(pair, [(a, ..), (b, ..)] if a == b)) {
            return None;
        }
        let at = members.iter().position(|(name, ..)| **name == *b"input")?;
        let (_, text, place) = members.remove(at);
        let inputs = inputs(text, place)?;
        members.retain(|(name, ..)| **name != *b"user");
        // A list beside a list of inputs may say something of each: which element it is about would change.
        let is_of_each = |(name, value, _): &(Cow<'_, [u8]>, &[u8], _)| {
            OF_EACH.iter().any(|known| **name == *known.as_bytes())
                && !matches!(value.first(), Some(b'[' | b'{'))
        };
        if inputs.each().len() > 1 && !members.iter().all(is_of_each) {
            return None;
        }
        Some(Self { members: members.into_iter().map(|(name, text, _)| (name, text)).collect(), inputs })
    }
}

impl Inputs {
    /// Each input's place, in order.
    pub fn each(&self) -> &[Range<usize>] {
        match self {
            Inputs::One(place) => std::slice::from_ref(place),
            Inputs::List { each, .. } => each,
        }
    }

    /// The content with only these of its inputs, by their positions; everything else as it is.
    pub fn only(&self, content: &[u8], positions: &[usize]) -> Option<Vec<u8>> {
        let Inputs::List { whole, each } = self else { return None };
        let mut out = Vec::with_capacity(content.len());
        out.extend_from_slice(content.get(..whole.start)?);
        let mut before: &[u8] = b"[";
        for position in positions {
            out.extend_from_slice(before);
            out.extend_from_slice(content.get(each.get(*position)?.clone())?);
            before = b",";
        }
        out.extend_from_slice(b"]");
        out.extend_from_slice(content.get(whole.end..)?);
        Some(out)
    }
}

/// The inputs in the value of `input`, which begins at `place`.
fn inputs(value: &[u8], place: Range<usize>) -> Option<Inputs> {
    let mut scanner = Scanner::new(value);
    match scanner.kind().ok()? {
        // The upstream's to refuse.
        Kind::String if value.len() == 2 => None,
        Kind::String => Some(Inputs::One(place)),
        Kind::Array => {
            let mut elements = scanner.array().ok()?;
            let (mut kind, mut each) = (None, Vec::new());
            while elements.next(&mut scanner).ok()? {
                let this = scanner.kind().ok()?;
                if *kind.get_or_insert(this) != this || each.len() == MAX_INPUTS {
                    return None;
                }
                let span = scanner.skip().ok()?;
                match this {
                    Kind::Number => {}
                    Kind::String => each.push(place.start + span.start..place.start + span.end),
                    Kind::Array if is_tokens(value.get(span.clone())?) => {
                        each.push(place.start + span.start..place.start + span.end);
                    }
                    _ => return None,
                }
            }
            match kind? {
                Kind::Number => Some(Inputs::One(place)),
                _ => Some(Inputs::List { whole: place, each }),
            }
        }
        _ => None,
    }
}

/// Whether a value is an array of numbers, at least one.
fn is_tokens(value: &[u8]) -> bool {
    let mut scanner = Scanner::new(value);
    let read = scanner.array().and_then(|mut elements| {
        let mut count = 0;
        while elements.next(&mut scanner)? {
            scanner.number()?;
            count += 1;
        }
        Ok(count > 0)
    });
    read.unwrap_or(false)
}

#[cfg(test)]
mod tests;
