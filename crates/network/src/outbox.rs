// SPDX-License-Identifier: MIT OR Apache-2.0

//! Messages on their way to the guest: parts of the receive buffer, named in packets.

use std::collections::VecDeque;

use busway_ring::Outgoing;
use busway_vmbus::{Fault, Io, Rewrite, Sent, Side};
use busway_wire::nvsp::{Message, MessageType, RndisChannel, RndisPacket};
use busway_wire::packet::{COMPLETION_REQUESTED, PacketType, TransferPageHeader, TransferRange};
use zerocopy::IntoBytes;

use crate::buffers::ReceiveBuffer;

/// Messages in one packet at most: a coalesced frame of 64 KiB fits, and the packet into what any
/// guest reads at once.
const MOST_RANGES: usize = 64;

/// A message, or a piece of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The part of the receive buffer that it is in, from its start on.
    pub(crate) part: u32,
    /// Bytes.
    pub(crate) len: u32,
    /// Whether the frame ends here.
    pub(crate) ends: bool,
}

/// A packet that the guest has not completed.
#[derive(Debug, Default)]
struct Flight {
    parts: Vec<u32>,
}

/// What waits for room in the ring, and what the guest has.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    control: VecDeque<Piece>,
    frames: VecDeque<Piece>,
    flights: Vec<Flight>,
    free: Vec<usize>,
}

/// The ranges of a packet, as they stand in it.
struct Ranges {
    bytes: [u8; size_of::<TransferPageHeader>() + MOST_RANGES * size_of::<TransferRange>()],
    count: usize,
}

impl Ranges {
    fn new(pieces: &[Piece], page_set_id: u16, part_len: u32) -> Self {
        let mut bytes = [0; _];
        let range_count = pieces.len() as u32;
        let header =
            TransferPageHeader { page_set_id, sender_owns_set: 0, reserved: 0, range_count };
        let ranges = pieces.iter().map(|piece| {
            let byte_offset = piece.part * part_len;
            TransferRange { byte_count: piece.len, byte_offset }
        });
        let (words, _) = bytes.as_chunks_mut::<8>();
        let mut words = words.iter_mut();
        if let Some(word) = words.next() {
            word.copy_from_slice(header.as_bytes());
        }
        for (word, range) in words.zip(ranges) {
            word.copy_from_slice(range.as_bytes());
        }
        Self { bytes, count: pieces.len() }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..8 + self.count * 8).unwrap_or_default()
    }
}

impl Outbox {
    pub(crate) fn push_control(&mut self, piece: Piece) {
        self.control.push_back(piece);
    }

    pub(crate) fn push_frame(&mut self, piece: Piece) {
        self.frames.push_back(piece);
    }

    /// Pieces of frames that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.frames.len()
    }

    /// Sends what waits, as far as there is room: messages of the card first, each in a packet of
    /// its own, then frames, as many as a packet takes.
    pub(crate) fn send(&mut self, io: &mut Io<'_>, buffer: &ReceiveBuffer) -> Result<(), Fault> {
        while let Some(&piece) = self.control.front() {
            if self.send_packet(io, RndisChannel::CONTROL, &[piece], buffer)? == Sent::NoRoom {
                return Ok(());
            }
            self.control.pop_front();
        }
        let mut pieces = [Piece::default(); MOST_RANGES];
        while !self.frames.is_empty() {
            let count = self.next_batch();
            let from = self.frames.iter().take(count);
            pieces.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            let pieces = pieces.get(..count).unwrap_or_default();
            if self.send_packet(io, RndisChannel::DATA, pieces, buffer)? == Sent::NoRoom {
                return Ok(());
            }
            self.frames.drain(..count);
        }
        Ok(())
    }

    /// As many pieces as a packet takes, of whole frames: a guest puts a frame together within one
    /// packet.
    fn next_batch(&self) -> usize {
        let most = self.frames.len().min(MOST_RANGES);
        let last = self.frames.iter().take(most).rposition(|piece| piece.ends);
        last.map_or(most, |index| index + 1)
    }

    fn send_packet(
        &mut self,
        io: &mut Io<'_>,
        channel: RndisChannel,
        pieces: &[Piece],
        buffer: &ReceiveBuffer,
    ) -> Result<Sent, Fault> {
        let ranges = Ranges::new(pieces, buffer.id, buffer.part_len);
        let index = match self.free.last() {
            Some(index) => *index,
            None => {
                // No more than there are parts, which the guest has given.
                self.flights.push(Flight::default());
                self.free.push(self.flights.len() - 1);
                self.flights.len() - 1
            }
        };
        let section_index = RndisPacket::NO_SECTION;
        let body = RndisPacket { channel, section_index, section_len: 0 };
        let message = Message::new(MessageType::SEND_RNDIS_PACKET, &body);
        let packet = Outgoing {
            kind: PacketType::DATA_USING_TRANSFER_PAGES,
            flags: COMPLETION_REQUESTED,
            transaction_id: index as u64 + 1,
            header: ranges.bytes(),
            payload: message.as_bytes(),
        };
        let sent = io.send(&packet)?;
        if sent == Sent::Yes {
            if let (Some(rewrite), Some(piece)) = (io.rewrite(), pieces.first()) {
                change(*piece, &rewrite, buffer);
            }
            if channel == RndisChannel::CONTROL || io.shows_data() {
                show(io, packet.transaction_id, pieces, buffer);
            }
            self.free.pop();
            if let Some(flight) = self.flights.get_mut(index) {
                flight.parts.extend(pieces.iter().map(|piece| piece.part));
            }
        }
        Ok(sent)
    }

    /// The guest has completed a packet: hands its parts to `put`. False if there is no such
    /// packet.
    pub(crate) fn complete(&mut self, transaction_id: u64, put: impl FnMut(u32)) -> bool {
        let index = transaction_id.wrapping_sub(1) as usize;
        match self.flights.get_mut(index) {
            Some(flight) if !flight.parts.is_empty() => {
                flight.parts.drain(..).for_each(put);
                self.free.push(index);
                true
            }
            _ => false,
        }
    }

    /// Forgets everything: the receive buffer is another, or none.
    pub(crate) fn clear(&mut self) {
        self.control.clear();
        self.frames.clear();
        self.flights.clear();
        self.free.clear();
    }
}

/// Changes a message that a packet names.
#[cold]
fn change(piece: Piece, rewrite: &Rewrite, buffer: &ReceiveBuffer) {
    let Rewrite { at, bytes } = rewrite;
    let room = (piece.len as usize).saturating_sub(*at).min(bytes.len());
    if room != 0 {
        let bytes = bytes.get(..room).unwrap_or_default();
        buffer.memory.write_at(buffer.start_of(piece.part) + at, bytes);
    }
}

/// Shows the messages that a packet names.
fn show(io: &Io<'_>, transaction_id: u64, pieces: &[Piece], buffer: &ReceiveBuffer) {
    for piece in pieces {
        let start = buffer.start_of(piece.part);
        let read = |out: &mut [u8]| buffer.memory.read_at(start, out);
        io.show(Side::Host, transaction_id, piece.len as usize, &read);
    }
}
