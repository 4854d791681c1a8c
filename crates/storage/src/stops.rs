// SPDX-License-Identifier: MIT OR Apache-2.0

//! The wish that the machine stand still, because of a request that the host cannot do.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::shared::Bell;

/// Where the disks of a machine say that it is to stand still until the user lets it go on.
#[derive(Debug)]
pub struct Stops {
    bell: Bell,
    is_wanted: AtomicBool,
}

impl Stops {
    /// Nothing to stop for.
    pub fn new() -> io::Result<Self> {
        Ok(Self { bell: Bell::new()?, is_wanted: AtomicBool::new(false) })
    }

    /// Whether a disk has wanted it since the last [`go_on`](Self::go_on).
    pub fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Acquire)
    }

    /// The bell was heard.
    pub fn heard(&self) {
        self.bell.heard();
    }

    /// The machine goes on.
    pub fn go_on(&self) {
        self.is_wanted.store(false, Ordering::Release);
    }

    /// A disk wants it; true if none has before.
    pub fn stop(&self) -> bool {
        let is_first = !self.is_wanted.swap(true, Ordering::AcqRel);
        self.bell.ring();
        is_first
    }
}

impl AsRawFd for Stops {
    /// Readable when a disk wants it.
    fn as_raw_fd(&self) -> RawFd {
        self.bell.fd().as_raw_fd()
    }
}
