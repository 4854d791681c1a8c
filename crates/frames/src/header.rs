// SPDX-License-Identifier: MIT OR Apache-2.0

//! What goes before each frame.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// What is to be done to a frame, or has been found out about it (Linux
/// `include/uapi/linux/virtio_net.h`, `struct virtio_net_hdr`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FrameHeader {
    /// [`HeaderFlags`].
    pub flags: HeaderFlags,
    /// What the frame may be cut into.
    pub gso_type: GsoType,
    /// Bytes that each segment begins with.
    pub header_len: u16,
    /// Bytes of payload of a segment.
    pub segment_len: u16,
    /// Where the missing checksum starts to sum.
    pub checksum_start: u16,
    /// Where it is to be put, from there on.
    pub checksum_offset: u16,
}

const _: () = assert!(size_of::<FrameHeader>() == FrameHeader::LEN);

impl FrameHeader {
    /// Bytes.
    pub const LEN: usize = 10;

    /// Nothing is to be done.
    pub fn none() -> Self {
        Self::new_zeroed()
    }
}

/// Bits of a [`FrameHeader`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HeaderFlags(pub u8);

impl HeaderFlags {
    /// A checksum is missing; what its pseudo header adds stands in its place.
    pub const NEEDS_CHECKSUM: u8 = 1;
    /// The checksum has been found right.
    pub const CHECKSUM_VALID: u8 = 2;

    /// Whether a checksum is missing.
    pub const fn needs_checksum(self) -> bool {
        self.0 & Self::NEEDS_CHECKSUM != 0
    }

    /// Whether the frame's checksums need no look of the receiver's.
    pub const fn is_checked(self) -> bool {
        self.0 & (Self::NEEDS_CHECKSUM | Self::CHECKSUM_VALID) != 0
    }
}

/// What a frame may be cut into.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct GsoType(pub u8);

impl GsoType {
    /// Nothing: it is one frame.
    pub const NONE: Self = Self(0);
    /// Segments of TCP on IPv4.
    pub const TCP4: Self = Self(1);
    /// Segments of TCP on IPv6.
    pub const TCP6: Self = Self(4);
    /// A bit beside those: with congestion reported in the first.
    const ECN: u8 = 0x80;

    /// Whether it is one frame.
    pub const fn is_none(self) -> bool {
        self.0 & !Self::ECN == 0
    }
}
