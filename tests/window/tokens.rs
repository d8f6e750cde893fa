//! What a message weighs: told once more, by another parser.

use pillion::window::{Encoding, Policy};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tiktoken::CoreBpe;

use crate::histories::Element;

/// Members that are no text to a model, or stand for a constant (`docs/window.md`).
const NO_TEXT: [&str; 17] = [
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

/// The encoding that a policy means, of a request for this model. `None`: tokens are estimated.
pub(crate) fn encoding(policy: &Policy, model: &str) -> Option<&'static CoreBpe> {
    let name = match (policy.encoding, model) {
        (Encoding::O200k, _) | (Encoding::Auto, "gpt-4o") => "o200k_base",
        (Encoding::Cl100k, _) | (Encoding::Auto, "gpt-4-turbo") => "cl100k_base",
        _ => return None,
    };
    tiktoken::get_encoding(name)
}

/// Tokens of a message.
pub(crate) fn weigh(by: Option<&'static CoreBpe>, element: &Element, bytes: &[u8]) -> u64 {
    let Some(by) = by else {
        return (bytes.len() as u64).saturating_sub(element.opaque).div_ceil(4) + element.media;
    };
    // Of a picture that was made; of a program it is text.
    let result_is_text = element.opaque == 0;
    let mut weigher = Weigher { by, tokens: 3, result_is_text };
    // What is not read is not cut either.
    let _ = weigher.deserialize(&mut serde_json::Deserializer::from_slice(bytes));
    weigher.tokens + element.media
}

struct Weigher {
    by: &'static CoreBpe,
    tokens: u64,
    result_is_text: bool,
}

impl Weigher {
    /// Arguments of a call: an object counts as it is written, anything else by its strings.
    fn input(&mut self, value: &str) {
        if value.starts_with('{') {
            let text = pillion::json::unescape(value.as_bytes()).unwrap_or(value.into());
            self.tokens += self.by.count(&text) as u64;
        } else {
            // What is not read is not cut either.
            let _ = DeserializeSeed::deserialize(&mut *self, &mut serde_json::Deserializer::from_str(value));
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Weigher {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Not into a tree: names that come twice count twice.
impl<'de> Visitor<'de> for &mut Weigher {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.tokens += self.by.count(text) as u64;
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(&mut *self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<String>()? {
            let is_picture = name == "result" && !self.result_is_text;
            if name == "input" {
                self.input(members.next_value::<&RawValue>()?.get());
                continue;
            }
            if NO_TEXT.contains(&name.as_str()) || is_picture {
                members.next_value::<IgnoredAny>()?;
            } else {
                members.next_value_seed(&mut *self)?;
            }
        }
        Ok(())
    }
}
