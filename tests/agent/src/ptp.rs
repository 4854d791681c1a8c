// SPDX-License-Identifier: MIT OR Apache-2.0

//! A clock of the PTP class, such as the host's time that `hv_utils` shows as one.

use std::fs::OpenOptions;
use std::os::fd::AsFd;

use rustix::time::{ClockId, DynamicClockId, Timespec, clock_gettime, clock_gettime_dynamic};

use crate::words::Words;

/// Prints three readings in the order in which they were taken, in ns since 1970: the system's time, the
/// clock's, the system's again.
pub(crate) fn run(path: &str, words: Words) -> Result<(), String> {
    words.end()?;
    // It must be open for writing, or the kernel does not take it for a clock.
    let clock = OpenOptions::new().read(true).write(true).open(path);
    let clock = clock.map_err(|error| format!("{path}: {error}"))?;
    let before = clock_gettime(ClockId::Realtime);
    let at = clock_gettime_dynamic(DynamicClockId::Dynamic(clock.as_fd()));
    let after = clock_gettime(ClockId::Realtime);
    let at = at.map_err(|error| format!("{path}: {error}"))?;
    println!("before={}", nanoseconds(before));
    println!("ptp={}", nanoseconds(at));
    println!("after={}", nanoseconds(after));
    Ok(())
}

fn nanoseconds(time: Timespec) -> i128 {
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}
