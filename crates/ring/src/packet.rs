// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packets as they leave and enter a ring.

use std::fmt;

use busway_wire::packet::{DESCRIPTOR_LEN, Descriptor, PacketType, TRAILER_LEN};

/// Room for one packet, private to this side: a packet is copied here once and then read.
///
/// The other end can rewrite the ring at any time, so nothing may be checked in the ring and then
/// used from there.
pub struct PacketBuf {
    bytes: Box<[u8]>,
}

impl PacketBuf {
    /// Room for any packet that fits into a ring with `data_len` bytes of data.
    pub fn for_ring(data_len: u32) -> Self {
        // The descriptor counts 8-byte units in 16 bits.
        let longest = (data_len as usize).min(usize::from(u16::MAX) * 8);
        Self { bytes: vec![0; longest].into_boxed_slice() }
    }

    /// The first `len` bytes, or `None` if there is no room for so many.
    #[inline]
    pub(crate) fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        self.bytes.get_mut(..len)
    }

    /// The packet that `descriptor` describes, whose bytes behind the descriptor were copied to
    /// the front.
    #[inline]
    pub(crate) fn packet(&self, descriptor: Descriptor) -> Option<Packet<'_>> {
        let body = self.bytes.get(..descriptor.total_len().checked_sub(DESCRIPTOR_LEN)?)?;
        let split = descriptor.data_offset().checked_sub(DESCRIPTOR_LEN)?;
        let (header, payload) = body.split_at_checked(split)?;
        Some(Packet { descriptor, header, payload })
    }
}

impl fmt::Debug for PacketBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketBuf({} B)", self.bytes.len())
    }
}

/// A packet out of a ring, in private memory.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Its descriptor; its lengths have been checked.
    pub descriptor: Descriptor,
    /// What stands between descriptor and payload: the ranges of external pages, for the types
    /// that have them.
    pub header: &'a [u8],
    /// The payload, rounded up to 8 bytes.
    pub payload: &'a [u8],
}

/// A packet to be written.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// What it is.
    pub kind: PacketType,
    /// [`COMPLETION_REQUESTED`](busway_wire::packet::COMPLETION_REQUESTED) or 0.
    pub flags: u16,
    /// The request's name.
    pub transaction_id: u64,
    /// What goes between descriptor and payload; a multiple of 8 bytes.
    pub header: &'a [u8],
    /// The payload, of any length.
    pub payload: &'a [u8],
}

impl<'a> Outgoing<'a> {
    /// The answer to the request `transaction_id`.
    pub const fn completion(transaction_id: u64, payload: &'a [u8]) -> Self {
        let kind = PacketType::COMPLETION;
        Self { kind, flags: 0, transaction_id, header: &[], payload }
    }

    /// A packet of its own, with all of its data in it.
    pub const fn in_band(transaction_id: u64, payload: &'a [u8]) -> Self {
        let kind = PacketType::DATA_IN_BAND;
        Self { kind, flags: 0, transaction_id, header: &[], payload }
    }

    /// Bytes in the ring: descriptor, header, padded payload and trailer.
    pub const fn ring_len(&self) -> usize {
        DESCRIPTOR_LEN + self.header.len() + self.payload.len().next_multiple_of(8) + TRAILER_LEN
    }

    /// The descriptor, or `None` if the packet is longer than one can say, or its header is no
    /// multiple of 8.
    #[inline]
    pub fn descriptor(&self) -> Option<Descriptor> {
        let data_offset = DESCRIPTOR_LEN + self.header.len();
        let total = self.ring_len() - TRAILER_LEN;
        if !data_offset.is_multiple_of(8) {
            return None;
        }
        Some(Descriptor {
            kind: self.kind,
            data_offset8: u16::try_from(data_offset / 8).ok()?,
            total_len8: u16::try_from(total / 8).ok()?,
            flags: self.flags,
            transaction_id: self.transaction_id,
        })
    }
}
