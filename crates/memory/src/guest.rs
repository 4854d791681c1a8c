// SPDX-License-Identifier: MIT OR Apache-2.0

//! A guest's RAM: one memfd, one mapping for each region of guest addresses.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;

use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, MmapRegion, VolatileSlice,
};

use crate::PAGE_SIZE;

/// A contiguous piece of guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first guest physical address; a multiple of the page size.
    pub start: GuestAddress,
    /// Bytes; a non-zero multiple of the page size.
    pub len: usize,
}

/// Guest RAM could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// A region that no guest can have.
    #[error("RAM of {len} B at {start:#x} is not made of whole 4 KiB pages")]
    NotPages {
        /// First address.
        start: u64,
        /// Bytes.
        len: usize,
    },
    /// The kernel gave no memfd, or not of that size.
    #[error("no memory file of {len} B")]
    File {
        /// Bytes of all regions.
        len: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// The kernel did not map a region.
    #[error("guest RAM of {len} B at {start:#x} cannot be mapped")]
    Map {
        /// First address.
        start: u64,
        /// Bytes.
        len: usize,
        /// vm-memory's reason.
        source: vm_memory::mmap::MmapRegionError,
    },
    /// Two regions overlap, or one lies beyond the end of the address space.
    #[error("the regions of guest RAM do not fit together")]
    Layout(#[source] vm_memory::GuestRegionCollectionError),
}

/// The RAM of one guest; a cheap handle that keeps the mapping alive.
///
/// Reached through vm-memory's traits: this derefs to a [`GuestMemoryMmap`].
#[derive(Clone, Debug)]
pub struct GuestMemory {
    inner: Arc<GuestMemoryMmap>,
    file: Arc<File>,
}

impl GuestMemory {
    /// Makes RAM of zeroes for `regions`, which must be page-aligned and must not overlap.
    pub fn allocate(regions: &[Region]) -> Result<Self, AllocateError> {
        for &Region { start, len } in regions {
            if len == 0 || len % PAGE_SIZE != 0 || start.0 % PAGE_SIZE as u64 != 0 {
                return Err(AllocateError::NotPages { start: start.0, len });
            }
        }
        let total = regions.iter().map(|region| region.len as u64).sum();
        let file = memory_file(total)
            .map(Arc::new)
            .map_err(|source| AllocateError::File { len: total, source })?;

        let mut mapped = Vec::with_capacity(regions.len());
        let mut offset = 0;
        for region in regions {
            mapped.push(map_region(region, &file, offset)?);
            offset += region.len as u64;
        }
        let inner = GuestMemoryMmap::from_regions(mapped).map_err(AllocateError::Layout)?;
        Ok(Self { inner: Arc::new(inner), file })
    }

    /// The memfd that all of the RAM is in.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where in [`file`](Self::file) the page with frame number `pfn` lies; `None` if it is no RAM.
    pub fn page_offset(&self, pfn: u64) -> Option<u64> {
        let address = GuestAddress(pfn.checked_mul(PAGE_SIZE as u64)?);
        let region = self.inner.find_region(address)?;
        let within = address.0 - region.start_addr().0;
        Some(region.file_offset()?.start() + within)
    }

    /// Where in [`file`](Self::file) `count` pages from frame number `pfn` on lie; `None` if they are not
    /// all RAM in a row.
    pub fn pages_offset(&self, pfn: u64, count: u64) -> Option<u64> {
        let offset = self.page_offset(pfn)?;
        let more = count.checked_sub(1)?;
        let last = self.page_offset(pfn.checked_add(more)?)?;
        (last == offset.checked_add(more.checked_mul(PAGE_SIZE as u64)?)?).then_some(offset)
    }

    /// Takes `len` bytes at `offset` in [`file`](Self::file) from the host: they read as zero from now on, and
    /// take no memory until somebody writes there.
    #[expect(unsafe_code, reason = "fallocate has no wrapper in our dependencies")]
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let number = |value| i64::try_from(value).map_err(io::Error::other);
        let (offset, len) = (number(offset)?, number(len)?);
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: the file is ours, its size stays, and a mapping of it reads zeroes from the hole.
        match unsafe { libc::fallocate(self.file.as_raw_fd(), mode, offset, len) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The page with frame number `pfn`, whole; `None` if it is no RAM.
    pub fn page(&self, pfn: u64) -> Option<VolatileSlice<'_>> {
        let address = GuestAddress(pfn.checked_mul(PAGE_SIZE as u64)?);
        self.inner.get_slice(address, PAGE_SIZE).ok()
    }

    /// Whether `other` is a handle of the same RAM.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Bytes of RAM.
    pub fn size(&self) -> u64 {
        self.inner.iter().map(GuestMemoryRegion::len).sum()
    }
}

impl Deref for GuestMemory {
    type Target = GuestMemoryMmap;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

fn map_region(
    region: &Region,
    file: &Arc<File>,
    offset: u64,
) -> Result<GuestRegionMmap, AllocateError> {
    let &Region { start, len } = region;
    let mapping = MmapRegion::build(
        Some(FileOffset::from_arc(Arc::clone(file), offset)),
        len,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_NORESERVE,
    )
    .map_err(|source| AllocateError::Map { start: start.0, len, source })?;
    prefer_huge_pages(&mapping);
    GuestRegionMmap::new(mapping, start)
        .ok_or(AllocateError::Layout(vm_memory::GuestRegionCollectionError::UnsortedMemoryRegions))
}

/// Asks for huge pages, where the host gives them to shared memory on request
/// (`/sys/kernel/mm/transparent_hugepage/shmem_enabled` is `advise`): each spares the guest up to 512
/// exits for its first touch. That the host does not is no error.
#[expect(unsafe_code, reason = "madvise has no wrapper in our dependencies")]
fn prefer_huge_pages(mapping: &MmapRegion) {
    // SAFETY: the range is a mapping of ours, and the advice changes none of its contents.
    unsafe { libc::madvise(mapping.as_ptr().cast(), mapping.size(), libc::MADV_HUGEPAGE) };
}

/// A memfd of `len` bytes whose size can no longer change: no mapping of it can ever fault because
/// somebody cut it short.
#[expect(unsafe_code, reason = "memfd_create and fcntl have no wrapper in our dependencies")]
fn memory_file(len: u64) -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string that lives for the program; the result is checked.
    let fd = unsafe { libc::memfd_create(c"guest-ram".as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len)?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: F_ADD_SEALS takes an integer and touches no memory of ours.
    if unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, seals) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    const MIB: usize = 1 << 20;

    fn two_regions() -> GuestMemory {
        GuestMemory::allocate(&[
            Region { start: GuestAddress(0), len: 2 * MIB },
            Region { start: GuestAddress(1 << 32), len: MIB },
        ])
        .unwrap()
    }

    #[test]
    fn regions_are_one_file() {
        let memory = two_regions();
        assert_eq!(memory.size(), 3 * MIB as u64);
        assert_eq!(memory.page_offset(3), Some(3 * 4096));
        assert_eq!(memory.page_offset((1 << 20) + 1), Some(2 * MIB as u64 + 4096));
        assert_eq!(memory.file().metadata().unwrap().len(), 3 * MIB as u64);
    }

    #[test]
    fn what_is_no_ram_has_no_page() {
        let memory = two_regions();
        for pfn in [512, (1 << 20) + 256, u64::MAX, u64::MAX >> 12] {
            assert_eq!(memory.page_offset(pfn), None);
            assert!(memory.page(pfn).is_none());
        }
    }

    #[test]
    fn pages_in_a_row_are_all_ram() {
        let memory = two_regions();
        assert_eq!(memory.pages_offset(1, 511), Some(4096));
        assert_eq!(memory.pages_offset(1 << 20, 256), Some(2 * MIB as u64));
        for (pfn, count) in [(1, 512), (1, 0), (1, u64::MAX), (511, 2), ((1 << 20) - 1, 2)] {
            assert_eq!(memory.pages_offset(pfn, count), None, "{pfn} {count}");
        }
    }

    #[test]
    fn what_is_discarded_is_zero() {
        let memory = two_regions();
        memory.write_slice(&[7; 3 * 4096], GuestAddress(1 << 32)).unwrap();
        let offset = memory.pages_offset((1 << 20) + 1, 1).unwrap();
        memory.discard(offset, 4096).unwrap();
        let read =
            |page: u64| memory.read_obj::<u8>(GuestAddress((1 << 32) + page * 4096)).unwrap();
        assert_eq!([read(0), read(1), read(2)], [7, 0, 7]);
    }

    #[test]
    fn the_file_shows_what_the_guest_writes() {
        use std::os::unix::fs::FileExt;
        let memory = two_regions();
        memory.write_slice(b"ring", GuestAddress((1 << 32) + 8)).unwrap();
        let mut bytes = [0; 4];
        memory.file().read_exact_at(&mut bytes, 2 * MIB as u64 + 8).unwrap();
        assert_eq!(&bytes, b"ring");
    }

    #[test]
    fn odd_sizes_are_refused() {
        let region = Region { start: GuestAddress(0), len: 4097 };
        assert!(matches!(
            GuestMemory::allocate(&[region]),
            Err(AllocateError::NotPages { len: 4097, .. })
        ));
    }
}
