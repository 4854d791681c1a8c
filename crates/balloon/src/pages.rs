// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pages that the guest has lent.

use std::collections::BTreeMap;

use busway_memory::{GuestMemory, PAGE_SIZE};
use busway_wire::balloon::PageRange;

/// A guest lends what it cannot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LendError {
    #[error("the guest lends {count} pages from {first:#x} on, which are not all RAM in a row")]
    NoRam { first: u64, count: u64 },
    #[error("the guest lends {count} pages from {first:#x} on, some of them a second time")]
    Twice { first: u64, count: u64 },
    #[error("the guest lends {count} pages and was asked for {wanted} more")]
    TooMany { count: u64, wanted: u64 },
}

/// Ranges that do not overlap: the first page of each, and how many follow.
#[derive(Debug, Default)]
pub(crate) struct Lent {
    ranges: BTreeMap<u64, u64>,
    pages: u64,
}

impl Lent {
    pub(crate) const fn pages(&self) -> u64 {
        self.pages
    }

    /// Notes a range down, of at most `wanted` pages, and says where it lies in the memory's file.
    pub(crate) fn lend(
        &mut self,
        range: PageRange,
        wanted: u64,
        memory: &GuestMemory,
    ) -> Result<(u64, u64), LendError> {
        let (first, count) = (range.first(), range.count());
        if count > wanted {
            return Err(LendError::TooMany { count, wanted });
        }
        let bytes = |pages: u64| pages * PAGE_SIZE as u64;
        let offset = memory.pages_offset(first, count);
        let offset = offset.ok_or(LendError::NoRam { first, count })?;
        let before = self.ranges.range(..first + count).next_back();
        if before.is_some_and(|(start, len)| start + len > first) {
            return Err(LendError::Twice { first, count });
        }
        self.ranges.insert(first, count);
        self.pages += count;
        Ok((offset, bytes(count)))
    }

    /// Takes ranges of at most `pages` in all out of it, `max` of them at most.
    pub(crate) fn give_back(&mut self, mut pages: u64, max: usize) -> Vec<PageRange> {
        let mut given = Vec::new();
        while pages != 0
            && given.len() < max
            && let Some((first, count)) = self.ranges.pop_last()
        {
            let now = count.min(pages);
            if now < count {
                self.ranges.insert(first, count - now);
            }
            given.push(PageRange::new(first + count - now, now));
            self.pages -= now;
            pages -= now;
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use busway_memory::{GuestAddress, Region};

    use super::*;

    #[test]
    fn what_cannot_be_lent_is_refused() {
        let region = |start| Region { start: GuestAddress(start), len: 64 * PAGE_SIZE };
        // Neighbours in the file, and far apart for the guest.
        let memory = GuestMemory::allocate(&[region(0), region(1 << 32)]).unwrap();
        let mut lent = Lent::default();
        let mut lend = |first, count| {
            let range = PageRange::new(first, count);
            lent.lend(range, 50, &memory).map_err(|error| error.to_string())
        };
        assert_eq!(lend(10, 5), Ok((10 * 4096, 5 * 4096)));
        assert_eq!(lend(1 << 20, 1), Ok((64 * 4096, 4096)));
        for (first, count) in [(14, 1), (9, 2), (0, 40), (10, 5)] {
            assert!(lend(first, count).unwrap_err().contains("second time"), "{first} {count}");
        }
        for (first, count) in [(60, 5), (64, 1), (1 << 39, 1), (3, 0)] {
            assert!(lend(first, count).unwrap_err().contains("RAM"), "{first} {count}");
        }
        assert!(lend(15, 51).unwrap_err().contains("51 pages"));
        assert_eq!(lent.pages(), 6);
    }

    #[test]
    fn ranges_are_given_back_in_parts() {
        let memory = GuestMemory::allocate(&[Region { start: GuestAddress(0), len: 1 << 20 }]);
        let (memory, mut lent) = (memory.unwrap(), Lent::default());
        for first in [10, 20, 30] {
            lent.lend(PageRange::new(first, 4), 100, &memory).unwrap();
        }
        let ranges = |given: Vec<PageRange>| -> Vec<_> {
            given.into_iter().map(|range| (range.first(), range.count())).collect()
        };
        assert_eq!(ranges(lent.give_back(6, 10)), [(30, 4), (22, 2)]);
        assert_eq!(ranges(lent.give_back(6, 1)), [(20, 2)]);
        assert_eq!(ranges(lent.give_back(100, 10)), [(10, 4)]);
        assert_eq!(lent.pages(), 0);
    }
}
