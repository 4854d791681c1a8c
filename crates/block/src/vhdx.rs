// SPDX-License-Identifier: MIT OR Apache-2.0

//! VHDX: Hyper-V's format, read and not written. Images with a parent are refused, and those that
//! were not closed: their log would have to be replayed.
//!
//! Source: [MS-VHDX]. All numbers are little-endian.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::vhd::invalid;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Where the two headers are (section 2.2).
const HEADERS: [u64; 2] = [64 * KIB, 128 * KIB];
/// Where the two region tables are, and how long each is.
const REGIONS: [u64; 2] = [192 * KIB, 256 * KIB];
const TABLE_LEN: usize = 64 << 10;

/// Most bytes of a block table: a disk of 64 TiB, the format's limit, in blocks of 1 MiB.
const MAX_TABLE: u64 = 513 * MIB;

const BAT: u128 = guid(0x2dc2_7766_f623_4200_9d64_115e_9bfd_4a08);
const METADATA: u128 = guid(0x8b7c_a206_4790_4b9a_b8fe_575f_050f_886e);
const FILE_PARAMETERS: u128 = guid(0xcaa1_6737_fa36_4d43_b3b6_33f0_aa44_e76b);
const DISK_SIZE: u128 = guid(0x2fa5_4224_cd1b_4876_b211_5dbe_d83b_f4b8);
const LOGICAL_SECTOR: u128 = guid(0x8141_bf1d_a96f_4709_ba47_f233_a8fa_ab5f);

/// A GUID as its 16 bytes lie in the file, from the order in which it is written.
const fn guid(text: u128) -> u128 {
    let (a, b, c) = ((text >> 96) as u32, (text >> 80) as u16, (text >> 64) as u16);
    (a.swap_bytes() as u128) << 96
        | (b.swap_bytes() as u128) << 80
        | (c.swap_bytes() as u128) << 64
        | text as u64 as u128
}

/// An image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Vhdx {
    /// Bytes of the disk.
    pub(crate) capacity: u64,
    /// Bytes of the blocks that it was made for.
    pub(crate) logical_block: u32,
    block: u64,
    /// Where each block is; `None` for zeroes.
    table: Vec<Option<u64>>,
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = bytes.get(at..at + N).and_then(|bytes| bytes.try_into().ok());
    found.unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}

fn guid_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_be_bytes(bytes_at(bytes, at))
}

/// CRC-32C of `bytes` with the checksum's own four bytes at 4 as zeroes.
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for (at, byte) in bytes.iter().enumerate() {
        crc ^= if (4..8).contains(&at) { 0 } else { u32::from(*byte) };
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 0 { 0 } else { 0x82f6_3b78 };
        }
    }
    !crc
}

fn read_sound(file: &File, at: u64, len: usize, signature: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at)?;
    let sound = bytes.starts_with(signature) && u32_at(&bytes, 4) == checksum(&bytes);
    Ok(sound.then_some(bytes))
}

/// Reads what there is to know of the image in `file`.
pub(crate) fn open(file: &File) -> io::Result<Vhdx> {
    check_header(file)?;
    let (table_at, table_len) = region(file, BAT)?;
    let (metadata_at, _) = region(file, METADATA)?;
    let mut metadata = vec![0; TABLE_LEN];
    file.read_exact_at(&mut metadata, metadata_at)?;
    let item = |wanted, len| item(file, &metadata, metadata_at, wanted, len);
    let parameters = item(FILE_PARAMETERS, 8)?;
    let (block, flags) = (u32_at(&parameters, 0), u32_at(&parameters, 4));
    let capacity = u64_at(&item(DISK_SIZE, 8)?, 0);
    let logical_block = u32_at(&item(LOGICAL_SECTOR, 4)?, 0);
    if flags & 2 != 0 {
        return Err(invalid("it is a differencing VHDX: merge it with its parent first"));
    }
    let fits = block.is_power_of_two()
        && (1 << 20..=256 << 20).contains(&block)
        && matches!(logical_block, 512 | 4096)
        && capacity <= 64 << 40;
    if !fits {
        return Err(invalid(format!(
            "blocks of {block} B and sectors of {logical_block} B make no disk of {capacity} B"
        )));
    }
    let block = u64::from(block);
    // An entry for a bitmap of sectors follows those of as many blocks (section 2.5).
    let ratio = (u64::from(logical_block) << 23) / block;
    let blocks = capacity.div_ceil(block);
    let entries = blocks + blocks.saturating_sub(1) / ratio;
    if entries * 8 > table_len.min(MAX_TABLE) {
        return Err(invalid(format!("its table is too short for {blocks} blocks")));
    }
    let mut bytes = vec![0; entries as usize * 8];
    file.read_exact_at(&mut bytes, table_at)?;
    let place = |index: u64| place(u64_at(&bytes, (index + index / ratio) as usize * 8));
    let table = (0..blocks).map(place).collect::<io::Result<_>>()?;
    Ok(Vhdx { capacity, logical_block, block, table })
}

fn check_header(file: &File) -> io::Result<()> {
    let mut newest: Option<(u64, Vec<u8>)> = None;
    for at in HEADERS {
        if let Some(header) = read_sound(file, at, 4096, b"head")? {
            let sequence = u64_at(&header, 8);
            if newest.as_ref().is_none_or(|(other, _)| *other < sequence) {
                newest = Some((sequence, header));
            }
        }
    }
    let (_, header) = newest.ok_or_else(|| invalid("both of its headers are damaged"))?;
    if u16_at(&header, 66) != 1 {
        return Err(invalid(format!("it is a VHDX of version {}", u16_at(&header, 66))));
    }
    if guid_at(&header, 48) != 0 {
        return Err(invalid("it was not closed: `qemu-img check -r all` replays its log"));
    }
    Ok(())
}

/// Where the region `wanted` is, and its length.
fn region(file: &File, wanted: u128) -> io::Result<(u64, u64)> {
    for at in REGIONS {
        let Some(table) = read_sound(file, at, TABLE_LEN, b"regi")? else {
            continue;
        };
        let count = (u32_at(&table, 8) as usize).min(2047);
        let entry =
            (0..count).map(|index| 16 + index * 32).find(|at| guid_at(&table, *at) == wanted);
        if let Some(entry) = entry {
            return Ok((u64_at(&table, entry + 16), u32_at(&table, entry + 24).into()));
        }
    }
    Err(invalid("both of its region tables are damaged"))
}

/// The first `len` bytes of a metadata item.
fn item(file: &File, table: &[u8], base: u64, wanted: u128, len: usize) -> io::Result<Vec<u8>> {
    if !table.starts_with(b"metadata") {
        return Err(invalid("its metadata is damaged"));
    }
    let count = usize::from(u16_at(table, 10)).min(2047);
    let entry = (0..count).map(|index| 32 + index * 32).find(|at| guid_at(table, *at) == wanted);
    let entry = entry.ok_or_else(|| invalid("its metadata lacks an item"))?;
    let (at, room) = (u32_at(table, entry + 16), u32_at(table, entry + 20));
    if (room as usize) < len {
        return Err(invalid("an item of its metadata is too short"));
    }
    let mut bytes = vec![0; len];
    let at = base.checked_add(at.into()).ok_or_else(|| invalid("its metadata is damaged"))?;
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// Where a block is, by its entry: a state, and a number of MiB.
fn place(entry: u64) -> io::Result<Option<u64>> {
    match entry & 7 {
        6 => Ok(Some((entry >> 20) * MIB)),
        0..=3 => Ok(None),
        state => Err(invalid(format!("a block is in state {state}"))),
    }
}

impl Vhdx {
    /// Reads `data` from byte `offset` of the disk on.
    pub(crate) fn read(&self, file: &File, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let into = at % self.block;
            let len = rest.len().min((self.block - into) as usize);
            let (piece, after) = rest.split_at_mut(len);
            let index = usize::try_from(at / self.block).ok();
            match index.and_then(|index| self.table.get(index)) {
                Some(Some(place)) => file.read_exact_at(piece, place + into)?,
                _ => piece.fill(0),
            }
            rest = after;
            at += len as u64;
        }
        Ok(())
    }
}
