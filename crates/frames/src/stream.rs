// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames on a stream socket, each behind its length: what passt speaks, and QEMU's `-netdev
//! stream`. The length is 32 bits, most significant byte first.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use busway_memory::GuestPart;

use crate::{FrameHeader, MAX_FRAME};

/// Bytes read at once.
const BUFFER: usize = 256 << 10;

const PREFIX: usize = 4;

/// One end of the socket.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: UnixStream,
    /// What was read: whole frames and the start of another.
    incoming: Box<[u8]>,
    start: usize,
    end: usize,
    /// What the socket would not take yet.
    outgoing: Vec<u8>,
    written: usize,
    /// The other end has gone, or makes no sense.
    ended: bool,
}

impl Stream {
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            incoming: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            outgoing: Vec::new(),
            written: 0,
            ended: false,
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether frames must wait until the other end has read some.
    pub(crate) fn is_full(&self) -> bool {
        !self.outgoing.is_empty()
    }

    pub(crate) fn send(&mut self, head: &[u8], rest: GuestPart<'_>) -> io::Result<()> {
        if self.ended {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let len = head.len() + rest.len();
        let prefix = u32::try_from(len).map_err(|_| ErrorKind::InvalidInput)?;
        self.outgoing.extend_from_slice(&prefix.to_be_bytes());
        self.outgoing.extend_from_slice(head);
        let start = self.outgoing.len();
        self.outgoing.resize(start + rest.len(), 0);
        if let Some(place) = self.outgoing.get_mut(start..) {
            rest.read(place);
        }
        self.flush()
    }

    /// Writes what waits, as far as the other end takes it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.outgoing.get(self.written..).filter(|rest| !rest.is_empty()) {
            match (&self.socket).write(rest) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.end_with(&error);
                    return Err(error);
                }
            }
        }
        self.outgoing.clear();
        self.written = 0;
        Ok(())
    }

    pub(crate) fn receive(&mut self, into: GuestPart<'_>) -> Option<usize> {
        let (start, end) = self.next()?;
        let frame = self.incoming.get(start..end)?;
        into.write(&[0; FrameHeader::LEN]);
        let copied = into.skip(FrameHeader::LEN).write(frame);
        Some(FrameHeader::LEN + copied)
    }

    pub(crate) fn discard(&mut self) -> bool {
        self.next().is_some()
    }

    /// Where the next whole frame stands in the buffer.
    fn next(&mut self) -> Option<(usize, usize)> {
        loop {
            let waiting = self.incoming.get(self.start..self.end).unwrap_or_default();
            if let Some(prefix) = waiting.first_chunk::<PREFIX>() {
                let len = u32::from_be_bytes(*prefix) as usize;
                if len > MAX_FRAME {
                    let what = format!("a frame of {len} B");
                    self.end_with(&io::Error::new(ErrorKind::InvalidData, what));
                    return None;
                }
                if waiting.len() >= PREFIX + len {
                    let start = self.start + PREFIX;
                    self.start = start + len;
                    return Some((start, start + len));
                }
            }
            if self.ended || !self.read() {
                return None;
            }
        }
    }

    /// Reads what there is; false if that is nothing.
    fn read(&mut self) -> bool {
        // There is always room for a frame behind the start of another.
        self.incoming.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let room = self.incoming.get_mut(self.end..).unwrap_or_default();
        match (&self.socket).read(room) {
            Ok(0) => self.end_with(&ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.end += count;
                return true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(error) => self.end_with(&error),
        }
        false
    }

    fn end_with(&mut self, error: &io::Error) {
        if !self.ended {
            log::error!("network: the program at the other end of the socket has gone: {error}");
        }
        self.ended = true;
        (self.start, self.end) = (0, 0);
        self.outgoing.clear();
        self.written = 0;
    }
}

const _: () = assert!(BUFFER > 2 * (MAX_FRAME + PREFIX));
