//! Which paths a file of Rust names: `use` trees in all their spellings, and paths in the code.
//!
//! A reader of tokens, not of Rust: enough to tell code from comments and strings, and to know the module a path
//! stands in. What it cannot see is a path that a macro puts together.

use std::collections::BTreeSet;

/// A path somewhere in a file.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    /// The module it stands in: inline ones count.
    pub(crate) module: Vec<String>,
    pub(crate) is_use: bool,
    pub(crate) is_reexport: bool,
}

impl Named {
    pub(crate) fn text(&self) -> String {
        self.segments.join("::")
    }
}

/// What a file names.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) named: Vec<Named>,
    /// Names that imports of this crate's own modules bind: `redis` may be one of them.
    pub(crate) bound: BTreeSet<String>,
    /// `mod x;` and `mod x {}` without `pub`.
    pub(crate) private_children: BTreeSet<String>,
}

impl Source {
    pub(crate) fn read(text: &str, file: &[String]) -> Self {
        let mut source = Self::default();
        let tokens = tokens(text);
        let sign = |at: usize, wanted: &str| tokens.get(at).is_some_and(|(token, _)| *token == wanted);
        let mut inline: Vec<(String, usize)> = Vec::new();
        let (mut depth, mut at) = (0, 0);
        while let Some(&(token, line)) = tokens.get(at) {
            let module = || file.iter().cloned().chain(inline.iter().map(|(name, _)| name.clone())).collect();
            let public = at > 0 && (sign(at - 1, "pub") || sign(at - 1, ")"));
            match token {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    inline.retain(|(_, opened)| *opened <= depth);
                }
                "mod" if sign(at + 2, ";") || sign(at + 2, "{") => {
                    let name = tokens[at + 1].0.to_owned();
                    if !public {
                        source.private_children.insert(name.clone());
                    }
                    if sign(at + 2, "{") {
                        inline.push((name, depth + 1));
                    }
                    at += 1;
                }
                "use" if !sign(at + 1, "<") => {
                    at += 1;
                    let mut leaves = Vec::new();
                    use_tree(&tokens, &mut at, &[], &mut leaves);
                    for (segments, line, alias) in leaves {
                        let own = matches!(segments[0].as_str(), "crate" | "self" | "super" | "pillion");
                        if own && let Some(name) = alias.or_else(|| segments.last().cloned()) {
                            source.bound.insert(name);
                        }
                        let module = module();
                        source.named.push(Named {
                            segments,
                            line,
                            module,
                            is_use: true,
                            is_reexport: public,
                        });
                    }
                    continue;
                }
                "crate" if at > 0 && sign(at - 1, "extern") => {
                    let segments = vec![tokens[at + 1].0.to_owned()];
                    source.named.push(Named {
                        segments,
                        line,
                        module: module(),
                        is_use: true,
                        is_reexport: public,
                    });
                    at += 1;
                }
                word if is_word(word) && sign(at + 1, "::") && begins_path(&tokens, at) => {
                    let mut segments = vec![word.to_owned()];
                    while sign(at + 1, "::") && tokens.get(at + 2).is_some_and(|(next, _)| is_word(next)) {
                        at += 2;
                        segments.push(tokens[at].0.to_owned());
                    }
                    source.named.push(Named {
                        segments,
                        line,
                        module: module(),
                        is_use: false,
                        is_reexport: false,
                    });
                }
                _ => {}
            }
            at += 1;
        }
        source
    }
}

/// Words that `::` may follow without being part of the path.
const BEFORE_A_PATH: [&str; 9] = ["as", "dyn", "else", "if", "impl", "in", "match", "return", "while"];

/// Whether a path begins here: not behind `::`, unless that itself begins it.
fn begins_path(tokens: &[(&str, usize)], at: usize) -> bool {
    let back = |by: usize| at.checked_sub(by).and_then(|at| tokens.get(at)).map_or("", |(token, _)| *token);
    let part_of_a_path = |token: &str| token == ">" || (is_word(token) && !BEFORE_A_PATH.contains(&token));
    part_of_a_path(back(0)) && (back(1) != "::" || !part_of_a_path(back(2)))
}

type Leaf = (Vec<String>, usize, Option<String>);

/// Reads one tree of a `use`; stands behind it afterwards.
fn use_tree(tokens: &[(&str, usize)], at: &mut usize, prefix: &[String], leaves: &mut Vec<Leaf>) {
    let mut path = prefix.to_vec();
    while let Some(&(token, line)) = tokens.get(*at) {
        match token {
            "::" => {}
            "{" => {
                *at += 1;
                while tokens.get(*at).is_some_and(|(token, _)| *token != "}") {
                    use_tree(tokens, at, &path, leaves);
                    if tokens.get(*at).is_some_and(|(token, _)| *token == ",") {
                        *at += 1;
                    }
                }
                *at += 1;
                return;
            }
            word if is_word(word) || word == "*" => {
                path.push(word.to_owned());
                let next = |by: usize| tokens.get(*at + by).map_or(";", |(token, _)| *token);
                if next(1) != "::" {
                    let alias = (next(1) == "as").then(|| next(2).to_owned());
                    *at += if alias.is_some() { 3 } else { 1 };
                    if path.len() > 1 {
                        path.retain(|segment| segment != "self" || prefix.is_empty());
                    }
                    leaves.push((path, line, alias));
                    return;
                }
            }
            _ => return,
        }
        *at += 1;
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::` and single signs with their lines; comments, strings, characters, lifetimes and numbers are left out.
fn tokens(text: &str) -> Vec<(&str, usize)> {
    let mut out = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(len) = literal(rest) {
            len
        } else if word > 0 {
            if is_word(&rest[..word]) {
                out.push((&rest[..word], line));
            }
            word
        } else if rest.starts_with("::") {
            out.push(("::", line));
            2
        } else {
            if !first.is_whitespace() {
                out.push((&rest[..first.len_utf8()], line));
            }
            first.len_utf8()
        };
        line += rest[..len].matches('\n').count();
        rest = &rest[len..];
    }
    out
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..(at + 2).min(text.len())] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" if depth == 1 => return at + 2,
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    text.len()
}

/// The length of a string, a character, a lifetime or the mark of a raw identifier at the beginning of a text.
fn literal(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""]
        .into_iter()
        .find(|prefix| text.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['"', '\'', '#'])))?;
    let rest = &text[prefix.len()..];
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    if prefix.ends_with('r') && rest[hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let inner = prefix.len() + hashes + 1;
        return Some(text[inner..].find(&end).map_or(text.len(), |at| inner + at + end.len()));
    }
    match rest.chars().next()? {
        '#' => (prefix == "r").then_some(2),
        '"' => Some(prefix.len() + quoted(rest, '"')),
        _ if rest[1..].starts_with('\\') || rest.chars().nth(2) == Some('\'') => {
            Some(prefix.len() + quoted(rest, '\''))
        }
        _ if prefix.is_empty() => {
            let name = rest[1..].find(|c: char| !(c.is_alphanumeric() || c == '_'));
            Some(name.map_or(rest.len(), |len| len + 1))
        }
        _ => None,
    }
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}
