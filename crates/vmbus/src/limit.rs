// SPDX-License-Identifier: MIT OR Apache-2.0

//! A brake on log lines that a guest can cause.

/// Lines that are logged before the brake works.
const FREE: u64 = 8;

/// Lets the first lines through, and then ever fewer: a guest that repeats its mistake for ever
/// writes a line each time the count doubles. Needs no clock.
#[derive(Debug, Default)]
pub struct LogLimit {
    seen: u64,
}

impl LogLimit {
    /// Counts one event; what to log with it if it is to be logged.
    pub const fn next(&mut self) -> Option<Seen> {
        self.seen = self.seen.saturating_add(1);
        let logged = self.seen <= FREE || self.seen.is_power_of_two();
        if logged { Some(Seen(self.seen)) } else { None }
    }
}

/// How often something has happened; prints nothing while each time is logged.
#[derive(Clone, Copy, Debug)]
pub struct Seen(u64);

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            ..=FREE => Ok(()),
            seen => write!(f, " (and {seen} such in all; fewer are logged from here on)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_rare() {
        let mut limit = LogLimit::default();
        let logged: Vec<u64> = (1..=1000).filter(|_| limit.next().is_some()).collect();
        assert_eq!(logged, [1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128, 256, 512]);
    }
}
