// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pipes: channels whose packets begin with a header that says how long they really are.
//!
//! A packet's descriptor counts 8-byte units, so protocols that need the exact length carry it
//! themselves. Integration components, sockets, mouse and video do so with this header.
//!
//! Source: Linux `include/linux/hyperv.h` (`struct vmbuspipe_hdr`),
//! `net/vmw_vsock/hyperv_transport.c` (`struct vmpipe_proto_header`).

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;

open_enum! {
    /// What follows the header.
    pub enum PipeKind: u32 {
        /// Data.
        DATA = 1,
        /// A part of a message.
        PARTIAL = 2,
        /// The arguments of a pipe's set-up.
        SETUP_GPA_DIRECT = 3,
        /// The end of that.
        TEARDOWN_GPA_DIRECT = 4,
    }
}

open_enum! {
    /// Whether a pipe keeps the borders between what was written: the first word of the offer's own
    /// data.
    pub enum PipeMode: u32 {
        /// A stream of bytes.
        BYTE = 0,
        /// One packet is one message.
        MESSAGE = 4,
    }
}

/// The header of each packet of a pipe.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PipeHeader {
    /// What follows.
    pub kind: PipeKind,
    /// Bytes that follow, padding not counted.
    pub len: u32,
}

/// Bytes of a [`PipeHeader`].
pub const PIPE_HEADER_LEN: usize = 8;

const _: () = assert!(size_of::<PipeHeader>() == PIPE_HEADER_LEN);

/// The bytes are no packet of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipeError {
    /// Not even the header is there.
    #[error("a payload of {have} B is too short for the header of a pipe")]
    NoHeader {
        /// Bytes present.
        have: usize,
    },
    /// It carries no data.
    #[error("a pipe's packet of kind {kind}")]
    Kind {
        /// What it says to carry.
        kind: PipeKind,
    },
    /// It claims more than it has.
    #[error("a pipe's packet claims {claimed} B of data and has {have}")]
    Length {
        /// By its header.
        claimed: u32,
        /// Bytes behind the header.
        have: usize,
    },
}

impl PipeHeader {
    /// The header of `len` bytes of data.
    pub const fn data(len: u32) -> Self {
        Self { kind: PipeKind::DATA, len }
    }

    /// The data in a packet's payload, without padding.
    pub fn parse(payload: &[u8]) -> Result<&[u8], PipeError> {
        let no_header = PipeError::NoHeader { have: payload.len() };
        let (header, rest) = Self::read_from_prefix(payload).map_err(|_| no_header)?;
        if header.kind != PipeKind::DATA {
            return Err(PipeError::Kind { kind: header.kind });
        }
        let claimed = PipeError::Length { claimed: header.len, have: rest.len() };
        rest.get(..header.len as usize).ok_or(claimed)
    }
}

impl fmt::Display for PipeHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pipe {} of {} B", self.kind, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_where_padding_begins() {
        let payload = [1, 0, 0, 0, 3, 0, 0, 0, b'a', b'b', b'c', 9, 9, 9, 9, 9];
        assert_eq!(PipeHeader::parse(&payload), Ok(b"abc".as_slice()));
        assert_eq!(PipeHeader::data(3).as_bytes(), &payload[..8]);
    }

    #[test]
    fn lies_are_named() {
        let parse = |kind: u8, len: u8| PipeHeader::parse(&[kind, 0, 0, 0, len, 0, 0, 0, 7]).err();
        assert_eq!(parse(1, 1), None);
        assert_eq!(parse(1, 2), Some(PipeError::Length { claimed: 2, have: 1 }));
        assert_eq!(parse(2, 1), Some(PipeError::Kind { kind: PipeKind::PARTIAL }));
        let short = PipeHeader::parse(&[1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(short, Err(PipeError::NoHeader { have: 7 }));
    }
}
