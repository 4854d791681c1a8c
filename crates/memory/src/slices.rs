// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lists of guest memory, as the kernel takes them for vectored I/O.

use libc::iovec;
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, MemoryRegionAddress,
    VolatileSlice,
};

use crate::{GuestBuffer, GuestMemory, PAGE_SIZE};

/// A guest named memory that it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} B at guest address {start:#x} are not all RAM")]
pub struct BeyondMemory {
    /// First guest physical address.
    pub start: u64,
    /// Bytes.
    pub len: usize,
}

/// Pieces of guest memory in the order in which data goes through them: an external PFN array,
/// checked once.
///
/// Holds the guest's memory alive, so the vectors in it stay valid for as long as the list does.
/// Whoever starts I/O on a list must own it until the I/O is complete; so a back end takes the list
/// by value and gives it back with the result. Pieces that follow each other in host memory are one
/// vector. A list that is cleared keeps its room, so its next use allocates nothing.
#[derive(Debug)]
pub struct GuestSlices {
    memory: GuestMemory,
    vectors: Vec<iovec>,
    len: usize,
}

// SAFETY: the pointers lead into a shared mapping that `memory` keeps alive in every thread, and
// nothing about them is tied to the thread that made them.
#[expect(unsafe_code, reason = "iovec holds a raw pointer")]
unsafe impl Send for GuestSlices {}

impl GuestSlices {
    /// An empty list of pieces of `memory`.
    pub const fn new(memory: GuestMemory) -> Self {
        Self { memory, vectors: Vec::new(), len: 0 }
    }

    /// Empties the list and keeps its room.
    pub fn clear(&mut self) {
        self.vectors.clear();
        self.len = 0;
    }

    /// Bytes in all pieces.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces as the kernel takes them.
    pub fn vectors(&self) -> &[iovec] {
        &self.vectors
    }

    /// Appends `len` bytes from `start` on.
    pub fn push(&mut self, start: GuestAddress, len: usize) -> Result<(), BeyondMemory> {
        let beyond = BeyondMemory { start: start.0, len };
        let slice = self.memory.get_slice(start, len).map_err(|_| beyond)?;
        let base = slice.ptr_guard_mut().as_ptr();
        Self::append(&mut self.vectors, &mut self.len, base, len);
        Ok(())
    }

    /// Appends `len` bytes that start `offset` bytes into the first of the pages `pfns`.
    ///
    /// Takes as many of `pfns` as it needs; fewer are an error, as is a page that is no RAM. What
    /// was appended before an error stays in the list.
    pub fn push_pages(
        &mut self,
        pfns: impl IntoIterator<Item = u64>,
        offset: usize,
        len: usize,
    ) -> Result<(), BeyondMemory> {
        let mut offset = offset;
        let mut left = len;
        let mut region: Option<&GuestRegionMmap> = None;
        for pfn in pfns {
            if left == 0 {
                break;
            }
            let start = pfn.saturating_mul(PAGE_SIZE as u64);
            let beyond = BeyondMemory { start, len: left };
            let address = GuestAddress(start);
            // Neighbours in a list are mostly neighbours in memory.
            let place = region.and_then(|region| Some((region, region.to_region_addr(address)?)));
            let (found, at) = match place {
                Some(place) => place,
                None => self.memory.to_region_addr(address).ok_or(beyond)?,
            };
            region = Some(found);
            let count = PAGE_SIZE.checked_sub(offset).ok_or(beyond)?.min(left);
            let at = MemoryRegionAddress(at.0 + offset as u64);
            let piece = found.get_slice(at, count).map_err(|_| beyond)?;
            let base = piece.ptr_guard_mut().as_ptr();
            Self::append(&mut self.vectors, &mut self.len, base, count);
            left -= count;
            offset = 0;
        }
        if left == 0 { Ok(()) } else { Err(BeyondMemory { start: u64::MAX, len: left }) }
    }

    /// Appends `len` bytes of `buffer` from `offset` on.
    ///
    /// # Panics
    ///
    /// If the buffer is of another guest: that is the caller's error.
    pub fn push_buffer(
        &mut self,
        buffer: &GuestBuffer,
        offset: usize,
        len: usize,
    ) -> Result<(), BeyondMemory> {
        assert!(buffer.is_of(&self.memory), "a list holds one guest's memory alive");
        match buffer.beyond(offset, len) {
            Some(beyond) => Err(beyond),
            None => {
                let (vectors, total) = (&mut self.vectors, &mut self.len);
                buffer.pieces(offset, len, |base, len| Self::append(vectors, total, base, len));
                Ok(())
            }
        }
    }

    fn append(vectors: &mut Vec<iovec>, total: &mut usize, base: *mut u8, len: usize) {
        if len == 0 {
            return;
        }
        *total += len;
        if let Some(last) = vectors.last_mut()
            && last.iov_base.cast::<u8>().wrapping_add(last.iov_len) == base
        {
            last.iov_len += len;
            return;
        }
        vectors.push(iovec { iov_base: base.cast(), iov_len: len });
    }

    /// Drops everything behind the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        let mut left = len;
        let mut keep = 0;
        for vector in &mut self.vectors {
            if left == 0 {
                break;
            }
            vector.iov_len = vector.iov_len.min(left);
            left -= vector.iov_len;
            keep += 1;
        }
        self.vectors.truncate(keep);
        self.len = len - left;
    }

    /// Copies `data` into the pieces from their start on; returns the bytes that found room.
    pub fn write(&self, data: &[u8]) -> usize {
        self.write_at(0, data)
    }

    /// Copies `data` into the pieces, `offset` bytes behind their start; returns the bytes that
    /// found room.
    pub fn write_at(&self, offset: usize, data: &[u8]) -> usize {
        let mut done = 0;
        self.pieces(offset, data.len(), |piece| {
            piece.copy_from(&data[done..done + piece.len()]);
            done += piece.len();
        });
        done
    }

    /// Copies bytes out of the pieces, from `offset` on, into `data`; returns how many there were.
    pub fn read_at(&self, offset: usize, data: &mut [u8]) -> usize {
        let mut done = 0;
        self.pieces(offset, data.len(), |piece| {
            piece.copy_to(&mut data[done..done + piece.len()]);
            done += piece.len();
        });
        done
    }

    /// Visits the pieces of the `len` bytes from `offset` on, as far as there are any.
    fn pieces(&self, offset: usize, len: usize, visit: impl FnMut(VolatileSlice<'_>)) {
        let (memory, vectors) = (&self.memory, self.vectors.as_slice());
        GuestPart { memory, vectors, skip: offset, len }.pieces(visit);
    }

    /// The `len` bytes from `offset` on; `None` if there are not so many.
    pub fn part(&self, offset: usize, len: usize) -> Option<GuestPart<'_>> {
        offset.checked_add(len).filter(|end| *end <= self.len)?;
        let mut skip = offset;
        let mut vectors = self.vectors.as_slice();
        while let [first, rest @ ..] = vectors
            && skip >= first.iov_len
        {
            skip -= first.iov_len;
            vectors = rest;
        }
        Some(GuestPart { memory: &self.memory, vectors, skip, len })
    }

    /// The `len` bytes from the vector with number `vector` on, where `offset` bytes are before it;
    /// fewer if there are not so many.
    pub fn part_from(&self, vector: usize, offset: usize, len: usize) -> GuestPart<'_> {
        let vectors = self.vectors.get(vector..).unwrap_or_default();
        let len = len.min(self.len.saturating_sub(offset));
        GuestPart { memory: &self.memory, vectors, skip: 0, len }
    }

    /// Drops the first `count` vectors, which have `len` bytes together.
    pub fn drop_front(&mut self, count: usize, len: usize) {
        self.vectors.drain(..count.min(self.vectors.len()));
        self.len = self.len.saturating_sub(len);
    }
}

/// Some of the bytes of a list. Borrows it, so the memory stays mapped.
#[derive(Clone, Copy, Debug)]
pub struct GuestPart<'a> {
    memory: &'a GuestMemory,
    vectors: &'a [iovec],
    /// Bytes before it in the first vector.
    skip: usize,
    len: usize,
}

impl<'a> GuestPart<'a> {
    /// What the bytes are in: as long as a handle of it lives, they stay mapped.
    pub const fn memory(&self) -> &'a GuestMemory {
        self.memory
    }

    /// Bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The same without the first `count` bytes.
    #[must_use]
    pub fn skip(mut self, count: usize) -> Self {
        let count = count.min(self.len);
        self.skip += count;
        self.len -= count;
        while let [first, rest @ ..] = self.vectors
            && self.skip >= first.iov_len
        {
            self.skip -= first.iov_len;
            self.vectors = rest;
        }
        self
    }

    /// Appends the vectors of these bytes to `vectors`, which may be used as long as `self` or a handle of its
    /// [`memory`](Self::memory) lives.
    pub fn append_to(&self, vectors: &mut Vec<iovec>) {
        let mut left = self.len;
        let mut skip = self.skip;
        for vector in self.vectors {
            if left == 0 {
                return;
            }
            let len = vector.iov_len.saturating_sub(skip).min(left);
            vectors.push(iovec { iov_base: vector.iov_base.wrapping_byte_add(skip), iov_len: len });
            skip = 0;
            left -= len;
        }
    }

    /// Copies bytes out of the front; returns how many there were.
    pub fn read(&self, data: &mut [u8]) -> usize {
        let mut done = 0;
        Self { len: self.len.min(data.len()), ..*self }.pieces(|piece| {
            piece.copy_to(&mut data[done..done + piece.len()]);
            done += piece.len();
        });
        done
    }

    /// Copies `data` to the front; returns the bytes that found room.
    pub fn write(&self, data: &[u8]) -> usize {
        let mut done = 0;
        Self { len: self.len.min(data.len()), ..*self }.pieces(|piece| {
            piece.copy_from(&data[done..done + piece.len()]);
            done += piece.len();
        });
        done
    }

    #[expect(unsafe_code, reason = "a vector is turned back into the slice it was made from")]
    fn pieces(&self, mut visit: impl FnMut(VolatileSlice<'_>)) {
        let mut skip = self.skip;
        let mut left = self.len;
        for vector in self.vectors {
            if left == 0 {
                break;
            }
            if skip >= vector.iov_len {
                skip -= vector.iov_len;
                continue;
            }
            let count = (vector.iov_len - skip).min(left);
            let base = vector.iov_base.cast::<u8>().wrapping_add(skip);
            // SAFETY: `append` took the vector from a slice of memory that the list, which is
            // borrowed here, keeps mapped, and `skip + count` is within it.
            visit(unsafe { VolatileSlice::new(base, count) });
            skip = 0;
            left -= count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bytes, Region};

    fn memory() -> GuestMemory {
        let region = Region { start: GuestAddress(0), len: 16 * PAGE_SIZE };
        GuestMemory::allocate(&[region]).unwrap()
    }

    #[test]
    fn pages_out_of_order_are_separate_and_neighbours_are_one() {
        let mut slices = GuestSlices::new(memory());
        slices.push_pages([3, 4, 9, 2], 100, 3 * PAGE_SIZE).unwrap();
        let lengths: Vec<_> = slices.vectors().iter().map(|v| v.iov_len).collect();
        assert_eq!(lengths, [2 * PAGE_SIZE - 100, PAGE_SIZE, 100]);
        assert_eq!(slices.len(), 3 * PAGE_SIZE);
    }

    #[test]
    fn data_goes_through_the_pieces_in_order() {
        let memory = memory();
        let mut slices = GuestSlices::new(memory.clone());
        slices.push_pages([5, 1], PAGE_SIZE - 3, 6).unwrap();
        assert_eq!(slices.write(b"abcdefgh"), 6);
        let mut first = [0; 3];
        memory.read_slice(&mut first, GuestAddress(6 * 4096 - 3)).unwrap();
        let mut second = [0; 4];
        memory.read_slice(&mut second, GuestAddress(4096)).unwrap();
        assert_eq!((&first, &second), (b"abc", b"def\0"));

        let mut out = [0; 9];
        assert_eq!(slices.read_at(2, &mut out), 4);
        assert_eq!(&out[..4], b"cdef");
        assert_eq!(slices.read_at(7, &mut out), 0);
    }

    #[test]
    fn a_part_is_cut_at_both_ends() {
        let mut slices = GuestSlices::new(memory());
        slices.push_pages([5, 1, 8], PAGE_SIZE - 3, PAGE_SIZE + 6).unwrap();
        let data: Vec<u8> = (0..PAGE_SIZE as u32 + 6).map(|i| (i % 253) as u8).collect();
        slices.write(&data);
        let part = slices.part(2, PAGE_SIZE + 2).unwrap();
        let mut vectors = Vec::new();
        part.append_to(&mut vectors);
        let lengths: Vec<_> = vectors.iter().map(|v| v.iov_len).collect();
        assert_eq!(lengths, [1, PAGE_SIZE, 1]);
        let mut out = vec![0; PAGE_SIZE + 10];
        assert_eq!(part.read(&mut out), PAGE_SIZE + 2);
        assert_eq!(out[..PAGE_SIZE + 2], data[2..PAGE_SIZE + 4]);
        let rest = part.skip(PAGE_SIZE + 1);
        assert_eq!((rest.len(), rest.read(&mut out)), (1, 1));
        assert_eq!(out[0], data[PAGE_SIZE + 3]);
        assert_eq!(rest.write(b"xy"), 1);
        slices.read_at(PAGE_SIZE + 3, &mut out);
        assert_eq!(out[..2], [b'x', data[PAGE_SIZE + 4]]);
        assert!(part.skip(PAGE_SIZE + 3).is_empty());
        assert!(slices.part(7, PAGE_SIZE).is_none() && slices.part(usize::MAX, 2).is_none());
        assert!(slices.part(PAGE_SIZE + 6, 0).unwrap().is_empty());
    }

    #[test]
    fn a_part_from_a_vector_on_ends_with_the_list() {
        let mut slices = GuestSlices::new(memory());
        slices.push_pages([5, 1, 8], 0, 3 * PAGE_SIZE).unwrap();
        slices.write(&[7; 2 * PAGE_SIZE]);
        let part = slices.part_from(1, PAGE_SIZE, PAGE_SIZE + 1);
        let mut out = vec![9; PAGE_SIZE + 2];
        assert_eq!(part.read(&mut out), PAGE_SIZE + 1);
        assert_eq!(out[PAGE_SIZE - 1..], [7, 0, 9]);
        assert_eq!(slices.part_from(2, 2 * PAGE_SIZE, 2 * PAGE_SIZE).len(), PAGE_SIZE);
        assert!(slices.part_from(3, 3 * PAGE_SIZE, 1).is_empty());
        slices.drop_front(1, PAGE_SIZE);
        assert_eq!(slices.len(), 2 * PAGE_SIZE);
        assert_eq!(slices.part_from(0, 0, PAGE_SIZE + 1).read(&mut out), PAGE_SIZE + 1);
        assert_eq!(out[PAGE_SIZE - 1..], [7, 0, 9]);
    }

    #[test]
    fn what_is_no_ram_is_refused() {
        let mut slices = GuestSlices::new(memory());
        assert!(slices.push(GuestAddress(16 * 4096 - 4), 8).is_err());
        assert!(slices.push_pages([15, 16], 0, 2 * PAGE_SIZE).is_err());
        assert!(slices.push_pages([u64::MAX], 0, 1).is_err());
        assert!(slices.push_pages([1], 8, PAGE_SIZE).is_err());
        assert!(slices.push_pages([1, 2], 5000, 10).is_err());
    }

    #[test]
    fn truncation_cuts_within_a_piece() {
        let mut slices = GuestSlices::new(memory());
        slices.push_pages([1, 3, 5], 0, 3 * PAGE_SIZE).unwrap();
        slices.truncate(PAGE_SIZE + 10);
        let lengths: Vec<_> = slices.vectors().iter().map(|v| v.iov_len).collect();
        assert_eq!((lengths, slices.len()), (vec![PAGE_SIZE, 10], PAGE_SIZE + 10));
        slices.truncate(1 << 20);
        assert_eq!(slices.len(), PAGE_SIZE + 10);
        slices.truncate(0);
        assert!(slices.is_empty() && slices.vectors().is_empty());
    }
}
