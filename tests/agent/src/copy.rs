// SPDX-License-Identifier: MIT OR Apache-2.0

//! Copies a disk to standard output, read past the page cache.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use crate::file::{Buffer, Options};
use crate::words::Words;

pub(crate) fn run(path: &str, mut words: Words) -> Result<(), String> {
    let block = words.number("block", 64 << 10)?;
    let count = words.number("count", u64::MAX)?;
    words.end()?;
    let block = usize::try_from(block).ok().filter(|block| *block > 0);
    let block = block.ok_or("block is not 0")?;
    let file = Options { direct: true, skew: 0 }.open(path, false, false)?;
    copy(&file, block, count, &mut io::stdout()).map_err(|error| format!("{path}: {error}"))
}

/// One read for each block, to the end or `count` blocks.
fn copy(file: &File, block: usize, count: u64, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = Buffer::new(block, 0);
    let mut offset = 0;
    for _ in 0..count {
        let length = file.read_at(buffer.bytes(), offset)?;
        if length == 0 {
            break;
        }
        to.write_all(&buffer.bytes()[..length])?;
        offset += length as u64;
    }
    to.flush()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use busway_guest_agent::noise;

    use super::*;

    #[test]
    fn so_many_blocks_come_or_all() {
        let path = std::env::temp_dir().join(format!("busway-agent-copy-{}", std::process::id()));
        let bytes = noise(1, 2500);
        fs::write(&path, &bytes).unwrap();
        let file = File::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        for (count, length) in [(0, 0), (2, 2000), (u64::MAX, 2500)] {
            let mut copied = Vec::new();
            copy(&file, 1000, count, &mut copied).unwrap();
            assert_eq!(copied, bytes[..length]);
        }
    }
}
