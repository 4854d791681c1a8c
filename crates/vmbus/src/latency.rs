// SPDX-License-Identifier: MIT OR Apache-2.0

//! How long requests take, for as long as somebody looks.
//!
//! A fixed table of what is under way, so that a packet costs neither a lock nor an allocation; without
//! a clock of the [tap](crate::Tap)'s, it costs a branch.

/// Requests of one channel that are timed at once. Of two that fall on one place, the second is not.
const SLOTS: usize = 256;

/// How long requests took, from when the host took them out of the ring to when it answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// How many.
    pub requests: u64,
    /// Nanoseconds of all together.
    pub total: u64,
    /// Nanoseconds of the one that took longest.
    pub longest: u64,
    /// How many took less than 1 us, 2 us, 4 us and so on, each counted once; the last has all that
    /// took longer.
    pub buckets: [u32; 24],
}

impl Latency {
    fn add(&mut self, nanos: u64) {
        self.requests += 1;
        self.total = self.total.saturating_add(nanos);
        self.longest = self.longest.max(nanos);
        let bucket = (u64::BITS - (nanos / 1000).leading_zeros()) as usize;
        let bucket = bucket.min(self.buckets.len() - 1);
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Slot {
    transaction_id: u64,
    /// When it was taken, plus 1; 0 if the place is free.
    since: u64,
}

/// Requests under way.
pub(crate) struct Stopwatch {
    slots: Box<[Slot]>,
    runs: bool,
    sum: Latency,
}

impl Stopwatch {
    pub(crate) fn new() -> Self {
        let slots = vec![Slot::default(); SLOTS].into_boxed_slice();
        Self { slots, runs: false, sum: Latency::default() }
    }

    /// Starts or stops. What is under way at either moment is not timed.
    pub(crate) fn run(&mut self, run: bool) {
        if !run && self.runs {
            self.slots.fill(Slot::default());
        }
        self.runs = run;
    }

    #[inline]
    pub(crate) const fn runs(&self) -> bool {
        self.runs
    }

    /// A request was taken at `now` nanoseconds.
    pub(crate) fn asked(&mut self, transaction_id: u64, now: u64) {
        let slot = self.slot(transaction_id).filter(|slot| slot.since == 0);
        if let Some(slot) = slot {
            *slot = Slot { transaction_id, since: now.saturating_add(1) };
        }
    }

    /// It was answered.
    pub(crate) fn answered(&mut self, transaction_id: u64, now: u64) {
        let is_it = |slot: &&mut Slot| slot.since != 0 && slot.transaction_id == transaction_id;
        if let Some(slot) = self.slot(transaction_id).filter(is_it) {
            let since = std::mem::take(&mut slot.since);
            self.sum.add(now.saturating_sub(since - 1));
        }
    }

    /// What was measured since this was asked last, if anything was.
    pub(crate) fn take(&mut self) -> Option<Latency> {
        (self.sum.requests != 0).then(|| std::mem::take(&mut self.sum))
    }

    fn slot(&mut self, transaction_id: u64) -> Option<&mut Slot> {
        // Ids are small numbers or addresses; either way neighbours fall apart (Fibonacci hashing).
        let place = transaction_id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        self.slots.get_mut(place as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_timed_and_sorted() {
        let mut watch = Stopwatch::new();
        for (id, at, until) in [(1, 0, 999), (2, 0, 1000), (3, 5, 4_000_005), (4, 0, u64::MAX)] {
            watch.asked(id, at);
            watch.answered(id, until);
        }
        let sum = watch.take().unwrap();
        assert_eq!((sum.requests, sum.longest), (4, u64::MAX));
        // 4 ms are less than 2^12 us.
        assert_eq!(
            (sum.buckets[0], sum.buckets[1], sum.buckets[12], sum.buckets[23]),
            (1, 1, 1, 1)
        );
        assert_eq!(watch.take(), None);
    }

    #[test]
    fn what_was_not_asked_or_is_answered_twice_is_not_timed() {
        let mut watch = Stopwatch::new();
        watch.answered(9, 5);
        watch.answered(0, 5);
        watch.asked(9, 10);
        watch.answered(9, 17);
        watch.answered(9, 90);
        let sum = watch.take().unwrap();
        assert_eq!((sum.requests, sum.total), (1, 7));
    }

    #[test]
    fn what_was_under_way_when_nobody_looked_is_forgotten() {
        let mut watch = Stopwatch::new();
        watch.run(true);
        watch.asked(9, 10);
        watch.run(false);
        watch.run(true);
        watch.answered(9, 1_000_000);
        assert_eq!(watch.take(), None);
    }

    #[test]
    fn of_two_on_one_place_the_older_is_timed() {
        let mut watch = Stopwatch::new();
        let place = |id: u64| id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        let other = (8..).find(|id| place(*id) == place(7)).unwrap();
        watch.asked(7, 0);
        watch.asked(other, 100);
        watch.answered(other, 200);
        watch.answered(7, 300);
        let sum = watch.take().unwrap();
        assert_eq!((sum.requests, sum.total), (1, 300));
    }
}
