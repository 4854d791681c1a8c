// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line: `key=value` words, each with a default.

use std::collections::BTreeMap;

/// The words that were given and not yet asked for.
pub(crate) struct Words(BTreeMap<String, String>);

impl Words {
    /// A word without `=` stands for itself with an empty value.
    pub(crate) fn new(words: impl Iterator<Item = String>) -> Self {
        let pairs = words.map(|word| match word.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (word, String::new()),
        });
        Self(pairs.collect())
    }

    /// The number after `key=`, which may end in k or m for KiB or MiB.
    pub(crate) fn number(&mut self, key: &str, default: u64) -> Result<u64, String> {
        let Some(text) = self.0.remove(key) else {
            return Ok(default);
        };
        let (digits, unit) = match text.strip_suffix('k') {
            Some(digits) => (digits, 1 << 10),
            None => text.strip_suffix('m').map_or((&*text, 1), |digits| (digits, 1 << 20)),
        };
        let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        number.ok_or_else(|| format!("{key}={text}: not a number"))
    }

    /// The text after `key=`.
    pub(crate) fn text(&mut self, key: &str, default: &str) -> String {
        self.0.remove(key).unwrap_or_else(|| default.to_owned())
    }

    /// Whether the word was given.
    pub(crate) fn has(&mut self, key: &str) -> bool {
        self.0.remove(key).is_some()
    }

    /// Complains of what nobody asked for.
    pub(crate) fn end(self) -> Result<(), String> {
        match self.0.into_keys().next() {
            Some(key) => Err(format!("{key}: no such word")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Words {
        Words::new(text.split(' ').map(str::to_owned))
    }

    #[test]
    fn numbers_have_units_and_defaults() {
        let mut words = words("a=3 b=132k c=2m d=x");
        assert_eq!(words.number("a", 0), Ok(3));
        assert_eq!(words.number("b", 0), Ok(132 << 10));
        assert_eq!(words.number("c", 0), Ok(2 << 20));
        assert_eq!(words.number("e", 9), Ok(9));
        assert!(words.number("d", 0).is_err());
    }

    #[test]
    fn an_unknown_word_is_an_error() {
        let mut words = words("direct cuont=3");
        assert!(words.has("direct"));
        assert!(words.end().unwrap_err().contains("cuont"));
    }
}
