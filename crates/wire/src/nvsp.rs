// SPDX-License-Identifier: MIT OR Apache-2.0

//! Messages between netvsc, the guest's network driver, and its host.
//!
//! Each ring packet holds one [`Message`] as its payload. The guest's are in-band packets, or
//! GPA-direct ones whose external pages hold RNDIS messages; the host answers with completions, and
//! sends RNDIS messages of its own in transfer-page packets, whose ranges lie in the receive buffer.
//! Nothing here says what an RNDIS message is: see [`rndis`](crate::rndis).
//!
//! Source: Linux `drivers/net/hyperv/hyperv_net.h` (`struct nvsp_message`), `netvsc.c`.

use std::fmt;

use bitflags::bitflags;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;

open_enum! {
    /// What a message asks or says (`NVSP_MSG_TYPE_*`).
    pub enum MessageType: u32 {
        /// Does the host speak one of these versions?
        INIT = 1,
        /// Its answer.
        INIT_COMPLETE = 2,
        /// The version of NDIS that the guest follows.
        SEND_NDIS_VERSION = 100,
        /// Here is memory for what the host sends.
        SEND_RECEIVE_BUFFER = 101,
        /// How the host divides it.
        SEND_RECEIVE_BUFFER_COMPLETE = 102,
        /// That memory is the guest's again.
        REVOKE_RECEIVE_BUFFER = 103,
        /// Here is memory that the guest sends from.
        SEND_SEND_BUFFER = 104,
        /// How the host divides it.
        SEND_SEND_BUFFER_COMPLETE = 105,
        /// That memory is the guest's again.
        REVOKE_SEND_BUFFER = 106,
        /// RNDIS messages, either way.
        SEND_RNDIS_PACKET = 107,
        /// They have been taken.
        SEND_RNDIS_PACKET_COMPLETE = 108,
        /// What the guest can do (from version 2 on).
        SEND_NDIS_CONFIG = 125,
        /// Host to guest: a virtual function comes or goes (version 4).
        SEND_VF_ASSOCIATION = 128,
        /// The guest's traffic takes the virtual function, or no longer (version 4).
        SWITCH_DATA_PATH = 129,
        /// More channels, please; also the answer (version 5).
        SUBCHANNEL = 133,
        /// Host to guest: which channel the guest should send on (version 5).
        SEND_INDIRECTION_TABLE = 134,
    }
}

open_enum! {
    /// How a request went (`NVSP_STAT_*`).
    pub enum Status: u32 {
        /// No answer.
        NONE = 0,
        /// Done.
        SUCCESS = 1,
        /// Not done.
        FAIL = 2,
        /// All versions asked for are newer than the host's.
        PROTOCOL_TOO_NEW = 3,
        /// All are older.
        PROTOCOL_TOO_OLD = 4,
        /// An RNDIS message makes no sense.
        INVALID_RNDIS_PACKET = 5,
        /// Not now.
        BUSY = 6,
        /// No such version.
        PROTOCOL_UNSUPPORTED = 7,
    }
}

/// A version of the protocol.
#[repr(transparent)]
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Version(pub u32);

impl Version {
    /// Windows Server 2008.
    pub const V1: Self = Self(2);
    /// Windows Server 2008 R2: [`NdisConfig`].
    pub const V2: Self = Self(0x0003_0002);
    /// Windows Server 2012.
    pub const V4: Self = Self(0x0004_0000);
    /// Windows Server 2012 R2: subchannels.
    pub const V5: Self = Self(0x0005_0000);
    /// Windows Server 2016.
    pub const V6: Self = Self(0x0006_0000);
    /// Windows Server 2019: coalesced segments to the guest.
    pub const V6_1: Self = Self(0x0006_0001);

    /// Every version, oldest first.
    pub const ALL: [Self; 6] = [Self::V1, Self::V2, Self::V4, Self::V5, Self::V6, Self::V6_1];

    /// What a host says that speaks none of those asked for.
    pub const INVALID: Self = Self(u32::MAX);
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V1 => f.write_str("1"),
            Self::V2 => f.write_str("2"),
            Self::INVALID => f.write_str("none"),
            Self(version) => write!(f, "{}.{}", version >> 16, version & 0xffff),
        }
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes of a message's body.
pub const BODY_LEN: usize = 36;

/// A message (`struct nvsp_message`). Drivers may send less of it than that, and what they leave
/// out is zero; a host sends it whole.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Message {
    /// What it asks or says.
    pub kind: MessageType,
    /// Depends on that: one of the bodies of this module.
    pub body: [u8; BODY_LEN],
}

const _: () = assert!(size_of::<Message>() == Message::LEN);

/// A ring packet's payload is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payload of {have} B is too short for an NVSP message")]
pub struct MessageError {
    /// Bytes present.
    pub have: usize,
}

impl Message {
    /// Bytes of a message.
    pub const LEN: usize = 40;

    /// Parses the payload of a ring packet. What is not there of a body is zero.
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<Self, MessageError> {
        if let Ok((message, _)) = Self::read_from_prefix(payload) {
            return Ok(message);
        }
        let mut message = Self::new_zeroed();
        match message.as_mut_bytes().get_mut(..payload.len()) {
            Some(start) if payload.len() >= size_of::<MessageType>() => {
                start.copy_from_slice(payload);
                Ok(message)
            }
            _ => Err(MessageError { have: payload.len() }),
        }
    }

    /// The message with this body.
    #[inline]
    pub fn new<T: IntoBytes + Immutable>(kind: MessageType, body: &T) -> Self {
        let mut message = Self { kind, body: [0; BODY_LEN] };
        if let Some(start) = message.body.get_mut(..size_of::<T>()) {
            start.copy_from_slice(body.as_bytes());
        }
        message
    }

    /// The body as `T`, one of the bodies of this module.
    #[inline]
    pub fn body<T: FromBytes>(&self) -> T {
        T::read_from_prefix(&self.body).map_or_else(|_| T::new_zeroed(), |(body, _)| body)
    }
}

/// The body of [`MessageType::INIT`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Init {
    /// The oldest version that would do.
    pub min: Version,
    /// The newest; in practice the same.
    pub max: Version,
}

/// The body of [`MessageType::INIT_COMPLETE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct InitComplete {
    /// The version that is spoken from here on.
    pub version: Version,
    /// Pieces that a packet may consist of; no guest looks at it.
    pub max_mdl_chain_len: u32,
    /// Whether there is one.
    pub status: Status,
}

/// The body of [`MessageType::SEND_NDIS_VERSION`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NdisVersion {
    /// 5 or 6.
    pub major: u32,
    /// 1, or 30 for a guest of version 5 and later.
    pub minor: u32,
}

bitflags! {
    /// What a guest can do (`struct nvsp_2_vsc_capability`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Capabilities: u64 {
        /// Virtual machine queues.
        const VMQ = 1 << 0;
        /// TCP in the card.
        const CHIMNEY = 1 << 1;
        /// Virtual functions.
        const SRIOV = 1 << 2;
        /// VLAN tags beside the frame instead of in it.
        const VLAN = 1 << 3;
        /// Correlation ids.
        const CORRELATION_ID = 1 << 4;
        /// Notices of link speed.
        const TEAMING = 1 << 5;
        /// Virtual subnets.
        const VIRTUAL_SUBNET = 1 << 6;
        /// Coalesced segments, in several sections of the receive buffer each.
        const RSC = 1 << 7;
        const _ = !0;
    }
}

/// The body of [`MessageType::SEND_NDIS_CONFIG`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NdisConfig {
    /// Bytes of the longest frame, its Ethernet header counted.
    pub mtu: u32,
    /// Zero.
    pub reserved: u32,
    /// [`Capabilities`].
    pub capabilities: u64,
}

/// The body of [`MessageType::SEND_RECEIVE_BUFFER`] and [`MessageType::SEND_SEND_BUFFER`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ShareBuffer {
    /// The list of its pages.
    pub gpadl: u32,
    /// The guest's name for it, as transfer-page packets use it.
    pub id: u16,
    /// Zero.
    pub reserved: u16,
}

/// The body of [`MessageType::SEND_RECEIVE_BUFFER_COMPLETE`], with one section, the only number
/// that Linux takes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ReceiveBufferComplete {
    /// Whether the buffer is taken.
    pub status: Status,
    /// 1.
    pub section_count: u32,
    /// Where the section starts: 0.
    pub offset: u32,
    /// Bytes of each of its parts.
    pub part_len: u32,
    /// Parts.
    pub part_count: u32,
    /// Where it ends.
    pub end_offset: u32,
}

/// The body of [`MessageType::SEND_SEND_BUFFER_COMPLETE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SendBufferComplete {
    /// Whether the buffer is taken.
    pub status: Status,
    /// Bytes of each of its sections.
    pub section_len: u32,
}

/// The body of [`MessageType::REVOKE_RECEIVE_BUFFER`] and [`MessageType::REVOKE_SEND_BUFFER`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RevokeBuffer {
    /// The guest's name for it.
    pub id: u16,
    /// Zero.
    pub reserved: u16,
}

open_enum! {
    /// What kind of RNDIS message a packet carries.
    pub enum RndisChannel: u32 {
        /// Frames.
        DATA = 0,
        /// Requests, answers and indications.
        CONTROL = 1,
    }
}

/// The body of [`MessageType::SEND_RNDIS_PACKET`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RndisPacket {
    /// What kind.
    pub channel: RndisChannel,
    /// Which section of the send buffer holds the first bytes, or [`NO_SECTION`](Self::NO_SECTION).
    pub section_index: u32,
    /// Bytes in that section.
    pub section_len: u32,
}

impl RndisPacket {
    /// All bytes are in the packet's external pages.
    pub const NO_SECTION: u32 = u32::MAX;
}

/// The body of [`MessageType::SEND_RNDIS_PACKET_COMPLETE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RndisPacketComplete {
    /// What became of it.
    pub status: Status,
}

/// The body of [`MessageType::SWITCH_DATA_PATH`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SwitchDataPath {
    /// 0 for this device, 1 for the virtual function.
    pub active: u32,
}

open_enum! {
    /// What a guest wants of its subchannels.
    pub enum SubchannelOperation: u32 {
        /// To have some.
        ALLOCATE = 1,
    }
}

/// The body of [`MessageType::SUBCHANNEL`] from the guest.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SubchannelRequest {
    /// What it wants.
    pub operation: SubchannelOperation,
    /// How many.
    pub count: u32,
}

/// The body of [`MessageType::SUBCHANNEL`] to the guest.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SubchannelComplete {
    /// Whether it gets any.
    pub status: Status,
    /// How many, never more than it asked for.
    pub count: u32,
}

/// Entries of a table of channels to send on: Linux takes no other number.
pub const INDIRECTION_ENTRIES: usize = 16;

/// [`MessageType::SEND_INDIRECTION_TABLE`], longer than the other messages.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SendIndirectionTable {
    /// [`MessageType::SEND_INDIRECTION_TABLE`].
    pub kind: MessageType,
    /// [`INDIRECTION_ENTRIES`].
    pub count: u32,
    /// Where the entries start in this message.
    pub offset: u32,
    /// The channel's index for each value of the hash's low bits.
    pub entries: [u32; INDIRECTION_ENTRIES],
}

const _: () = {
    assert!(size_of::<Init>() == 8);
    assert!(size_of::<InitComplete>() == 12);
    assert!(size_of::<NdisVersion>() == 8);
    assert!(size_of::<NdisConfig>() == 16);
    assert!(size_of::<ShareBuffer>() == 8);
    assert!(size_of::<ReceiveBufferComplete>() == 24);
    assert!(size_of::<SendBufferComplete>() == 8);
    assert!(size_of::<RevokeBuffer>() == 4);
    assert!(size_of::<RndisPacket>() == 12);
    assert!(size_of::<RndisPacketComplete>() == 4);
    assert!(size_of::<SwitchDataPath>() == 4);
    assert!(size_of::<SubchannelRequest>() == 8);
    assert!(size_of::<SubchannelComplete>() == 8);
    assert!(size_of::<SendIndirectionTable>() == 76);
};

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        match self.kind {
            MessageType::INIT => {
                let Init { min, max } = self.body();
                write!(f, " {min} to {max}")
            }
            MessageType::INIT_COMPLETE => {
                let InitComplete { version, status, .. } = self.body();
                write!(f, " {version} {status}")
            }
            MessageType::SEND_NDIS_VERSION => {
                let NdisVersion { major, minor } = self.body();
                write!(f, " {major}.{minor}")
            }
            MessageType::SEND_NDIS_CONFIG => {
                let NdisConfig { mtu, capabilities, .. } = self.body();
                let capabilities = Capabilities::from_bits_retain(capabilities);
                write!(f, " mtu={mtu} {capabilities:?}")
            }
            MessageType::SEND_RECEIVE_BUFFER | MessageType::SEND_SEND_BUFFER => {
                let ShareBuffer { gpadl, id, .. } = self.body();
                write!(f, " gpadl={gpadl:#x} id={id:#x}")
            }
            MessageType::SEND_RECEIVE_BUFFER_COMPLETE => {
                let ReceiveBufferComplete { status, part_len, part_count, .. } = self.body();
                write!(f, " {status} parts={part_count} of {part_len} B")
            }
            MessageType::SEND_SEND_BUFFER_COMPLETE => {
                let SendBufferComplete { status, section_len } = self.body();
                write!(f, " {status} sections of {section_len} B")
            }
            MessageType::REVOKE_RECEIVE_BUFFER | MessageType::REVOKE_SEND_BUFFER => {
                let RevokeBuffer { id, .. } = self.body();
                write!(f, " id={id:#x}")
            }
            MessageType::SEND_RNDIS_PACKET => {
                let RndisPacket { channel, section_index, section_len } = self.body();
                write!(f, " {channel}")?;
                match section_index {
                    RndisPacket::NO_SECTION => Ok(()),
                    index => write!(f, " section={index} len={section_len}"),
                }
            }
            MessageType::SEND_RNDIS_PACKET_COMPLETE => {
                let RndisPacketComplete { status } = self.body();
                write!(f, " {status}")
            }
            MessageType::SUBCHANNEL => {
                let SubchannelRequest { operation, count } = self.body();
                write!(f, " {} count={count}", operation.0)
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `negotiate_nvsp_ver` of Linux's netvsc.c fills them.
    #[test]
    fn what_linux_sends_first() {
        let mut init = [0; 40];
        init[0] = 1;
        init[4..8].copy_from_slice(&[1, 0, 6, 0]);
        init[8..12].copy_from_slice(&[1, 0, 6, 0]);
        let message = Message::parse(&init).unwrap();
        assert_eq!(message.body::<Init>(), Init { min: Version::V6_1, max: Version::V6_1 });
        assert_eq!(message.to_string(), "INIT 6.1 to 6.1");

        let mut config = [0; 40];
        config[0] = 125;
        config[4..8].copy_from_slice(&1514_u32.to_le_bytes());
        config[12] = 0b1010_1100;
        let message = Message::parse(&config).unwrap();
        let NdisConfig { mtu, capabilities, .. } = message.body();
        assert_eq!((mtu, capabilities), (1514, 0xac));
        assert_eq!(
            message.to_string(),
            "SEND_NDIS_CONFIG mtu=1514 Capabilities(SRIOV | VLAN | TEAMING | RSC)"
        );
    }

    #[test]
    fn a_short_message_ends_in_zeroes() {
        let message = Message::parse(&[107, 0, 0, 0, 1, 0, 0, 0]).unwrap();
        assert_eq!(message.to_string(), "SEND_RNDIS_PACKET CONTROL section=0 len=0");
        assert_eq!(Message::parse(&[1, 0, 0]), Err(MessageError { have: 3 }));
        assert_eq!(Message::parse(&[]), Err(MessageError { have: 0 }));
        assert_eq!(Message::parse(&[1; 64]).unwrap().body, [1; 36]);
    }

    #[test]
    fn an_answer_is_whole() {
        let status = Status::SUCCESS;
        let body = ReceiveBufferComplete {
            status,
            section_count: 1,
            offset: 0,
            part_len: 1728,
            part_count: 9709,
            end_offset: 9709 * 1728,
        };
        let message = Message::new(MessageType::SEND_RECEIVE_BUFFER_COMPLETE, &body);
        let mut expected = [0; 40];
        for (at, word) in [102_u32, 1, 1, 0, 1728, 9709, 16_777_152].into_iter().enumerate() {
            expected[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        assert_eq!(message.as_bytes(), expected);
    }

    #[test]
    fn any_bytes_can_be_printed() {
        for kind in 0..200_u32 {
            let mut bytes = [0xa5; 40];
            bytes[..4].copy_from_slice(&kind.to_le_bytes());
            assert!(!Message::parse(&bytes).unwrap().to_string().is_empty());
        }
    }
}
