// SPDX-License-Identifier: MIT OR Apache-2.0

//! A disk in the host's memory, for tests and benches: it takes no time but the copy's.

use std::sync::{PoisonError, RwLock};

use busway_memory::GuestSlices;

use crate::disk::{Disk, Identity, Image, Inner};
use crate::open::{DiskOptions, OpenError, check_options};
use crate::rate::Rate;
use crate::{IoError, Operation};

/// Bytes, shared by all queues.
#[derive(Debug)]
pub(crate) struct Ram {
    bytes: RwLock<Vec<u8>>,
}

impl Disk {
    /// A disk of `capacity` zeroes in memory.
    pub fn ram(capacity: u64, options: &DiskOptions) -> Result<Self, OpenError> {
        let name = format!("RAM disk of {capacity} B");
        check_options(&name, capacity, options)?;
        let mut bytes = vec![0; usize::try_from(capacity).unwrap_or(usize::MAX)];
        // Pages that nobody has written are all the same one of the host's, which stays in a cache.
        std::hint::black_box(&mut bytes).fill(0);
        Ok(Self::new(Inner {
            rate: Rate::new(options.rate),
            image: Image::Ram(Ram { bytes: RwLock::new(bytes) }),
            capacity: capacity.into(),
            grows: true,
            discards: !options.read_only,
            identity: Identity::new(options, name.as_bytes()),
            options: options.clone(),
            name,
        }))
    }
}

impl Ram {
    /// Makes it longer, by zeroes.
    pub(crate) fn grow(&self, len: u64) {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        bytes.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
    }

    /// Does a request that has been checked against the disk.
    pub(crate) fn perform(
        &self,
        operation: Operation,
        offset: u64,
        data: &GuestSlices,
    ) -> Result<(), IoError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        match operation {
            Operation::Read => {
                let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
                data.write(piece(&bytes, start, data.len() as u64)?);
            }
            Operation::Write { .. } => {
                let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
                data.read_at(0, piece_mut(&mut bytes, start, data.len() as u64)?);
            }
            Operation::Flush => {}
            Operation::Discard { len } | Operation::WriteZeroes { len } => {
                let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
                piece_mut(&mut bytes, start, len)?.fill(0);
            }
            Operation::WriteSame { len } => {
                let mut block = vec![0; data.len()];
                data.read_at(0, &mut block);
                let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
                for to in piece_mut(&mut bytes, start, len)?.chunks_exact_mut(block.len().max(1)) {
                    to.copy_from_slice(&block);
                }
            }
        }
        Ok(())
    }
}

fn piece(bytes: &[u8], start: usize, len: u64) -> Result<&[u8], IoError> {
    let short = IoError::Truncated { at: bytes.len() as u64 };
    bytes.get(start..).and_then(|rest| rest.get(..len as usize)).ok_or(short)
}

fn piece_mut(bytes: &mut [u8], start: usize, len: u64) -> Result<&mut [u8], IoError> {
    let short = IoError::Truncated { at: bytes.len() as u64 };
    bytes.get_mut(start..).and_then(|rest| rest.get_mut(..len as usize)).ok_or(short)
}
