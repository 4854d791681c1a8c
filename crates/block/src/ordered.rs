// SPDX-License-Identifier: MIT OR Apache-2.0

//! A file of the library's in which no table is referred to before it counts as used.
//!
//! imago 0.2 (`qcow2/mappings.rs`, `ensure_l2`) writes an entry of a qcow2's first table (L1) at once, and
//! keeps the reference count of the cluster that it leads to until the image is flushed. A process that
//! is killed in between leaves an image that refers to a cluster which is said to be free, and whoever
//! writes to it next gives that cluster away. So those entries wait here for the flush, which writes them
//! behind all else. What they lead to was not flushed either, so the guest does not count on it.
//!
//! The interface has unsafe functions, as whoever reads and writes past the library's own locks must keep
//! the order; what is here passes the calls on, and is called by the library alone.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use imago::Storage;
use imago::file::File;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::drivers::CommonStorageHelper;
use imago::storage::{PreallocateMode, StorageOpenOptions};

/// Where a qcow2's header says how long its first table is, in entries, and where it stands.
///
/// Source: QEMU `docs/interop/qcow2.rst`, header.
const POINTER: Range<u64> = 36..48;

const ENTRY_LEN: u64 = 8;

/// A file that the library reads and writes.
#[derive(Debug)]
pub(crate) struct OrderedFile {
    file: File,
    /// The same, past the library.
    bare: fs::File,
    first_table: Mutex<FirstTable>,
}

/// The first table of the qcow2 in the file, if there is one that is written.
#[derive(Debug, Default)]
struct FirstTable {
    place: Range<u64>,
    /// Entries by their place that are not in the file yet.
    waiting: BTreeMap<u64, [u8; ENTRY_LEN as usize]>,
}

impl OrderedFile {
    /// A file of the library's. `is_ordered` says that it is a qcow2 which is written, or becomes one.
    pub(crate) fn new(
        file: fs::File,
        path: &Path,
        writes: bool,
        is_ordered: bool,
    ) -> io::Result<Self> {
        let bare = file.try_clone()?;
        let options = StorageOpenOptions::new().filename(path).write(writes);
        let file = File::from_open_file(file, options)?;
        let ordered = Self { file, bare, first_table: Mutex::default() };
        if is_ordered {
            ordered.find_first_table()?;
        }
        Ok(ordered)
    }

    fn first_table(&self) -> MutexGuard<'_, FirstTable> {
        self.first_table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks up where the table stands, which entries that wait for another place are not of.
    fn find_first_table(&self) -> io::Result<()> {
        let mut pointer = [0; (POINTER.end - POINTER.start) as usize];
        match self.bare.read_exact_at(&mut pointer, POINTER.start) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            result => result?,
        }
        let [a, b, c, d, start @ ..] = pointer;
        let (entries, start) = (u32::from_be_bytes([a, b, c, d]), u64::from_be_bytes(start));
        let place = start..start.saturating_add(u64::from(entries) * ENTRY_LEN);
        let mut table = self.first_table();
        if table.place != place {
            *table = FirstTable { place, waiting: BTreeMap::new() };
        }
        Ok(())
    }

    /// Keeps entries of the table; false if these are none.
    fn keep(&self, data: &IoVector<'_>, offset: u64) -> bool {
        let mut table = self.first_table();
        let end = offset.saturating_add(data.len());
        let is_within = table.place.start <= offset && end <= table.place.end;
        if !is_within || !offset.is_multiple_of(ENTRY_LEN) || data.len() != ENTRY_LEN {
            return false;
        }
        let mut entry = [0; ENTRY_LEN as usize];
        data.copy_into_slice(&mut entry);
        table.waiting.insert(offset, entry);
        true
    }

    /// Writes the entries that wait.
    fn write_waiting(&self) -> io::Result<()> {
        let mut table = self.first_table();
        while let Some(entry) = table.waiting.first_entry() {
            self.bare.write_all_at(entry.get(), *entry.key())?;
            entry.remove();
        }
        Ok(())
    }
}

impl Display for OrderedFile {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

#[expect(unsafe_code, reason = "the library's functions are passed on as they are")]
impl Storage for OrderedFile {
    fn mem_align(&self) -> usize {
        self.file.mem_align()
    }

    fn req_align(&self) -> usize {
        self.file.req_align()
    }

    fn zero_align(&self) -> usize {
        self.file.zero_align()
    }

    fn discard_align(&self) -> usize {
        self.file.discard_align()
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn resolve_relative_path<P: AsRef<Path>>(&self, relative: P) -> io::Result<PathBuf> {
        self.file.resolve_relative_path(relative)
    }

    fn get_filename(&self) -> Option<PathBuf> {
        self.file.get_filename()
    }

    unsafe fn pure_readv(&self, data: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        // SAFETY: the caller's promise is passed on. The library reads the table once, before it writes.
        unsafe { self.file.pure_readv(data, offset) }
    }

    unsafe fn pure_writev(&self, data: IoVector<'_>, offset: u64) -> io::Result<()> {
        if self.keep(&data, offset) {
            return Ok(());
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { self.file.pure_writev(data, offset) }?;
        if offset < POINTER.end { self.find_first_table() } else { Ok(()) }
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.file.pure_write_zeroes(offset, length) }
    }

    unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.file.pure_write_allocated_zeroes(offset, length) }
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.file.pure_discard(offset, length) }
    }

    /// The last that the library does of a flush of its own.
    fn flush(&self) -> io::Result<()> {
        self.file.flush()?;
        self.write_waiting()
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn settle_writes(&self) -> io::Result<()> {
        self.file.settle_writes()
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.file.invalidate_cache() }
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        self.file.get_storage_helper()
    }

    fn resize(&self, new_size: u64, prealloc_mode: PreallocateMode) -> io::Result<()> {
        self.file.resize(new_size, prealloc_mode)
    }
}
