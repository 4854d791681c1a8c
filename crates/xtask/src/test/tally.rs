// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counts tests by the closing lines of libtest and of what speaks like it:
//! `test result: ok. 10 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.

use std::fmt;

/// How many tests went which way.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Passed.
    pub(crate) passed: u64,
    /// Failed.
    pub(crate) failed: u64,
    /// Ignored, in libtest's words.
    pub(crate) skipped: u64,
    line: Vec<u8>,
}

impl Tally {
    /// Takes output in pieces as they come.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.count(&String::from_utf8_lossy(&line));
            } else {
                self.line.push(*byte);
            }
        }
    }

    fn count(&mut self, line: &str) {
        let Some((_verdict, counts)) =
            line.strip_prefix("test result: ").and_then(|result| result.split_once(". "))
        else {
            return;
        };
        for part in counts.split("; ") {
            let Some((number, what)) = part.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what.trim_end_matches(';') {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }

    /// Takes the other's counts in.
    pub(crate) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Nothing was counted.
    pub(crate) fn is_empty(&self) -> bool {
        self.passed + self.failed + self.skipped == 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 3 tests\n..F\n\
        test result: FAILED. 2 passed; 1 failed; 4 ignored; 0 measured; 7 filtered out; finished in 0.02s\n\
        a test printed: test result: ok. 100 passed; 0 failed;\n\
        test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";

    #[test]
    fn results_are_added_up_however_the_output_is_cut() {
        for size in 1..OUTPUT.len() {
            let mut tally = Tally::default();
            for piece in OUTPUT.as_bytes().chunks(size) {
                tally.feed(piece);
            }
            assert_eq!(tally.to_string(), "42 passed, 1 failed, 4 skipped");
        }
    }

    #[test]
    fn other_output_counts_for_nothing() {
        let mut tally = Tally::default();
        tally.feed(b"test result: nonsense\ntest result: ok. passed 3; x failed\n");
        assert!(tally.is_empty());
    }
}
