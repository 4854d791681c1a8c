// SPDX-License-Identifier: MIT OR Apache-2.0

//! One thread's way to a network.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use busway_memory::GuestPart;

use crate::loopback::Loopback;
use crate::stream::Stream;
use crate::tap::TapQueue;
use crate::{FrameHeader, Offloads};

/// A queue of a [`Network`](crate::Network).
#[derive(Debug)]
pub struct Queue {
    kind: Kind,
}

/// Frames that were taken and could not be sent.
#[derive(Debug, Default)]
pub struct Lost {
    /// How many.
    pub frames: u64,
    /// Why the last of them was.
    pub error: Option<io::Error>,
}

impl Lost {
    pub(crate) fn add(&mut self, error: io::Error) {
        self.frames += 1;
        self.error = Some(error);
    }
}

#[derive(Debug)]
pub(crate) enum Kind {
    Tap(Box<TapQueue>),
    /// A stream outlives its queue: the next one goes on in the middle of a frame. The descriptor
    /// is another of the same socket, to be waited on without the lock.
    Stream(Arc<Mutex<Stream>>, OwnedFd),
    Loopback(Loopback),
}

impl Kind {
    pub(crate) fn stream(stream: Arc<Mutex<Stream>>) -> io::Result<Self> {
        let fd = lock(&stream).fd().try_clone_to_owned()?;
        Ok(Self::Stream(stream, fd))
    }
}

/// Nobody else has it: the queue is the only one.
fn lock(stream: &Mutex<Stream>) -> MutexGuard<'_, Stream> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    pub(crate) const fn new(kind: Kind) -> Self {
        Self { kind }
    }

    /// What becomes readable when a frame comes, and writable when there is room again; `None` if
    /// frames come only after others were sent.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.kind {
            Kind::Tap(tap) => tap.fd(),
            Kind::Stream(_, fd) => Some(fd.as_fd()),
            Kind::Loopback(_) => None,
        }
    }

    /// Whether frames can come by this queue.
    pub fn receives(&self) -> bool {
        match &self.kind {
            Kind::Tap(tap) => tap.fd().is_some(),
            Kind::Stream(..) | Kind::Loopback(_) => true,
        }
    }

    /// Whether what is sent comes back at once.
    pub const fn is_loopback(&self) -> bool {
        matches!(self.kind, Kind::Loopback(_))
    }

    /// Says what the network may leave undone in frames to come.
    pub fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        match &self.kind {
            Kind::Tap(tap) => tap.set_offloads(offloads),
            Kind::Stream(..) | Kind::Loopback(_) => Ok(()),
        }
    }

    /// Whether no frame should be sent now: the other end reads too slowly. When that changes, the
    /// descriptor becomes writable.
    pub fn is_full(&mut self) -> bool {
        match &self.kind {
            Kind::Stream(stream, _) => {
                let mut stream = lock(stream);
                // That the other end is gone was said, and frames are lost.
                let _ = stream.flush();
                stream.is_full()
            }
            Kind::Tap(_) | Kind::Loopback(_) => false,
        }
    }

    /// Sends the frame of `head`, at most [`MAX_HEAD`](crate::MAX_HEAD) bytes, and `rest`, at once or with the next
    /// [`flush`](Self::flush): until then the bytes of `rest` must not change. An error is that of this
    /// frame alone, which is lost.
    #[inline]
    pub fn send(
        &mut self,
        header: &FrameHeader,
        head: &[u8],
        rest: GuestPart<'_>,
    ) -> io::Result<()> {
        match &mut self.kind {
            Kind::Tap(tap) => tap.send(header, head, rest),
            Kind::Stream(stream, _) => lock(stream).send(head, rest),
            Kind::Loopback(loopback) => {
                loopback.send(header, head, rest);
                Ok(())
            }
        }
    }

    /// Sends what waits for others to go with it; says what was lost since the last time.
    #[inline]
    pub fn flush(&mut self) -> Lost {
        match &mut self.kind {
            Kind::Tap(tap) => tap.flush(),
            Kind::Stream(..) | Kind::Loopback(_) => Lost::default(),
        }
    }

    /// Puts the next frame into `into`, a [`FrameHeader`] first; how many bytes both have together,
    /// or `None` if there is no frame. What does not fit is cut off, so that a frame that fills
    /// `into` may not be whole.
    #[inline]
    pub fn receive(&mut self, into: GuestPart<'_>) -> io::Result<Option<usize>> {
        match &mut self.kind {
            Kind::Tap(tap) => tap.receive(into),
            Kind::Stream(stream, _) => Ok(lock(stream).receive(into)),
            Kind::Loopback(loopback) => Ok(loopback.receive(into)),
        }
    }

    /// Drops the next frame; false if there is none.
    pub fn discard(&mut self) -> io::Result<bool> {
        match &mut self.kind {
            Kind::Tap(tap) => tap.discard(),
            Kind::Stream(stream, _) => Ok(lock(stream).discard()),
            Kind::Loopback(loopback) => Ok(loopback.discard()),
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
