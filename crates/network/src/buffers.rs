// SPDX-License-Identifier: MIT OR Apache-2.0

//! The memory that a guest shares with its card for as long as it uses it.
//!
//! The receive buffer is divided into parts; each is the guest's from the packet that names it to
//! that packet's completion, and else the card's. Channels take free parts in handfuls, so that they
//! seldom meet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use busway_memory::{BeyondMemory, GuestBuffer, GuestMemory};
use busway_vmbus::{Gpadl, GpadlId};

/// Bytes of a section of the send buffer: what Linux gives its own copies, and so no worse.
pub(crate) const SEND_SECTION: u32 = 6144;

/// Bytes of the smallest part of the receive buffer: Linux counts on that many.
const SMALLEST_PART: u32 = 1728;

/// Why a list of pages is no buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BufferError {
    /// Not one range.
    #[error("{0} ranges, where one is a buffer")]
    Ranges(usize),
    /// Not even one part of it.
    #[error("{len} B are too few: a part has {part} B")]
    Small {
        /// Bytes.
        len: usize,
        /// Bytes of a part.
        part: u32,
    },
    /// Not memory.
    #[error(transparent)]
    Memory(#[from] BeyondMemory),
}

fn map(memory: &GuestMemory, gpadl: &Gpadl, part: u32) -> Result<GuestBuffer, BufferError> {
    let [range] = gpadl.ranges() else {
        return Err(BufferError::Ranges(gpadl.ranges().len()));
    };
    let len = range.byte_count as usize;
    if len < part as usize {
        return Err(BufferError::Small { len, part });
    }
    Ok(GuestBuffer::new(memory, &range.pfns, range.byte_offset as usize, len)?)
}

/// What the guest receives into.
#[derive(Debug)]
pub(crate) struct ReceiveBuffer {
    pub(crate) gpadl: GpadlId,
    /// The guest's name for it.
    pub(crate) id: u16,
    pub(crate) memory: GuestBuffer,
    /// Bytes of a part.
    pub(crate) part_len: u32,
    pub(crate) part_count: u32,
    free: Mutex<Vec<u32>>,
    /// A channel has found no part.
    starving: AtomicBool,
}

impl ReceiveBuffer {
    /// Divides a list of pages into parts that hold a frame of `frame_len` bytes each behind
    /// `before` others.
    pub(crate) fn new(
        memory: &GuestMemory,
        (gpadl_id, gpadl): (GpadlId, &Gpadl),
        id: u16,
        before: u32,
        frame_len: u32,
    ) -> Result<Self, BufferError> {
        let part_len = (before + frame_len).next_multiple_of(64).max(SMALLEST_PART);
        let memory = map(memory, gpadl, part_len)?;
        // GPADLs have less than 4 GiB.
        let part_count = memory.len() as u32 / part_len;
        let free = Mutex::new((0..part_count).rev().collect());
        let starving = AtomicBool::new(false);
        Ok(Self { gpadl: gpadl_id, id, memory, part_len, part_count, free, starving })
    }

    fn free(&self) -> MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parts that a channel takes at once: few enough that 64 channels leave some to each other.
    pub(crate) fn handful(&self) -> usize {
        (self.part_count as usize / 256).clamp(1, 64)
    }

    /// Takes up to a handful of free parts.
    fn take(&self, into: &mut Vec<u32>, count: usize) {
        let mut free = self.free();
        if free.len() < count {
            self.starving.store(true, Ordering::SeqCst);
        }
        let from = free.len().saturating_sub(count);
        into.extend(free.drain(from..));
    }

    /// Gives parts back; true if a channel had found none.
    pub(crate) fn give_back(&self, parts: impl IntoIterator<Item = u32>) -> bool {
        self.free().extend(parts);
        self.starving.swap(false, Ordering::SeqCst)
    }

    /// Where a part starts.
    pub(crate) const fn start_of(&self, part: u32) -> usize {
        part as usize * self.part_len as usize
    }
}

/// A channel's own free parts.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    free: Vec<u32>,
}

impl Parts {
    /// Makes sure that there are `count`, if the buffer has them; how many there are.
    pub(crate) fn want(&mut self, buffer: &ReceiveBuffer, count: usize) -> usize {
        if self.free.len() < count {
            let missing = count - self.free.len();
            buffer.take(&mut self.free, missing.max(buffer.handful()));
        }
        self.free.len()
    }

    pub(crate) fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    pub(crate) fn put(&mut self, part: u32) {
        self.free.push(part);
    }

    /// Gives back what is more than this channel needs; true if another waits for parts.
    pub(crate) fn share(&mut self, buffer: &ReceiveBuffer) -> bool {
        let starving = buffer.starving.load(Ordering::Relaxed);
        let keep = if starving { 0 } else { 2 * buffer.handful() };
        if self.free.len() <= keep {
            return false;
        }
        let surplus = if starving { 0 } else { buffer.handful() };
        buffer.give_back(self.free.drain(surplus..))
    }

    /// Gives back all; true if another waits for parts.
    pub(crate) fn clear(&mut self, buffer: &ReceiveBuffer) -> bool {
        buffer.give_back(self.free.drain(..))
    }
}

/// What the guest sends from.
#[derive(Debug)]
pub(crate) struct SendBuffer {
    pub(crate) gpadl: GpadlId,
    pub(crate) memory: GuestBuffer,
}

impl SendBuffer {
    pub(crate) fn new(
        memory: &GuestMemory,
        (gpadl_id, gpadl): (GpadlId, &Gpadl),
    ) -> Result<Self, BufferError> {
        Ok(Self { gpadl: gpadl_id, memory: map(memory, gpadl, SEND_SECTION)? })
    }

    /// Where the first `len` bytes of section `index` start, if they are in it.
    pub(crate) fn section(&self, index: u32, len: u32) -> Option<usize> {
        let start = u64::from(index) * u64::from(SEND_SECTION);
        let fits = len <= SEND_SECTION && start + u64::from(len) <= self.memory.len() as u64;
        fits.then_some(start as usize)
    }
}
