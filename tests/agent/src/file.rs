// SPDX-License-Identifier: MIT OR Apache-2.0

//! Blocks of noise written to a file or a disk, and compared with what is there.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use busway_guest_agent::Blocks;

use crate::words::Words;

/// `open(2)` on x86.
const O_DSYNC: i32 = 0o10_000;
const O_DIRECT: i32 = 0o40_000;

const PAGE: usize = 4096;

/// How a file is reached.
pub(crate) struct Options {
    /// Past the page cache.
    pub(crate) direct: bool,
    /// Where in a page the buffer begins, in bytes.
    pub(crate) skew: usize,
}

impl Options {
    pub(crate) fn from_words(words: &mut Words) -> Result<Self, String> {
        let skew = words.number("skew", 0)?;
        let skew = usize::try_from(skew).ok().filter(|skew| *skew < PAGE);
        Ok(Self { direct: words.has("direct"), skew: skew.ok_or("skew is below a page")? })
    }

    pub(crate) fn open(&self, path: &str, write: bool, dsync: bool) -> Result<File, String> {
        let mut flags = 0;
        if self.direct {
            flags |= O_DIRECT;
        }
        if dsync {
            flags |= O_DSYNC;
        }
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(write).custom_flags(flags).open(path);
        opened.map_err(|error| format!("{path}: {error}"))
    }
}

/// A buffer that begins where in a page one wants.
pub(crate) struct Buffer {
    memory: Vec<u8>,
    from: usize,
    length: usize,
}

impl Buffer {
    pub(crate) fn new(length: usize, skew: usize) -> Self {
        let memory = vec![0; length + 2 * PAGE];
        let from = memory.as_ptr().align_offset(PAGE) + skew;
        Self { memory, from, length }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.from + self.length]
    }
}

/// Writes them all. With `sync` each or dsync, a line of what it `says` and the block's number follows each
/// that is safe.
pub(crate) fn write(
    path: &str,
    blocks: &Blocks,
    options: &Options,
    sync: &str,
    says: &str,
) -> Result<(), String> {
    let file = options.open(path, true, sync == "dsync")?;
    let mut buffer = Buffer::new(blocks.block, options.skew);
    let failed = |number: u64, error| format!("{path}: block {number}: {error}");
    for number in 0..blocks.count {
        buffer.bytes().copy_from_slice(&blocks.contents(number));
        let written = file.write_all_at(buffer.bytes(), blocks.offset(number));
        written.map_err(|error| failed(number, error))?;
        match sync {
            "each" => file.sync_data().map_err(|error| failed(number, error))?,
            "dsync" => {}
            _ => continue,
        }
        println!("{says}={number}");
    }
    file.sync_all().map_err(|error| failed(blocks.count, error))
}

/// Reads them all and compares.
pub(crate) fn check(path: &str, blocks: &Blocks, options: &Options) -> Result<(), String> {
    let file = options.open(path, false, false)?;
    let mut buffer = Buffer::new(blocks.block, options.skew);
    for number in 0..blocks.count {
        buffer.bytes().fill(0xa5);
        let read = file.read_exact_at(buffer.bytes(), blocks.offset(number));
        read.map_err(|error| format!("{path}: block {number}: {error}"))?;
        same(buffer.bytes(), &blocks.contents(number))
            .map_err(|reason| format!("{path}: block {number}: {reason}"))?;
    }
    Ok(())
}

/// Says where the first difference is.
pub(crate) fn same(found: &[u8], wanted: &[u8]) -> Result<(), String> {
    let different = found.iter().zip(wanted).filter(|(found, wanted)| found != wanted).count();
    match found.iter().zip(wanted).position(|(found, wanted)| found != wanted) {
        Some(at) => Err(format!("{different} bytes differ, the first at {at}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_begins_where_it_should() {
        for skew in [0, 512, 3584] {
            let mut buffer = Buffer::new(132 << 10, skew);
            assert_eq!(buffer.bytes().as_ptr() as usize % PAGE, skew);
            assert_eq!(buffer.bytes().len(), 132 << 10);
        }
    }

    #[test]
    fn what_was_written_is_found_and_damage_is_seen() {
        let path = std::env::temp_dir().join(format!("busway-agent-{}", std::process::id()));
        File::create(&path).unwrap();
        let name = path.to_str().unwrap();
        let blocks = Blocks { seed: 3, block: 1000, count: 4, start: 500, stride: 1500 };
        let options = Options { direct: false, skew: 8 };
        write(name, &blocks, &options, "end", "").unwrap();
        check(name, &blocks, &options).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[500 + 2 * 1500 + 7] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let reason = check(name, &blocks, &options).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert!(reason.contains("block 2: 1 bytes differ, the first at 7"), "{reason}");
    }
}
