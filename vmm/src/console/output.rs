// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the guest's serial output goes.
//!
//! A byte is written at once, by the vCPU that sent it: a thread in between would be woken for
//! each of them. But a guest must not hang on somebody who does not read. So a reader who is slow
//! slows the guest down, and one who has taken nothing for [`PATIENCE`] loses output until there
//! is room again.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use log::warn;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::lock;

/// How long the guest waits for a reader.
const PATIENCE: Duration = Duration::from_secs(1);

/// The writing half of a console. Clones share it.
#[derive(Clone)]
pub struct Output(Arc<Mutex<Sink>>);

/// What is behind it now.
pub(super) enum Sink {
    Nothing,
    Stream {
        stream: Stream,
        /// The reader has run out of the guest's patience.
        stalled: bool,
    },
}

pub(super) enum Stream {
    File(File),
    Socket(UnixStream),
}

impl Output {
    pub(super) fn new(sink: Arc<Mutex<Sink>>) -> Self {
        Self(sink)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    pub(super) fn file(file: File) -> Self {
        Self::Stream { stream: Stream::File(file), stalled: false }
    }

    pub(super) fn socket(socket: UnixStream) -> Self {
        Self::Stream { stream: Stream::Socket(socket), stalled: false }
    }

    /// Writes `bytes`, or drops what nobody takes.
    fn write(&mut self, mut bytes: &[u8]) {
        let Self::Stream { stream, stalled } = self else {
            return;
        };
        while !bytes.is_empty() {
            let patience = if *stalled { Duration::ZERO } else { PATIENCE };
            if !stream.is_writable(patience) {
                if !std::mem::replace(stalled, true) {
                    warn!("nobody reads the serial port's output: it is dropped");
                }
                return;
            }
            match stream.write(bytes) {
                Ok(len) => {
                    *stalled = false;
                    bytes = bytes.get(len..).unwrap_or_default();
                }
                Err(error) if super::is_temporary(&error) => {}
                Err(error) => {
                    warn!("the serial port's output goes nowhere from now on: {error}");
                    *self = Self::Nothing;
                    return;
                }
            }
        }
    }
}

impl Stream {
    fn is_writable(&self, patience: Duration) -> bool {
        let timeout = Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: 0 };
        let fd = self.as_fd();
        let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
        // An error is for the write to report; so is a signal, as a wait that ended early.
        poll(&mut fds, Some(&timeout)).map_or(true, |ready| ready > 0)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Socket(socket) => socket.write(bytes),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::File(file) => file.as_fd(),
            Self::Socket(socket) => socket.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn pair() -> (Output, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Output::new(Arc::new(Mutex::new(Sink::socket(ours)))), theirs)
    }

    #[test]
    fn output_arrives() {
        let (mut output, mut reader) = pair();
        output.write_all(b"Linux version").unwrap();
        let mut bytes = [0; 13];
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"Linux version");
    }

    /// This test ends, which is what it is about.
    #[test]
    fn who_does_not_read_loses_output_and_finds_later_output() {
        let (mut output, mut reader) = pair();
        for _ in 0..100 {
            output.write_all(&[b'x'; 65536]).unwrap();
        }
        reader.set_nonblocking(true).unwrap();
        let mut lost = Vec::new();
        let _ = reader.read_to_end(&mut lost);
        assert!(lost.len() < 100 * 65536);
        output.write_all(b"login:").unwrap();
        let mut rest = [0; 6];
        reader.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"login:");
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let (mut output, reader) = pair();
        drop(reader);
        output.write_all(b"a").unwrap();
        output.write_all(b"b").unwrap();
        assert!(matches!(*lock(&output.0), Sink::Nothing));
    }
}
