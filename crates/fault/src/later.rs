// SPDX-License-Identifier: MIT OR Apache-2.0

//! Things that are kept until their time has come.

use std::collections::VecDeque;
use std::time::Duration;

/// Things that may be kept at once: a guest decides how many there are.
const LIMIT: usize = 4096;

/// Things in the order in which they are due; those due together in the order in which they came.
#[derive(Clone, Debug)]
pub struct Later<T> {
    queue: VecDeque<(Duration, T)>,
}

impl<T> Default for Later<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new() }
    }
}

impl<T> Later<T> {
    /// Whether one more would be kept.
    pub fn has_room(&self) -> bool {
        self.queue.len() < LIMIT
    }

    /// Keeps `thing` until `due`; gives it back if too many are kept.
    pub fn push(&mut self, due: Duration, thing: T) -> Option<T> {
        if !self.has_room() {
            return Some(thing);
        }
        let place = self.queue.partition_point(|(other, _)| *other <= due);
        self.queue.insert(place, (due, thing));
        None
    }

    /// When the next is due.
    pub fn next(&self) -> Option<Duration> {
        self.queue.front().map(|(due, _)| *due)
    }

    /// All that is kept, in the order in which it is due.
    pub fn take(&mut self) -> impl Iterator<Item = T> {
        std::mem::take(&mut self.queue).into_iter().map(|(_, thing)| thing)
    }

    /// The next, if it is due.
    pub fn pop(&mut self, now: Duration) -> Option<T> {
        self.next().filter(|due| *due <= now)?;
        self.queue.pop_front().map(|(_, thing)| thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn what_is_due_comes_in_order() {
        let mut later = Later::default();
        for (due, name) in [(30, "c"), (10, "a"), (30, "d"), (20, "b")] {
            assert_eq!(later.push(ms(due), name), None);
        }
        assert_eq!((later.pop(ms(9)), later.next()), (None, Some(ms(10))));
        let mut popped = Vec::new();
        while let Some(name) = later.pop(ms(30)) {
            popped.push(name);
        }
        assert_eq!((popped, later.next()), (vec!["a", "b", "c", "d"], None));
    }

    #[test]
    fn no_guest_can_have_too_many_kept() {
        let mut later = Later::default();
        let kept = (0..10_000).filter(|number| later.push(ms(1), *number).is_none());
        assert_eq!(kept.count(), LIMIT);
    }
}
