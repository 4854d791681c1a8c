// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a guest left behind when it has ended.

/// A machine that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Lines of its serial port.
    pub(crate) lines: Vec<String>,
    /// What busway itself said.
    pub(crate) busway: String,
    /// busway's exit status; 128 + n when signal n ended it.
    pub(crate) status: i32,
}

impl Report {
    /// Values of all lines `key=value`, in order.
    pub(crate) fn all(&self, key: &str) -> Vec<&str> {
        let value =
            |line: &'_ str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with('='));
        let lines = self.lines.iter().filter(|line| value(line));
        lines.filter_map(|line| line.get(key.len() + 1..)).collect()
    }

    /// The value of the only line `key=value`.
    pub(crate) fn fact(&self, key: &str) -> &str {
        match self.all(key)[..] {
            [value] => value,
            [] => panic!("the guest did not say {key}="),
            _ => panic!("the guest said {key}= more than once"),
        }
    }

    /// The same, as a number.
    pub(crate) fn number(&self, key: &str) -> u64 {
        let value = self.fact(key);
        value.parse().unwrap_or_else(|_| panic!("{key}={value} is no number"))
    }

    /// The exit status of the script, if the guest came that far.
    pub(crate) fn script(&self) -> Option<i32> {
        let words =
            self.lines.iter().rev().find_map(|line| line.strip_prefix("busway-guest: exit "));
        words.and_then(|status| status.parse().ok())
    }
}
