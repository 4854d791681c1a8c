// SPDX-License-Identifier: MIT OR Apache-2.0

//! A disk with known files for guests to read: one partition with ext4, made without root.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::command;

/// Size of the whole disk, in bytes.
pub const SIZE: u64 = 64 << 20;

/// Path and contents of a text file on it.
pub const GREETING: (&str, &str) = ("greeting.txt", "This file lies on a VMBus disk.\n");

/// Path and length in bytes of a file of bytes that do not repeat; [`noise`] makes them.
pub const NOISE: (&str, usize) = ("deep/down/noise.bin", 5_000_001);

const SECTOR: u64 = 512;

/// Where partitioning programs put the first partition since disks have 4 KiB sectors.
const FIRST: u64 = 1 << 20;

/// Writes the disk at `path`, unless it is there.
pub fn build(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let files = path.with_extension("files");
    let unfinished = path.with_extension("part");
    for (name, contents) in
        [(GREETING.0, GREETING.1.as_bytes().to_vec()), (NOISE.0, noise(NOISE.1))]
    {
        let file = files.join(name);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(file, contents)?;
    }
    let disk = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&unfinished)
        .with_context(|| unfinished.display().to_string())?;
    disk.set_len(SIZE)?;
    disk.write_all_at(&partition_table(), 0)?;
    // Given a start, mke2fs formats from there on and must be told where to end, in KiB.
    let length = (SIZE - FIRST) >> 10;
    command::output(
        Command::new("/sbin/mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-L", "busway", "-d"])
            .arg(&files)
            .args(["-E", &format!("offset={FIRST}")])
            .arg(&unfinished)
            .arg(format!("{length}k")),
    )?;
    fs::remove_dir_all(&files)?;
    fs::rename(&unfinished, path)?;
    Ok(())
}

/// The same bytes each time, and no block of them twice: 64-bit xorshift, little-endian.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x6275_7377_6179_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A master boot record with one Linux partition: at 446 an entry of 16 bytes (status, CHS start, type, CHS
/// end, first sector and number of sectors), at 510 the mark. CHS is all ones, as for what LBA reaches alone.
fn partition_table() -> [u8; 512] {
    const LINUX: u8 = 0x83;
    let first = (FIRST / SECTOR) as u32;
    let count = ((SIZE - FIRST) / SECTOR) as u32;
    let mut record = [0; 512];
    let mut entry = vec![0x00, 0xfe, 0xff, 0xff, LINUX, 0xfe, 0xff, 0xff];
    entry.extend_from_slice(&first.to_le_bytes());
    entry.extend_from_slice(&count.to_le_bytes());
    record[446..462].copy_from_slice(&entry);
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_ends_with_the_disk() {
        let record = partition_table();
        let word = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().unwrap());
        assert_eq!(u64::from(word(454)), FIRST / SECTOR);
        assert_eq!((u64::from(word(454)) + u64::from(word(458))) * SECTOR, SIZE);
        assert_eq!((record[450], record[510], record[511]), (0x83, 0x55, 0xaa));
    }

    #[test]
    fn noise_is_reproducible_and_does_not_repeat() {
        let bytes = noise(64 << 10);
        assert_eq!(bytes, noise(64 << 10));
        let mut blocks: Vec<_> = bytes.chunks(512).collect();
        blocks.sort_unstable();
        blocks.dedup();
        assert_eq!(blocks.len(), 128);
        assert_eq!(noise(13).len(), 13);
    }
}
