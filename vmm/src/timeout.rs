// SPDX-License-Identifier: MIT OR Apache-2.0

//! When a guest has had its time: after so long without a sign of progress, or, if somebody waits for it,
//! after so long.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use vmm_sys_util::timerfd::TimerFd;

/// What has come from the guest until now. Any change is progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes on its serial port.
    pub serial: u64,
    /// [Packets](crate::traffic::Traffic::work) of its drivers' own accord.
    pub packets: u64,
}

/// Ticks, and counts the ticks without progress.
pub struct Timeout {
    timer: TimerFd,
    last: Progress,
    idle: u32,
}

/// In the time that a guest has. One that stands still is found at most one of them later.
const TICKS: u32 = 8;

impl Timeout {
    /// For a guest that has `time` from now on.
    pub fn new(time: Duration) -> io::Result<Self> {
        let mut timer = TimerFd::new()?;
        timer.reset(time / TICKS, Some(time / TICKS))?;
        Ok(Self { timer, last: Progress::default(), idle: 0 })
    }

    /// The timer has ticked, and so much has come from the guest until now: whether its time is over.
    pub fn tick(&mut self, now: Progress) -> bool {
        // Ticks that a busy host has missed were none for the guest either.
        let _ = self.timer.wait();
        let moved = mem::replace(&mut self.last, now) != now;
        self.idle = if moved { 0 } else { self.idle + 1 };
        self.idle >= TICKS
    }
}

impl AsRawFd for Timeout {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether time is over after each of these.
    fn over(progress: &[Progress]) -> Vec<bool> {
        let mut timeout = Timeout::new(Duration::from_millis(8)).unwrap();
        progress.iter().map(|&now| timeout.tick(now)).collect()
    }

    fn first_over(progress: &[Progress]) -> Option<usize> {
        over(progress).iter().position(|&over| over)
    }

    #[test]
    fn it_is_over_after_eight_ticks_without_anything() {
        assert_eq!(first_over(&[Progress::default(); 9]), Some(7));
    }

    #[test]
    fn whatever_comes_starts_it_anew() {
        let packet = Progress { serial: 0, packets: 1 };
        let byte = Progress { serial: 1, packets: 1 };
        let still = [Progress::default(); 7];
        assert_eq!(first_over(&[&still[..], &[packet; 8]].concat()), None);
        assert_eq!(first_over(&[&still[..], &[packet; 8], &[byte; 9]].concat()), Some(7 + 8 + 8));
        assert_eq!(
            first_over(&[&[byte; 8][..], &[packet; 9]].concat()),
            Some(16),
            "channels close"
        );
    }
}
