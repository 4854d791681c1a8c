// SPDX-License-Identifier: MIT OR Apache-2.0

//! The queue: one channel's requests on all of its disks.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use busway_memory::GuestSlices;

use crate::disk::Image;
use crate::kernel::{self, Buffers, Uring};
use crate::parked::{Parked, Parking};
use crate::progress::{FILL_LEN, Progress};
use crate::workers::{Job, Mailbox};
use crate::{Completion, Disk, IoError, Operation, Request};

/// The kernel does not work with the queue any more: the host's failure.
#[derive(Debug, thiserror::Error)]
#[error("the kernel takes no more disk requests")]
pub struct QueueError(#[from] io::Error);

/// One channel's requests on its disks, done by one io_uring.
///
/// ```text
/// submit submit submit … push ──▶ kernel ──▶ (fd is readable) ──▶ reap reap …
/// ```
///
/// [`submit`](Self::submit) only prepares; [`push`](Self::push) gives everything to the kernel in
/// one system call, or in none when there is nothing new. [`reap`](Self::reap) returns what has
/// ended, in any order, and pushes too when it finds nothing: a request that was done in part goes
/// on. Some requests, all on RAM disks among them, end before the push is over.
///
/// Images that are not raw have threads of their own, which do their requests one by one.
///
/// Where the kernel forbids io_uring, requests are done in `submit`, one after another.
///
/// At most `depth` requests are in flight, in slots made beforehand: nothing is allocated on the
/// way of a read or a write. A queue that is dropped waits for the kernel to let go of the guest's
/// memory.
pub struct Queue {
    // Dropped first: the kernel is done with the disks before their locks are given up.
    engine: Option<Uring>,
    disks: Vec<Option<Disk>>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    finished: VecDeque<Finished>,
    /// Where images' threads leave what has ended; without it, it is done in `submit`.
    mailbox: Option<Arc<Mailbox>>,
    /// Requests that they have.
    posted: usize,
    /// Requests that are kept back; without it, disks have no limits.
    parking: Option<Parking>,
}

/// A request under way.
struct Slot {
    token: u64,
    disk: usize,
    progress: Progress,
}

struct Finished {
    slot: usize,
    completion: Completion,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let engine = if self.engine.is_some() { "io_uring" } else { "synchronous" };
        let disks = self.disks.iter().flatten().count();
        write!(f, "Queue({disks} disks, {engine}, {} in flight)", self.in_flight())
    }
}

impl Queue {
    /// A queue for at most `depth` requests on `disks`, by io_uring if the kernel lets us.
    pub fn new(depth: usize, disks: Vec<Disk>) -> Self {
        let files: Vec<_> = disks.iter().map(raw_fd).collect();
        let engine = if files.iter().all(|fd| *fd < 0) {
            None
        } else {
            match Uring::new(depth, &files) {
                Ok(uring) => {
                    log::debug!("disk queue of {depth} requests on io_uring");
                    Some(uring)
                }
                Err(error) => {
                    log::warn!("no io_uring ({error}): disks are read and written synchronously");
                    None
                }
            }
        };
        let has_threads = disks.iter().any(|disk| matches!(disk.image(), Image::Formatted(_)));
        let mut queue = Self::with_engine(depth, disks, engine);
        queue.mailbox = has_threads.then(mailbox).flatten();
        let is_limited = queue.disks.iter().flatten().any(|disk| disk.rate().is_limited());
        queue.parking = is_limited.then(|| parking(depth)).flatten();
        queue
    }

    /// A queue for at most `depth` requests, without disks: they come by [`plug`](Self::plug), each at a
    /// place below `places`, and go by [`unplug`](Self::unplug).
    pub fn with_places(depth: usize, places: usize) -> Self {
        let engine = match Uring::new(depth, &vec![-1; places]) {
            Ok(uring) => Some(uring),
            Err(error) => {
                log::warn!("no io_uring ({error}): disks are read and written synchronously");
                None
            }
        };
        let mut queue = Self::with_engine(depth, Vec::new(), engine);
        queue.disks = vec![None; places];
        queue.mailbox = mailbox();
        queue.parking = parking(depth);
        queue
    }

    /// Puts a disk at a place where none is, below what [`with_places`](Self::with_places) was told.
    pub fn plug(&mut self, place: usize, disk: Disk) -> Result<(), QueueError> {
        if let Some(uring) = &self.engine {
            uring.set_file(place, raw_fd(&disk))?;
        }
        if let Some(place) = self.disks.get_mut(place) {
            *place = Some(disk);
        }
        Ok(())
    }

    /// Lets go of the disk at a place. No request on it may be in flight.
    pub fn unplug(&mut self, place: usize) -> Result<(), QueueError> {
        if let Some(uring) = &self.engine {
            uring.set_file(place, -1)?;
        }
        if let Some(place) = self.disks.get_mut(place) {
            *place = None;
        }
        Ok(())
    }

    /// The same as [`new`](Self::new), without io_uring and threads.
    pub fn synchronous(depth: usize, disks: Vec<Disk>) -> Self {
        Self::with_engine(depth, disks, None)
    }

    fn with_engine(depth: usize, disks: Vec<Disk>, engine: Option<Uring>) -> Self {
        let progress = Progress::new(Operation::Flush, 0, 0, false);
        let slot = || Slot { token: 0, disk: 0, progress: progress.clone() };
        Self {
            disks: disks.into_iter().map(Some).collect(),
            engine,
            slots: (0..depth).map(|_| slot()).collect(),
            free: (0..depth).rev().collect(),
            finished: VecDeque::with_capacity(depth),
            mailbox: None,
            posted: 0,
            parking: None,
        }
    }

    /// Readable, one or another, while [`reap`](Self::reap) has something; none if requests never
    /// end later than in [`submit`](Self::submit).
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let engine = self.engine.as_ref().map(Uring::fd);
        let mailbox = self.mailbox.as_ref().map(|mailbox| mailbox.fd());
        engine.into_iter().chain(mailbox).chain(self.parking.as_ref().map(Parking::fd))
    }

    /// Whether one more request can be submitted.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Requests that were submitted and not reaped.
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a request on disk `disk`. One that makes no sense for the disk ends with an error like
    /// any other that fails.
    ///
    /// A full queue gives the request back.
    pub fn submit(&mut self, disk: usize, request: Request) -> Result<(), Request> {
        let Some(slot) = self.free.pop() else {
            return Err(request);
        };
        let parked = Parked { slot, disk, request };
        let place = self.disks.get(disk).and_then(Option::as_ref);
        let goes = match &mut self.parking {
            Some(parking) => parking.enter(parked, place),
            None => Some(parked),
        };
        goes.into_iter().for_each(|parked| self.start(parked));
        Ok(())
    }

    /// Begins a request whose slot is taken.
    fn start(&mut self, Parked { slot, disk, request }: Parked) {
        match self.begin(disk, &request) {
            Err(error) => self.finish(slot, request.token, Err(error), request.data),
            Ok(Start::Done) => self.finish(slot, request.token, Ok(()), request.data),
            Ok(Start::Posted) => self.post(slot, disk, request),
            Ok(Start::Going(progress, fill)) => {
                self.slots[slot] = Slot { token: request.token, disk, progress };
                self.advance(slot, Buffers { data: request.data, fill });
            }
        }
    }

    /// Begins what was kept back for long enough.
    fn release(&mut self) {
        while let Some(parked) =
            self.parking.as_mut().and_then(|parking| parking.leave(&self.disks))
        {
            self.start(parked);
        }
    }

    fn disk(&self, place: usize) -> Option<&Disk> {
        self.disks.get(place)?.as_ref()
    }

    /// Checks a request against its disk, and does it if that is in memory.
    fn begin(&self, disk: usize, request: &Request) -> Result<Start, IoError> {
        let disk = self.disk(disk).ok_or(IoError::NoDisk { disk })?;
        let &Request { operation, offset, ref data, .. } = request;
        check(disk, operation, offset, data)?;
        match disk.image() {
            Image::Ram(ram) => ram.perform(operation, offset, data).map(|()| Start::Done),
            Image::Formatted(workers) if self.mailbox.is_none() => {
                workers.contents.perform(operation, offset, data).map(|()| Start::Done)
            }
            Image::Formatted(_) => Ok(Start::Posted),
            Image::Raw(_) => {
                let fill = match operation {
                    Operation::WriteSame { .. } => pattern(data),
                    _ => None,
                };
                let progress = Progress::new(operation, offset, data.len(), fill.is_some());
                Ok(Start::Going(progress, fill))
            }
        }
    }

    /// Gives a request to its image's threads.
    fn post(&mut self, slot: usize, disk: usize, request: Request) {
        let Request { token, operation, offset, data } = request;
        self.slots[slot].token = token;
        let (Some(mailbox), Some(Image::Formatted(workers))) =
            (&self.mailbox, self.disk(disk).map(Disk::image))
        else {
            return self.finish(slot, token, Err(IoError::NoDisk { disk }), data);
        };
        let mailbox = Arc::clone(mailbox);
        match workers.give(Job { slot, operation, offset, data, mailbox }) {
            Ok(()) => self.posted += 1,
            Err(job) => self.finish(slot, token, Err(IoError::NoDisk { disk }), job.data),
        }
    }

    /// Takes what images' threads have done.
    fn collect(&mut self, waits: bool) {
        let Some(mailbox) = &self.mailbox else {
            return;
        };
        let ended = if waits { mailbox.wait() } else { mailbox.take() };
        self.posted -= ended.len();
        for (slot, result, data) in ended {
            let token = self.slots[slot].token;
            self.finish(slot, token, result, data);
        }
    }

    /// Makes a request's next call: prepares it for the kernel, or makes them all.
    fn advance(&mut self, slot: usize, buffers: Buffers) {
        let Slot { token, disk, progress } = &mut self.slots[slot];
        let result = loop {
            let Some(call) = progress.call() else {
                break Ok(());
            };
            if let Some(uring) = &mut self.engine {
                uring.prepare(slot, *disk as u32, &call, buffers);
                return;
            }
            let image = self.disks.get(*disk).and_then(Option::as_ref).map(Disk::image);
            let Some(Image::Raw(file)) = image else {
                break Err(IoError::NoDisk { disk: *disk });
            };
            let result = kernel::perform(file, &call, &buffers);
            if let ControlFlow::Break(result) = progress.absorb(result, buffers.data.vectors()) {
                break result;
            }
        };
        let token = *token;
        self.finish(slot, token, result, buffers.data);
    }

    fn finish(&mut self, slot: usize, token: u64, result: Result<(), IoError>, data: GuestSlices) {
        let completion = Completion { token, result, data };
        self.finished.push_back(Finished { slot, completion });
    }

    /// Gives the kernel everything that was submitted.
    pub fn push(&mut self) -> Result<(), QueueError> {
        match &mut self.engine {
            Some(uring) => Ok(uring.submit()?),
            None => Ok(()),
        }
    }

    /// The next request that has ended. When there is none, what goes on is pushed: a worker can
    /// sleep then until [`fd`](Self::fd) is readable.
    pub fn reap(&mut self) -> Result<Option<Completion>, QueueError> {
        self.release();
        loop {
            if let Some(Finished { slot, completion }) = self.finished.pop_front() {
                self.free.push(slot);
                return Ok(Some(completion));
            }
            if self.posted != 0 {
                self.collect(false);
                if !self.finished.is_empty() {
                    continue;
                }
            }
            let Some(uring) = &mut self.engine else {
                return Ok(None);
            };
            let mut ended = uring.next();
            if ended.is_none() {
                uring.submit()?;
                ended = uring.next();
            }
            let Some((slot, result, buffers)) = ended else {
                return Ok(None);
            };
            let Slot { token, progress, .. } = &mut self.slots[slot];
            match progress.absorb(result, buffers.data.vectors()) {
                ControlFlow::Continue(()) => self.advance(slot, buffers),
                ControlFlow::Break(result) => {
                    self.free.push(slot);
                    let completion = Completion { token: *token, result, data: buffers.data };
                    return Ok(Some(completion));
                }
            }
        }
    }

    /// Asks the kernel to give up what it has not begun. Each request still ends by itself, with
    /// [`IoError::Cancelled`] or as it would have.
    pub fn cancel_all(&mut self) -> Result<(), QueueError> {
        let parked = self.parking.as_mut().map(Parking::clear).unwrap_or_default();
        for Parked { slot, request, .. } in parked {
            self.finish(slot, request.token, Err(IoError::Cancelled), request.data);
        }
        if let Some(uring) = &mut self.engine {
            uring.cancel();
        }
        self.push()
    }
}

impl Drop for Queue {
    /// Waits until images' threads have let go of all memory.
    fn drop(&mut self) {
        while self.posted != 0 {
            self.collect(true);
        }
    }
}

/// What became of a request that makes sense.
enum Start {
    Done,
    Posted,
    Going(Progress, Option<Box<[u8]>>),
}

fn check(
    disk: &Disk,
    operation: Operation,
    offset: u64,
    data: &GuestSlices,
) -> Result<(), IoError> {
    if operation.is_write() && disk.is_read_only() {
        return Err(IoError::ReadOnly);
    }
    let block = u64::from(disk.logical_block());
    let len = match operation {
        Operation::Read | Operation::Write { .. } => data.len() as u64,
        Operation::Flush => return Ok(()),
        Operation::Discard { len } | Operation::WriteZeroes { len } => len,
        Operation::WriteSame { .. } if data.len() as u64 != block => {
            let len = data.len() as u64;
            return Err(IoError::Misaligned { offset, len, block: disk.logical_block() });
        }
        Operation::WriteSame { len } => len,
    };
    if !offset.is_multiple_of(block) || !len.is_multiple_of(block) {
        return Err(IoError::Misaligned { offset, len, block: disk.logical_block() });
    }
    let capacity = disk.capacity();
    if offset.checked_add(len).is_none_or(|end| end > capacity) {
        return Err(IoError::BeyondEnd { offset, len, capacity });
    }
    Ok(())
}

/// The block in `data`, repeated; `None` for zeroes.
fn pattern(data: &GuestSlices) -> Option<Box<[u8]>> {
    let mut block = vec![0; data.len()];
    data.read_at(0, &mut block);
    let is_zero = block.iter().all(|byte| *byte == 0);
    (!is_zero).then(|| block.repeat(FILL_LEN / block.len()).into())
}

/// Where images' threads leave what has ended, if the system has one.
fn mailbox() -> Option<Arc<Mailbox>> {
    match Mailbox::new() {
        Ok(mailbox) => Some(Arc::new(mailbox)),
        Err(error) => {
            log::warn!("no eventfd ({error}): images are read and written synchronously");
            None
        }
    }
}

/// Where requests wait, if the system has a timer for that.
fn parking(depth: usize) -> Option<Parking> {
    match Parking::new(depth) {
        Ok(parking) => Some(parking),
        Err(error) => {
            log::warn!("no timer ({error}): disks have no limits");
            None
        }
    }
}

fn raw_fd(disk: &Disk) -> i32 {
    match disk.image() {
        Image::Raw(file) => file.as_raw_fd(),
        Image::Ram(_) | Image::Formatted(_) => -1,
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
