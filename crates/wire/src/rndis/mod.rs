// SPDX-License-Identifier: MIT OR Apache-2.0

//! RNDIS: what netvsc and its host say about frames, within [NVSP](crate::nvsp) messages.
//!
//! Every message begins with a [`Header`]. Requests and their answers are in this file, each with
//! its own fixed body; offsets in them count from the body's start, where `request_id` stands, and
//! not from the header. What queries and sets are about is in `oid`, the larger answers in `offload`
//! and `rss`, frames in `data`.
//!
//! Sources: Linux `drivers/net/hyperv/hyperv_net.h`, `rndis_filter.c`, `include/linux/rndis.h`;
//! MS-RNDIS.

mod control;
mod data;
mod offload;
mod oid;
mod rss;
mod text;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;

pub use control::{Answer, Control, ControlError};
pub use data::{
    DATA_BODY_LEN, DataBody, DataError, DataHeader, DataInfo, HEADER_ROOM, InfoHeader, InfoKind,
    LargeSend, PacketId, ReceiveChecksum, ReceiveInfo, SendChecksum, VlanTag,
};
pub use offload::{
    ChecksumOffload, Encapsulation, LargeSendV2Offload, Offload, OffloadParameters, RscOffload,
    Switch, TxChecksum,
};
pub use oid::{Oid, PacketFilter};
pub use rss::{HashTypes, RssCapabilities, RssError, RssFlags, RssParameters, RssSettings};
pub use text::Text;

open_enum! {
    /// What a message is; answers have the highest bit set (`RNDIS_MSG_*`).
    pub enum MessageType: u32 {
        /// A frame.
        PACKET = 1,
        /// The guest's driver starts.
        INITIALIZE = 2,
        /// It stops; not answered.
        HALT = 3,
        /// What is the value of this OID?
        QUERY = 4,
        /// Let this OID have that value.
        SET = 5,
        /// Start anew.
        RESET = 6,
        /// Host to guest: something has changed.
        INDICATE = 7,
        /// Are you there?
        KEEPALIVE = 8,
        /// The answer to [`INITIALIZE`](Self::INITIALIZE).
        INITIALIZE_COMPLETE = 0x8000_0002,
        /// The answer to [`QUERY`](Self::QUERY).
        QUERY_COMPLETE = 0x8000_0004,
        /// The answer to [`SET`](Self::SET).
        SET_COMPLETE = 0x8000_0005,
        /// The answer to [`RESET`](Self::RESET).
        RESET_COMPLETE = 0x8000_0006,
        /// The answer to [`KEEPALIVE`](Self::KEEPALIVE).
        KEEPALIVE_COMPLETE = 0x8000_0008,
    }
}

open_enum! {
    /// How a request went, or what is indicated (`RNDIS_STATUS_*`).
    pub enum Status: u32 {
        /// Done.
        SUCCESS = 0,
        /// Indicated: the link is up.
        MEDIA_CONNECT = 0x4001_000b,
        /// Indicated: the link is down.
        MEDIA_DISCONNECT = 0x4001_000c,
        /// Indicated: the link's speed is another; it follows, in units of 100 bits a second.
        LINK_SPEED_CHANGE = 0x4001_0013,
        /// Indicated: the link leads elsewhere; addresses should be asked for anew.
        NETWORK_CHANGE = 0x4001_0018,
        /// Not done.
        FAILURE = 0xc000_0001,
        /// No such thing here.
        NOT_SUPPORTED = 0xc000_00bb,
        /// More groups than there is room for.
        MULTICAST_FULL = 0xc001_0009,
        /// A value has the wrong length.
        INVALID_LENGTH = 0xc001_0014,
        /// A value makes no sense.
        INVALID_DATA = 0xc001_0015,
    }
}

/// What every message begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// What it is.
    pub kind: MessageType,
    /// Bytes of the message, this header counted.
    pub len: u32,
}

impl Header {
    /// Bytes of a header.
    pub const LEN: usize = 8;
}

/// The body of [`MessageType::INITIALIZE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Initialize {
    /// The guest's name for the request.
    pub request_id: u32,
    /// 1.
    pub major: u32,
    /// 0.
    pub minor: u32,
    /// Bytes of the longest message that the guest takes, so it says.
    pub max_transfer_len: u32,
}

/// The body of [`MessageType::INITIALIZE_COMPLETE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct InitializeComplete {
    /// The request's name.
    pub request_id: u32,
    /// How it went.
    pub status: Status,
    /// 1.
    pub major: u32,
    /// 0.
    pub minor: u32,
    /// 1: connectionless.
    pub device_flags: u32,
    /// 0: Ethernet.
    pub medium: u32,
    /// Frames that the guest may put into one packet of the ring.
    pub max_packets: u32,
    /// Bytes of the longest such packet.
    pub max_transfer_len: u32,
    /// The frames in it begin at multiples of two to the power of this.
    pub alignment_shift: u32,
    /// 0.
    pub address_family_offset: u32,
    /// 0.
    pub address_family_len: u32,
}

/// The body of [`MessageType::QUERY`] and [`MessageType::SET`]; the value, or for a query what the
/// guest puts in its place, follows.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Request {
    /// The guest's name for the request.
    pub request_id: u32,
    /// What it is about.
    pub oid: Oid,
    /// Bytes of the value.
    pub info_len: u32,
    /// Where it starts, from `request_id` on.
    pub info_offset: u32,
    /// 0.
    pub vc_handle: u32,
}

/// The body of [`MessageType::QUERY_COMPLETE`]; the value follows.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct QueryComplete {
    /// The request's name.
    pub request_id: u32,
    /// How it went.
    pub status: Status,
    /// Bytes of the value.
    pub info_len: u32,
    /// Where it starts, from `request_id` on.
    pub info_offset: u32,
}

impl QueryComplete {
    /// Bytes of the body: where a value starts.
    const LEN: u32 = 16;
}

/// The body of [`MessageType::SET_COMPLETE`] and [`MessageType::KEEPALIVE_COMPLETE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SetComplete {
    /// The request's name.
    pub request_id: u32,
    /// How it went.
    pub status: Status,
}

/// The body of [`MessageType::RESET_COMPLETE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ResetComplete {
    /// How it went.
    pub status: Status,
    /// Whether the guest must set filter and addresses again.
    pub addressing_reset: u32,
}

/// The body of [`MessageType::INDICATE`]; what belongs to the status follows.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Indicate {
    /// What has changed.
    pub status: Status,
    /// Bytes that follow.
    pub buffer_len: u32,
    /// Where they start, from `status` on.
    pub buffer_offset: u32,
}

impl Indicate {
    /// Bytes of the body: where a value starts.
    const LEN: u32 = 12;
}

/// The value of [`Oid::GEN_RNDIS_CONFIG_PARAMETER`]: a name and a value, in UTF-16; offsets count
/// from the start of this.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ConfigParameter {
    /// Where the name starts.
    pub name_offset: u32,
    /// Bytes of it.
    pub name_len: u32,
    /// [`STRING`](Self::STRING) or 0 for a number.
    pub kind: u32,
    /// Where the value starts.
    pub value_offset: u32,
    /// Bytes of it.
    pub value_len: u32,
}

impl ConfigParameter {
    /// The kind of a text.
    pub const STRING: u32 = 2;

    /// The name and the value of a text parameter; `None` if it is no such thing, or not whole.
    pub fn text(info: &[u8]) -> Option<(String, String)> {
        let (this, _) = Self::read_from_prefix(info).ok()?;
        let text = |offset: u32, len: u32| {
            let bytes = info.get(offset as usize..)?.get(..len as usize)?;
            let (units, _) = bytes.as_chunks::<2>();
            let units = units.iter().map(|unit| u16::from_le_bytes(*unit));
            let text = char::decode_utf16(units.take_while(|unit| *unit != 0));
            text.collect::<Result<String, _>>().ok()
        };
        let is_text = this.kind == Self::STRING;
        let name = text(this.name_offset, this.name_len).filter(|_| is_text)?;
        Some((name, text(this.value_offset, this.value_len)?))
    }
}

const _: () = {
    assert!(size_of::<Header>() == Header::LEN);
    assert!(size_of::<Initialize>() == 16);
    assert!(size_of::<InitializeComplete>() == 44);
    assert!(size_of::<Request>() == 20);
    assert!(size_of::<QueryComplete>() == QueryComplete::LEN as usize);
    assert!(size_of::<SetComplete>() == 8);
    assert!(size_of::<ResetComplete>() == 8);
    assert!(size_of::<Indicate>() == Indicate::LEN as usize);
    assert!(size_of::<ConfigParameter>() == 20);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    /// As `rndis_filter_set_device_mac` of Linux's rndis_filter.c makes it.
    #[test]
    fn a_parameter_has_a_name_and_a_value() {
        let mut info: Vec<u8> =
            [20_u32, 28, 2, 48, 24].iter().flat_map(|word| word.to_le_bytes()).collect();
        info.extend(utf16("NetworkAddress"));
        info.extend(utf16("02aabbccddee"));
        let (name, value) = ConfigParameter::text(&info).unwrap();
        assert_eq!((name.as_str(), value.as_str()), ("NetworkAddress", "02aabbccddee"));
        assert_eq!(ConfigParameter::text(&info[..71]), None);
        info[8] = 0;
        assert_eq!(ConfigParameter::text(&info), None, "that is a number");
        info[8] = 2;
        info[12..20].fill(0xff);
        assert_eq!(ConfigParameter::text(&info), None);
    }
}
