// SPDX-License-Identifier: MIT OR Apache-2.0

//! How much may be asked of a disk in a second: a token bucket for requests and one for bytes.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a bucket holds when nothing was asked for a while: as much as comes in in this time. It is also QEMU's.
const BURST_NS: u64 = 100_000_000;
/// After which a request that waits asks again, at the latest.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
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
    requests: Option<Bucket>,
    bytes: Option<Bucket>,
    delayed: AtomicU64,
}

impl Rate {
    /// Buckets that are full; `None` if there is no limit.
    pub(crate) fn new(limit: RateLimit) -> Option<Self> {
        let (started, delayed) = (Instant::now(), AtomicU64::new(0));
        let (requests, bytes) = (limit.requests.map(Bucket::new), limit.bytes.map(Bucket::new));
        let is_limited = requests.is_some() || bytes.is_some();
        is_limited.then_some(Self { started, requests, bytes, delayed })
    }

    /// Takes what a request of so many bytes needs, or says how long it has to wait before it asks again.
    /// Queues that ask at the same moment may get what is there for one of them; who comes next pays for that.
    pub(crate) fn take(&self, bytes: u64) -> Result<(), Duration> {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.take_at(now, bytes)
    }

    fn take_at(&self, now: u64, bytes: u64) -> Result<(), Duration> {
        let buckets = || [(&self.requests, 1), (&self.bytes, bytes)].into_iter();
        let all = || buckets().filter_map(|(bucket, tokens)| Some((bucket.as_ref()?, tokens)));
        match all().map(|(bucket, _)| bucket.wait(now)).max() {
            None | Some(0) => all().for_each(|(bucket, tokens)| bucket.take(now, tokens)),
            // Not for longer, as a limit may be beyond all measure, and a time too.
            Some(wait) => return Err(Duration::from_nanos(wait).min(LONGEST_WAIT)),
        }
        Ok(())
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
    per_second: NonZeroU64,
}

impl Bucket {
    fn new(per_second: NonZeroU64) -> Self {
        Self { full: AtomicU64::new(0), per_second }
    }

    /// Nanoseconds until there is anything in it.
    fn wait(&self, now: u64) -> u64 {
        self.full.load(Ordering::Relaxed).saturating_sub(now.saturating_add(BURST_NS))
    }

    /// Takes tokens out, of which it may owe some: so a request gets through that is larger than the bucket.
    fn take(&self, now: u64, tokens: u64) {
        let time = u128::from(tokens) * SECOND_NS / u128::from(self.per_second.get());
        let time = u64::try_from(time).unwrap_or(u64::MAX);
        let later = |full: u64| Some(full.max(now).saturating_add(time));
        let _ = self.full.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn rate(requests: u64, bytes: u64) -> Rate {
        let (requests, bytes) = (NonZeroU64::new(requests), NonZeroU64::new(bytes));
        Rate::new(RateLimit { requests, bytes }).unwrap()
    }

    /// How many requests of so many bytes get through at that time.
    fn count(rate: &Rate, now: u64, bytes: u64) -> usize {
        (0..1000).take_while(|_| rate.take_at(now, bytes).is_ok()).count()
    }

    #[test]
    fn no_limit_is_none() {
        assert!(Rate::new(RateLimit::default()).is_none());
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
        assert_eq!(rate.take_at(0, 512), Err(Duration::from_millis(900)));
        assert_eq!(count(&rate, 900 * MS, 512), 1, "what is left of a second is what is saved up");
        assert_eq!(
            rate.take_at(0, 0),
            Err(Duration::from_nanos(900 * MS + SECOND_NS as u64 / 2048))
        );
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
