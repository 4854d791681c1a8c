// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames that go to a TAP together: one system call for all of them.
//!
//! A TAP takes one frame a call, and the call costs as much as the frame. io_uring takes many calls at once; a
//! TAP that does not block has done each when it returns. Where there is no io_uring, each frame is
//! a `writev` of its own.

use std::fmt;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use busway_memory::{GuestMemory, GuestPart};
use io_uring::types::Fixed;
use io_uring::{IoUring, opcode};
use libc::{c_int, iovec};
use zerocopy::IntoBytes;

use super::MAX_VECTORS;
use crate::{FrameHeader, MAX_HEAD};

/// Most frames: enough to spread the cost of a call, few enough not to keep the first one waiting.
const FRAMES: usize = 32;

/// What is written before the guest's bytes.
type Start = [u8; FrameHeader::LEN + MAX_HEAD];

/// Frames that wait to be written, and room for more.
///
/// Their bytes are where they were, in the guest's memory, and must stay there until
/// [`write`](Self::write) returns.
#[derive(Debug)]
pub(crate) struct Burst {
    file: Arc<File>,
    ring: Option<Ring>,
    starts: Box<[Start; FRAMES]>,
    vectors: Vec<iovec>,
    /// Where the vectors of each frame end.
    ends: Vec<usize>,
    /// What the vectors lead to, beside `starts`.
    memory: Option<GuestMemory>,
}

// SAFETY: the vectors lead to `starts`, which moves with them without changing its place, and to a
// shared mapping that `memory` keeps alive in every thread.
#[expect(unsafe_code, reason = "iovec holds a raw pointer")]
unsafe impl Send for Burst {}

impl Burst {
    pub(crate) fn new(file: Arc<File>) -> Self {
        let ring = Ring::new(&file).inspect_err(|error| {
            log::debug!("frames are written to a TAP one by one: no io_uring: {error}");
        });
        Self {
            file,
            ring: ring.ok(),
            starts: Box::new([[0; _]; FRAMES]),
            vectors: Vec::with_capacity(4 * FRAMES),
            ends: Vec::with_capacity(FRAMES),
            memory: None,
        }
    }

    /// Adds the frame of `head` and `rest`; writes the others first if there is no room, or if they are
    /// another guest's. `lost` hears why one of those was not written.
    pub(crate) fn push(
        &mut self,
        header: &FrameHeader,
        head: &[u8],
        rest: GuestPart<'_>,
        lost: impl FnMut(io::Error),
    ) -> io::Result<()> {
        let holds = self.memory.as_ref().is_some_and(|memory| memory.is(rest.memory()));
        if !holds || self.ends.len() == FRAMES {
            self.write(lost);
        }
        if !holds {
            self.memory = Some(rest.memory().clone());
        }
        let len = FrameHeader::LEN + head.len();
        let start = self.starts.get_mut(self.ends.len()).and_then(|start| start.get_mut(..len));
        let start = start.ok_or(io::ErrorKind::InvalidInput)?;
        let (first, second) = start.split_at_mut(FrameHeader::LEN);
        first.copy_from_slice(header.as_bytes());
        second.copy_from_slice(head);
        let (base, before) = (start.as_mut_ptr(), self.vectors.len());
        self.vectors.push(iovec { iov_base: base.cast(), iov_len: len });
        rest.append_to(&mut self.vectors);
        if self.vectors.len() - before > MAX_VECTORS {
            self.vectors.truncate(before);
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.ends.push(self.vectors.len());
        Ok(())
    }

    /// Writes all frames; `lost` hears why one was not.
    pub(crate) fn write(&mut self, mut lost: impl FnMut(io::Error)) {
        // A single one is no reason for more than a call.
        match self.ring.take() {
            Some(mut ring) if self.ends.len() > 1 => {
                self.ring = ring.write(self, &mut lost).then_some(ring);
            }
            ring => {
                self.ring = ring;
                self.write_each(&mut lost);
            }
        }
        self.vectors.clear();
        self.ends.clear();
    }

    /// Each frame's vectors.
    fn frames(&self) -> impl Iterator<Item = &[iovec]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let frame = self.vectors.get(start..end).unwrap_or_default();
            start = end;
            frame
        })
    }

    #[expect(unsafe_code, reason = "the kernel reads guest memory")]
    fn write_each(&self, lost: &mut impl FnMut(io::Error)) {
        for frame in self.frames() {
            // SAFETY: the first vector is of `starts`, the others lead to guest memory that `memory`
            // keeps mapped, and the call only reads them.
            let done = unsafe {
                libc::writev(self.file.as_raw_fd(), frame.as_ptr(), frame.len() as c_int)
            };
            if done < 0 {
                lost(io::Error::last_os_error());
            }
        }
    }
}

/// The way of many calls at once.
struct Ring(IoUring);

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ring")
    }
}

impl Ring {
    fn new(file: &File) -> io::Result<Self> {
        let plain = || IoUring::new(FRAMES as u32);
        // A completion need not interrupt the thread that waits for it.
        let ring = IoUring::builder().setup_coop_taskrun().build(FRAMES as u32);
        let ring = ring.or_else(|_| plain())?;
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        Ok(Self(ring))
    }

    /// Writes all frames of `burst` and waits until the kernel has let go of them; false if it never says
    /// so, and is not to be asked again.
    #[expect(unsafe_code, reason = "an entry leads the kernel to memory")]
    fn write(&mut self, burst: &mut Burst, lost: &mut impl FnMut(io::Error)) -> bool {
        for frame in burst.frames() {
            let entry = opcode::Writev::new(Fixed(0), frame.as_ptr(), frame.len() as u32).build();
            // SAFETY: the vectors, and what they lead to, are the burst's. They stay as they are until each
            // entry's completion was taken, or for ever if one never comes.
            let pushed = unsafe { self.0.submission().push(&entry) };
            pushed.expect("the queue has an entry for each frame");
        }
        let mut left = burst.ends.len();
        while left != 0 {
            if let Err(error) = self.0.submit_and_wait(left)
                && !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
            {
                // The kernel may still read that memory: it must stay what it is.
                mem::forget(mem::replace(&mut burst.starts, Box::new([[0; _]; FRAMES])));
                mem::forget(mem::take(&mut burst.vectors));
                mem::forget(burst.memory.take());
                lost(error);
                return false;
            }
            for entry in self.0.completion() {
                left -= 1;
                if entry.result() < 0 {
                    lost(io::Error::from_raw_os_error(-entry.result()));
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    use busway_memory::{GuestAddress, GuestSlices, PAGE_SIZE, Region};

    use super::*;

    /// A burst into a socket that keeps frames apart as a TAP does, and the other end.
    fn burst() -> (Burst, File) {
        let (near, far) = UnixDatagram::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        near.set_nonblocking(true).unwrap();
        let burst = Burst::new(Arc::new(File::from(OwnedFd::from(near))));
        (burst, File::from(OwnedFd::from(far)))
    }

    fn slices() -> GuestSlices {
        let region = Region { start: GuestAddress(0), len: 8 * PAGE_SIZE };
        let mut slices = GuestSlices::new(GuestMemory::allocate(&[region]).unwrap());
        slices.push_pages([5, 1], PAGE_SIZE - 2, 4).unwrap();
        slices
    }

    /// What the other end has got, without the headers.
    fn arrived(far: &mut File) -> Vec<Vec<u8>> {
        let mut bytes = [0; 64];
        let mut frames = Vec::new();
        while let Ok(len) = far.read(&mut bytes) {
            frames.push(bytes[FrameHeader::LEN..len].to_vec());
        }
        frames
    }

    fn push(burst: &mut Burst, head: &[u8], slices: &GuestSlices) {
        let rest = slices.part(0, slices.len()).unwrap();
        burst.push(&FrameHeader::none(), head, rest, |error| panic!("{error}")).unwrap();
    }

    /// Fewer than what a socket of this kind keeps for its reader.
    const COUNT: usize = 8;

    #[test]
    fn frames_go_together_and_in_order_with_and_without_io_uring() {
        for without in [false, true] {
            let (mut burst, mut far) = burst();
            if without {
                burst.ring = None;
            }
            let slices = slices();
            slices.write(b"rest");
            for round in 0..3 {
                (0..COUNT).for_each(|number| push(&mut burst, &[round, number as u8], &slices));
                assert_eq!(arrived(&mut far), Vec::<Vec<u8>>::new(), "it was flushed too early");
                burst.write(|error| panic!("{error}"));
                let wanted =
                    (0..COUNT).map(|number| [&[round, number as u8], &b"rest"[..]].concat());
                assert_eq!(arrived(&mut far), wanted.collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_burst_makes_room_for_itself_and_for_another_guests_frames() {
        let (mut burst, mut far) = burst();
        let (one, other) = (slices(), slices());
        one.write(b"one.");
        other.write(b"two.");
        push(&mut burst, b"", &one);
        push(&mut burst, b"", &other);
        assert_eq!(arrived(&mut far), [b"one."]);
        drop((one, other));
        burst.write(|error| panic!("{error}"));
        assert_eq!(arrived(&mut far), [b"two."], "the memory is held");
        let slices = slices();
        let mut lost = 0;
        for _ in 0..=FRAMES {
            let rest = slices.part(0, 4).unwrap();
            burst.push(&FrameHeader::none(), &[], rest, |_| lost += 1).unwrap();
        }
        assert_eq!(arrived(&mut far).len() + lost, FRAMES);
        burst.write(|error| panic!("{error}"));
        assert_eq!(arrived(&mut far).len(), 1);
    }

    #[test]
    fn each_lost_frame_is_said_and_what_is_no_frame_is_refused() {
        let (mut burst, far) = burst();
        drop(far);
        let slices = slices();
        for count in [1, 5] {
            (0..count).for_each(|_| push(&mut burst, b"head", &slices));
            let mut lost = 0;
            burst.write(|_| lost += 1);
            assert_eq!(lost, count);
        }
        let rest = slices.part(0, 4).unwrap();
        let long = [0; MAX_HEAD + 1];
        let refused = burst.push(&FrameHeader::none(), &long, rest, |error| panic!("{error}"));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        burst.write(|error| panic!("{error}"));
    }
}
