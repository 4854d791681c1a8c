// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the boot tests said, test by test: read from their output, kept in a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::test::lines::Lines;
use crate::test::tally::ignored;

/// How a test went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    Passed,
    Failed,
    /// It is not for that guest or this machine.
    Skipped,
}

/// One test on one guest by one engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TestResult {
    /// Name in guest-images/manifest.toml.
    pub(super) guest: String,
    /// The kernel's release.
    pub(super) release: String,
    /// Who implements Hyper-V.
    pub(super) engine: String,
    /// What the test is about: its file.
    pub(super) feature: String,
    /// Its name in there.
    pub(super) test: String,
    pub(super) outcome: Outcome,
    /// Why it failed or was skipped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) reason: Option<String>,
}

/// The results of all guests, by the tests' full names.
#[derive(Debug, Default)]
pub(super) struct Results(BTreeMap<String, TestResult>);

/// The file.
#[derive(Serialize, Deserialize)]
struct Document {
    results: Vec<TestResult>,
}

impl Results {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read(path).with_context(|| path.display().to_string())?;
        let document: Document = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no file of this command's", path.display()))?;
        Ok(Self(document.results.into_iter().map(|result| (result.name(), result)).collect()))
    }

    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let document = Document { results: self.iter().cloned().collect() };
        let text = serde_json::to_string_pretty(&document)?;
        fs::write(path, text + "\n").with_context(|| path.display().to_string())
    }

    /// In the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = &TestResult> {
        self.0.values()
    }

    /// Takes what a run said, in place of what was known of the same tests.
    pub(super) fn take(&mut self, reader: Reader) {
        self.0.extend(reader.seen);
    }
}

impl TestResult {
    /// As tests/boot calls it.
    pub(super) fn name(&self) -> String {
        format!("{}/{}/{}::{}", self.guest, self.engine, self.feature, self.test)
    }
}

/// Reads the output of the boot tests.
pub(super) struct Reader {
    release: String,
    seen: BTreeMap<String, TestResult>,
    /// The test whose failure is being explained.
    explained: Option<String>,
    whole: bool,
    lines: Lines,
}

impl Reader {
    /// For tests on the kernel of that release.
    pub(super) fn new(release: &str) -> Self {
        Self {
            release: release.to_owned(),
            seen: BTreeMap::new(),
            explained: None,
            whole: false,
            lines: Lines::default(),
        }
    }

    /// Whether the tests came to their end.
    pub(super) const fn is_whole(&self) -> bool {
        self.whole
    }

    /// Takes output in pieces as they come.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.feed(bytes, |line| self.line(line));
        self.lines = lines;
    }

    fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" ----")) {
            self.explained = Some(name.to_owned());
        } else if let Some((name, reason)) = ignored(line) {
            self.note(name, Outcome::Skipped, Some(reason.to_owned()));
        } else if let Some((name, verdict)) =
            line.strip_prefix("test ").and_then(|l| l.split_once(" ... "))
        {
            match verdict.trim() {
                "ok" => self.note(name.trim_end(), Outcome::Passed, None),
                "FAILED" => self.note(name.trim_end(), Outcome::Failed, None),
                _ => {}
            }
        } else if line.starts_with("test result: ") {
            self.whole = true;
        } else {
            self.explain(line);
        }
    }

    fn note(&mut self, name: &str, outcome: Outcome, reason: Option<String>) {
        let Some((guest, engine, feature, test)) = parts(name) else {
            return;
        };
        let [guest, engine, feature, test] = [guest, engine, feature, test].map(str::to_owned);
        let release = self.release.clone();
        let result = TestResult { guest, release, engine, feature, test, outcome, reason };
        self.seen.insert(name.to_owned(), result);
    }

    /// The first line of a failure that is not about where in the test it happened.
    fn explain(&mut self, line: &str) {
        if line.is_empty() || line.starts_with("panicked at ") {
            return;
        }
        let result = self.explained.take().and_then(|name| self.seen.get_mut(&name));
        if let Some(result) = result {
            result.reason = Some(line.to_owned());
        }
    }
}

/// `GUEST/ENGINE/FEATURE::TEST`.
fn parts(name: &str) -> Option<(&str, &str, &str, &str)> {
    let (guest, rest) = name.split_once('/')?;
    let (engine, rest) = rest.split_once('/')?;
    let (feature, test) = rest.split_once("::")?;
    Some((guest, engine, feature, test))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What libtest-mimic prints of five tests, of which two have something to explain.
    const OUTPUT: &str = "running 5 tests\n\
        test g/kvm/bus::offers  ... ok\n\
        test g/kvm/disk::reads  ... FAILED\n\
        test g/kvm/disk::trims  ... ignored (no loop device)\n\
        test no/such-name       ... ok\n\
        test g/own/bus::offers  ... FAILED\n\
        \nfailures:\n\n\
        ---- g/kvm/disk::reads ----\n\
        panicked at tests/boot/disk.rs:7:5:\n\
        the guest did not say sum=\n\
        --- busway run\n\n\
        ---- g/own/bus::offers ----\n\
        panicked at tests/boot/bus.rs:9:5:\n\
        assertion `left == right` failed\n\n\
        failures:\n    g/kvm/disk::reads\n\n\
        test result: FAILED. 2 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 9s\n";

    fn read(output: &str, size: usize) -> Reader {
        let mut reader = Reader::new("6.1.0");
        for piece in output.as_bytes().chunks(size) {
            reader.feed(piece);
        }
        reader
    }

    fn outline(
        engine: &str,
        name: (&str, &str),
        outcome: Outcome,
        why: Option<&str>,
    ) -> TestResult {
        TestResult {
            guest: "g".to_owned(),
            release: "6.1.0".to_owned(),
            engine: engine.to_owned(),
            feature: name.0.to_owned(),
            test: name.1.to_owned(),
            outcome,
            reason: why.map(str::to_owned),
        }
    }

    #[test]
    fn each_test_is_read_with_its_reason() {
        let lost = Some("the guest did not say sum=");
        let assertion = Some("assertion `left == right` failed");
        let wanted = [
            outline("kvm", ("bus", "offers"), Outcome::Passed, None),
            outline("kvm", ("disk", "reads"), Outcome::Failed, lost),
            outline("kvm", ("disk", "trims"), Outcome::Skipped, Some("no loop device")),
            outline("own", ("bus", "offers"), Outcome::Failed, assertion),
        ];
        for size in [1, 7, OUTPUT.len()] {
            let mut results = Results::default();
            results.take(read(OUTPUT, size));
            assert_eq!(results.iter().cloned().collect::<Vec<_>>(), wanted);
        }
    }

    #[test]
    fn a_run_that_broke_off_is_not_whole() {
        assert!(read(OUTPUT, 100).is_whole());
        let cut = OUTPUT.find("test result").unwrap();
        assert!(!read(&OUTPUT[..cut], 100).is_whole());
    }

    #[test]
    fn a_later_run_replaces_its_own_tests_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("matrix.json");
        let mut results = Results::default();
        results.take(read(OUTPUT, 100));
        results.write(&path).unwrap();
        let mut results = Results::read(&path).unwrap();
        results.take(read("test g/kvm/disk::reads ... ok\n", 100));
        let said = |feature, test| {
            let found = results.iter().find(|r| (&*r.feature, &*r.test) == (feature, test));
            found.map(|result| (result.outcome, result.reason.clone()))
        };
        assert_eq!(said("disk", "reads"), Some((Outcome::Passed, None)));
        let trims = Some((Outcome::Skipped, Some("no loop device".to_owned())));
        assert_eq!(said("disk", "trims"), trims);
    }
}
