// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images that are more than a file of the disk's bytes: which layers there are, and requests on
//! them, done at once, by way of a buffer of our own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{PoisonError, RwLock};

use busway_memory::GuestSlices;
use imago::FormatAccess;

use crate::ordered::OrderedFile;
use crate::scratch::Scratch;
use crate::vhd::{self, invalid};
use crate::vhdx::Vhdx;
use crate::{IoError, Operation};

/// Bytes that go through a buffer at once.
const BUFFER_LEN: usize = 1 << 20;

/// The library's image on a file of its own.
pub(crate) type Library = FormatAccess<OrderedFile>;

/// What holds a disk's bytes, and how.
#[derive(Debug)]
pub(crate) enum Contents {
    /// The first `1` bytes of the file.
    Plain(File, u64),
    /// In blocks of a VHD.
    Vhd(File, vhd::Dynamic),
    /// In blocks of a VHDX.
    Vhdx(File, Vhdx),
    /// However the library says: discarding and flushing are for one at a time there.
    Library(Box<RwLock<Library>>),
    /// What was written, over what is only read.
    Temporary(Scratch, Box<Contents>),
}

impl Contents {
    /// Bytes of the disk.
    pub(crate) fn capacity(&self) -> u64 {
        match self {
            Self::Plain(_, capacity) => *capacity,
            Self::Vhd(_, vhd) => vhd.capacity,
            Self::Vhdx(_, vhdx) => vhdx.capacity,
            Self::Library(library) => library.read().unwrap_or_else(PoisonError::into_inner).size(),
            Self::Temporary(_, below) => below.capacity(),
        }
    }

    /// Makes writes durable.
    pub(crate) fn flush(&self) -> io::Result<()> {
        match self {
            Self::Library(library) => {
                // What another thread has just begun must not be half in what is flushed.
                library.write().unwrap_or_else(PoisonError::into_inner).flush()?;
                library.read().unwrap_or_else(PoisonError::into_inner).sync()
            }
            // What is thrown away need not survive anything; the others are only read.
            Self::Plain(..) | Self::Vhd(..) | Self::Vhdx(..) | Self::Temporary(..) => Ok(()),
        }
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Plain(file, _) => file.read_exact_at(data, offset),
            Self::Vhd(file, vhd) => vhd.read(file, offset, data),
            Self::Vhdx(file, vhdx) => vhdx.read(file, offset, data),
            Self::Library(library) => {
                library.read().unwrap_or_else(PoisonError::into_inner).read(data, offset)
            }
            Self::Temporary(scratch, below) => {
                scratch.read(offset, data, |offset, data| below.read(offset, data))
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Library(library) => {
                library.read().unwrap_or_else(PoisonError::into_inner).write(data, offset)
            }
            Self::Temporary(scratch, below) => {
                scratch.write(offset, data, |offset, data| below.read(offset, data))
            }
            Self::Plain(..) | Self::Vhd(..) | Self::Vhdx(..) => {
                Err(io::Error::from_raw_os_error(libc::EROFS))
            }
        }
    }

    fn zero(&self, offset: u64, len: u64, gives_up: bool) -> io::Result<()> {
        if let Self::Library(library) = self {
            let result = if gives_up {
                let mut library = library.write().unwrap_or_else(PoisonError::into_inner);
                library.discard_to_zero(offset, len)
            } else {
                let library = library.read().unwrap_or_else(PoisonError::into_inner);
                library.write_zeroes(offset, len)
            };
            match result {
                // A qcow2 of version 2 has no mark for zeroes.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                result => return result,
            }
        }
        self.fill(offset, len, &vec![0; BUFFER_LEN.min(len as usize)])
    }

    fn fill(&self, offset: u64, len: u64, pattern: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(pattern.len() as u64);
            self.write(offset + done, pattern.get(..piece as usize).unwrap_or(pattern))?;
            done += piece;
        }
        Ok(())
    }

    /// Does a request that was checked against the disk.
    pub(crate) fn perform(
        &self,
        operation: Operation,
        offset: u64,
        data: &GuestSlices,
    ) -> Result<(), IoError> {
        let result = match operation {
            Operation::Read => self.transfer(data, |done, piece| {
                self.read(offset + done as u64, piece)?;
                data.write_at(done, piece);
                Ok(())
            }),
            Operation::Write { durable } => self
                .transfer(data, |done, piece| {
                    data.read_at(done, piece);
                    self.write(offset + done as u64, piece)
                })
                .and_then(|()| if durable { self.flush() } else { Ok(()) }),
            Operation::Flush => self.flush(),
            Operation::Discard { len } => self.zero(offset, len, true),
            Operation::WriteZeroes { len } => self.zero(offset, len, false),
            Operation::WriteSame { len } => {
                let mut block = vec![0; data.len()];
                data.read_at(0, &mut block);
                let times = (BUFFER_LEN / block.len().max(1)).max(1);
                self.fill(offset, len, &block.repeat(times))
            }
        };
        result.map_err(|error| match error.raw_os_error() {
            Some(errno) => IoError::from_errno(errno),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                IoError::Truncated { at: offset }
            }
            None => {
                log::warn!("an image failed: {error}");
                IoError::Failed { errno: libc::EIO }
            }
        })
    }

    fn transfer(
        &self,
        data: &GuestSlices,
        mut each: impl FnMut(usize, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; data.len().min(BUFFER_LEN)];
        let mut done = 0;
        while done < data.len() {
            let len = (data.len() - done).min(buffer.len());
            let piece = buffer.get_mut(..len).ok_or_else(|| invalid("no buffer"))?;
            each(done, piece)?;
            done += len;
        }
        Ok(())
    }
}
