//! Answers: taken apart, kept element by element, put together.

use std::borrow::Cow;
use std::ops::Range;

use super::MAX_ANSWER;
use crate::json::{self, Kind, Scanner};

/// The most members of an answer, or of one of its elements. There are four, and three.
const MAX_MEMBERS: usize = 32;
/// The longest `object` or `model`, in bytes with its quotes.
const MAX_WORD: usize = 1024;
/// How elements are kept: the version of the form, the lengths of `object` and `model`, where the number of `index`
/// begins and ends; then these two, then the element. Numbers are four bytes, the lowest first.
const FORM: u8 = 1;

/// What is before something, and what is behind it.
type Around<'a> = (&'a [u8], &'a [u8]);

/// An upstream's answer to a request for embeddings.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Up to its `data`, and behind it: as the upstream sent it.
    around: Around<'a>,
    /// In the order of the inputs.
    pub elements: Vec<Element<'a>>,
}

/// The vector of one input, as it stands in `data`, and what the answer said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// The answer's `object` and `model`, as spelled. Elements that differ in them are not of one answer.
    words: (&'a [u8], &'a [u8]),
    /// Up to the number of its `index`, and behind it.
    around: Around<'a>,
}

impl<'a> Answer<'a> {
    /// Takes an answer apart. `None` where it is not the complete and plain answer to so many inputs: not JSON in UTF-8,
    /// a member named twice, an `error`, no `object` or no `model`, another number of elements, indexes that are not
    /// 0 to n - 1, an element without a vector.
    pub fn read(content: &'a [u8], inputs: usize) -> Option<Self> {
        if content.len() > MAX_ANSWER || !json::is_utf8(content) {
            return None;
        }
        let (mut names, mut clear) = (Names::default(), true);
        let (mut data, mut object, mut model) = (None, None, None);
        json::top_level(content, |name, value| {
            clear &= names.add(name.decode()) && !name.is("error");
            if name.is("data") {
                data = Some(value);
            } else if name.is("object") {
                object = word(content, value);
            } else if name.is("model") {
                model = word(content, value);
            }
        })
        .ok()?;
        let (data, words) = (data?, (object?, model?));
        if !clear {
            return None;
        }
        let around = (content.get(..data.start)?, content.get(data.end..)?);
        let elements = elements(content.get(data)?, words, inputs)?;
        Some(Self { around, elements })
    }
}

/// The members of one object that were there already.
#[derive(Default)]
struct Names<'a>(Vec<Cow<'a, [u8]>>);

impl<'a> Names<'a> {
    /// Whether this name is new, and there are not too many.
    fn add(&mut self, name: Option<Cow<'a, [u8]>>) -> bool {
        let Some(name) = name.filter(|name| self.0.len() < MAX_MEMBERS && !self.0.contains(name)) else {
            return false;
        };
        self.0.push(name);
        true
    }
}

/// A text of modest length, as spelled.
fn word(content: &[u8], place: Range<usize>) -> Option<&[u8]> {
    content.get(place).filter(|value| value.first() == Some(&b'"') && value.len() <= MAX_WORD)
}

/// The elements of `data`, each at the place that its index says.
fn elements<'a>(data: &'a [u8], words: (&'a [u8], &'a [u8]), inputs: usize) -> Option<Vec<Element<'a>>> {
    let mut scanner = Scanner::new(data);
    let mut places: Vec<Option<Element<'a>>> = vec![None; inputs];
    let mut each = scanner.array().ok()?;
    while each.next(&mut scanner).ok()? {
        let (index, around) = element(data, &mut scanner)?;
        let place = places.get_mut(index)?;
        if place.replace(Element { words, around }).is_some() {
            return None;
        }
    }
    places.into_iter().collect()
}

/// The next element: its index, and what is around that.
fn element<'a>(data: &'a [u8], scanner: &mut Scanner<'a>) -> Option<(usize, Around<'a>)> {
    let (mut names, mut index, mut has_vector) = (Names::default(), None, false);
    scanner.kind().ok()?;
    let start = scanner.position();
    let mut members = scanner.object().ok()?;
    while let Some(name) = members.next(scanner).ok()? {
        if !names.add(name.decode()) {
            return None;
        }
        if name.is("index") {
            let number = scanner.number().ok()?;
            // Digits only: JSON has no leading zeros, and what else it can spell is no index.
            let value: usize = std::str::from_utf8(number).ok()?.parse().ok()?;
            index = Some((value, scanner.position() - number.len()..scanner.position()));
        } else if name.is("embedding") {
            let kind = scanner.kind().ok()?;
            let value = data.get(scanner.skip().ok()?)?;
            has_vector = match kind {
                Kind::String => value.len() > 2,
                Kind::Array => !json::is_empty_array(value),
                _ => false,
            };
        } else {
            scanner.skip().ok()?;
        }
    }
    let (index, place) = index.filter(|_| has_vector)?;
    Some((index, (data.get(start..place.start)?, data.get(place.end..scanner.position())?)))
}

impl<'a> Element<'a> {
    /// What it takes in an answer, at most, with the comma.
    fn len(&self) -> usize {
        self.around.0.len() + self.around.1.len() + 21
    }

    /// In the form in which it is stored.
    pub fn keep(&self) -> Vec<u8> {
        let ((object, model), (before, behind)) = (self.words, self.around);
        let mut out = Vec::with_capacity(13 + object.len() + model.len() + before.len() + behind.len());
        out.push(FORM);
        for length in [object.len(), model.len(), before.len()] {
            out.extend_from_slice(&(length as u32).to_le_bytes());
        }
        for part in [object, model, before, behind] {
            out.extend_from_slice(part);
        }
        out
    }

    /// Out of that form; `None` for anything else.
    pub fn kept(stored: &'a [u8]) -> Option<Self> {
        let (form, rest) = stored.split_first()?;
        let (lengths, rest) = rest.split_first_chunk::<12>()?;
        let [object, model, before] = lengths.as_chunks::<4>().0 else { return None };
        let take =
            |rest: &'a [u8], length: &[u8; 4]| rest.split_at_checked(u32::from_le_bytes(*length) as usize);
        let (object, rest) = take(rest, object)?;
        let (model, rest) = take(rest, model)?;
        let (before, behind) = take(rest, before)?;
        (*form == FORM).then_some(Self { words: (object, model), around: (before, behind) })
    }
}

/// One answer of these elements, in their order: around them what the upstream said, or, when it was not asked, what
/// an answer has that cost nothing. `None` where they are not of one answer, or too many.
pub fn merge(asked: Option<&Answer<'_>>, elements: &[Element<'_>]) -> Option<Vec<u8>> {
    let (object, model) = elements.first()?.words;
    let length: usize = elements.iter().map(Element::len).sum();
    if length > MAX_ANSWER || elements.iter().any(|element| element.words != (object, model)) {
        return None;
    }
    let (before, behind) = match asked {
        Some(answer) => (answer.around.0.to_vec(), answer.around.1.to_vec()),
        None => (
            [br#"{"object":"#, object, br#","data":"#].concat(),
            [br#","model":"#, model, br#","usage":{"prompt_tokens":0,"total_tokens":0}}"#].concat(),
        ),
    };
    let mut out = Vec::with_capacity(before.len() + length + behind.len() + 2);
    out.extend_from_slice(&before);
    let mut between = b'[';
    for (place, element) in elements.iter().enumerate() {
        out.push(between);
        out.extend_from_slice(element.around.0);
        out.extend_from_slice(place.to_string().as_bytes());
        out.extend_from_slice(element.around.1);
        between = b',';
    }
    out.push(b']');
    out.extend_from_slice(&behind);
    Some(out)
}
