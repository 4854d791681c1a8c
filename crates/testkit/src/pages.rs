// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pages of guest memory, given out as a long-running kernel's allocator would: scattered.

/// Gives out the page frames of a range, never two neighbours in a row.
#[derive(Debug)]
pub struct Pages {
    next: u64,
    end: u64,
    odd: bool,
    first: u64,
}

impl Pages {
    /// The frames from `first` up to `end`.
    pub const fn new(first: u64, end: u64) -> Self {
        Self { next: first, end, odd: false, first }
    }

    /// A page that nobody else has.
    ///
    /// # Panics
    ///
    /// If none is left.
    pub fn take(&mut self) -> u64 {
        if self.next >= self.end {
            assert!(!self.odd, "the guest has no page left");
            self.odd = true;
            self.next = self.first + 1;
        }
        let pfn = self.next;
        self.next += 2;
        pfn
    }

    /// `count` pages.
    pub fn take_many(&mut self, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.take()).collect()
    }
}
