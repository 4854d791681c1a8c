// SPDX-License-Identifier: MIT OR Apache-2.0

//! How far a request has come: which system call it needs next, and what its result means.
//!
//! A system call may do less than it was asked for, be interrupted, or not be supported by the
//! image's file system. What follows from that is decided here, and nothing else is: no call is
//! made.

use std::ops::ControlFlow;

use libc::iovec;

use crate::{IoError, Operation};

/// Most vectors that one system call takes (`UIO_MAXIOV`).
pub(crate) const MAX_VECTORS: usize = 1024;

/// Bytes of one write that fills an area with a pattern; a multiple of every logical block.
pub(crate) const FILL_LEN: usize = 64 << 10;

/// Times that one call is made again because the system asked for it. It has never been seen to
/// ask twice; for ever would be a loop.
const MAX_RETRIES: u8 = 32;

/// A place in a list of vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Which vector.
    pub(crate) vector: usize,
    /// Bytes of it that are done.
    pub(crate) skip: usize,
}

impl Cursor {
    fn advance(&mut self, vectors: &[iovec], count: usize) {
        self.skip += count;
        while let Some(vector) = vectors.get(self.vector)
            && self.skip >= vector.iov_len
        {
            self.skip -= vector.iov_len;
            self.vector += 1;
        }
    }
}

/// One system call on an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Into the vectors from `cursor` on.
    Read { cursor: Cursor, at: u64 },
    /// From the vectors from `cursor` on.
    Write { cursor: Cursor, at: u64, durable: bool },
    /// `len` bytes of the fill pattern, from byte `skip` of it on.
    Fill { skip: usize, len: usize, at: u64 },
    /// `fdatasync`.
    Flush,
    /// `fallocate`: give up.
    PunchHole { at: u64, len: u64 },
    /// `fallocate`: zeroes.
    ZeroRange { at: u64, len: u64 },
}

/// The way of doing it that is being tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Read,
    Write { durable: bool },
    Fill,
    Flush,
    PunchHole,
    ZeroRange,
}

/// A request under way.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    way: Way,
    /// The next byte of the disk.
    at: u64,
    /// Bytes left.
    left: u64,
    /// Bytes of the fill pattern's block.
    block: u64,
    cursor: Cursor,
    retries: u8,
}

impl Progress {
    /// A request for `data_len` bytes of memory; `has_pattern` if these are a block to be repeated
    /// that is not zero.
    pub(crate) fn new(
        operation: Operation,
        offset: u64,
        data_len: usize,
        has_pattern: bool,
    ) -> Self {
        let (way, left) = match operation {
            Operation::Read => (Way::Read, data_len as u64),
            Operation::Write { durable } => (Way::Write { durable }, data_len as u64),
            Operation::Flush => (Way::Flush, 1),
            Operation::Discard { len } => (Way::PunchHole, len),
            Operation::WriteSame { len } if has_pattern => (Way::Fill, len),
            Operation::WriteZeroes { len } | Operation::WriteSame { len } => (Way::ZeroRange, len),
        };
        let block = if has_pattern { data_len as u64 } else { 1 };
        Self { way, at: offset, left, block, cursor: Cursor::default(), retries: 0 }
    }

    /// The next call, or `None` if nothing is left to be done.
    pub(crate) fn call(&self) -> Option<Call> {
        let &Self { at, left, cursor, .. } = self;
        (left != 0).then_some(match self.way {
            Way::Read => Call::Read { cursor, at },
            Way::Write { durable } => Call::Write { cursor, at, durable },
            Way::Fill => self.fill(),
            Way::Flush => Call::Flush,
            Way::PunchHole => Call::PunchHole { at, len: left },
            Way::ZeroRange => Call::ZeroRange { at, len: left },
        })
    }

    /// Filling starts at a block's border, but a short write may have ended within a block.
    fn fill(&self) -> Call {
        let into_block = self.left.wrapping_neg() % self.block.max(1);
        let skip = into_block as usize;
        let room = (FILL_LEN - skip) as u64;
        Call::Fill { skip, len: room.min(self.left) as usize, at: self.at }
    }

    /// Takes the result of the last call: what it did, or a negative error number. Breaks with the
    /// request's result when there is nothing more to do.
    pub(crate) fn absorb(
        &mut self,
        result: i32,
        vectors: &[iovec],
    ) -> ControlFlow<Result<(), IoError>> {
        match usize::try_from(result) {
            Ok(count) => self.advance(count, vectors),
            Err(_) => self.fail(result.saturating_neg()),
        }
    }

    fn advance(&mut self, count: usize, vectors: &[iovec]) -> ControlFlow<Result<(), IoError>> {
        self.retries = 0;
        match self.way {
            Way::Flush | Way::PunchHole | Way::ZeroRange => self.left = 0,
            Way::Read if count == 0 => {
                return ControlFlow::Break(Err(IoError::Truncated { at: self.at }));
            }
            Way::Write { .. } | Way::Fill if count == 0 => {
                return ControlFlow::Break(Err(IoError::Failed { errno: libc::EIO }));
            }
            Way::Read | Way::Write { .. } | Way::Fill => {
                self.at += count as u64;
                self.left = self.left.saturating_sub(count as u64);
                self.cursor.advance(vectors, count);
            }
        }
        if self.left == 0 { ControlFlow::Break(Ok(())) } else { ControlFlow::Continue(()) }
    }

    fn fail(&mut self, errno: i32) -> ControlFlow<Result<(), IoError>> {
        let unsupported = matches!(errno, libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL);
        match (self.way, errno) {
            (_, libc::EINTR | libc::EAGAIN) if self.retries < MAX_RETRIES => self.retries += 1,
            // A hole reads as zeroes too, and more file systems have holes.
            (Way::ZeroRange, _) if unsupported => self.way = Way::PunchHole,
            (Way::PunchHole, _) if unsupported => self.way = Way::Fill,
            _ => return ControlFlow::Break(Err(IoError::from_errno(errno))),
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
