// SPDX-License-Identifier: MIT OR Apache-2.0

//! A timer that rings when the next of what was put off is due.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

const NANOSECOND: Duration = Duration::from_nanos(1);

/// Readable when the time has come.
pub(super) struct Timer {
    fd: OwnedFd,
    /// When it rings.
    armed: Option<Duration>,
}

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self { fd: timerfd_create(TimerfdClockId::Monotonic, flags)?, armed: None })
    }

    /// Has it ring at `next`, in place of what it was told before; it is `now`.
    pub(super) fn set(&mut self, next: Option<Duration>, now: Duration) {
        if next == self.armed && next.is_none_or(|next| now < next) {
            return;
        }
        self.armed = next;
        // No time at all would switch it off.
        let left = next.map(|next| next.saturating_sub(now).max(NANOSECOND)).unwrap_or_default();
        let value =
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let time = Itimerspec { it_interval: interval, it_value: value };
        // Fails for times and flags that are none, and these are.
        let _ = timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &time);
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
