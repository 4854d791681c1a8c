// SPDX-License-Identifier: MIT OR Apache-2.0

//! How much may be asked of a disk in a second: a token bucket for requests and one for bytes.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a bucket holds when nothing was asked for a while: as much as comes in in this time. It is also QEMU's.
const BURST_NS: u64 = 100_000_000;
/// After which a request that waits asks again, at the latest: the limit may be another one by then.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
const SECOND_NS: u128 = 1_000_000_000;

/// The limits of a disk. What is beyond them waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests a second, of any kind.
    pub requests: Option<NonZeroU64>,
    /// Bytes a second, read and written.
    pub bytes: Option<NonZeroU64>,
}

/// Limits, and what has been used of them. All queues of a disk share it, and no lock.
#[derive(Debug)]
pub(crate) struct Rate {
    started: Instant,
    requests: Bucket,
    bytes: Bucket,
    delayed: AtomicU64,
}

impl Rate {
    /// Buckets that are full.
    pub(crate) fn new(limit: RateLimit) -> Self {
        let (requests, bytes) = (Bucket::new(limit.requests), Bucket::new(limit.bytes));
        Self { started: Instant::now(), requests, bytes, delayed: AtomicU64::new(0) }
    }

    /// The limits from now on, with buckets that are full: what was used under a low limit would take for ever to
    /// be paid.
    pub(crate) fn set(&self, limit: RateLimit) {
        self.requests.set(limit.requests);
        self.bytes.set(limit.bytes);
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.limit() != RateLimit::default()
    }

    pub(crate) fn limit(&self) -> RateLimit {
        RateLimit { requests: self.requests.per_second(), bytes: self.bytes.per_second() }
    }

    /// Takes what a request of so many bytes needs, or says how long it has to wait before it asks again.
    /// Queues that ask at the same moment may get what is there for one of them; who comes next pays for that.
    pub(crate) fn take(&self, bytes: u64) -> Result<(), Duration> {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.take_at(now, bytes)
    }

    fn take_at(&self, now: u64, bytes: u64) -> Result<(), Duration> {
        match self.requests.wait(now).max(self.bytes.wait(now)) {
            0 => {
                self.requests.take(now, 1);
                self.bytes.take(now, bytes);
                Ok(())
            }
            wait => Err(Duration::from_nanos(wait).min(LONGEST_WAIT)),
        }
    }

    /// One more request waits.
    pub(crate) fn delay(&self) {
        self.delayed.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that have waited.
    pub(crate) fn delayed(&self) -> u64 {
        self.delayed.load(Ordering::Relaxed)
    }
}

/// The bucket is kept as the time at which it is full again, in nanoseconds.
#[derive(Debug)]
struct Bucket {
    full: AtomicU64,
    /// Tokens; 0 is no limit.
    per_second: AtomicU64,
}

impl Bucket {
    fn new(per_second: Option<NonZeroU64>) -> Self {
        let per_second = AtomicU64::new(per_second.map_or(0, NonZeroU64::get));
        Self { full: AtomicU64::new(0), per_second }
    }

    fn set(&self, per_second: Option<NonZeroU64>) {
        self.per_second.store(per_second.map_or(0, NonZeroU64::get), Ordering::Relaxed);
        self.full.store(0, Ordering::Release);
    }

    fn per_second(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.per_second.load(Ordering::Relaxed))
    }

    /// Nanoseconds until there is anything in it.
    fn wait(&self, now: u64) -> u64 {
        match self.per_second() {
            Some(_) => {
                let full = self.full.load(Ordering::Relaxed);
                full.saturating_sub(now.saturating_add(BURST_NS))
            }
            None => 0,
        }
    }

    /// Takes tokens out, of which it may owe some: so a request gets through that is larger than the bucket.
    fn take(&self, now: u64, tokens: u64) {
        let Some(per_second) = self.per_second() else {
            return;
        };
        let time = u128::from(tokens) * SECOND_NS / u128::from(per_second.get());
        let time = u64::try_from(time).unwrap_or(u64::MAX);
        let later = |full: u64| Some(full.max(now).saturating_add(time));
        let _ = self.full.fetch_update(Ordering::AcqRel, Ordering::Relaxed, later);
        // Another limit was set meanwhile, under which nothing is owed: this may have come behind that.
        if self.per_second() != Some(per_second) {
            self.full.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{hint, thread};

    use super::*;

    const MS: u64 = 1_000_000;

    fn rate(requests: u64, bytes: u64) -> Rate {
        let (requests, bytes) = (NonZeroU64::new(requests), NonZeroU64::new(bytes));
        Rate::new(RateLimit { requests, bytes })
    }

    /// How many requests of so many bytes get through at that time.
    fn count(rate: &Rate, now: u64, bytes: u64) -> usize {
        (0..1000).take_while(|_| rate.take_at(now, bytes).is_ok()).count()
    }

    #[test]
    fn without_a_limit_all_goes_and_nothing_is_owed_later() {
        let rate = rate(0, 0);
        assert_eq!(count(&rate, 0, u64::MAX), 1000);
        rate.set(RateLimit { requests: NonZeroU64::new(100), bytes: NonZeroU64::new(1) });
        assert_eq!((count(&rate, 0, 0), rate.limit().bytes), (11, NonZeroU64::new(1)));
    }

    #[test]
    fn a_limit_that_is_raised_or_taken_away_counts_at_once() {
        let rate = rate(0, 1);
        assert_eq!(count(&rate, 0, 1 << 20), 1, "which takes twelve days");
        rate.set(RateLimit { requests: NonZeroU64::new(1000), bytes: None });
        assert_eq!(count(&rate, 0, 1 << 20), 101);
        rate.set(RateLimit::default());
        assert_eq!(count(&rate, 0, u64::MAX), 1000);
    }

    #[test]
    fn what_goes_while_another_limit_is_set_leaves_no_debt() {
        const ROUNDS: u64 = 20_000;
        let (rate, begun, ended) = (rate(0, 1), AtomicU64::new(0), AtomicU64::new(0));
        let set = |bytes| rate.set(RateLimit { requests: None, bytes: NonZeroU64::new(bytes) });
        let wait_for = |counter: &AtomicU64, round| {
            while counter.load(Ordering::Acquire) < round {
                thread::yield_now();
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    wait_for(&begun, round);
                    let _ = rate.take_at(0, 1 << 20);
                    ended.store(round, Ordering::Release);
                }
            });
            let mut owed = 0;
            for round in 1..=ROUNDS {
                set(1);
                begun.store(round, Ordering::Release);
                (0..round % 64).for_each(|_| hint::spin_loop());
                set(1 << 50);
                wait_for(&ended, round);
                owed += rate.bytes.wait(0);
            }
            assert_eq!(owed, 0, "nanoseconds under limits of the past");
        });
    }

    #[test]
    fn a_tenth_of_a_second_is_saved_up_and_no_more() {
        let rate = rate(100, 0);
        // One goes as long as anything is there, so one more than was saved.
        assert_eq!(count(&rate, 0, 1 << 20), 11);
        assert_eq!(rate.take_at(0, 0), Err(Duration::from_millis(10)));
        assert_eq!(count(&rate, 10 * MS, 0), 1);
        assert_eq!(count(&rate, 60 * MS, 0), 5);
        assert_eq!(count(&rate, 3_600_000 * MS, 0), 11);
    }

    #[test]
    fn a_request_of_more_bytes_than_the_bucket_holds_is_paid_off() {
        let rate = rate(0, 1 << 20);
        assert_eq!(count(&rate, 0, 1 << 20), 1);
        assert_eq!(rate.take_at(850 * MS, 512), Err(Duration::from_millis(50)));
        assert_eq!(rate.take_at(0, 512), Err(LONGEST_WAIT));
        assert_eq!(count(&rate, 900 * MS, 512), 1, "what is left of a second is what is saved up");
        let more = SECOND_NS as u64 / 2048;
        assert_eq!(rate.take_at(900 * MS, 0), Err(Duration::from_nanos(more)));
    }

    #[test]
    fn both_limits_hold_and_a_refusal_costs_nothing() {
        let rate = rate(100, 1 << 20);
        assert_eq!(count(&rate, 0, 1 << 20), 1);
        let at = 900 * MS;
        assert_eq!(count(&rate, at, 0), 11, "requests were not charged for those refused");
        assert_eq!(count(&rate, at, 0), 0);
    }

    #[test]
    fn limits_beyond_all_measure_are_none() {
        let rate = rate(u64::MAX, u64::MAX);
        assert_eq!(count(&rate, 0, u64::MAX >> 20), 1000);
        let slow = self::rate(1, 1);
        assert_eq!(count(&slow, 0, u64::MAX), 1);
        assert!(slow.take_at(u64::MAX - 1, 1).is_ok(), "after centuries");
    }
}
