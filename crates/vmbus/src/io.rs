// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a channel handler can do.

use std::collections::VecDeque;
use std::sync::Arc;

use busway_memory::{GuestMemory, GuestSlices, RingArea};
use busway_ring::{Full, Outgoing, Packet, Writer};
use busway_wire::packet::{GpaRanges, PacketType};

use crate::action::InterruptTarget;
use crate::fault::{Fault, lasting};
use crate::gpadl::{Gpadl, GpadlId, Lists};
use crate::meddler::{Absence, ChannelMeddler, HeldPacket, HostFate, Rewrite};
use crate::milestone::{Reporter, Step};
use crate::tap::{Side, Tapped};

/// Bytes of the ring that packets on a handler's own account leave to answers, so that what the
/// guest waits for is not behind what it did not ask for. Half of a ring that has no more.
const SPARED: u32 = 4096;

/// What became of a packet that answers no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a packet that was not sent must be kept"]
pub enum Sent {
    /// The guest sees it at the end of the batch.
    Yes,
    /// There is no room now; `on_batch` comes again when there may be some.
    NoRoom,
}

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
    pub(crate) backlog: VecDeque<HeldPacket>,
    pub(crate) gpadls: Lists,
    pub(crate) interrupts: Arc<dyn Interrupts>,
    pub(crate) target: InterruptTarget,
    /// Room that [`Io::send`] did not find in this batch; 0 for none.
    pub(crate) wanted: u32,
    /// Subchannels that the handler has asked for.
    pub(crate) subchannels: Option<u16>,
    /// The channel's device is to be taken from the guest.
    pub(crate) ended: Option<Absence>,
    /// Who is told how far the guest has come.
    pub(crate) reporter: Option<Reporter>,
    /// Who sees every packet.
    pub(crate) tap: Option<Tapped>,
    /// Who changes what passes.
    pub(crate) meddler: Option<Box<dyn ChannelMeddler>>,
    /// What the last packet refers to is to change so.
    pub(crate) rewrite: Option<Rewrite>,
    /// It has not been told of any work.
    pub(crate) awaits_work: bool,
    /// The guest has closed the channel: its rings are its own again.
    pub(crate) closed: bool,
}

impl Link {
    /// Writes what waits, as far as there is room; true if nothing waits any more. If not, the
    /// guest has been asked to signal when there is room.
    pub(crate) fn write_backlog(&mut self) -> Result<bool, Fault> {
        while let Some(held) = self.backlog.front() {
            let packet = held.outgoing();
            if let Err(full) = push(&mut self.writer, self.tap.as_mut(), &packet, 0) {
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

    /// Asks the guest for the room that was wanted; false if it is there by now.
    pub(crate) fn wait_for_wanted(&mut self) -> Result<bool, Fault> {
        match std::mem::take(&mut self.wanted) {
            0 => Ok(true),
            need => Ok(self.writer.wait_for_room(need)?),
        }
    }

    #[inline]
    fn push(&mut self, packet: &Outgoing<'_>, spare: u32) -> Result<(), Full> {
        push(&mut self.writer, self.tap.as_mut(), packet, spare)
    }

    /// Puts a packet into the ring, or behind those that wait for room.
    fn push_or_keep(&mut self, packet: HeldPacket) -> Result<(), Fault> {
        if self.backlog.is_empty() {
            match self.push(&packet.outgoing(), 0) {
                Ok(()) => return Ok(()),
                Err(full) => lasting(full).map_or(Ok(()), Err)?,
            }
        }
        self.backlog.push_back(packet);
        Ok(())
    }

    /// Sends what the meddler makes of a packet. It is asked once, so nothing is left to the handler
    /// for want of room.
    #[cold]
    fn meddle(&mut self, packet: &Outgoing<'_>) -> Result<(), Fault> {
        let meddler = self.meddler.as_mut();
        match meddler.map_or(HostFate::Passes, |meddler| meddler.sends(packet)) {
            HostFate::Passes => self.push_or_keep(HeldPacket::of(packet)),
            HostFate::Becomes(packets) => {
                packets.into_iter().try_for_each(|packet| self.push_or_keep(packet))
            }
            HostFate::Rewrites(rewrite) => {
                self.rewrite = Some(rewrite);
                self.push_or_keep(HeldPacket::of(packet))
            }
            HostFate::Rescinds(absence) => {
                self.end(absence);
                self.push_or_keep(HeldPacket::of(packet))
            }
        }
    }

    /// Sends what the meddler has kept until now.
    pub(crate) fn send_late(&mut self) -> Result<(), Fault> {
        while let Some(packet) = self.meddler.as_mut().and_then(|meddler| meddler.late()) {
            self.push_or_keep(packet)?;
        }
        Ok(())
    }

    pub(crate) fn end(&mut self, absence: Absence) {
        self.ended = self.ended.max(Some(absence));
    }

    fn spared(&self) -> u32 {
        SPARED.min(self.writer.mem().data_len() / 2)
    }
}

/// Puts a packet into the ring, past the tap.
#[inline]
fn push(
    writer: &mut Writer<RingArea>,
    tap: Option<&mut Tapped>,
    packet: &Outgoing<'_>,
    spare: u32,
) -> Result<(), Full> {
    let at = writer.position();
    writer.push_sparing(packet, spare)?;
    if let Some(tap) = tap {
        tap.wrote(at, packet);
    }
    Ok(())
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
    pub fn gpadl(&self, id: GpadlId) -> Option<Arc<Gpadl>> {
        self.link.gpadls.get(id)
    }

    /// Answers the request `transaction_id`. Never lost: without room in the ring it is kept until
    /// there is some, and no packet is taken meanwhile. The guest sees it at the end of the batch.
    #[inline]
    pub fn complete(&mut self, transaction_id: u64, payload: &[u8]) -> Result<(), Fault> {
        let packet = Outgoing::completion(transaction_id, payload);
        if self.link.closed {
            return Ok(());
        }
        if self.link.meddler.is_some() {
            return self.link.meddle(&packet);
        }
        if self.link.backlog.is_empty() {
            match self.link.push(&packet, 0) {
                Ok(()) => return Ok(()),
                Err(full) => lasting(full).map_or(Ok(()), Err)?,
            }
        }
        self.link.backlog.push_back(HeldPacket::of(&packet));
        Ok(())
    }

    /// Sends a packet that answers no request, if there is room for it beside some for answers.
    ///
    /// The guest sees it at the end of the batch. After [`Sent::NoRoom`] the guest signals when
    /// there is room, and `on_batch` follows.
    #[inline]
    pub fn send(&mut self, packet: &Outgoing<'_>) -> Result<Sent, Fault> {
        if self.link.closed {
            return Ok(Sent::Yes);
        }
        if !self.link.backlog.is_empty() {
            return Ok(Sent::NoRoom);
        }
        if self.link.meddler.is_some() {
            return self.link.meddle(packet).map(|()| Sent::Yes);
        }
        let spared = self.link.spared();
        match self.link.push(packet, spared) {
            Ok(()) => Ok(Sent::Yes),
            Err(Full::NoRoom { need, .. }) => {
                self.link.wanted = need;
                Ok(Sent::NoRoom)
            }
            Err(full) => lasting(full).map_or(Ok(Sent::NoRoom), Err),
        }
    }

    /// What changes in the data that the packet of transfer pages refers to which was sent last. A handler
    /// that sends such packets asks behind each, as only it knows where that data is.
    #[inline]
    pub const fn rewrite(&mut self) -> Option<Rewrite> {
        self.link.rewrite.take()
    }

    /// Takes the device from the guest, after it has seen what was sent in this batch: for one that
    /// is used once.
    pub fn end(&mut self) {
        self.link.end(Absence::Lasting);
    }

    /// The guest has come so far with the device. [`Step::Worked`] goes through
    /// [`worked`](Self::worked).
    pub fn reached(&mut self, step: Step) {
        if let Some(reporter) = &self.link.reporter {
            reporter.report(step);
        }
    }

    /// The device was of use to the guest. May be called each time; the first counts.
    #[inline]
    pub fn worked(&mut self) {
        if self.link.awaits_work {
            self.link.awaits_work = false;
            self.reached(Step::Worked);
        }
    }

    /// Whether somebody wants to be [shown](Self::show) data of which there may be much.
    #[inline]
    pub fn shows_data(&self) -> bool {
        self.link.tap.as_ref().is_some_and(Tapped::wants_data)
    }

    /// Shows whoever watches the channel what a packet refers to and does not hold: `len` bytes
    /// from `side`, of which `read` copies the first ones. Nothing is copied when nobody watches.
    #[inline]
    pub fn show(
        &self,
        side: Side,
        transaction_id: u64,
        len: usize,
        read: &dyn Fn(&mut [u8]) -> usize,
    ) {
        if let Some(tap) = &self.link.tap {
            tap.show(side, transaction_id, len, read);
        }
    }

    /// Has the guest offered `count` subchannels of this channel, beyond those it has. It is told
    /// after it has seen what was sent in this batch.
    pub fn offer_subchannels(&mut self, count: u16) {
        self.link.subchannels = Some(count);
    }
}

/// Resolves the external pages of a GPA-direct packet into `slices`, in the order in which data
/// goes through them. `slices` is cleared first; a packet of another type has none.
pub fn external_pages(packet: &Packet<'_>, slices: &mut GuestSlices) -> Result<(), Fault> {
    slices.clear();
    append_external_pages(packet, slices)
}

/// As [`external_pages`], behind what `slices` has.
pub fn append_external_pages(packet: &Packet<'_>, slices: &mut GuestSlices) -> Result<(), Fault> {
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
