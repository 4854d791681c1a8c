// SPDX-License-Identifier: MIT OR Apache-2.0

//! The system calls of this crate, and all of its `unsafe` code.
//!
//! Two ways of doing a [`Call`]: [`Uring`] gives it to the kernel and hears of its end later,
//! [`perform`] does it at once. Both return what the system call returned, an error as a negative
//! number.
//!
//! The invariant behind the `unsafe`: [`Uring`] owns the [`Buffers`] of every call from the moment
//! it is prepared, and gives them back only after its completion was seen. It cannot be dropped
//! before either.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use busway_memory::GuestSlices;
use io_uring::types::{CancelBuilder, Fixed, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};
use libc::iovec;

use crate::progress::{Call, Cursor, FILL_LEN, MAX_VECTORS};

/// Most bytes of one call on a single vector; more are done by the next. The kernel's own limit is
/// 2 GiB less a page.
const MAX_BYTES: usize = 1 << 30;

const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
const ZERO_RANGE: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

static ZEROES: [u8; FILL_LEN] = [0; FILL_LEN];

/// The memory that a request's calls work on.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// The guest's.
    pub(crate) data: GuestSlices,
    /// [`FILL_LEN`] bytes of a pattern to be written over and over; `None` for zeroes.
    pub(crate) fill: Option<Box<[u8]>>,
}

/// What one call reads or writes.
enum Piece<'a> {
    One(iovec),
    Many(&'a [iovec]),
}

impl Buffers {
    /// The memory from `cursor` on: what is left of a vector that was begun, else as many vectors
    /// as a call takes.
    fn piece(&self, Cursor { vector, skip }: Cursor) -> Piece<'_> {
        let rest = self.data.vectors().get(vector..).unwrap_or_default();
        match rest {
            [first, more @ ..] if skip != 0 || more.is_empty() => Piece::One(iovec {
                iov_base: first.iov_base.wrapping_byte_add(skip),
                iov_len: first.iov_len.saturating_sub(skip).min(MAX_BYTES),
            }),
            many => Piece::Many(many.get(..MAX_VECTORS).unwrap_or(many)),
        }
    }

    fn fill(&self, skip: usize, len: usize) -> &[u8] {
        let pattern = self.fill.as_deref().unwrap_or(&ZEROES);
        pattern.get(skip..).and_then(|rest| rest.get(..len)).unwrap_or_default()
    }
}

/// An io_uring and the memory that its calls work on.
pub(crate) struct Uring {
    ring: IoUring,
    /// The memory of each slot, as long as a call works on it.
    held: Box<[Option<Buffers>]>,
    busy: usize,
    unsubmitted: bool,
    cancelling: bool,
}

/// The user data of the call that cancels all others.
const CANCEL: u64 = u64::MAX;

impl Uring {
    /// A ring for calls on `files`, at most one for each of `slots` at a time.
    pub(crate) fn new(slots: usize, files: &[RawFd]) -> io::Result<Self> {
        // One more, to cancel.
        let entries = u32::try_from(slots + 1).map_err(io::Error::other)?;
        let plain = || IoUring::new(entries);
        // A completion need not interrupt the thread that works here: it looks when it is done.
        let ring = IoUring::builder().setup_coop_taskrun().build(entries).or_else(|_| plain())?;
        ring.submitter().register_files(files)?;
        let held = (0..slots).map(|_| None).collect();
        Ok(Self { ring, held, busy: 0, unsubmitted: false, cancelling: false })
    }

    /// Lets calls on file `index` go to `file` from now on; -1 for none.
    pub(crate) fn set_file(&self, index: usize, file: RawFd) -> io::Result<()> {
        let index = u32::try_from(index).map_err(io::Error::other)?;
        self.ring.submitter().register_files_update(index, &[file]).map(drop)
    }

    /// Readable while a completion waits.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Prepares a call on file `file` for a free slot. The kernel sees it at the next
    /// [`submit`](Self::submit).
    ///
    /// # Panics
    ///
    /// If there is no such slot or it is busy: that is the caller's error, never the guest's.
    pub(crate) fn prepare(&mut self, slot: usize, file: u32, call: &Call, buffers: Buffers) {
        let place = self.held.get_mut(slot).expect("the caller's slots are the ring's");
        assert!(place.is_none(), "slot {slot} is busy");
        let entry = entry(Fixed(file), call, place.insert(buffers)).user_data(slot as u64);
        self.busy += 1;
        self.push(&entry);
    }

    #[expect(unsafe_code, reason = "an entry leads the kernel to memory")]
    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: what the entry points to, the vectors and what they point to or the fill
        // pattern, is owned by `held` and not changed until the entry's completion was taken, or
        // for ever if it never is; moving `held`'s boxes and lists does not move what they own.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.expect("the queue has an entry for each slot and for a cancel");
        self.unsubmitted = true;
    }

    /// Shows the kernel what was prepared; one system call, or none if there is nothing new.
    ///
    /// What the kernel cannot take now, for want of memory, it takes next time.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        while self.unsubmitted {
            match self.ring.submit() {
                Ok(_) => self.unsubmitted = !self.ring.submission().is_empty(),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // Completions come, and with them another attempt.
                    Some(libc::EAGAIN | libc::EBUSY) if self.in_kernel() != 0 => return Ok(()),
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    fn in_kernel(&mut self) -> usize {
        let unsubmitted = self.ring.submission().len();
        self.busy.saturating_sub(unsubmitted)
    }

    /// The next completion: the slot, its memory, and what the call returned.
    pub(crate) fn next(&mut self) -> Option<(usize, i32, Buffers)> {
        if self.busy == 0 && !self.cancelling {
            return None;
        }
        loop {
            let entry = self.ring.completion().next()?;
            if entry.user_data() == CANCEL {
                self.cancelling = false;
                continue;
            }
            let slot = entry.user_data() as usize;
            let buffers = self.held.get_mut(slot).and_then(Option::take);
            if let Some(buffers) = buffers {
                self.busy -= 1;
                return Some((slot, entry.result(), buffers));
            }
        }
    }

    /// Asks the kernel to give up whatever it can; each call's completion comes all the same.
    pub(crate) fn cancel(&mut self) {
        if self.busy != 0 && !self.cancelling {
            self.cancelling = true;
            let entry = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build();
            self.push(&entry.user_data(CANCEL));
        }
    }
}

impl Drop for Uring {
    /// Waits until the kernel has let go of all memory.
    fn drop(&mut self) {
        self.cancel();
        while self.busy != 0 {
            if let Err(error) = self.ring.submit_and_wait(1)
                && !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
            {
                // The kernel may write to that memory at any time: it must stay what it is.
                log::error!("{} disk requests cannot be waited for: {error}", self.busy);
                std::mem::forget(std::mem::take(&mut self.held));
                return;
            }
            while self.next().is_some() {}
        }
    }
}

fn entry(file: Fixed, call: &Call, buffers: &Buffers) -> squeue::Entry {
    match *call {
        Call::Read { cursor, at } => match buffers.piece(cursor) {
            Piece::One(one) => {
                let base = one.iov_base.cast();
                opcode::Read::new(file, base, one.iov_len as u32).offset(at).build()
            }
            Piece::Many(many) => {
                opcode::Readv::new(file, many.as_ptr(), many.len() as u32).offset(at).build()
            }
        },
        Call::Write { cursor, at, durable } => {
            let flags = write_flags(durable);
            match buffers.piece(cursor) {
                Piece::One(one) => {
                    let base = one.iov_base.cast_const().cast();
                    let write = opcode::Write::new(file, base, one.iov_len as u32);
                    write.offset(at).rw_flags(flags).build()
                }
                Piece::Many(many) => {
                    let write = opcode::Writev::new(file, many.as_ptr(), many.len() as u32);
                    write.offset(at).rw_flags(flags).build()
                }
            }
        }
        Call::Fill { skip, len, at } => {
            let fill = buffers.fill(skip, len);
            opcode::Write::new(file, fill.as_ptr(), fill.len() as u32).offset(at).build()
        }
        Call::Flush => opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build(),
        Call::PunchHole { at, len } => {
            opcode::Fallocate::new(file, len).offset(at).mode(PUNCH_HOLE).build()
        }
        Call::ZeroRange { at, len } => {
            opcode::Fallocate::new(file, len).offset(at).mode(ZERO_RANGE).build()
        }
    }
}

const fn write_flags(durable: bool) -> i32 {
    if durable { libc::RWF_DSYNC } else { 0 }
}

/// Makes a call and waits for its end.
#[expect(unsafe_code, reason = "vectored I/O on guest memory has no safe interface")]
pub(crate) fn perform(file: &File, call: &Call, buffers: &Buffers) -> i32 {
    let fd = file.as_raw_fd();
    let one;
    let vectors = match *call {
        Call::Read { cursor, .. } | Call::Write { cursor, .. } => match buffers.piece(cursor) {
            Piece::One(piece) => {
                one = [piece];
                &one
            }
            Piece::Many(many) => many,
        },
        Call::Fill { skip, len, .. } => {
            let fill = buffers.fill(skip, len);
            one = [iovec { iov_base: fill.as_ptr().cast_mut().cast(), iov_len: fill.len() }];
            &one
        }
        Call::Flush | Call::PunchHole { .. } | Call::ZeroRange { .. } => &[],
    };
    let (first, count) = (vectors.as_ptr(), vectors.len() as i32);
    let result = match *call {
        // SAFETY: the vectors lead to guest memory that `buffers` keeps mapped; other threads and
        // the guest may use it meanwhile, and no Rust reference to it exists.
        Call::Read { at, .. } => unsafe { libc::preadv(fd, first, count, at as i64) },
        // SAFETY: as above, and it is only read.
        Call::Write { at, durable, .. } => unsafe {
            libc::pwritev2(fd, first, count, at as i64, write_flags(durable))
        },
        // SAFETY: the vector is the fill pattern, which `buffers` holds, and it is only read.
        Call::Fill { at, .. } => unsafe { libc::pwritev(fd, first, count, at as i64) },
        // SAFETY: no memory of ours is touched.
        Call::Flush => unsafe { libc::fdatasync(fd) as isize },
        // SAFETY: no memory of ours is touched.
        Call::PunchHole { at, len } => unsafe {
            libc::fallocate(fd, PUNCH_HOLE, at as i64, len as i64) as isize
        },
        // SAFETY: no memory of ours is touched.
        Call::ZeroRange { at, len } => unsafe {
            libc::fallocate(fd, ZERO_RANGE, at as i64, len as i64) as isize
        },
    };
    if result < 0 {
        return -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    }
    i32::try_from(result).unwrap_or(i32::MAX)
}

/// Gives up bytes of a file.
#[expect(unsafe_code, reason = "fallocate has no wrapper in our dependencies")]
pub(crate) fn punch_hole(file: &File, at: u64, len: u64) -> io::Result<()> {
    // SAFETY: no memory of ours is touched.
    match unsafe { libc::fallocate(file.as_raw_fd(), PUNCH_HOLE, at as i64, len as i64) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
