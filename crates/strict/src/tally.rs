// SPDX-License-Identifier: MIT OR Apache-2.0

//! How often each rule was broken.

use std::collections::BTreeMap;

use busway_vmbus::{LogLimit, Seen};

use crate::{Finding, Rule};

/// Counts of all findings, and the first of each rule.
#[derive(Debug, Default)]
pub struct Tally {
    rules: BTreeMap<Rule, Line>,
}

#[derive(Debug)]
struct Line {
    count: u64,
    first: Finding,
    limit: LogLimit,
}

impl Tally {
    /// Counts a finding; what to log with it if it is to be logged.
    pub fn add(&mut self, finding: &Finding) -> Option<Seen> {
        let new = || Line { count: 0, first: finding.clone(), limit: LogLimit::default() };
        let line = self.rules.entry(finding.rule).or_insert_with(new);
        line.count = line.count.saturating_add(1);
        line.limit.next()
    }

    /// Each rule that was broken, how often, and where first.
    pub fn lines(&self) -> impl Iterator<Item = (Rule, u64, &Finding)> {
        self.rules.iter().map(|(rule, line)| (*rule, line.count, &line.first))
    }
}
