//! What is wrong with a configuration: collected, never stopping at the first.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::expand::Expansion;
use super::locate;

/// One mistake, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `routes[1].retry.base`, `$NAME` for a variable, empty for the file as a whole.
    pub path: String,
    /// The line of the key, counted from 1, where it is known.
    pub line: Option<usize>,
    /// What is written there. Never a secret, and never what a variable held where that could be one.
    pub value: Option<String>,
    /// What holds for such a value.
    pub rule: String,
    /// What to write instead.
    pub suggestion: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(if self.path.is_empty() { "the file" } else { &self.path })?;
        if let Some(value) = &self.value {
            write!(f, " is `{value}`")?;
        }
        write!(f, "\n    {}", self.rule)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "\n    -> {suggestion}")?;
        }
        Ok(())
    }
}

/// Every mistake of one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The file; `None` for the built-in default.
    pub source: Option<PathBuf>,
    /// In the order of the lines; those of no line last.
    pub list: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(path) => write!(f, "{}", path.display())?,
            None => f.write_str("built-in default")?,
        }
        let count = self.list.len();
        write!(f, ": {count} problem{}", if count == 1 { "" } else { "s" })?;
        for problem in &self.list {
            write!(f, "\n\n{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// One step of a [`KeyPath`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Item(usize),
    Variable(String),
}

/// Where something stands in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyPath(pub(super) Vec<Step>);

impl KeyPath {
    /// The file itself.
    pub(super) fn root() -> Self {
        Self::default()
    }

    /// A variable of the environment.
    pub(super) fn variable(name: &str) -> Self {
        Self(vec![Step::Variable(name.to_owned())])
    }

    /// A member of the mapping here.
    #[must_use]
    pub(super) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    /// An item of the list here.
    #[must_use]
    pub(super) fn item(&self, index: usize) -> Self {
        self.with(Step::Item(index))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// Whether `other` stands here or below.
    pub(super) fn covers(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if index == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Item(item) => write!(f, "[{item}]")?,
                Step::Variable(name) => write!(f, "${name}")?,
            }
        }
        Ok(())
    }
}

/// What is learned about a file while it is read: its mistakes, and which values came from the environment.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<(KeyPath, Problem)>,
    /// Scalars in which variables were expanded.
    pub(super) expansions: BTreeMap<KeyPath, Expansion>,
}

impl Findings {
    /// Notes a mistake.
    pub(super) fn add(&mut self, at: &KeyPath, rule: impl Into<String>, suggestion: impl Into<String>) {
        self.push(at, None, rule.into(), Some(suggestion.into()));
    }

    /// Notes a mistake in a value. Where variables were expanded the value is shown as written: what they hold may be
    /// a secret that got there by mistake.
    pub(super) fn add_value(
        &mut self,
        at: &KeyPath,
        value: impl Into<String>,
        rule: impl Into<String>,
        suggestion: impl Into<String>,
    ) {
        let value =
            self.expansions.get(at).map_or_else(|| value.into(), |expansion| expansion.written.clone());
        self.add_shown(at, value, rule, suggestion);
    }

    /// Notes a mistake in a value that may be shown even if it came from a variable.
    pub(super) fn add_shown(
        &mut self,
        at: &KeyPath,
        value: impl Into<String>,
        rule: impl Into<String>,
        suggestion: impl Into<String>,
    ) {
        self.push(at, Some(value.into()), rule.into(), Some(suggestion.into()));
    }

    /// Notes a mistake for which nothing can be suggested, such as a file that cannot be read.
    pub(super) fn add_plain(&mut self, at: &KeyPath, rule: impl Into<String>) {
        self.push(at, None, rule.into(), None);
    }

    fn push(&mut self, at: &KeyPath, value: Option<String>, rule: String, suggestion: Option<String>) {
        let problem = Problem { path: at.to_string(), line: None, value, rule, suggestion };
        // What several routes share is looked at for each of them.
        let noted = (at.clone(), problem);
        if !self.list.contains(&noted) {
            self.list.push(noted);
        }
    }

    /// Whether something here, or what holds it, is wrong already: nothing more is said about it then.
    pub(super) fn touches(&self, at: &KeyPath) -> bool {
        self.list.iter().any(|(found, _)| !found.0.is_empty() && found.covers(at))
    }

    /// Whether variables made this value empty: it counts as not written.
    pub(super) fn emptied(&self, at: &KeyPath) -> bool {
        self.expansions.get(at).is_some_and(|expansion| expansion.empty)
    }

    /// Whether variables were expanded in this value: nothing of it is repeated in a suggestion then.
    pub(super) fn expanded(&self, at: &KeyPath) -> bool {
        self.expansions.contains_key(at)
    }

    /// The variables named where this value was written, for telling people what to set.
    pub(super) fn variables(&self, at: &KeyPath) -> Vec<String> {
        self.expansions.get(at).map(|expansion| expansion.asked.clone()).unwrap_or_default()
    }

    /// Whether nothing is wrong.
    pub(super) fn is_clean(&self) -> bool {
        self.list.is_empty()
    }

    /// The mistakes with their lines in `text`.
    pub(super) fn into_problems(self, text: &str, source: Option<PathBuf>) -> Problems {
        let mut list: Vec<Problem> = self
            .list
            .into_iter()
            .map(|(at, problem)| Problem {
                line: problem.line.or_else(|| locate::line(text, &at)),
                ..problem
            })
            .collect();
        list.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        Problems { source, list }
    }
}

impl Problems {
    /// A single mistake that stands for the whole file.
    pub(super) fn single(source: Option<PathBuf>, line: Option<usize>, rule: String) -> Self {
        Self {
            source,
            list: vec![Problem { path: String::new(), line, value: None, rule, suggestion: None }],
        }
    }
}

/// The candidate nearest to a mistyped word, when one is near enough to have been meant.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = 1 + word.chars().count() / 4;
    candidates
        .into_iter()
        .map(|candidate| (distance(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, from) in a.chars().enumerate() {
        let mut next = vec![index + 1];
        for ((to, above), diagonal) in b.iter().zip(row.iter().skip(1)).zip(&row) {
            let left = next.last().copied().unwrap_or_default();
            next.push((diagonal + usize::from(from != *to)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let keys = ["timeouts", "retry", "cache", "window", "limits"];
        for (word, expected) in [
            ("timeout", Some("timeouts")),
            ("retyr", Some("retry")),
            ("Cache", Some("cache")),
            ("windw", Some("window")),
            ("banana", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, keys), expected, "{word}");
        }
    }

    #[test]
    fn paths_read_as_in_the_documentation() {
        let path = KeyPath::root().key("routes").item(1).key("retry").key("base");
        assert_eq!(path.to_string(), "routes[1].retry.base");
        assert_eq!(KeyPath::variable("HOME").to_string(), "$HOME");
    }
}
