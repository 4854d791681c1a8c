// SPDX-License-Identifier: MIT OR Apache-2.0

//! What stands before a packet's payload on the socket.

use busway_wire::packet::PacketType;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The part of a packet's descriptor that means something outside of a ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Frame {
    /// What it is.
    pub kind: PacketType,
    /// Bit 0: the sender wants a completion.
    pub flags: u16,
    /// Bytes between this and the payload: the ranges of external pages, as they stand in the
    /// packet. 0 for most.
    pub header_len: u32,
    /// The request's name, which its completion repeats.
    pub transaction_id: u64,
}

/// Bytes of a [`Frame`].
pub const FRAME_LEN: usize = 16;

const _: () = assert!(size_of::<Frame>() == FRAME_LEN);
