// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a queue is asked, and what it answers.

use busway_memory::GuestSlices;

use crate::IoError;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Blocks of the disk into the slices, as many as they hold.
    Read,
    /// The slices to blocks of the disk.
    Write {
        /// Complete only when the blocks will survive a power failure (FUA).
        durable: bool,
    },
    /// Everything that was complete before becomes durable, as `fdatasync` does it.
    Flush,
    /// Give `len` bytes up; they read as zeroes afterwards.
    Discard {
        /// Bytes.
        len: u64,
    },
    /// `len` bytes of zeroes.
    WriteZeroes {
        /// Bytes.
        len: u64,
    },
    /// `len` bytes made of the block that the slices hold, over and over.
    WriteSame {
        /// Bytes.
        len: u64,
    },
}

impl Operation {
    /// Whether it would change the disk.
    pub const fn is_write(self) -> bool {
        !matches!(self, Self::Read | Self::Flush)
    }
}

/// A request. It owns its memory until its completion gives it back.
#[derive(Debug)]
pub struct Request {
    /// The caller's name for it.
    pub token: u64,
    /// What is to be done.
    pub operation: Operation,
    /// The first byte of the disk; a multiple of its logical block.
    pub offset: u64,
    /// The guest's memory that data goes to or comes from.
    pub data: GuestSlices,
}

/// The end of a request.
#[derive(Debug)]
pub struct Completion {
    /// The request's.
    pub token: u64,
    /// Whether all of it was done.
    pub result: Result<(), IoError>,
    /// The request's.
    pub data: GuestSlices,
}
