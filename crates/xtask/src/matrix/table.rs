// SPDX-License-Identifier: MIT OR Apache-2.0

//! The table, in Markdown with its columns aligned.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::results::{Outcome, Results, TestResult};

/// Results to be printed.
pub(super) struct Table<'a>(pub(super) &'a Results);

/// What a cell counts.
#[derive(Clone, Copy, Default)]
struct Cell {
    passed: u32,
    failed: u32,
}

impl Cell {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Skipped => {}
        }
    }

    fn text(self) -> String {
        match (self.passed, self.failed) {
            (0, 0) => "-".to_owned(),
            (passed, 0) => passed.to_string(),
            (passed, failed) => format!("{passed} of {}", passed + failed),
        }
    }
}

impl Table<'_> {
    fn rows(&self) -> Vec<Vec<String>> {
        let features: BTreeSet<_> = self.0.iter().map(|result| &*result.feature).collect();
        let mut cells = BTreeMap::<_, BTreeMap<&str, Cell>>::new();
        for result in self.0.iter() {
            let row = (&*result.guest, &*result.engine, &*result.release);
            cells.entry(row).or_default().entry(&result.feature).or_default().count(result.outcome);
        }
        let head = ["guest", "kernel", "engine"].into_iter().chain(features.iter().copied());
        let mut rows = vec![head.map(str::to_owned).collect::<Vec<_>>()];
        for ((guest, engine, release), cells) in cells {
            let counts = features.iter().map(|f| cells.get(f).copied().unwrap_or_default().text());
            let names = [guest, release, engine].map(str::to_owned);
            rows.push(names.into_iter().chain(counts).collect());
        }
        rows
    }

    fn notes(&self, f: &mut fmt::Formatter<'_>, title: &str, outcome: Outcome) -> fmt::Result {
        let mut title = Some(title);
        for result in self.0.iter().filter(|result| result.outcome == outcome) {
            if let Some(title) = title.take() {
                writeln!(f, "\n{title}:")?;
            }
            let why = result.reason.as_deref().unwrap_or("it says not why");
            writeln!(f, "  {}: {why}", TestResult::name(result))?;
        }
        Ok(())
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let columns = rows.first().map_or(0, Vec::len);
        let width = |column| rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
        let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for (number, row) in rows.iter().enumerate() {
            for (text, width) in row.iter().zip(&widths) {
                write!(f, "| {text:width$} ")?;
            }
            writeln!(f, "|")?;
            if number == 0 {
                for width in &widths {
                    write!(f, "| {:-<width$} ", "")?;
                }
                writeln!(f, "|")?;
            }
        }
        self.notes(f, "Failed", Outcome::Failed)?;
        self.notes(f, "Skipped", Outcome::Skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::Reader;
    use super::*;

    #[test]
    fn a_row_is_a_guest_on_an_engine_and_a_column_a_feature() {
        let mut results = Results::default();
        for (release, said) in [
            ("6.1.0", "test b/kvm/bus::x ... ok\ntest b/kvm/disk::y ... FAILED\n"),
            ("6.1.0", "test b/kvm/disk::z ... ok\ntest b/own/bus::x ... ignored (no)\n"),
            ("5.10.0", "test a/kvm/bus::x ... ok\ntest a/kvm/bus::w ... ok\n"),
        ] {
            let mut reader = Reader::new(release);
            reader.feed(said.as_bytes());
            results.take(reader);
        }
        let wanted = "\
            | guest | kernel | engine | bus | disk   |\n\
            | ----- | ------ | ------ | --- | ------ |\n\
            | a     | 5.10.0 | kvm    | 2   | -      |\n\
            | b     | 6.1.0  | kvm    | 1   | 1 of 2 |\n\
            | b     | 6.1.0  | own    | -   | -      |\n\
            \nFailed:\n  b/kvm/disk::y: it says not why\n\
            \nSkipped:\n  b/own/bus::x: no\n";
        assert_eq!(Table(&results).to_string(), wanted);
    }
}
