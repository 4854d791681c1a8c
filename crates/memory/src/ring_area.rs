// SPDX-License-Identifier: MIT OR Apache-2.0

//! One direction of a ring as contiguous memory: its data pages mapped twice in a row.
//!
//! ```text
//! guest's pages    C  4  9  2
//! mapped here      C  4  9  2  4  9  2
//! ```
//!
//! Whatever starts in the first copy of the data ends, at the latest, in the second: a packet that
//! wraps around the end of the ring is contiguous here, and reading one is a bounds check and a
//! copy. Where that would cost too many kernel mappings (a ring of scattered pages takes two each),
//! the pages are used where they are and a copy is cut at page borders instead.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use vm_memory::VolatileSlice;

use crate::{GuestMemory, PAGE_SIZE};

/// Kernel mappings that all doubled rings of the process may take together.
///
/// The kernel's own limit is 65530 (`vm.max_map_count`). A guest could spend it by opening many
/// large rings of scattered pages, and then every later mapping of the VMM would fail.
static MAPPINGS: Budget = Budget::new(16_384);

/// How a ring's data is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Mapped twice in a row.
    Doubled,
    /// Page by page, where guest memory is mapped anyway.
    Sliced,
}

/// A ring's pages cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MapRingError {
    /// Not even a control page and one page of data.
    #[error("a ring of {pages} pages has no room for its control page and data")]
    TooShort {
        /// Pages of the direction.
        pages: usize,
    },
    /// More than offsets of 32 bits can name.
    #[error("a ring of {pages} pages is larger than its 32-bit indices can address")]
    TooLong {
        /// Pages of the direction.
        pages: usize,
    },
    /// A page that is no RAM.
    #[error("page {index} of the ring has PFN {pfn:#x}, which is no RAM")]
    NotMemory {
        /// Which page of the direction.
        index: usize,
        /// Its frame number.
        pfn: u64,
    },
}

/// One direction of a ring: a control page and its data.
///
/// The data area is addressed from 0 to [`data_len`](Self::data_len); a copy that starts in it may
/// run over its end and goes on at its start. Both ends of a ring may have an area on the same
/// pages; each word is an atomic and each copy tolerates that the other side writes meanwhile.
#[derive(Debug)]
pub struct RingArea {
    control: NonNull<u8>,
    data: Data,
    data_len: u32,
    // Keeps `control` and sliced pages mapped.
    _memory: GuestMemory,
}

#[derive(Debug)]
enum Data {
    Doubled(Doubled),
    Sliced(Box<[NonNull<u8>]>),
}

// SAFETY: the pointers lead into shared mappings that live as long as the area, wherever it is.
#[expect(unsafe_code, reason = "the area holds raw pointers")]
unsafe impl Send for RingArea {}

impl RingArea {
    /// The ring direction made of the pages `pfns`, the control page first.
    ///
    /// Its data is mapped twice in a row as long as mappings can be spared, else it is
    /// [`Backing::Sliced`].
    pub fn map(memory: &GuestMemory, pfns: &[u64]) -> Result<Self, MapRingError> {
        Self::new(memory, pfns, |data| Doubled::map(memory, data, &MAPPINGS))
    }

    /// The same, with its pages left where they are.
    pub fn map_sliced(memory: &GuestMemory, pfns: &[u64]) -> Result<Self, MapRingError> {
        Self::new(memory, pfns, |_| None)
    }

    fn new(
        memory: &GuestMemory,
        pfns: &[u64],
        double: impl FnOnce(&[u64]) -> Option<Doubled>,
    ) -> Result<Self, MapRingError> {
        let pages = pfns.len();
        let (_, data_pfns) = match pfns {
            [control, data @ ..] if !data.is_empty() => (control, data),
            _ => return Err(MapRingError::TooShort { pages }),
        };
        let data_len = u32::try_from(data_pfns.len() * PAGE_SIZE)
            .ok()
            .filter(|len| *len <= u32::MAX / 2)
            .ok_or(MapRingError::TooLong { pages })?;
        let mut bases = Vec::with_capacity(pages);
        for (index, &pfn) in pfns.iter().enumerate() {
            let page = memory.page(pfn).ok_or(MapRingError::NotMemory { index, pfn })?;
            let base = NonNull::new(page.ptr_guard_mut().as_ptr());
            bases.push(base.ok_or(MapRingError::NotMemory { index, pfn })?);
        }
        let control = bases.remove(0);
        let data = match double(data_pfns) {
            Some(doubled) => Data::Doubled(doubled),
            None => Data::Sliced(bases.into_boxed_slice()),
        };
        Ok(Self { control, data, data_len, _memory: memory.clone() })
    }

    /// How the data is reached.
    pub const fn backing(&self) -> Backing {
        match self.data {
            Data::Doubled(_) => Backing::Doubled,
            Data::Sliced(_) => Backing::Sliced,
        }
    }

    /// Bytes of the data area; a multiple of the page size.
    pub const fn data_len(&self) -> u32 {
        self.data_len
    }

    /// The word at byte `offset` of the control page.
    ///
    /// # Panics
    ///
    /// If `offset` is no multiple of 4 below 4096: that is the caller's error, never the guest's.
    #[inline]
    #[expect(unsafe_code, reason = "a word of guest memory is an atomic")]
    pub fn control_word(&self, offset: usize) -> &AtomicU32 {
        assert!(
            offset.is_multiple_of(4) && offset < PAGE_SIZE,
            "no such word in a control page: {offset}"
        );
        // SAFETY: the page is mapped, aligned and readable and writable for as long as `self`
        // lives, and the guest's accesses to it are outside of Rust's view.
        unsafe { self.control.byte_add(offset).cast::<AtomicU32>().as_ref() }
    }

    /// Copies data out, from `offset` of the data area on.
    ///
    /// # Panics
    ///
    /// If `offset` is not in the data area or `out` is larger than it: the ring's code checks what
    /// the guest says before it gets here.
    #[inline]
    pub fn read(&self, offset: u32, out: &mut [u8]) {
        self.check(offset, out.len());
        match &self.data {
            Data::Doubled(doubled) => doubled.read(offset as usize, out),
            Data::Sliced(pages) => {
                let mut out = out;
                each_page(pages, offset as usize, out.len(), |piece| {
                    let (head, tail) = std::mem::take(&mut out).split_at_mut(piece.len());
                    piece.copy_to(head);
                    out = tail;
                });
            }
        }
    }

    /// Copies data in, from `offset` of the data area on.
    ///
    /// # Panics
    ///
    /// As [`read`](Self::read).
    #[inline]
    pub fn write(&self, offset: u32, data: &[u8]) {
        self.check(offset, data.len());
        match &self.data {
            Data::Doubled(doubled) => doubled.write(offset as usize, data),
            Data::Sliced(pages) => {
                let mut data = data;
                each_page(pages, offset as usize, data.len(), |piece| {
                    let (head, tail) = data.split_at(piece.len());
                    piece.copy_from(head);
                    data = tail;
                });
            }
        }
    }

    #[inline]
    fn check(&self, offset: u32, len: usize) {
        assert!(
            offset < self.data_len && len <= self.data_len as usize,
            "{len} B at {offset} are not within a ring of {} B",
            self.data_len
        );
    }
}

/// Visits the pieces of the `len` bytes from `offset` on, cut at page borders.
#[expect(unsafe_code, reason = "a page of guest memory becomes a volatile slice")]
fn each_page(
    pages: &[NonNull<u8>],
    offset: usize,
    len: usize,
    mut visit: impl FnMut(VolatileSlice<'_>),
) {
    let mut offset = offset;
    let mut left = len;
    while left != 0 {
        let within = offset % PAGE_SIZE;
        let count = (PAGE_SIZE - within).min(left);
        let page = pages[offset / PAGE_SIZE % pages.len()];
        // SAFETY: the page is mapped as long as the area's memory handle lives, and
        // `within + count` is at most a page.
        visit(unsafe { VolatileSlice::new(page.byte_add(within).as_ptr(), count) });
        offset += count;
        left -= count;
    }
}

/// Pages mapped twice in a row; unmapped when dropped.
#[derive(Debug)]
struct Doubled {
    base: NonNull<u8>,
    len: usize,
    mappings: usize,
    budget: &'static Budget,
}

impl Doubled {
    /// `None` where mappings are short, be it in the budget or in the kernel.
    fn map(memory: &GuestMemory, pfns: &[u64], budget: &'static Budget) -> Option<Self> {
        let runs = runs(memory, pfns);
        let once: usize = runs.iter().map(|run| run.len).sum();
        let mappings = runs.len() * 2;
        if !budget.take(mappings) {
            return None;
        }
        let Ok(base) = reserve_addresses(once * 2) else {
            budget.give(mappings);
            return None;
        };
        let doubled = Self { base, len: once * 2, mappings, budget };
        let mut at = 0;
        for run in runs.iter().chain(&runs) {
            doubled.place(at, memory, run).ok()?;
            at += run.len;
        }
        Some(doubled)
    }

    /// Maps `run` of the guest's memory file at byte `at` of the reserved addresses.
    #[expect(unsafe_code, reason = "vm-memory maps a file in one piece and at no chosen address")]
    fn place(&self, at: usize, memory: &GuestMemory, run: &Run) -> io::Result<()> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let offset = i64::try_from(run.offset).map_err(io::Error::other)?;
        let fd = memory.file().as_raw_fd();
        // SAFETY: the target lies within addresses that this object has reserved and that nothing
        // else uses; the file cannot shrink.
        let mapped = unsafe {
            let target = self.base.byte_add(at).as_ptr().cast();
            libc::mmap(target, run.len, protection, flags, fd, offset)
        };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The caller has checked that the copy starts in the first mapping and is no longer than it.
    #[inline]
    #[expect(unsafe_code, reason = "guest memory is copied, never referenced")]
    fn read(&self, offset: usize, out: &mut [u8]) {
        debug_assert!(offset + out.len() <= self.len);
        // SAFETY: `offset + out.len()` is within the two mappings, which live as long as `self`;
        // `out` is private memory. The guest may write meanwhile: what is copied is then a mixture
        // of bytes, which is why it is checked only after the copy.
        unsafe {
            let from = self.base.as_ptr().add(offset);
            ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len());
        }
    }

    /// As [`read`](Self::read).
    #[inline]
    #[expect(unsafe_code, reason = "guest memory is copied, never referenced")]
    fn write(&self, offset: usize, data: &[u8]) {
        debug_assert!(offset + data.len() <= self.len);
        // SAFETY: as in `read`; that the guest sees the bytes in some order is the ring's matter.
        unsafe {
            let to = self.base.as_ptr().add(offset);
            ptr::copy_nonoverlapping(data.as_ptr(), to, data.len());
        }
    }
}

impl Drop for Doubled {
    #[expect(unsafe_code, reason = "the mapping was made by hand")]
    fn drop(&mut self) {
        // SAFETY: these addresses were reserved by this object and no slice of them outlives it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        self.budget.give(self.mappings);
    }
}

/// Address space for `len` bytes that nothing else will use, without memory behind it.
#[expect(unsafe_code, reason = "vm-memory reserves no bare addresses")]
fn reserve_addresses(len: usize) -> io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing.
    let base = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("the kernel mapped page zero"))
}

/// A number of something that is shared out.
#[derive(Debug)]
struct Budget {
    left: AtomicUsize,
}

impl Budget {
    const fn new(limit: usize) -> Self {
        Self { left: AtomicUsize::new(limit) }
    }

    /// Takes `count`; false, and nothing taken, if that many are not left.
    fn take(&self, count: usize) -> bool {
        let relaxed = Ordering::Relaxed;
        self.left.try_update(relaxed, relaxed, |left| left.checked_sub(count)).is_ok()
    }

    fn give(&self, count: usize) {
        self.left.fetch_add(count, Ordering::Relaxed);
    }
}

/// Pages that follow each other in the guest's memory file.
#[derive(Debug)]
struct Run {
    offset: u64,
    len: usize,
}

fn runs(memory: &GuestMemory, pfns: &[u64]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for offset in pfns.iter().filter_map(|&pfn| memory.page_offset(pfn)) {
        match runs.last_mut() {
            Some(run) if run.offset + run.len as u64 == offset => run.len += PAGE_SIZE,
            _ => runs.push(Run { offset, len: PAGE_SIZE }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bytes, GuestAddress, Region};

    const PFNS: [u64; 4] = [7, 4, 9, 2];

    fn memory() -> GuestMemory {
        let region = Region { start: GuestAddress(0), len: 16 * PAGE_SIZE };
        GuestMemory::allocate(&[region]).unwrap()
    }

    fn both(memory: &GuestMemory) -> [RingArea; 2] {
        let doubled = RingArea::map(memory, &PFNS).unwrap();
        let sliced = RingArea::map_sliced(memory, &PFNS).unwrap();
        assert_eq!((doubled.backing(), sliced.backing()), (Backing::Doubled, Backing::Sliced));
        [doubled, sliced]
    }

    #[test]
    fn a_copy_crosses_pages_and_wraps() {
        let memory = memory();
        for area in both(&memory) {
            assert_eq!(area.data_len(), 3 * 4096);
            let data: Vec<u8> = (0..4200_u32).map(|i| (i % 251) as u8).collect();
            area.write(2 * 4096 + 4000, &data);
            let mut out = vec![0; data.len()];
            area.read(2 * 4096 + 4000, &mut out);
            assert_eq!(out, data);

            // 96 bytes end page 2, a page of data follows from page 4 on, 8 more are in page 9.
            let byte = |address| memory.read_obj::<u8>(GuestAddress(address)).unwrap();
            assert_eq!(byte(2 * 4096 + 4095), data[95]);
            assert_eq!(byte(4 * 4096), data[96]);
            assert_eq!(byte(9 * 4096 + 7), data[4199]);
        }
    }

    #[test]
    fn two_areas_on_the_same_pages_see_each_other() {
        let memory = memory();
        let [one, other] = both(&memory);
        one.control_word(4).store(0x1234, Ordering::Release);
        assert_eq!(other.control_word(4).load(Ordering::Acquire), 0x1234);
        assert_eq!(memory.read_obj::<u32>(GuestAddress(7 * 4096 + 4)).unwrap(), 0x1234);
    }

    #[test]
    fn a_page_may_stand_in_a_ring_twice() {
        let area = RingArea::map(&memory(), &[1, 2, 2]).unwrap();
        area.write(10, b"twice");
        let mut out = [0; 5];
        area.read(4096 + 10, &mut out);
        assert_eq!(&out, b"twice");
    }

    #[test]
    fn the_area_keeps_guest_memory_alive() {
        let areas = both(&memory());
        for area in areas {
            area.control_word(0).store(1, Ordering::Release);
            area.write(0, &[1; 64]);
        }
    }

    #[test]
    fn pages_that_are_no_ram_are_refused() {
        let error = RingArea::map(&memory(), &[1, 2, 16]).unwrap_err();
        assert!(matches!(error, MapRingError::NotMemory { index: 2, pfn: 16 }));
        let error = RingArea::map(&memory(), &[1]).unwrap_err();
        assert!(matches!(error, MapRingError::TooShort { pages: 1 }));
    }

    #[test]
    fn mappings_are_taken_from_a_budget_and_given_back() {
        static BUDGET: Budget = Budget::new(9);
        let memory = memory();
        let scattered = Doubled::map(&memory, &PFNS, &BUDGET).unwrap();
        assert_eq!(BUDGET.left.load(Ordering::Relaxed), 1);
        // Three pages in a row are one mapping, twice; that is one more than is left.
        assert!(Doubled::map(&memory, &[1, 2, 3], &BUDGET).is_none());
        drop(scattered);
        let row = Doubled::map(&memory, &[1, 2, 3], &BUDGET).unwrap();
        assert_eq!(BUDGET.left.load(Ordering::Relaxed), 7);
        drop(row);
        assert_eq!(BUDGET.left.load(Ordering::Relaxed), 9);
    }
}
