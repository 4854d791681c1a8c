// SPDX-License-Identifier: MIT OR Apache-2.0

//! VHD: Hyper-V's first format. Fixed images are a raw image with a footer; dynamic ones are read
//! here, and not written. Differencing ones are refused.
//!
//! Source: Microsoft's "Virtual Hard Disk Image Format Specification" of 2006. All numbers are
//! big-endian.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::format::VHD_FOOTER;

const SECTOR: u64 = 512;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const UNUSED: u32 = u32::MAX;

/// Most blocks of an image: 2 TiB, the format's own limit, in its usual blocks of 2 MiB.
const MAX_BLOCKS: u32 = 1 << 20;

/// Bytes of a block, from the smallest that is of use to far beyond the usual one.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 4096..=256 << 20;

/// What the footer says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Vhd {
    /// The disk's bytes are the first of the file, as many.
    Fixed(u64),
    /// They are in blocks.
    Dynamic(Dynamic),
}

/// A dynamic image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dynamic {
    /// Bytes of the disk.
    pub(crate) capacity: u64,
    block: u64,
    /// The first sector of each block, its bitmap.
    table: Vec<u32>,
}

pub(crate) fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    u32::from_be_bytes(bytes.unwrap_or_default())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

/// The complement of the sum of all bytes but the checksum's own four at `at`.
fn is_sound(bytes: &[u8], at: usize) -> bool {
    let own = bytes.get(at..at + 4).unwrap_or_default();
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    u32_at(bytes, at) == !(sum(bytes) - sum(own))
}

/// Reads what there is to know of the image in `file`, of `len` bytes.
pub(crate) fn open(file: &File, len: u64) -> io::Result<Vhd> {
    let mut footer = [0; VHD_FOOTER as usize];
    let end = len.checked_sub(VHD_FOOTER).ok_or_else(|| invalid("it is shorter than a footer"))?;
    file.read_exact_at(&mut footer, end)?;
    if !footer.starts_with(b"conectix") || !is_sound(&footer, 64) {
        return Err(invalid("its footer is damaged"));
    }
    let capacity = u64_at(&footer, 48);
    match u32_at(&footer, 60) {
        FIXED if capacity <= end => Ok(Vhd::Fixed(capacity)),
        FIXED => Err(invalid(format!("it is shorter than its disk of {capacity} B"))),
        DYNAMIC => dynamic(file, capacity, u64_at(&footer, 16)).map(Vhd::Dynamic),
        4 => Err(invalid("it is a differencing VHD: merge it with its parent first")),
        other => Err(invalid(format!("it is a VHD of unknown type {other}"))),
    }
}

fn dynamic(file: &File, capacity: u64, header_at: u64) -> io::Result<Dynamic> {
    let mut header = [0; 1024];
    file.read_exact_at(&mut header, header_at)?;
    if !header.starts_with(b"cxsparse") || !is_sound(&header, 36) {
        return Err(invalid("its dynamic header is damaged"));
    }
    let (table_at, blocks, block) = (u64_at(&header, 16), u32_at(&header, 28), u32_at(&header, 32));
    let needed = capacity.div_ceil(u64::from(block).max(1));
    if !block.is_power_of_two()
        || !BLOCK_SIZES.contains(&block)
        || blocks > MAX_BLOCKS
        || needed > blocks.into()
    {
        return Err(invalid(format!("{blocks} blocks of {block} B make no disk of {capacity} B")));
    }
    let mut bytes = vec![0; blocks as usize * 4];
    file.read_exact_at(&mut bytes, table_at)?;
    let table = (0..blocks as usize).map(|index| u32_at(&bytes, index * 4)).collect();
    Ok(Dynamic { capacity, block: block.into(), table })
}

impl Dynamic {
    /// Reads `data` from byte `offset` of the disk on.
    pub(crate) fn read(&self, file: &File, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let into = at % self.block;
            let len = rest.len().min((self.block - into) as usize);
            let (piece, after) = rest.split_at_mut(len);
            let index = usize::try_from(at / self.block).ok();
            match index.and_then(|index| self.table.get(index)) {
                Some(&first) if first != UNUSED => self.read_block(file, first, into, piece)?,
                _ => piece.fill(0),
            }
            rest = after;
            at += len as u64;
        }
        Ok(())
    }

    /// Reads within the block whose bitmap begins at sector `first`: a sector whose bit is not set
    /// is zeroes.
    fn read_block(&self, file: &File, first: u32, into: u64, data: &mut [u8]) -> io::Result<()> {
        let bitmap_at = u64::from(first) * SECTOR;
        let bitmap_len = (self.block / SECTOR / 8).next_multiple_of(SECTOR);
        let (from, to) = (into / SECTOR, (into + data.len() as u64).div_ceil(SECTOR));
        let mut bits = vec![0; (to.div_ceil(8) - from / 8) as usize];
        file.read_exact_at(&mut bits, bitmap_at + from / 8)?;
        let is_set = |sector: u64| {
            let byte = bits.get((sector / 8 - from / 8) as usize).copied().unwrap_or(0);
            byte & (0x80 >> (sector % 8)) != 0
        };
        let (mut sector, mut rest) = (from, data);
        let mut at = into;
        while sector < to {
            let set = is_set(sector);
            let end = (sector..to).find(|next| is_set(*next) != set).unwrap_or(to);
            let len = rest.len().min((end * SECTOR - at) as usize);
            let (piece, after) = rest.split_at_mut(len);
            if set {
                file.read_exact_at(piece, bitmap_at + bitmap_len + at)?;
            } else {
                piece.fill(0);
            }
            (sector, rest) = (end, after);
            at += len as u64;
        }
        Ok(())
    }
}
