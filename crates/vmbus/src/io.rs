// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a channel handler can do.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use busway_memory::{GuestMemory, GuestSlices, RingArea};
use busway_ring::{Outgoing, Packet, Writer};
use busway_wire::packet::{GpaRanges, PacketType};

use crate::action::InterruptTarget;
use crate::fault::{Fault, lasting};
use crate::gpadl::{Gpadl, GpadlId};

/// How a guest is interrupted: the engine's work, behind all channels.
pub trait Interrupts: Send + Sync {
    /// Tells the guest that there is something for it at `target`.
    fn raise(&self, target: InterruptTarget);
}

/// The host's side of one open channel, except for its incoming ring: what a handler reaches
/// through [`Io`].
pub(crate) struct Link {
    pub(crate) memory: GuestMemory,
    pub(crate) writer: Writer<RingArea>,
    /// Packets that found no room, oldest first. While there are any, no packet is taken, so there
    /// are never more than a handler answers at once.
    pub(crate) backlog: VecDeque<Held>,
    pub(crate) gpadls: BTreeMap<GpadlId, Arc<Gpadl>>,
    pub(crate) interrupts: Arc<dyn Interrupts>,
    pub(crate) target: InterruptTarget,
    /// The guest has closed the channel: its rings are its own again.
    pub(crate) closed: bool,
}

/// A packet that waits for room.
pub(crate) struct Held {
    kind: PacketType,
    flags: u16,
    transaction_id: u64,
    payload: Box<[u8]>,
}

impl Held {
    pub(crate) fn outgoing(&self) -> Outgoing<'_> {
        let &Self { kind, flags, transaction_id, ref payload } = self;
        Outgoing { kind, flags, transaction_id, header: &[], payload }
    }
}

impl Link {
    /// Writes what waits, as far as there is room; true if nothing waits any more. If not, the
    /// guest has been asked to signal when there is room.
    pub(crate) fn write_backlog(&mut self) -> Result<bool, Fault> {
        while let Some(held) = self.backlog.front() {
            let packet = held.outgoing();
            if let Err(full) = self.writer.push(&packet) {
                if let Some(fault) = lasting(full) {
                    return Err(fault);
                }
                let need = u32::try_from(packet.ring_len()).unwrap_or(u32::MAX);
                if self.writer.wait_for_room(need)? {
                    return Ok(false);
                }
                continue;
            }
            self.backlog.pop_front();
        }
        self.writer.stop_waiting();
        Ok(true)
    }
}

/// A handler's hands: everything that it may do to its guest.
pub struct Io<'a> {
    pub(crate) link: &'a mut Link,
}

impl Io<'_> {
    /// The guest's memory.
    pub const fn memory(&self) -> &GuestMemory {
        &self.link.memory
    }

    /// A list of pages that the guest has made for this channel.
    pub fn gpadl(&self, id: GpadlId) -> Option<&Arc<Gpadl>> {
        self.link.gpadls.get(&id)
    }

    /// Answers the request `transaction_id`. Never lost: without room in the ring it is kept until
    /// there is some, and no packet is taken meanwhile. The guest sees it at the end of the batch.
    #[inline]
    pub fn complete(&mut self, transaction_id: u64, payload: &[u8]) -> Result<(), Fault> {
        let packet = Outgoing::completion(transaction_id, payload);
        if self.link.closed {
            return Ok(());
        }
        if self.link.backlog.is_empty() {
            match self.link.writer.push(&packet) {
                Ok(()) => return Ok(()),
                Err(full) => lasting(full).map_or(Ok(()), Err)?,
            }
        }
        let Outgoing { kind, flags, transaction_id, .. } = packet;
        self.link.backlog.push_back(Held { kind, flags, transaction_id, payload: payload.into() });
        Ok(())
    }
}

/// Resolves the external pages of a GPA-direct packet into `slices`, in the order in which data
/// goes through them. `slices` is cleared first; a packet of another type has none.
pub fn external_pages(packet: &Packet<'_>, slices: &mut GuestSlices) -> Result<(), Fault> {
    slices.clear();
    if packet.descriptor.kind != PacketType::DATA_USING_GPA_DIRECT {
        return Ok(());
    }
    for range in GpaRanges::parse(packet.header)? {
        let range = range?;
        let (offset, len) = (range.header.byte_offset as usize, range.header.byte_count as usize);
        slices.push_pages(range.pfns(), offset, len)?;
    }
    Ok(())
}
