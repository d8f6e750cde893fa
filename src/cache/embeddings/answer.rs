//! Answers: taken apart, kept element by element, put together.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::MAX_ANSWER;
use crate::json::{self, Kind, Scanner};

/// The most members of an answer, or of one of its elements. There are four, and three.
const MAX_MEMBERS: usize = 32;
/// The longest `object` or `model`, in bytes with its quotes.
const MAX_WORD: usize = 1024;
/// How elements are kept: the version of the form, the lengths of `object` and `model`, where the number of `index`
/// begins and ends; then these two, then the element. Numbers are four bytes, the lowest first.
const FORM: u8 = 1;
/// Parts of an answer that are larger, in bytes, are not copied into it.
const COPIED: usize = 128;

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
#[derive(Clone, Copy, Debug)]
pub struct Element<'a> {
    /// What holds the bytes of the others.
    held: &'a Bytes,
    /// Every place of the vector has a number. `null` is what some say where a model's arithmetic failed.
    pub sound: bool,
    /// The answer's `object` and `model`, as spelled. Elements that differ in them are not of one answer.
    words: (&'a [u8], &'a [u8]),
    /// Up to the number of its `index`, and behind it.
    around: Around<'a>,
}

impl<'a> Answer<'a> {
    /// Takes an answer apart. `None` where it is not the complete and plain answer to so many inputs: not JSON in UTF-8,
    /// a member named twice, an `error`, no `object` or no `model`, another number of elements, indexes that are not
    /// 0 to n - 1, an element without a vector.
    pub fn read(held: &'a Bytes, inputs: usize) -> Option<Self> {
        let content: &[u8] = held;
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
        let elements = elements(held, content.get(data)?, words, inputs)?;
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
fn elements<'a>(
    held: &'a Bytes,
    data: &'a [u8],
    words: (&'a [u8], &'a [u8]),
    inputs: usize,
) -> Option<Vec<Element<'a>>> {
    let mut scanner = Scanner::new(data);
    let mut places: Vec<Option<Element<'a>>> = vec![None; inputs];
    let mut each = scanner.array().ok()?;
    while each.next(&mut scanner).ok()? {
        let (index, around, sound) = element(data, &mut scanner)?;
        let place = places.get_mut(index)?;
        if place.replace(Element { held, sound, words, around }).is_some() {
            return None;
        }
    }
    places.into_iter().collect()
}

/// The next element: its index, what is around that, and whether its vector is sound.
fn element<'a>(data: &'a [u8], scanner: &mut Scanner<'a>) -> Option<(usize, Around<'a>, bool)> {
    let (mut names, mut index, mut has_vector, mut sound) = (Names::default(), None, false, true);
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
                Kind::Array => {
                    // No number has this letter.
                    sound = !value.contains(&b'n');
                    !json::is_empty_array(value)
                }
                _ => false,
            };
        } else {
            scanner.skip().ok()?;
        }
    }
    let (index, place) = index.filter(|_| has_vector)?;
    Some((index, (data.get(start..place.start)?, data.get(place.end..scanner.position())?), sound))
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
    pub fn kept(held: &'a Bytes) -> Option<Self> {
        let stored: &[u8] = held;
        let (form, rest) = stored.split_first()?;
        let (lengths, rest) = rest.split_first_chunk::<12>()?;
        let [object, model, before] = lengths.as_chunks::<4>().0 else { return None };
        let take =
            |rest: &'a [u8], length: &[u8; 4]| rest.split_at_checked(u32::from_le_bytes(*length) as usize);
        let (object, rest) = take(rest, object)?;
        let (model, rest) = take(rest, model)?;
        let (before, behind) = take(rest, before)?;
        let (words, around) = ((object, model), (before, behind));
        (*form == FORM).then_some(Self { held, sound: true, words, around })
    }
}

/// Whether they say the same, wherever they are held.
impl PartialEq for Element<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.words, self.around) == (other.words, other.around)
    }
}

/// An answer being put together: the large parts stay where they are held, however many answers they are in.
struct Pieces {
    done: Vec<Bytes>,
    copied: BytesMut,
}

impl Pieces {
    fn copy(&mut self, part: &[u8]) {
        self.copied.extend_from_slice(part);
    }

    fn add(&mut self, held: &Bytes, part: &[u8]) {
        if part.len() <= COPIED {
            self.copy(part);
        } else {
            self.end_copied();
            self.done.push(held.slice_ref(part));
        }
    }

    fn end_copied(&mut self) {
        if !self.copied.is_empty() {
            self.done.push(self.copied.split().freeze());
        }
    }
}

/// One answer of these elements, in their order: around them what the upstream said, or, when it was not asked, what
/// an answer has that cost nothing. In pieces, because a short request can ask for what is large and known. `None` where
/// they are not of one answer, or too many.
pub fn merge(asked: Option<&Answer<'_>>, elements: &[Element<'_>]) -> Option<Vec<Bytes>> {
    let (object, model) = elements.first()?.words;
    let length: usize = elements.iter().map(Element::len).sum();
    if length > MAX_ANSWER || elements.iter().any(|element| element.words != (object, model)) {
        return None;
    }
    let (before, behind): ([&[u8]; 3], [&[u8]; 3]) = match asked {
        Some(answer) => ([answer.around.0, b"", b""], [b"]", answer.around.1, b""]),
        None => (
            [br#"{"object":"#, object, br#","data":"#],
            [br#"],"model":"#, model, br#","usage":{"prompt_tokens":0,"total_tokens":0}}"#],
        ),
    };
    let around: usize = before.iter().chain(&behind).map(|part| part.len()).sum();
    let mut out = Pieces {
        done: Vec::with_capacity(elements.len() * 2 + 1),
        // Enough for elements as they mostly are.
        copied: BytesMut::with_capacity(around + elements.len() * 64),
    };
    for part in before {
        out.copy(part);
    }
    let mut between = b"[";
    for (place, element) in elements.iter().enumerate() {
        out.copy(between);
        out.add(element.held, element.around.0);
        out.copy(place.to_string().as_bytes());
        out.add(element.held, element.around.1);
        between = b",";
    }
    for part in behind {
        out.copy(part);
    }
    out.end_copied();
    Some(out.done)
}
