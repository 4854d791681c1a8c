// SPDX-License-Identifier: MIT OR Apache-2.0

//! Log lines that a guest can cause.
//!
//! A guest can touch a port a million times a second, and each time there is something to say
//! about it. [`limited!`](crate::limited!) lets the first [`BURST`] of a second through, for each
//! place in the code on its own, and then says how many more there were.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Lines a second.
pub const BURST: u32 = 10;

/// The state of one place in the code.
#[derive(Debug, Default)]
pub struct Limit {
    second: AtomicU64,
    in_this_second: AtomicU32,
    dropped: AtomicU32,
}

impl Limit {
    /// A place that has said nothing yet.
    pub const fn new() -> Self {
        Self {
            second: AtomicU64::new(0),
            in_this_second: AtomicU32::new(0),
            dropped: AtomicU32::new(0),
        }
    }

    /// Whether a line may be written now, and how many were dropped before it.
    pub fn admit(&self) -> Option<u32> {
        self.admit_at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    /// Threads that race may let a few lines too many through, and no harm is done.
    fn admit_at(&self, second: u64) -> Option<u32> {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.in_this_second.store(0, Ordering::Relaxed);
        }
        if self.in_this_second.fetch_add(1, Ordering::Relaxed) < BURST {
            return Some(self.dropped.swap(0, Ordering::Relaxed));
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// Logs a line that a guest caused: `limited!(Debug, "format", ...)`.
#[macro_export]
macro_rules! limited {
    ($level:ident, $($argument:tt)+) => {{
        static LIMIT: $crate::limited::Limit = $crate::limited::Limit::new();
        if log::log_enabled!(log::Level::$level)
            && let Some(dropped) = LIMIT.admit()
        {
            log::log!(log::Level::$level, $($argument)+);
            if dropped > 0 {
                log::log!(log::Level::$level, "(and {dropped} more like the last)");
            }
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_is_counted() {
        let limit = Limit::new();
        let admitted = (0..1000).filter(|_| limit.admit_at(7).is_some()).count();
        assert_eq!(admitted, BURST as usize);
        assert_eq!(limit.admit_at(8), Some(1000 - BURST));
        assert_eq!(limit.admit_at(8), Some(0));
    }
}
