// SPDX-License-Identifier: MIT OR Apache-2.0

//! Messages of the integration components: shutdown, heartbeat, time, key-value pairs, snapshots,
//! file copy.
//!
//! Each component has a channel of its own. The host asks; the guest answers with the same packet,
//! in which it has changed what it has to say. The first question on a channel is which versions
//! are spoken ([`Negotiate`]).
//!
//! ```text
//! pipe header │ Header              │ body
//! 8 B         │ 20 B: type, version │ depends on the type; a module here for each
//! ```
//!
//! Source: Linux `include/linux/hyperv.h` (`struct icmsg_hdr` …), `drivers/hv/hv_util.c`.

pub mod file_copy;
pub mod heartbeat;
pub mod kvp;
mod negotiate;
pub mod shutdown;
pub mod time_sync;
pub mod vss;

use std::fmt;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;
use crate::pipe::{PIPE_HEADER_LEN, PipeHeader};

pub use negotiate::{Agreed, Negotiate, NegotiateError};

/// A version, of the framework or of a component's messages.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct Version {
    /// The part before the dot.
    pub major: u16,
    /// The part after the dot.
    pub minor: u16,
}

const _: () = assert!(size_of::<Version>() == 4);

impl Version {
    /// The version `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

open_enum! {
    /// What a message is about.
    pub enum MessageType: u16 {
        /// Which versions are spoken.
        NEGOTIATE = 0,
        /// Is the guest alive?
        HEARTBEAT = 1,
        /// Key-value pairs.
        KVP = 2,
        /// Switch off.
        SHUTDOWN = 3,
        /// What time it is.
        TIME_SYNC = 4,
        /// Snapshots.
        VSS = 5,
        /// Remote desktop.
        RDV = 6,
        /// File copy.
        FILE_COPY = 7,
    }
}

open_enum! {
    /// How a request went, as an HRESULT.
    pub enum Status: u32 {
        /// Done.
        OK = 0,
        /// Did not go well, or nobody in the guest is there to do it.
        FAIL = 0x8000_4005,
        /// No such thing.
        NOT_FOUND = 0x8004_1002,
        /// The guest cannot do that.
        NOT_SUPPORTED = 0x8007_0032,
        /// There is such a file already.
        ALREADY_EXISTS = 0x8007_0050,
        /// The request makes no sense.
        INVALID_ARGUMENT = 0x8007_0057,
        /// No room is left.
        DISK_FULL = 0x8007_0070,
        /// There are no more pairs, or none of that name.
        NO_MORE_ITEMS = 0x8007_0103,
        /// Nobody is there to do it.
        NOT_CONNECTED = 0x8007_048f,
        /// The machine is locked.
        MACHINE_LOCKED = 0x8007_04f7,
    }
}

bitflags::bitflags! {
    /// Flags of a [`Header`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct HeaderFlags: u8 {
        /// The message is part of a transaction: a request that is answered, or the answer.
        const TRANSACTION = 1;
        /// A request.
        const REQUEST = 2;
        /// An answer.
        const RESPONSE = 4;
        const _ = !0;
    }
}

/// What every message begins with, behind the pipe's header (`struct icmsg_hdr`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// The framework's version.
    pub framework: Version,
    /// What it is about.
    pub kind: MessageType,
    /// The version of what follows.
    pub version: Version,
    /// Bytes that follow.
    pub len: u16,
    /// In an answer: how it went.
    pub status: Status,
    /// The request's name, which the answer repeats.
    pub transaction_id: u8,
    /// [`HeaderFlags`].
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// Bytes of a [`Header`].
pub const HEADER_LEN: usize = 20;

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

/// A message that does not even have its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payload of {have} B is too short for a message of an integration component")]
pub struct MessageError {
    /// Bytes present.
    pub have: usize,
}

impl Header {
    /// A request.
    pub fn request(kind: MessageType, framework: Version, version: Version, id: u8) -> Self {
        let flags = (HeaderFlags::TRANSACTION | HeaderFlags::REQUEST).bits();
        Self { framework, kind, version, transaction_id: id, flags, ..Self::new_zeroed() }
    }

    /// The payload of a packet with `body`; its length is put into both headers.
    pub fn payload(mut self, body: &[u8]) -> Vec<u8> {
        self.len = u16::try_from(body.len()).unwrap_or(u16::MAX);
        let len = HEADER_LEN + body.len();
        let mut payload = Vec::with_capacity(PIPE_HEADER_LEN + len);
        payload.extend(PipeHeader::data(u32::try_from(len).unwrap_or(u32::MAX)).as_bytes());
        payload.extend(self.as_bytes());
        payload.extend(body);
        payload
    }

    /// The header of a packet's payload, and the body with what pads it.
    ///
    /// Guests answer with the packet that they got, and do not keep both lengths up to date: neither
    /// is looked at. A body is checked against what it should hold.
    pub fn parse(payload: &[u8]) -> Result<(Self, &[u8]), MessageError> {
        let rest = payload.get(PIPE_HEADER_LEN..).unwrap_or_default();
        Self::read_from_prefix(rest).map_err(|_| MessageError { have: payload.len() })
    }

    /// Its flags.
    pub const fn flags(&self) -> HeaderFlags {
        HeaderFlags::from_bits_retain(self.flags)
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, version, transaction_id: id, status, len, .. } = self;
        if self.flags().contains(HeaderFlags::RESPONSE) {
            write!(f, "{kind} {version} answer #{id} {status}, {len} B")
        } else {
            write!(f, "{kind} {version} request #{id}, {len} B")
        }
    }
}

/// A body is shorter than what it should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a body of {have} B, where {need} are needed")]
pub struct BodyError {
    /// Bytes present.
    pub have: usize,
    /// Bytes needed.
    pub need: usize,
}

/// The body `T` at the front of `body`.
pub fn body<T: FromBytes>(body: &[u8]) -> Result<T, BodyError> {
    let short = BodyError { have: body.len(), need: size_of::<T>() };
    T::read_from_prefix(body).map(|(body, _)| body).map_err(|_| short)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets of `struct icmsg_hdr` behind `struct vmbuspipe_hdr`.
    #[test]
    fn a_request_is_laid_out_as_linux_reads_it() {
        let (framework, version) = (Version::new(3, 0), Version::new(3, 2));
        let header = Header::request(MessageType::SHUTDOWN, framework, version, 7);
        let payload = header.payload(&[0xaa; 5]);
        assert_eq!(payload[..8], [1, 0, 0, 0, 25, 0, 0, 0]);
        assert_eq!(payload[8..20], [3, 0, 0, 0, 3, 0, 3, 0, 2, 0, 5, 0]);
        assert_eq!(payload[20..28], [0, 0, 0, 0, 7, 3, 0, 0]);
        assert_eq!(payload[28..], [0xaa; 5]);
        assert_eq!(header.to_string(), "SHUTDOWN 3.2 request #7, 0 B");
    }

    #[test]
    fn an_answer_is_read_whatever_its_lengths_say() {
        let mut payload =
            Header::request(MessageType::KVP, Version::new(3, 0), Version::new(4, 0), 1)
                .payload(&[1, 2, 3, 4]);
        payload[4] = 0xff;
        payload[18] = 0xff;
        payload[20..24].copy_from_slice(&0x8007_0103_u32.to_le_bytes());
        payload[25] = 5;
        let (header, body) = Header::parse(&payload).unwrap();
        assert_eq!(header.status, Status::NO_MORE_ITEMS);
        assert_eq!(header.flags(), HeaderFlags::TRANSACTION | HeaderFlags::RESPONSE);
        assert_eq!(body, [1, 2, 3, 4]);
        assert_eq!(header.to_string(), "KVP 4.0 answer #1 NO_MORE_ITEMS, 255 B");
        assert_eq!(Header::parse(&payload[..27]), Err(MessageError { have: 27 }));
    }

    #[test]
    fn a_short_body_is_named() {
        assert_eq!(body::<u64>(&[0; 7]), Err(BodyError { have: 7, need: 8 }));
        assert_eq!(body::<u16>(&[1, 2, 3]), Ok(0x201));
    }
}
