//! `${VAR}`, `${VAR:-default}` and `$$` inside scalars, after the YAML is parsed: a variable can never add keys or
//! change the shape of the file. A `$` before anything else is itself, so that patterns may end in one.

use serde_yaml::Value;

use super::Environment;
use super::problem::{Findings, KeyPath};

/// What became of a scalar with variables in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Expansion {
    /// As it stands in the file: shown in place of the value, which may be a secret.
    pub(super) written: String,
    /// Every variable named, outermost first.
    pub(super) asked: Vec<String>,
    /// Those whose values were taken.
    pub(super) used: Vec<String>,
    /// Nothing is left: the key counts as not written.
    pub(super) empty: bool,
}

/// Expands every scalar below `value`; mistakes become problems and leave `null` behind.
pub(super) fn expand(value: &mut Value, at: &KeyPath, env: &Environment, findings: &mut Findings) {
    match value {
        Value::String(text) if text.contains('$') => match expand_text(text, env) {
            Ok((expanded, expansion)) => {
                *text = expanded;
                if !expansion.asked.is_empty() {
                    findings.expansions.insert(at.clone(), expansion);
                }
            }
            Err(fault) => {
                findings.add_value(at, text.clone(), fault.rule, fault.suggestion);
                *value = Value::Null;
            }
        },
        Value::Sequence(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand(item, &at.item(index), env, findings);
            }
        }
        Value::Mapping(members) => {
            for (key, member) in members.iter_mut() {
                if let Some(key) = key.as_str() {
                    expand(member, &at.key(key), env, findings);
                }
            }
        }
        _ => {}
    }
}

/// Why a text does not expand.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    rule: String,
    suggestion: String,
}

fn expand_text(text: &str, env: &Environment) -> Result<(String, Expansion), Fault> {
    let mut scanner = Scanner { env, asked: Vec::new(), used: Vec::new() };
    let (expanded, _) = scanner.scan(text, false, true)?;
    let empty = expanded.is_empty();
    let expansion = Expansion { written: text.to_owned(), asked: scanner.asked, used: scanner.used, empty };
    Ok((expanded, expansion))
}

struct Scanner<'e> {
    env: &'e Environment,
    asked: Vec<String>,
    used: Vec<String>,
}

impl<'e> Scanner<'e> {
    /// Expands up to the end, or up to the closing brace when `nested`. Where not `live`, a default that is not
    /// needed: read for its syntax, its variables may be unset.
    fn scan<'a>(&mut self, mut rest: &'a str, nested: bool, live: bool) -> Result<(String, &'a str), Fault> {
        let mut out = String::new();
        loop {
            let Some(at) = rest.find(|c| c == '$' || (nested && c == '}')) else {
                if nested {
                    return Err(unclosed());
                }
                out.push_str(rest);
                return Ok((out, ""));
            };
            let (before, tail) = rest.split_at(at);
            out.push_str(before);
            if let Some(tail) = tail.strip_prefix('}') {
                return Ok((out, tail));
            } else if let Some(tail) = tail.strip_prefix("${") {
                let (value, tail) = self.variable(tail, live)?;
                out.push_str(&value);
                rest = tail;
            } else {
                out.push('$');
                rest = tail.strip_prefix("$$").or_else(|| tail.strip_prefix('$')).unwrap_or_default();
            }
        }
    }

    /// What stands behind `${`.
    fn variable<'a>(&mut self, rest: &'a str, live: bool) -> Result<(String, &'a str), Fault> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, tail) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(Fault {
                rule: "`${` is followed by the name of a variable".to_owned(),
                suggestion: "${NAME} or ${NAME:-default}; a literal `${` is written `$${`".to_owned(),
            });
        }
        if !self.asked.iter().any(|asked| asked == name) {
            self.asked.push(name.to_owned());
        }
        let env: &'e Environment = self.env;
        let set = env.get(name).filter(|value| !value.is_empty());
        if set.is_some() && live {
            self.used.push(name.to_owned());
        }
        if let Some(tail) = tail.strip_prefix('}') {
            return match set {
                Some(value) => Ok((value.clone(), tail)),
                None if live => Err(Fault {
                    rule: format!("{name} is not set, or empty"),
                    suggestion: format!("set {name}, or give a default: ${{{name}:-...}}"),
                }),
                None => Ok((String::new(), tail)),
            };
        }
        if tail.is_empty() {
            return Err(unclosed());
        }
        let Some(default) = tail.strip_prefix(":-") else {
            return Err(Fault {
                rule: format!("behind the name of a variable stands `}}` or `:-` and a default: {name}"),
                suggestion: format!("${{{name}:-default}}"),
            });
        };
        let (default, tail) = self.scan(default, true, live && set.is_none())?;
        Ok((set.cloned().unwrap_or(default), tail))
    }
}

fn unclosed() -> Fault {
    Fault {
        rule: "`${` has no closing brace".to_owned(),
        suggestion: "${NAME} or ${NAME:-default}; a literal `${` is written `$${`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Environment {
        [("A", "1"), ("URL", "https://x"), ("EMPTY", ""), ("TRICK", "${A}")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn a_table_of_texts() {
        for (text, expected) in [
            ("plain", Some("plain")),
            ("${A}", Some("1")),
            ("a${A}b${A}c", Some("a1b1c")),
            ("${NONE:-2}", Some("2")),
            ("${EMPTY:-2}", Some("2")),
            ("${A:-2}", Some("1")),
            ("${NONE:-}", Some("")),
            ("${NONE:-${EMPTY:-${URL}}}", Some("https://x")),
            ("${NONE:-${ALSO:-}}", Some("")),
            ("${A:-${NONE}}", Some("1")),
            ("${NONE:-a${A}b}c", Some("a1bc")),
            // What a variable holds is not expanded again.
            ("${TRICK}", Some("${A}")),
            ("$$", Some("$")),
            ("$${A}", Some("${A}")),
            ("^/query$", Some("^/query$")),
            ("a}b", Some("a}b")),
            ("$A", Some("$A")),
            ("${NONE}", None),
            ("${EMPTY}", None),
            ("${A", None),
            ("${NONE:-x", None),
            ("${}", None),
            ("${1A}", None),
            ("${A-x}", None),
        ] {
            assert_eq!(expand_text(text, &env()).ok().map(|(out, _)| out).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn it_is_known_which_variables_were_asked_and_used() {
        let (_, expansion) = expand_text("${NONE:-${URL:-}}", &env()).unwrap();
        assert_eq!(expansion.asked, ["NONE", "URL"]);
        assert_eq!(expansion.used, ["URL"]);
        assert!(!expansion.empty);
    }
}
