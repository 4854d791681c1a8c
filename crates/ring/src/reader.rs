// SPDX-License-Identifier: MIT OR Apache-2.0

//! The end of a ring that takes packets out.

use busway_wire::packet::{DESCRIPTOR_LEN, Descriptor, TRAILER_LEN};
use zerocopy::{FromZeros, IntoBytes};

use crate::{
    DESCRIPTOR, Packet, PacketBuf, RingError, RingMem, Word, advance, checked_index, used,
};

/// Takes packets out of a ring.
///
/// ```text
/// mask();  loop { while let Some(packet) = next() { … }  publish();  if !rearm() { break } }
/// ```
///
/// The index that counts is the one kept here: what the other end writes over `read_index` changes
/// nothing.
#[derive(Debug)]
pub struct Reader<M> {
    mem: M,
    /// Where the next packet starts.
    read: u32,
    /// What `read_index` in the ring says.
    published: u32,
    /// The writer's index as last seen and checked.
    write: u32,
}

impl<M: RingMem> Reader<M> {
    /// Goes on where the ring's own indices stand.
    pub fn new(mem: M) -> Result<Self, RingError> {
        let read = checked_index(&mem, Word::ReadIndex)?;
        Ok(Self { mem, read, published: read, write: read })
    }

    /// The memory of this ring.
    pub const fn mem(&self) -> &M {
        &self.mem
    }

    /// Where the next packet starts, or will start.
    #[inline]
    pub const fn position(&self) -> u32 {
        self.read
    }

    /// Takes the next packet, into `buf`; `None` when the ring is empty.
    ///
    /// The writer's room does not grow until [`publish`](Self::publish).
    #[inline(always)]
    pub fn next<'b>(&mut self, buf: &'b mut PacketBuf) -> Result<Option<Packet<'b>>, RingError> {
        if self.read == self.write {
            self.write = checked_index(&self.mem, Word::WriteIndex)?;
            if self.read == self.write {
                return Ok(None);
            }
        }
        let (at, len) = (self.read, self.mem.data_len());
        let available = used(self.write, at, len);
        let mut descriptor = Descriptor::new_zeroed();
        self.mem.read(at, descriptor.as_mut_bytes());
        let total = descriptor.total_len();
        let ring_len = total + TRAILER_LEN;
        let too_long = RingError::PacketLength { at, total: ring_len, available };
        let count = u32::try_from(ring_len).map_err(|_| too_long)?;
        if total < DESCRIPTOR_LEN || count > available {
            return Err(too_long);
        }
        let body = buf.room(total - DESCRIPTOR_LEN).ok_or(too_long)?;
        self.mem.read(advance(at, DESCRIPTOR, len), body);
        self.read = advance(at, count, len);
        let offset = descriptor.data_offset();
        let packet = buf.packet(descriptor);
        packet.map(Some).ok_or(RingError::DataOffset { at, offset, total })
    }

    /// Gives the room of all packets taken so far back to the writer; true if the writer waits for
    /// it and must be signalled.
    #[inline]
    #[must_use = "a writer that is not signalled stalls"]
    pub fn publish(&mut self) -> bool {
        if self.read == self.published {
            return false;
        }
        let len = self.mem.data_len();
        let freed = used(self.read, self.published, len);
        self.mem.store_then_barrier(Word::ReadIndex, self.read);
        self.published = self.read;
        // Windows asks for the ring's size less one: the low bits mean nothing.
        let pending = self.mem.load(Word::PendingSendSize) & !7;
        if pending == 0 {
            return false;
        }
        let Ok(write) = checked_index(&self.mem, Word::WriteIndex) else {
            return false;
        };
        let free = len - used(write, self.read, len);
        // Only the step over the line signals, so that a writer is woken once.
        free > pending && free - freed.min(free) <= pending
    }

    /// Asks the writer for no signals, until [`rearm`](Self::rearm).
    #[inline]
    pub fn mask(&mut self) {
        self.mem.store(Word::InterruptMask, 1);
    }

    /// Asks for a signal with the next packet; false if one is there already and no signal will
    /// come for it.
    ///
    /// An index that makes no sense counts as a packet: [`next`](Self::next) then says what is
    /// wrong.
    #[inline]
    #[must_use = "a ring that is not empty must be drained"]
    pub fn rearm(&mut self) -> bool {
        self.mem.store_then_barrier(Word::InterruptMask, 0);
        !self.has_packet()
    }

    /// Whether a packet is there.
    #[inline]
    pub fn has_packet(&self) -> bool {
        self.read != self.mem.load(Word::WriteIndex)
    }
}
