// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is written to a disk that keeps nothing: clusters in a file without a name, over an image
//! that is only read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{PoisonError, RwLock};

/// Bytes that are copied when the first of them is written.
const CLUSTER: u64 = 64 << 10;

#[derive(Debug)]
pub(crate) struct Scratch {
    file: File,
    capacity: u64,
    /// A bit for each cluster that is in the file.
    present: RwLock<Vec<u64>>,
}

fn is_present(present: &[u64], cluster: u64) -> bool {
    let word = usize::try_from(cluster / 64).ok().and_then(|word| present.get(word));
    word.is_some_and(|word| word >> (cluster % 64) & 1 == 1)
}

impl Scratch {
    pub(crate) fn new(capacity: u64) -> io::Result<Self> {
        let file = tempfile::tempfile()?;
        file.set_len(capacity)?;
        let words = capacity.div_ceil(CLUSTER * 64) as usize;
        Ok(Self { file, capacity, present: RwLock::new(vec![0; words]) })
    }

    /// Reads `data`, what is not here by `below`.
    pub(crate) fn read(
        &self,
        offset: u64,
        data: &mut [u8],
        below: impl Fn(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let len = rest.len().min((CLUSTER - at % CLUSTER) as usize);
            let (piece, after) = rest.split_at_mut(len);
            let present = self.present.read().unwrap_or_else(PoisonError::into_inner);
            if is_present(&present, at / CLUSTER) {
                self.file.read_exact_at(piece, at)?;
            } else {
                below(at, piece)?;
            }
            rest = after;
            at += len as u64;
        }
        Ok(())
    }

    /// Writes `data`; what surrounds it in its clusters comes by `below`.
    pub(crate) fn write(
        &self,
        offset: u64,
        data: &[u8],
        below: impl Fn(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = offset + data.len() as u64;
        for cluster in offset / CLUSTER..end.div_ceil(CLUSTER) {
            let present = self.present.read().unwrap_or_else(PoisonError::into_inner);
            if is_present(&present, cluster) {
                continue;
            }
            drop(present);
            // Nobody else may bring the same cluster here, and write to it, meanwhile.
            let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
            if is_present(&present, cluster) {
                continue;
            }
            let at = cluster * CLUSTER;
            let mut bytes = vec![0; CLUSTER.min(self.capacity - at) as usize];
            below(at, &mut bytes)?;
            self.file.write_all_at(&bytes, at)?;
            if let Some(word) = present.get_mut((cluster / 64) as usize) {
                *word |= 1 << (cluster % 64);
            }
        }
        self.file.write_all_at(data, offset)
    }
}
