// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads past the page cache, so many of them at any time, all over the disk: neighbours would be merged.
//!
//! One thread and one io_uring, so that a depth is the disk's and not the scheduler's.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;

use busway_guest_agent::scramble;
use io_uring::{IoUring, opcode, types::Fd};

use crate::file::{Buffer, Options};
use crate::words::Words;

pub(crate) fn run(path: &str, mut words: Words) -> Result<(), String> {
    let depth = words.number("depth", 1)?;
    let count = words.number("count", 1000)?;
    let block = words.number("block", 4096)?;
    words.end()?;
    let depth = u32::try_from(depth).ok().filter(|depth| (1..=1024).contains(depth));
    let depth = depth.ok_or("depth is from 1 to 1024")?;
    let block = u32::try_from(block).ok().filter(|block| *block > 0);
    let block = block.ok_or("block is too large")?;
    let file = Options { direct: true, skew: 0 }.open(path, false, false)?;
    let load = Load { depth, count, block };
    load.read(file).map_err(|error| format!("{path}: {error}"))
}

struct Load {
    depth: u32,
    count: u64,
    block: u32,
}

impl Load {
    #[expect(unsafe_code, reason = "an entry leads the kernel to memory")]
    fn read(&self, mut file: File) -> io::Result<()> {
        let blocks = file.seek(SeekFrom::End(0))? / u64::from(self.block);
        if blocks == 0 {
            return Err(io::Error::other("shorter than a block"));
        }
        let buffers = (0..self.depth).map(|_| Buffer::new(self.block as usize, 0));
        let buffers = buffers.collect::<Vec<_>>().leak();
        let mut free: Vec<_> = (0..buffers.len()).collect();
        let mut ring = IoUring::new(self.depth)?;
        let (mut sent, mut done) = (0, 0);
        while done < self.count {
            while sent < self.count
                && let Some(slot) = free.pop()
            {
                let offset = scramble(sent) % blocks * u64::from(self.block);
                let base = buffers[slot].bytes().as_mut_ptr();
                let entry = opcode::Read::new(Fd(file.as_raw_fd()), base, self.block);
                let entry = entry.offset(offset).build().user_data(slot as u64);
                // SAFETY: the buffer is as long as the entry says and is never freed, however a read
                // ends; while the kernel has it, its slot is not free.
                unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
                sent += 1;
            }
            ring.submit_and_wait(1)?;
            for entry in ring.completion() {
                let result = entry.result();
                if result < 0 {
                    return Err(io::Error::from_raw_os_error(-result));
                }
                if result.cast_unsigned() != self.block {
                    return Err(io::Error::other(format!("{result} B were read")));
                }
                free.push(entry.user_data() as usize);
                done += 1;
            }
        }
        Ok(())
    }
}
