// SPDX-License-Identifier: MIT OR Apache-2.0

//! A disk's controller reset while writes to it are under way.
//!
//! One thread sends the writes and asks for the reset, so no request is just being sent meanwhile. That
//! is what Linux's driver cannot do: it counts a request after it was sent (`drivers/scsi/storvsc_drv.c`,
//! `storvsc_do_io`), and a reset that waits for the count to be zero is not woken if a request was answered
//! before it was counted.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use busway_guest_agent::Blocks;
use io_uring::{IoUring, opcode, types::Fd};
use rustix::ioctl::{Setter, ioctl};

use crate::file::{Buffer, Options};

/// `include/scsi/sg.h`.
const SG_SCSI_RESET: u32 = 0x2284;
const SG_SCSI_RESET_BUS: i32 = 2;

/// Most blocks: they are all under way at once.
const MOST: u64 = 1024;

/// Writes all blocks at once and resets the controller; each write must succeed all the same.
pub(crate) fn run(path: &str, blocks: &Blocks) -> Result<(), String> {
    if blocks.count > MOST {
        return Err(format!("{MOST} blocks are the most"));
    }
    let file = Options { direct: true, skew: 0 }.open(path, true, false)?;
    write_and_reset(&file, blocks).map_err(|error| format!("{path}: {error}"))
}

#[expect(unsafe_code, reason = "an entry leads the kernel to memory, and an ioctl")]
fn write_and_reset(file: &File, blocks: &Blocks) -> io::Result<()> {
    let mut ring = IoUring::new(blocks.count as u32)?;
    for number in 0..blocks.count {
        let buffer = Box::leak(Box::new(Buffer::new(blocks.block, 0)));
        buffer.bytes().copy_from_slice(&blocks.contents(number));
        let (base, len) = (buffer.bytes().as_ptr(), blocks.block as u32);
        let entry = opcode::Write::new(Fd(file.as_raw_fd()), base, len);
        let entry = entry.offset(blocks.offset(number)).build();
        // SAFETY: the buffer is as long as the entry says, and is never freed.
        unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    }
    ring.submit()?;
    // SAFETY: the request takes the address of an int, and does not keep it.
    unsafe { ioctl(file, Setter::<SG_SCSI_RESET, i32>::new(SG_SCSI_RESET_BUS)) }?;
    ring.submit_and_wait(blocks.count as usize)?;
    for entry in ring.completion() {
        match entry.result() {
            result if result < 0 => return Err(io::Error::from_raw_os_error(-result)),
            result if result as usize == blocks.block => {}
            result => return Err(io::Error::other(format!("{result} B were written"))),
        }
    }
    Ok(())
}
