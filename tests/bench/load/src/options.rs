//! `--name value` pairs.

use std::collections::HashMap;
use std::str::FromStr;

/// Any failure; the lab stops on it.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What was asked for on the command line.
pub(crate) struct Options(HashMap<String, Vec<String>>);

impl Options {
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options: HashMap<String, Vec<String>> = HashMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("{word} is not an option"))?;
            let value = words.next().ok_or_else(|| format!("--{name} lacks its value"))?;
            options.entry(name.to_owned()).or_default().push(value);
        }
        Ok(Self(options))
    }

    pub(crate) fn text(&self, name: &str) -> Result<&str, Failure> {
        self.all(name).last().map(String::as_str).ok_or_else(|| format!("--{name} is missing").into())
    }

    pub(crate) fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T, Failure> {
        match self.all(name).last() {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| format!("--{name} {value} is not a number").into()),
        }
    }

    /// A request to `--path` with the content of the file `--body`, and `--header`s besides the usual ones.
    pub(crate) fn request(&self) -> Result<Vec<u8>, Failure> {
        let content = std::fs::read(self.text("body")?)?;
        let extra: Vec<&str> = self.all("header").iter().map(String::as_str).collect();
        Ok(crate::http::request(self.text("path")?, &extra, &content))
    }
}
