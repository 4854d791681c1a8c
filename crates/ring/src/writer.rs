// SPDX-License-Identifier: MIT OR Apache-2.0

//! The end of a ring that puts packets in.

use busway_wire::ring::FEATURE_PENDING_SEND_SIZE;

use crate::{
    DESCRIPTOR, Outgoing, RingError, RingMem, TRAILER, Word, advance, checked_index, used,
};

/// A packet did not go into the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// There is no room now; see [`Writer::wait_for_room`].
    #[error("a packet of {need} B finds {free} B of room")]
    NoRoom {
        /// Bytes of the packet in the ring, and of what must be spared.
        need: u32,
        /// Bytes free.
        free: u32,
    },
    /// There never is: the packet is longer than the ring, or than a descriptor can say.
    #[error("a packet of {need} B never fits into a ring of {len} B")]
    Never {
        /// Bytes of the packet in the ring.
        need: usize,
        /// Bytes of the data area.
        len: u32,
    },
    /// The ring is broken.
    #[error(transparent)]
    Broken(#[from] RingError),
}

/// Puts packets into a ring.
///
/// Packets become visible together, at [`publish`](Self::publish).
#[derive(Debug)]
pub struct Writer<M> {
    mem: M,
    /// Where the next packet starts.
    write: u32,
    /// What `write_index` in the ring says.
    published: u32,
    /// The reader's index as last seen and checked.
    read: u32,
    /// What `pending_send_sz` in the ring says.
    pending: u32,
}

impl<M: RingMem> Writer<M> {
    /// Goes on where the ring's own indices stand, and says that `pending_send_sz` will be used.
    pub fn new(mem: M) -> Result<Self, RingError> {
        let write = checked_index(&mem, Word::WriteIndex)?;
        let read = checked_index(&mem, Word::ReadIndex)?;
        mem.store(Word::FeatureBits, mem.load(Word::FeatureBits) | FEATURE_PENDING_SEND_SIZE);
        mem.store(Word::PendingSendSize, 0);
        Ok(Self { mem, write, published: write, read, pending: 0 })
    }

    /// The memory of this ring.
    pub const fn mem(&self) -> &M {
        &self.mem
    }

    /// Where the next packet will start.
    #[inline]
    pub const fn position(&self) -> u32 {
        self.write
    }

    /// Bytes that can be written now, by the reader's index as it stands in the ring.
    pub fn free(&mut self) -> Result<u32, RingError> {
        self.read = checked_index(&self.mem, Word::ReadIndex)?;
        Ok(self.known_free())
    }

    #[inline]
    fn known_free(&self) -> u32 {
        let len = self.mem.data_len();
        len - used(self.write, self.read, len)
    }

    /// Puts `packet` into the ring, unseen until [`publish`](Self::publish).
    #[inline]
    pub fn push(&mut self, packet: &Outgoing<'_>) -> Result<(), Full> {
        self.push_sparing(packet, 0)
    }

    /// As [`push`](Self::push), as long as `spare` bytes are left for others; of a ring that is too
    /// small for both, the packet counts more.
    #[inline]
    pub fn push_sparing(&mut self, packet: &Outgoing<'_>, spare: u32) -> Result<(), Full> {
        let len = self.mem.data_len();
        let never = Full::Never { need: packet.ring_len(), len };
        let need = u32::try_from(packet.ring_len()).map_err(|_| never)?;
        let descriptor = packet.descriptor().filter(|_| need < len).ok_or(never)?;
        // Indices that meet mean an empty ring, so a full one keeps a unit free.
        let room = need.saturating_add(spare).min(len - 1);
        if self.known_free() <= room && self.free()? <= room {
            return Err(Full::NoRoom { need: room, free: self.known_free() });
        }
        let start = self.write;
        let [first, second] = descriptor.words().map(u64::to_le_bytes);
        self.mem.write(start, &first);
        self.mem.write(advance(start, DESCRIPTOR / 2, len), &second);
        if !packet.header.is_empty() {
            self.mem.write(advance(start, DESCRIPTOR, len), packet.header);
        }
        let data_offset = u32::from(descriptor.data_offset8) * 8;
        let end = advance(start, need - TRAILER, len);
        if !packet.payload.len().is_multiple_of(8) {
            // The last word is partly padding: zeroes, not what an older packet left there.
            self.mem.write(advance(end, len - 8, len), &[0; 8]);
        }
        self.mem.write(advance(start, data_offset, len), packet.payload);
        self.mem.write(end, &(u64::from(start) << 32).to_le_bytes());
        self.write = advance(end, TRAILER, len);
        Ok(())
    }

    /// Shows the reader all packets put in so far; true if it must be signalled.
    #[inline]
    #[must_use = "a reader that is not signalled sleeps on"]
    pub fn publish(&mut self) -> bool {
        if self.write == self.published {
            return false;
        }
        let before = self.published;
        self.mem.store_then_barrier(Word::WriteIndex, self.write);
        self.published = self.write;
        // A reader that had not read everything before is still reading and will find these.
        self.mem.load(Word::InterruptMask) == 0 && self.mem.load(Word::ReadIndex) == before
    }

    /// Asks the reader for a signal when a packet of `need` bytes ([`Outgoing::ring_len`]) fits;
    /// false if it fits already and no signal will come.
    #[must_use = "room that is there already must be used"]
    pub fn wait_for_room(&mut self, need: u32) -> Result<bool, RingError> {
        self.pending = need;
        self.mem.store_then_barrier(Word::PendingSendSize, need);
        Ok(self.free()? <= need)
    }

    /// Asks for no such signal any more.
    #[inline]
    pub fn stop_waiting(&mut self) {
        if self.pending != 0 {
            self.pending = 0;
            self.mem.store(Word::PendingSendSize, 0);
        }
    }
}
