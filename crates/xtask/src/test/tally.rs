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
    /// Which were, and why, as far as they say.
    pub(crate) reasons: Vec<String>,
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
        if let Some((name, reason)) = ignored(line) {
            self.reasons.push(format!("{name}: {reason}"));
        }
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
        self.reasons.extend_from_slice(&other.reasons);
    }

    /// Nothing was counted.
    pub(crate) fn is_empty(&self) -> bool {
        self.passed + self.failed + self.skipped == 0
    }
}

/// Name and reason in `test NAME ... ignored, REASON`, or where libtest-mimic says it, `ignored (REASON)`.
fn ignored(line: &str) -> Option<(&str, &str)> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    let reason = verdict.trim_start_matches([',', ' ', '(']).trim_end_matches(')');
    Some((name.trim_end(), if reason.is_empty() { "it says not why" } else { reason }))
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
    fn what_is_skipped_is_listed_with_its_reason() {
        let mut tally = Tally::default();
        tally.feed(b"test a::b  ... ok\ntest a::c ... ignored, needs a tape\n");
        tally.feed(b"test k/d::e    ... ignored (no loop device)\ntest f ... ignored\n");
        let wanted = ["a::c: needs a tape", "k/d::e: no loop device", "f: it says not why"];
        assert_eq!(tally.reasons, wanted);
    }

    #[test]
    fn other_output_counts_for_nothing() {
        let mut tally = Tally::default();
        tally.feed(b"test result: nonsense\ntest result: ok. passed 3; x failed\n");
        assert!(tally.is_empty());
    }
}
