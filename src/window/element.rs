//! What one element of a history is to the window: read once, where it lies.

use super::Untouched;
use crate::json::{Invalid, Kind, Scanner, Text};

/// Tokens that a picture counts as: 85 and four tiles of 170, a square of 1,024 pixels in high detail
/// (<https://platform.openai.com/docs/guides/images-vision#calculating-costs>).
const IMAGE: u64 = 765;
/// Tokens that sound counts as: half a minute, of which a second is ten
/// (<https://platform.openai.com/docs/guides/audio>).
const AUDIO: u64 = 300;
/// Tokens that a file counts as: two pages, each as text and as a picture
/// (<https://platform.claude.com/docs/en/build-with-claude/pdf-support#estimate-your-costs>).
const FILE: u64 = 6000;

/// Members that hold what is no text: media, and what is signed or sealed.
const OPAQUE: [&str; 6] = ["image_url", "input_audio", "file", "file_data", "file_url", "encrypted_content"];

/// Who speaks, as far as the window cares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// `system`, or `developer` as newer models call it: what the bot's author says.
    Author,
    User,
    Assistant,
    /// `tool`, or `function` as it was before: the result of a call.
    Result,
    /// A call, or whatever else belongs to the turn before it.
    #[default]
    Other,
}

/// One message or item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) role: Role,
    /// Of a user's message: it brings results of tools, so no turn begins with it.
    pub(super) carrier: bool,
    /// Calls in it that wait for a result, whatever comes between.
    pub(super) opens: u32,
    /// Results of such calls.
    pub(super) closes: u32,
    /// Calls in it whose results come before anybody else speaks.
    pub(super) asks: u32,
    /// Results of such calls.
    pub(super) answers: u32,
    /// Has a breakpoint of the provider's prompt cache.
    pub(super) breakpoint: bool,
    /// Has thinking that is bound to what was before it.
    pub(super) thinking: bool,
    /// Why a history with it is not cut at all.
    pub(super) aside: Option<Untouched>,
    /// Characters of text.
    pub(super) characters: u64,
    /// Bytes that are no text: pictures, sound, files, signatures.
    pub(super) opaque: u64,
    /// Tokens of pictures, sound and files.
    pub(super) media: u64,
}

impl Element {
    /// Reads a message: who speaks, and what. Other members are left to `other`, which says whether it has read the value.
    pub(super) fn message<'a>(
        scanner: &mut Scanner<'a>,
        mut other: impl FnMut(&mut Element, &mut Once, &Text<'a>, &mut Scanner<'a>) -> Result<bool, Invalid>,
    ) -> Result<Self, Invalid> {
        let mut element = Element::default();
        let (mut seen, mut said) = (Once::default(), None);
        let mut members = scanner.object()?;
        while let Some(name) = members.next(scanner)? {
            if name.is("role") {
                element.once(&mut seen, ROLE);
                said = role(scanner)?;
            } else if name.is("content") {
                element.once(&mut seen, CONTENT);
                element.content(scanner)?;
            } else if !other(&mut element, &mut seen, &name, scanner)? && !element.takes(&name, scanner)? {
                scanner.skip()?;
            }
        }
        match said {
            Some(role) => element.role = role,
            None => element.step_aside(Untouched::UnreadableMessage),
        }
        Ok(element)
    }

    /// Tokens by the estimate of `docs/window.md`, of an element of so many bytes.
    pub(super) fn estimate(&self, len: usize) -> u64 {
        (len as u64).saturating_sub(self.opaque).div_ceil(4) + self.media
    }

    /// The first reason stands.
    pub(super) fn step_aside(&mut self, why: Untouched) {
        self.aside.get_or_insert(why);
    }

    /// Passes over bytes that are no text.
    pub(super) fn skip_opaque(&mut self, scanner: &mut Scanner<'_>) -> Result<usize, Invalid> {
        let len = scanner.skip()?.len();
        self.opaque += len as u64;
        Ok(len)
    }

    /// Passes over the value of a member that is no text, by its name. False where it is another member, which is left
    /// to the caller.
    pub(super) fn takes(&mut self, name: &Text<'_>, scanner: &mut Scanner<'_>) -> Result<bool, Invalid> {
        if name.is("cache_control") || name.is("prompt_cache_breakpoint") {
            self.breakpoint |= !is_null(scanner)?;
        } else if OPAQUE.iter().any(|opaque| name.is(opaque)) {
            self.skip_opaque(scanner)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Reads text, or parts of content.
    pub(super) fn content(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Invalid> {
        match scanner.kind()? {
            Kind::String => self.text(scanner),
            Kind::Array => self.parts(scanner, 0),
            Kind::Object => self.part(scanner, 0),
            _ => scanner.skip().map(drop),
        }
    }

    fn text(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Invalid> {
        let (_, characters) = scanner.counted_string()?;
        self.characters += characters;
        Ok(())
    }

    fn parts(&mut self, scanner: &mut Scanner<'_>, within: u32) -> Result<(), Invalid> {
        let mut elements = scanner.array()?;
        while elements.next(scanner)? {
            match scanner.kind()? {
                Kind::Object => self.part(scanner, within)?,
                Kind::String => self.text(scanner)?,
                _ => _ = scanner.skip()?,
            }
        }
        Ok(())
    }

    /// One part of content: a block of Anthropic's, a part of OpenAI's. A result of a tool has content of its own.
    fn part(&mut self, scanner: &mut Scanner<'_>, within: u32) -> Result<(), Invalid> {
        let (mut seen, mut part) = (Once::default(), Part::default());
        let mut members = scanner.object()?;
        while let Some(name) = members.next(scanner)? {
            if name.is("type") {
                self.once(&mut seen, TYPE);
                if scanner.kind()? == Kind::String {
                    let word = scanner.string()?;
                    self.part_is(&word, &mut part);
                } else {
                    scanner.skip()?;
                }
            } else if name.is("text") || name.is("refusal") || name.is("thinking") {
                if scanner.kind()? == Kind::String { self.text(scanner)? } else { _ = scanner.skip()? }
            } else if name.is("content") && within == 0 {
                self.once(&mut seen, CONTENT);
                match scanner.kind()? {
                    Kind::String => self.text(scanner)?,
                    Kind::Array => self.parts(scanner, within + 1)?,
                    _ => _ = scanner.skip()?,
                }
            } else if name.is("source") {
                part.is_text |= self.source(scanner)?;
            } else if name.is("signature") || name.is("data") {
                let is_string = scanner.kind()? == Kind::String;
                part.is_signed |= self.skip_opaque(scanner)? > "\"\"".len() && is_string;
            } else if !self.takes(&name, scanner)? {
                scanner.skip()?;
            }
        }
        self.thinking |= part.is_thinking && part.is_signed;
        if !part.is_text {
            self.media += part.media;
        }
        Ok(())
    }

    /// Where a block of Anthropic's takes its content from. True if that is text.
    fn source(&mut self, scanner: &mut Scanner<'_>) -> Result<bool, Invalid> {
        if scanner.kind()? != Kind::Object {
            scanner.skip()?;
            return Ok(false);
        }
        let start = scanner.position();
        let mut is_text = false;
        let mut members = scanner.object()?;
        while let Some(name) = members.next(scanner)? {
            if name.is("type") && scanner.kind()? == Kind::String {
                let word = scanner.string()?;
                is_text |= word.is("text") || word.is("content");
            } else {
                scanner.skip()?;
            }
        }
        if !is_text {
            self.opaque += (scanner.position() - start) as u64;
        }
        Ok(is_text)
    }

    fn part_is(&mut self, word: &Text<'_>, part: &mut Part) {
        if word.is("tool_result") {
            self.carrier = true;
        } else if word.is("thinking")
            || word.is("redacted_thinking")
            || word.is("reasoning.text")
            || word.is("reasoning.encrypted")
        {
            part.is_thinking = true;
        } else if word.is("image")
            || word.is("image_url")
            || word.is("input_image")
            || word.is("computer_screenshot")
        {
            part.media = IMAGE;
        } else if word.is("input_audio") {
            part.media = AUDIO;
        } else if word.is("file") || word.is("input_file") || word.is("document") {
            part.media = FILE;
        } else if word.is("compaction") {
            self.step_aside(Untouched::Compaction);
        }
    }

    /// Notes that a member was read, which may come once.
    pub(super) fn once(&mut self, seen: &mut Once, member: u8) {
        if seen.0 & member != 0 {
            self.step_aside(Untouched::Duplicate);
        }
        seen.0 |= member;
    }
}

/// What a part of content turns out to be.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    /// Its tokens, if it is media.
    media: u64,
    is_thinking: bool,
    is_signed: bool,
    /// A document that is text.
    is_text: bool,
}

/// Which members were read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Once(u8);

pub(super) const ROLE: u8 = 1;
pub(super) const TYPE: u8 = 1 << 1;
pub(super) const CONTENT: u8 = 1 << 2;
pub(super) const CALLS: u8 = 1 << 3;

/// The role that stands next. `None` where it is no string.
pub(super) fn role(scanner: &mut Scanner<'_>) -> Result<Option<Role>, Invalid> {
    if scanner.kind()? != Kind::String {
        scanner.skip()?;
        return Ok(None);
    }
    let word = scanner.string()?;
    Ok(Some(if word.is("user") {
        Role::User
    } else if word.is("assistant") {
        Role::Assistant
    } else if word.is("system") || word.is("developer") {
        Role::Author
    } else if word.is("tool") || word.is("function") {
        Role::Result
    } else {
        Role::Other
    }))
}

/// Passes over a value, and tells whether it is `null`.
pub(super) fn is_null(scanner: &mut Scanner<'_>) -> Result<bool, Invalid> {
    if scanner.kind()? == Kind::Literal {
        return Ok(scanner.literal()? == "null");
    }
    scanner.skip()?;
    Ok(false)
}

/// Passes over a value, and tells how many elements it has, if it is an array.
pub(super) fn elements(scanner: &mut Scanner<'_>) -> Result<u32, Invalid> {
    if scanner.kind()? != Kind::Array {
        scanner.skip()?;
        return Ok(0);
    }
    let mut count = 0_u32;
    let mut elements = scanner.array()?;
    while elements.next(scanner)? {
        scanner.skip()?;
        count = count.saturating_add(1);
    }
    Ok(count)
}
