// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counts tests by the closing lines of libtest and of what speaks like it:
//! `test result: ok. 10 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.

use std::fmt;

use super::lines::Lines;

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
    /// What happened that is no test's fault, and must be known.
    pub(crate) remarks: Vec<String>,
    /// Passed or skipped, but not in a closing line yet.
    open: Vec<Single>,
    lines: Lines,
}

/// A test that said how it went, on a line of its own.
#[derive(Debug, PartialEq, Eq)]
struct Single {
    name: String,
    skipped: bool,
}

impl Tally {
    /// Takes output in pieces as they come.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.feed(bytes, |line| self.count(line));
        self.lines = lines;
    }

    fn count(&mut self, line: &str) {
        if let Some((name, reason)) = ignored(line) {
            self.reasons.push(format!("{name}: {reason}"));
            self.open.push(Single { name: name.to_owned(), skipped: true });
        }
        if let Some(remark) = line.strip_prefix("remark: ") {
            self.remarks.push(remark.to_owned());
        }
        if let Some(name) = passed(line) {
            self.open.push(Single { name: name.to_owned(), skipped: false });
        }
        let Some((_verdict, counts)) =
            line.strip_prefix("test result: ").and_then(|result| result.split_once(". "))
        else {
            return;
        };
        self.open.clear();
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

    /// The run ended before its closing line: counts those that passed or were skipped by their own lines,
    /// and names them. The others, failed ones too, have not said why yet.
    pub(crate) fn interrupted(&mut self) -> Vec<String> {
        self.lines = Lines::default();
        let open = std::mem::take(&mut self.open);
        self.skipped += open.iter().map(|test| u64::from(test.skipped)).sum::<u64>();
        self.passed += open.iter().map(|test| u64::from(!test.skipped)).sum::<u64>();
        open.into_iter().map(|test| test.name).collect()
    }

    /// Takes the other's counts in.
    pub(crate) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.reasons.extend_from_slice(&other.reasons);
        self.remarks.extend_from_slice(&other.remarks);
    }

    /// Nothing was counted.
    pub(crate) fn is_empty(&self) -> bool {
        self.passed + self.failed + self.skipped == 0
    }
}

/// The name in `test NAME ... ok`.
fn passed(line: &str) -> Option<&str> {
    let (name, _) = line.strip_prefix("test ")?.split_once(" ... ok")?;
    Some(name.trim_end())
}

/// Name and reason in `test NAME ... ignored, REASON`, or where libtest-mimic says it, `ignored (REASON)`.
pub(crate) fn ignored(line: &str) -> Option<(&str, &str)> {
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
    fn what_must_be_known_is_kept() {
        let mut tally = Tally::default();
        tally.feed(b"remark: k/a: run again\ntest k/a ... ok\n a remark: of a guest's\n");
        assert_eq!(tally.remarks, ["k/a: run again"]);
    }

    #[test]
    fn a_run_that_breaks_off_counts_what_it_said() {
        let mut tally = Tally::default();
        tally.feed(
            b"test k/a  ... ok\ntest k/b ... FAILED\ntest k/c ... ignored (no tape)\ntest k/d",
        );
        assert_eq!(tally.interrupted(), ["k/a", "k/c"]);
        tally.feed(b"test k/b ... ok\ntest k/d ... ok\ntest result: ok. 2 passed; 0 failed\n");
        assert_eq!(tally.to_string(), "3 passed, 0 failed, 1 skipped");
        assert_eq!(tally.interrupted(), [""; 0]);
    }

    #[test]
    fn other_output_counts_for_nothing() {
        let mut tally = Tally::default();
        tally.feed(b"test result: nonsense\ntest result: ok. passed 3; x failed\n");
        assert!(tally.is_empty());
    }
}
