// SPDX-License-Identifier: MIT OR Apache-2.0

//! A buffer that a guest shares for as long as a channel is open.

use std::fmt;
use std::ptr::{self, NonNull};

use crate::slices::BeyondMemory;
use crate::{GuestMemory, PAGE_SIZE};

/// Guest pages in the order of a list, as one range of bytes.
///
/// Its pages are looked up once; a place in it costs a division after that. Several threads may use
/// one buffer, as the guest does meanwhile: a copy is then a mixture of bytes, and nothing worse.
pub struct GuestBuffer {
    pages: Box<[NonNull<u8>]>,
    /// Where in the first page the buffer starts.
    start: usize,
    len: usize,
    // Keeps the pages mapped.
    memory: GuestMemory,
}

// SAFETY: the pointers lead into a shared mapping that `memory` keeps alive in every thread, and
// they are used for copies only, which tolerate other writers.
#[expect(unsafe_code, reason = "the buffer holds raw pointers")]
unsafe impl Send for GuestBuffer {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "the buffer holds raw pointers")]
unsafe impl Sync for GuestBuffer {}

impl fmt::Debug for GuestBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestBuffer({} B)", self.len)
    }
}

impl GuestBuffer {
    /// The `len` bytes that start `offset` bytes into the first of `pfns`.
    pub fn new(
        memory: &GuestMemory,
        pfns: &[u64],
        offset: usize,
        len: usize,
    ) -> Result<Self, BeyondMemory> {
        let room = (pfns.len() * PAGE_SIZE).saturating_sub(offset);
        if offset >= PAGE_SIZE || room < len {
            return Err(BeyondMemory { start: u64::MAX, len });
        }
        let page = |pfn: &u64| {
            let start = pfn.saturating_mul(PAGE_SIZE as u64);
            let page = memory.page(*pfn);
            let base = page.and_then(|page| NonNull::new(page.ptr_guard_mut().as_ptr()));
            base.ok_or(BeyondMemory { start, len })
        };
        let pages = pfns.iter().map(page).collect::<Result<_, _>>()?;
        Ok(Self { pages, start: offset, len, memory: memory.clone() })
    }

    /// Bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether both are of one guest.
    pub(crate) fn is_of(&self, memory: &GuestMemory) -> bool {
        self.memory.is(memory)
    }

    /// Copies `data` in, from `offset` on; returns the bytes that found room.
    #[inline]
    #[expect(unsafe_code, reason = "guest memory is copied, never referenced")]
    pub fn write_at(&self, offset: usize, data: &[u8]) -> usize {
        let mut done = 0;
        self.pieces(offset, data.len(), |base, len| {
            // SAFETY: `pieces` gives places in pages that `memory` keeps mapped, and together no
            // more than `data` has; `data` is private.
            unsafe { ptr::copy_nonoverlapping(data.as_ptr().add(done), base, len) };
            done += len;
        });
        done
    }

    /// Copies bytes out, from `offset` on; returns how many there were.
    #[inline]
    #[expect(unsafe_code, reason = "guest memory is copied, never referenced")]
    pub fn read_at(&self, offset: usize, data: &mut [u8]) -> usize {
        let mut done = 0;
        let out = data.as_mut_ptr();
        self.pieces(offset, data.len(), |base, len| {
            // SAFETY: as in `write_at`.
            unsafe { ptr::copy_nonoverlapping(base, out.add(done), len) };
            done += len;
        });
        done
    }

    /// Visits the pieces of the `len` bytes from `offset` on, as far as there are any, each within
    /// a page.
    #[inline]
    pub(crate) fn pieces(&self, offset: usize, len: usize, mut visit: impl FnMut(*mut u8, usize)) {
        let mut left = len.min(self.len.saturating_sub(offset));
        let mut at = self.start.saturating_add(offset);
        while left != 0 {
            let Some(page) = self.pages.get(at / PAGE_SIZE) else {
                return;
            };
            let within = at % PAGE_SIZE;
            let count = (PAGE_SIZE - within).min(left);
            visit(page.as_ptr().wrapping_add(within), count);
            at += count;
            left -= count;
        }
    }

    /// What a range that is not in the buffer is answered with.
    pub(crate) fn beyond(&self, offset: usize, len: usize) -> Option<BeyondMemory> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len);
        let start = offset as u64;
        if end.is_some() { None } else { Some(BeyondMemory { start, len }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bytes, GuestAddress, GuestSlices, Region};

    fn memory() -> GuestMemory {
        let region = Region { start: GuestAddress(0), len: 16 * PAGE_SIZE };
        GuestMemory::allocate(&[region]).unwrap()
    }

    #[test]
    fn bytes_lie_in_the_pages_in_order() {
        let memory = memory();
        let buffer = GuestBuffer::new(&memory, &[7, 3, 9], 100, 3 * PAGE_SIZE - 200).unwrap();
        let data: Vec<u8> = (0..5000_u32).map(|i| (i % 249) as u8).collect();
        assert_eq!(buffer.write_at(3990, &data), 5000);
        let byte = |address| memory.read_obj::<u8>(GuestAddress(address)).unwrap();
        assert_eq!(byte(7 * 4096 + 4095), data[5]);
        assert_eq!(byte(3 * 4096), data[6]);
        assert_eq!(byte(9 * 4096), data[4102]);
        let mut out = vec![0; 5000];
        assert_eq!(buffer.read_at(3990, &mut out), 5000);
        assert_eq!(out, data);
    }

    #[test]
    fn nothing_is_reached_behind_its_end() {
        let memory = memory();
        let buffer = GuestBuffer::new(&memory, &[1, 2], 8, 5000).unwrap();
        assert_eq!(buffer.write_at(4990, &[1; 20]), 10);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(2 * 4096 + 912)).unwrap(), 0);
        assert_eq!(buffer.read_at(usize::MAX, &mut [0; 4]), 0);
        let mut slices = GuestSlices::new(memory);
        assert!(slices.push_buffer(&buffer, 4990, 11).is_err());
        assert!(slices.push_buffer(&buffer, usize::MAX, 2).is_err());
        assert!(slices.is_empty());
        slices.push_buffer(&buffer, 4000, 1000).unwrap();
        let lengths: Vec<_> = slices.vectors().iter().map(|v| v.iov_len).collect();
        assert_eq!(lengths, [1000], "both pages are neighbours in memory");
    }

    #[test]
    fn pages_that_are_no_ram_or_too_few_are_refused() {
        let memory = memory();
        assert!(GuestBuffer::new(&memory, &[1, 16], 0, 8192).is_err());
        assert!(GuestBuffer::new(&memory, &[1], 0, 4097).is_err());
        assert!(GuestBuffer::new(&memory, &[1, 2], 4096, 10).is_err());
        assert!(GuestBuffer::new(&memory, &[1, 2], 4095, 4098).is_err());
    }
}
