// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a guest left behind when it has ended.

/// Lines that a failure shows.
const TAIL: usize = 40;

/// A machine that has ended, or what it has said so far.
#[derive(Clone, Debug)]
pub struct Report {
    /// Lines of its serial port, without control characters.
    pub lines: Vec<String>,
    /// What busway itself said on stderr.
    pub busway: String,
    /// busway's exit status: 0 the guest powered off, 1 it failed, 2 busway could not start; 128 + n when
    /// signal n ended it, -1 while it runs.
    pub status: i32,
}

impl Report {
    /// Values of all lines `key=value`, in order.
    pub fn all(&self, key: &str) -> Vec<&str> {
        let value =
            |line: &'_ str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with('='));
        let lines = self.lines.iter().filter(|line| value(line));
        lines.filter_map(|line| line.get(key.len() + 1..)).collect()
    }

    /// The value of the only line `key=value`.
    ///
    /// # Panics
    /// There is none, or more than one.
    #[track_caller]
    pub fn fact(&self, key: &str) -> &str {
        match self.all(key)[..] {
            [value] => value,
            [] => panic!("the guest did not say {key}={}", self.tail()),
            _ => panic!("the guest said {key}= more than once"),
        }
    }

    /// The same, as a number.
    ///
    /// # Panics
    /// It is none, or as [`fact`](Self::fact) does.
    #[track_caller]
    pub fn number(&self, key: &str) -> u64 {
        let value = self.fact(key);
        value.parse().unwrap_or_else(|_| panic!("{key}={value} is no number"))
    }

    /// The last lines of both, for a message.
    pub(crate) fn tail(&self) -> String {
        let first = self.lines.len().saturating_sub(TAIL);
        let mut text = "; the last that it said:\n".to_owned();
        for line in self.lines.iter().skip(first) {
            text.push_str("  ");
            text.push_str(line);
            text.push('\n');
        }
        if !self.busway.is_empty() {
            text.push_str("and busway:\n  ");
            text.push_str(self.busway.trim_end());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[&str]) -> Report {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        Report { lines, busway: "no disk".to_owned(), status: 0 }
    }

    #[test]
    fn facts_are_whole_keys() {
        let report = report(&["a=1", "ab=2", "b=x=y", "c", "a=3", "n=12"]);
        assert_eq!(report.all("a"), ["1", "3"]);
        assert_eq!((report.fact("ab"), report.fact("b")), ("2", "x=y"));
        assert_eq!(report.number("n"), 12);
    }

    #[test]
    #[should_panic(
        expected = "did not say c=; the last that it said:\n  a=1\nand busway:\n  no disk"
    )]
    fn a_missing_fact_shows_what_was_said() {
        report(&["a=1"]).fact("c");
    }
}
