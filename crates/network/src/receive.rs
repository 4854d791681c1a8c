// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames from the network into the guest's receive buffer.
//!
//! ```text
//! 0              110           120          part_len
//! | header,notes | FrameHeader | frame ...  |      the first part of a frame
//! | header,notes | frame goes on ...        |      further parts, of a coalesced one
//! ```
//!
//! The network writes from byte 110 on; what it says about the frame is looked at there, and what
//! the guest is to know is written before. The guest may change any of that meanwhile: it lies to
//! itself then.

use std::io;
use std::sync::Arc;

use busway_frames::{FrameHeader, Queue};
use busway_memory::{GuestMemory, GuestSlices};
use busway_wire::rndis::{HEADER_ROOM, PacketId, ReceiveChecksum, ReceiveInfo};
use zerocopy::FromBytes;

use crate::buffers::{Parts, ReceiveBuffer};
use crate::checksum::Sum;
use crate::ethernet::{Frame, LOOK_LEN, TAG_LEN, TYPE_AT, Transport};
use crate::outbox::Piece;
use crate::settings::Settings;

/// Where the network's bytes start in a part.
const FROM: usize = HEADER_ROOM.next_multiple_of(2) + 2;

/// Where a frame starts in its first part.
const FRAME_AT: usize = FROM + FrameHeader::LEN;

/// Bytes of a part that are not for the frame: the header, and one by which a frame that is too
/// long is known.
pub(crate) const BEFORE: u32 = (FRAME_AT + 1) as u32;

/// Parts that are got ready at once, beyond what one frame needs.
const AHEAD: usize = 32;

/// Most parts that a coalesced frame may take: as many as a packet to the guest names.
const MOST_PARTS: usize = 64;

/// What came of an attempt to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A frame for the channel with this index; its pieces are in [`Receiver::pieces`].
    Frame(u16),
    /// A frame that the guest does not want.
    Dropped,
    /// A frame that has more bytes than the guest can take.
    TooLong,
    /// There is no frame now.
    Nothing,
    /// There is no free part.
    NoParts,
}

/// A part that is ready for the network.
#[derive(Clone, Copy, Debug)]
struct Ready {
    part: u32,
    /// How many vectors were made of it and of those before it, ever.
    vectors: usize,
}

/// Puts frames into parts of one buffer.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) buffer: Arc<ReceiveBuffer>,
    slices: GuestSlices,
    ready: Vec<Ready>,
    /// The first of `ready` that is not used.
    next: usize,
    /// How many vectors were made of parts that are not in `ready` any more.
    dropped: usize,
    /// Parts that the longest frame takes.
    need: usize,
    /// The last frame's.
    pub(crate) pieces: Vec<Piece>,
}

impl Receiver {
    pub(crate) fn new(
        memory: &GuestMemory,
        buffer: Arc<ReceiveBuffer>,
        settings: &Settings,
    ) -> Self {
        let mut receiver = Self {
            buffer,
            slices: GuestSlices::new(memory.clone()),
            ready: Vec::new(),
            next: 0,
            dropped: 0,
            need: 1,
            pieces: Vec::new(),
        };
        receiver.set_longest(settings.longest_packet());
        receiver
    }

    /// Whether a buffer with parts of `part_len` bytes can hold coalesced frames at all.
    pub(crate) fn can_coalesce(buffer: &ReceiveBuffer) -> bool {
        let need = parts_for(65535, buffer.part_len as usize);
        need <= MOST_PARTS && buffer.part_count as usize >= 4 * need
    }

    /// From here on the longest IP packet has `len` bytes.
    pub(crate) fn set_longest(&mut self, len: usize) {
        self.need = parts_for(len, self.buffer.part_len as usize).min(MOST_PARTS);
    }

    /// Receives the next frame.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        queue: &mut Queue,
        parts: &mut Parts,
        settings: &Settings,
    ) -> io::Result<Received> {
        if self.ready.len() - self.next < self.need && !self.prepare(parts) {
            return Ok(Received::NoParts);
        }
        let Some(first) = self.ready.get(self.next).copied() else {
            return Ok(Received::NoParts);
        };
        let each = self.each();
        let vector = self.used() - self.dropped;
        let into = self.slices.part_from(vector, each * self.next, each * self.need);
        let capacity = into.len();
        let Some(len) = queue.receive(into)? else {
            return Ok(Received::Nothing);
        };
        if len >= capacity {
            return Ok(Received::TooLong);
        }
        let Some(len) = len.checked_sub(FrameHeader::LEN) else {
            return Ok(Received::Dropped);
        };
        Ok(self.accept(first.part, len, settings).map_or(Received::Dropped, Received::Frame))
    }

    /// Bytes of a part that the network writes.
    fn each(&self) -> usize {
        self.buffer.part_len as usize - FROM
    }

    /// Vectors of the parts that are used, and of all before.
    fn used(&self) -> usize {
        let last = self.next.checked_sub(1).and_then(|last| self.ready.get(last));
        last.map_or(self.dropped, |last| last.vectors)
    }

    /// Gets more parts ready; false if there are too few.
    fn prepare(&mut self, parts: &mut Parts) -> bool {
        let (each, used) = (self.each(), self.used());
        self.slices.drop_front(used - self.dropped, self.next * each);
        self.dropped = used;
        self.ready.drain(..self.next);
        self.next = 0;
        let missing = self.need.saturating_sub(self.ready.len());
        let have = parts.want(&self.buffer, missing);
        let room = (self.need + AHEAD).saturating_sub(self.ready.len());
        for _ in 0..have.min(room) {
            let Some(part) = parts.take() else { break };
            let start = self.buffer.start_of(part) + FROM;
            if self.slices.push_buffer(&self.buffer.memory, start, each).is_ok() {
                let vectors = self.dropped + self.slices.vectors().len();
                self.ready.push(Ready { part, vectors });
            }
        }
        self.ready.len() >= self.need
    }

    /// Decides on a frame of `len` bytes that has come into `part` and those after it: describes it
    /// to the guest, and says which channel's it is.
    fn accept(&mut self, part: u32, len: usize, settings: &Settings) -> Option<u16> {
        let start = self.buffer.start_of(part) + FROM;
        let mut look = [0; FrameHeader::LEN + LOOK_LEN];
        let seen = self.buffer.memory.read_at(start, &mut look).min(FrameHeader::LEN + len);
        let (header, bytes) = look.get(..seen)?.split_at_checked(FrameHeader::LEN)?;
        let header = FrameHeader::read_from_bytes(header).ok()?;
        let frame = Frame::parse(bytes)?;
        if !frame.passes(settings.filter, settings.mac, settings.groups.as_deref()) {
            return None;
        }
        if header.flags.needs_checksum() && header.gso_type.is_none() {
            self.fill_checksum(start + FrameHeader::LEN, bytes, len, &header);
        }
        let hash = settings.steering.as_ref().zip(frame.flow.as_ref());
        let hash = hash.and_then(|(steering, flow)| steering.hash(flow));
        let steering = settings.steering.as_ref();
        let channel = steering.zip(hash).map_or(0, |(steering, hash)| steering.channel(hash));
        let checksum = match frame.flow.map(|flow| flow.transport) {
            Some(Transport::Tcp) if header.flags.is_checked() => ReceiveChecksum::TCP_SUCCEEDED,
            Some(Transport::Udp) if header.flags.is_checked() => ReceiveChecksum::UDP_SUCCEEDED,
            _ => ReceiveChecksum::empty(),
        };
        let info = ReceiveInfo { checksum, vlan: frame.vlan, hash, piece: None };
        if frame.vlan.is_some() {
            // The tag goes into a note, and what stands before it moves up.
            let (addresses, _) = bytes.split_at_checked(TYPE_AT)?;
            let to = start + FrameHeader::LEN + TAG_LEN;
            self.buffer.memory.write_at(to, addresses);
        }
        self.describe(len, info);
        Some(channel)
    }

    /// Writes what stands before a frame of `len` bytes, in each of its parts.
    fn describe(&mut self, len: usize, info: ReceiveInfo) {
        self.pieces.clear();
        let room = self.buffer.part_len as usize;
        let in_one = FRAME_AT + len <= room;
        let (mut at, mut left) = (FRAME_AT, len);
        if info.vlan.is_some() {
            at += TAG_LEN;
            left = left.saturating_sub(TAG_LEN);
        }
        while left != 0 || self.pieces.is_empty() {
            let Some(ready) = self.ready.get(self.next) else { return };
            self.next += 1;
            let count = left.min(room - at);
            left -= count;
            let mut piece = PacketId::PIECE;
            piece.set(PacketId::FIRST, self.pieces.is_empty());
            piece.set(PacketId::LAST, left == 0);
            let first = if self.pieces.is_empty() { info } else { ReceiveInfo::default() };
            let info = ReceiveInfo { piece: (!in_one).then_some(piece), ..first };
            let mut header = [0; HEADER_ROOM];
            let written = info.write(&mut header, at as u32, count as u32);
            let start = self.buffer.start_of(ready.part);
            self.buffer.memory.write_at(start, header.get(..written).unwrap_or_default());
            let len = (at + count) as u32;
            self.pieces.push(Piece { part: ready.part, len, ends: left == 0 });
            at = FROM;
        }
    }

    /// Computes the checksum that is missing in a frame of `len` bytes, of which the first ones are in
    /// `seen`: the guest may pass it on.
    fn fill_checksum(&self, frame_at: usize, seen: &[u8], len: usize, header: &FrameHeader) {
        let from = usize::from(header.checksum_start);
        let to = from + usize::from(header.checksum_offset);
        if to + 2 > len {
            return;
        }
        let mut sum = Sum::default();
        let seen = seen.get(from..).unwrap_or_default();
        sum.add(seen);
        let at = from + seen.len();
        sum.add_buffer(&self.buffer.memory, frame_at + at, len - at);
        self.buffer.memory.write_at(frame_at + to, &sum.finish_transport());
    }

    /// Gives the parts back that are ready.
    pub(crate) fn clear(&mut self, parts: &mut Parts) {
        for ready in self.ready.drain(..).skip(self.next) {
            parts.put(ready.part);
        }
        (self.next, self.dropped) = (0, 0);
        self.slices.clear();
    }
}

/// Parts for an IP packet of `len` bytes, an Ethernet header and a tag, and the byte by which a
/// longer one is known.
fn parts_for(len: usize, part_len: usize) -> usize {
    (FrameHeader::LEN + 14 + TAG_LEN + len + 1).div_ceil(part_len - FROM)
}
