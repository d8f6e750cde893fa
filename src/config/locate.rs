//! The line on which a key stands.
//!
//! The YAML parser tells places only in its errors, so the text is read once more by a visitor that refuses
//! exactly the key that is looked for. Slow, and right for every style of YAML; it runs only when something is wrong.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::problem::{KeyPath, Step};

/// The line of the key at `path`, counted from 1; of what should hold it where it is missing.
pub(super) fn line(text: &str, path: &KeyPath) -> Option<usize> {
    if path.0.is_empty() || path.0.iter().any(|step| matches!(step, Step::Variable(_))) {
        return None;
    }
    let refused = Search(&path.0).deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    refused.location().map(|location| location.line())
}

/// Walks down the steps and refuses what stands at their end.
struct Search<'a>(&'a [Step]);

impl<'de> DeserializeSeed<'de> for Search<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Search<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("something else")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), rest)) = self.0.split_first() else {
            return Err(A::Error::custom("here"));
        };
        while let Some(found) = map.next_key_seed(Key { wanted, last: rest.is_empty() })? {
            if found {
                map.next_value_seed(Search(rest))?;
            } else {
                map.next_value::<serde::de::IgnoredAny>()?;
            }
        }
        Err(A::Error::custom("missing from here"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((Step::Item(index), rest)) = self.0.split_first() else {
            return Err(A::Error::custom("here"));
        };
        for _ in 0..*index {
            list.next_element::<serde::de::IgnoredAny>()?;
        }
        list.next_element_seed(Search(rest))?;
        Err(A::Error::custom("missing from here"))
    }
}

/// Compares a key; refuses it when it is the last step, so that the error tells its line.
struct Key<'a> {
    wanted: &'a str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        match (key == self.wanted, self.last) {
            (true, true) => Err(E::custom("here")),
            (found, _) => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_keys_in_block_and_flow_style() {
        let text = "version: 1\nroutes:\n  - name: a\n    retry:\n      base: 5x\n  - {name: b,\n     cache: {ttl: 1}}\n";
        let routes = KeyPath::root().key("routes");
        for (path, expected) in [
            (KeyPath::root().key("version"), Some(1)),
            (routes.clone(), Some(2)),
            (routes.item(0), Some(3)),
            (routes.item(0).key("retry"), Some(4)),
            (routes.item(0).key("retry").key("base"), Some(5)),
            (routes.item(0).key("upstream"), Some(3)),
            (routes.item(1), Some(6)),
            (routes.item(1).key("cache").key("ttl"), Some(7)),
            (KeyPath::root(), None),
            (KeyPath::variable("HOME"), None),
        ] {
            assert_eq!(line(text, &path), expected, "{path}");
        }
    }
}
