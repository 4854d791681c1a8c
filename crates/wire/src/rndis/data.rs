// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames: what stands before each, and the notes that go with it.
//!
//! ```text
//! 0         8           44 (or where it says)      where it says
//! | header  | body      | notes (per-packet info)  | frame
//! ```

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Header, MessageType};
use crate::open_enum::open_enum;

/// Bytes of [`Header`], of [`DataBody`], of [`InfoHeader`], and of a note whose value is four bytes long:
/// all that are used here.
const HEADER: u32 = 8;
const BODY: u32 = 36;
const INFO_HEADER: u32 = 12;
const NOTE: u32 = INFO_HEADER + 4;

/// Bytes of a frame's header and body.
pub const DATA_BODY_LEN: usize = (HEADER + BODY) as usize;

/// Bytes before a frame to the guest, when it has all the notes that there are for it.
pub const HEADER_ROOM: usize = DATA_BODY_LEN + 4 * NOTE as usize;

/// The body of [`MessageType::PACKET`] (`struct rndis_packet`); offsets count from its own start.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DataBody {
    /// Where the frame starts.
    pub data_offset: u32,
    /// Bytes of it.
    pub data_len: u32,
    /// Zero, as there is no such data, like the next two.
    pub oob_offset: u32,
    /// Zero.
    pub oob_len: u32,
    /// Zero.
    pub oob_count: u32,
    /// Where the notes start.
    pub info_offset: u32,
    /// Bytes of them.
    pub info_len: u32,
    /// Zero.
    pub vc_handle: u32,
    /// Zero.
    pub reserved: u32,
}

/// What a note begins with (`struct rndis_per_packet_info`).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct InfoHeader {
    /// Bytes of the note, this counted.
    pub len: u32,
    /// What it says; the highest bit marks another space of numbers.
    pub kind: InfoKind,
    /// Where its value starts.
    pub offset: u32,
}

const _: () = {
    assert!(Header::LEN == HEADER as usize);
    assert!(size_of::<DataBody>() == BODY as usize);
    assert!(size_of::<InfoHeader>() == INFO_HEADER as usize);
};

open_enum! {
    /// What a note says (`enum ndis_per_pkt_info_type`).
    pub enum InfoKind: u32 {
        /// [`SendChecksum`] or [`ReceiveChecksum`].
        CHECKSUM = 0,
        /// [`LargeSend`].
        LARGE_SEND = 2,
        /// [`VlanTag`].
        VLAN = 6,
        /// The value of RSS's hash function.
        HASH = 9,
        /// [`PacketId`].
        PACKET_ID = 0x8000_0001,
    }
}

/// A frame's header or its notes make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// It ends within its own header.
    #[error("{have} B are too short for a frame's header")]
    Short {
        /// Bytes present.
        have: usize,
    },
    /// Not a frame.
    #[error("{0} where frames are")]
    Kind(MessageType),
    /// Its length is not one that it can have.
    #[error("a message of {len} B among {have} B")]
    Length {
        /// Bytes that it says.
        len: u32,
        /// Bytes present.
        have: usize,
    },
    /// A part that is not in it.
    #[error("{part}: {len} B at {offset} lie outside of a message of {have} B")]
    Outside {
        /// Which part.
        part: &'static str,
        /// Where it would start.
        offset: u32,
        /// Bytes.
        len: u32,
        /// Bytes of the message.
        have: u32,
    },
    /// A note whose length is wrong.
    #[error("a note of {len} B, its value at {offset}, among {have} B")]
    Note {
        /// Bytes that it says.
        len: u32,
        /// Where it says that its value starts.
        offset: u32,
        /// Bytes left.
        have: usize,
    },
}

/// Where the parts of a frame's message are, from the message's start; all within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// Bytes of the message.
    pub len: usize,
    /// Where the frame starts.
    pub data_offset: usize,
    /// Bytes of it.
    pub data_len: usize,
    /// Where the notes start.
    pub info_offset: usize,
    /// Bytes of them.
    pub info_len: usize,
}

impl DataHeader {
    /// Parses the first [`DATA_BODY_LEN`] bytes of a message that has at most `have` bytes.
    #[inline]
    pub fn parse(bytes: &[u8], have: usize) -> Result<Self, DataError> {
        let short = DataError::Short { have: bytes.len() };
        let (header, rest) = Header::read_from_prefix(bytes).map_err(|_| short)?;
        let (body, _) = DataBody::read_from_prefix(rest).map_err(|_| short)?;
        let Header { kind, len } = header;
        if kind != MessageType::PACKET {
            return Err(DataError::Kind(kind));
        }
        let size = len as usize;
        if size < DATA_BODY_LEN || size > have {
            return Err(DataError::Length { len, have });
        }
        let within = |part, offset: u32, part_len: u32| {
            let start = (offset as usize).saturating_add(Header::LEN);
            let end = start.saturating_add(part_len as usize);
            let fits = end <= size;
            let outside = DataError::Outside { part, offset, len: part_len, have: len };
            if fits { Ok((start, part_len as usize)) } else { Err(outside) }
        };
        let (data_offset, data_len) = within("frame", body.data_offset, body.data_len)?;
        let (info_offset, info_len) = match body.info_len {
            0 => (DATA_BODY_LEN, 0),
            len => within("notes", body.info_offset, len)?,
        };
        Ok(Self { len: size, data_offset, data_len, info_offset, info_len })
    }
}

/// What the guest notes on a frame that it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataInfo {
    /// A checksum is to be computed.
    pub checksum: Option<SendChecksum>,
    /// It is to be cut.
    pub large_send: Option<LargeSend>,
    /// It is to be tagged.
    pub vlan: Option<VlanTag>,
}

impl DataInfo {
    /// Parses notes, as many as `bytes` holds; those of an unknown kind are passed over.
    #[inline]
    pub fn parse(mut bytes: &[u8]) -> Result<Self, DataError> {
        let mut info = Self::default();
        while !bytes.is_empty() {
            let have = bytes.len();
            let short = DataError::Note { len: 0, offset: 0, have };
            let (header, _) = InfoHeader::read_from_prefix(bytes).map_err(|_| short)?;
            let InfoHeader { len, kind, offset } = header;
            let wrong = DataError::Note { len, offset, have };
            if (len as usize) < size_of::<InfoHeader>() {
                return Err(wrong);
            }
            let (note, rest) = bytes.split_at_checked(len as usize).ok_or(wrong)?;
            bytes = rest;
            let value = || {
                let value = note.get(offset as usize..).and_then(|value| value.first_chunk::<4>());
                value.map(|value| u32::from_le_bytes(*value)).ok_or(wrong)
            };
            match kind {
                InfoKind::CHECKSUM => info.checksum = Some(SendChecksum(value()?)),
                InfoKind::LARGE_SEND => info.large_send = Some(LargeSend(value()?)),
                InfoKind::VLAN => info.vlan = Some(VlanTag::from_note(value()?)),
                _ => {}
            }
        }
        Ok(info)
    }
}

/// Which checksums of a frame are to be computed (`struct ndis_tcp_ip_checksum_info`, `transmit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendChecksum(pub u32);

impl SendChecksum {
    /// TCP's.
    pub const fn tcp(self) -> bool {
        self.0 & 0x4 != 0
    }

    /// UDP's.
    pub const fn udp(self) -> bool {
        self.0 & 0x8 != 0
    }

    /// The IPv4 header's.
    pub const fn ip_header(self) -> bool {
        self.0 & 0x10 != 0
    }

    /// Where TCP's header starts in the frame; UDP's too, of some guests, 0 of others.
    pub const fn transport_offset(self) -> usize {
        (self.0 >> 16 & 0x3ff) as usize
    }
}

/// How a frame is to be cut into segments (`struct ndis_tcp_lso_info`, `lso_v2_transmit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeSend(pub u32);

impl LargeSend {
    /// Bytes of TCP's payload in each.
    pub const fn segment_len(self) -> u32 {
        self.0 & 0xf_ffff
    }

    /// Where TCP's header starts in the frame.
    pub const fn tcp_offset(self) -> usize {
        (self.0 >> 20 & 0x3ff) as usize
    }

    /// Whether this is the second version, the only one that is offered.
    pub const fn is_v2(self) -> bool {
        self.0 & 1 << 30 != 0
    }

    /// Whether the frame is IPv6.
    pub const fn is_ipv6(self) -> bool {
        self.0 & 1 << 31 != 0
    }
}

/// A VLAN tag as it stands in a frame: priority, a bit, number (IEEE 802.1Q's TCI).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag(pub u16);

impl VlanTag {
    /// From a note, which has its fields in another order (`struct ndis_pkt_8021q_info`).
    const fn from_note(note: u32) -> Self {
        let (priority, bit, number) = (note & 0x7, note >> 3 & 1, note >> 4 & 0xfff);
        #[expect(clippy::cast_possible_truncation, reason = "3 + 1 + 12 bits")]
        Self((priority << 13 | bit << 12 | number) as u16)
    }

    const fn note(self) -> u32 {
        let tag = self.0 as u32;
        tag >> 13 | (tag >> 12 & 1) << 3 | (tag & 0xfff) << 4
    }
}

bitflags! {
    /// What the card has found out about a frame's checksums (`struct ndis_tcp_ip_checksum_info`,
    /// `receive`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ReceiveChecksum: u32 {
        /// TCP's is wrong.
        const TCP_FAILED = 0x01;
        /// UDP's is wrong.
        const UDP_FAILED = 0x02;
        /// The IPv4 header's is wrong.
        const IP_FAILED = 0x04;
        /// TCP's is right.
        const TCP_SUCCEEDED = 0x08;
        /// UDP's is right.
        const UDP_SUCCEEDED = 0x10;
        /// The IPv4 header's is right.
        const IP_SUCCEEDED = 0x20;
        const _ = !0;
    }
}

bitflags! {
    /// What a piece of a coalesced frame is (`struct rndis_pktinfo_id`, `RNDIS_PKTINFO_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PacketId: u8 {
        /// A piece.
        const PIECE = 1;
        /// The first.
        const FIRST = 2;
        /// The last.
        const LAST = 4;
    }
}

impl PacketId {
    fn note(self) -> u32 {
        // Version 1, the flags, and a number that nobody looks at.
        u32::from_le_bytes([1, self.bits(), 0, 0])
    }
}

/// What the card notes on a frame, or on a piece of one, for the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveInfo {
    /// What it knows of the checksums; empty for nothing.
    pub checksum: ReceiveChecksum,
    /// The tag that the frame had.
    pub vlan: Option<VlanTag>,
    /// The value of the hash function.
    pub hash: Option<u32>,
    /// Which piece it is; `None` for a whole frame.
    pub piece: Option<PacketId>,
}

impl ReceiveInfo {
    /// Writes what stands before the `data_len` bytes of the frame, which start at `data_offset`
    /// in the message; how much of `out` that is. Linux trusts the notes' lengths: each is exact.
    #[inline]
    pub fn write(&self, out: &mut [u8; HEADER_ROOM], data_offset: u32, data_len: u32) -> usize {
        let checksum = (!self.checksum.is_empty()).then_some(self.checksum.bits());
        let notes = [
            (InfoKind::VLAN, self.vlan.map(VlanTag::note)),
            (InfoKind::CHECKSUM, checksum),
            (InfoKind::HASH, self.hash),
            (InfoKind::PACKET_ID, self.piece.map(PacketId::note)),
        ];
        let mut info_len = 0;
        for (kind, value) in notes {
            let Some(value) = value else { continue };
            let header = InfoHeader { len: NOTE, kind, offset: INFO_HEADER };
            let place = out.get_mut(DATA_BODY_LEN + info_len as usize..);
            let place = place.and_then(|place| place.split_at_mut_checked(INFO_HEADER as usize));
            if let Some((start, rest)) = place {
                start.copy_from_slice(header.as_bytes());
                if let Some(place) = rest.first_chunk_mut() {
                    *place = value.to_le_bytes();
                }
            }
            info_len += NOTE;
        }
        let body = DataBody {
            data_offset: data_offset.saturating_sub(HEADER),
            data_len,
            oob_offset: 0,
            oob_len: 0,
            oob_count: 0,
            info_offset: if info_len == 0 { 0 } else { BODY },
            info_len,
            vc_handle: 0,
            reserved: 0,
        };
        let len = data_offset.saturating_add(data_len);
        let (start, rest) = out.split_at_mut(Header::LEN);
        start.copy_from_slice(Header { kind: MessageType::PACKET, len }.as_bytes());
        if let Some(place) = rest.get_mut(..BODY as usize) {
            place.copy_from_slice(body.as_bytes());
        }
        DATA_BODY_LEN + info_len as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// As `netvsc_xmit` of Linux's netvsc_drv.c makes it: a frame of 60 bytes with a hash, a VLAN
    /// tag and a TCP checksum to be computed.
    #[test]
    fn what_linux_sends() {
        let mut message = words(&[1, 8 + 36 + 48 + 60, 36 + 48, 60, 0, 0, 0, 36, 48, 0, 0]);
        message.extend(words(&[16, 9, 12, 0xfeed_f00d]));
        message.extend(words(&[16, 6, 12, 5 | 1 << 3 | 100 << 4]));
        message.extend(words(&[16, 0, 12, 1 | 1 << 2 | 34 << 16]));
        message.extend([0xaa; 60]);
        let header = DataHeader::parse(&message, message.len()).unwrap();
        let expected =
            DataHeader { len: 152, data_offset: 92, data_len: 60, info_offset: 44, info_len: 48 };
        assert_eq!(header, expected);
        let info = DataInfo::parse(&message[44..92]).unwrap();
        assert_eq!(info.vlan, Some(VlanTag(5 << 13 | 1 << 12 | 100)));
        let checksum = info.checksum.unwrap();
        assert!(checksum.tcp() && !checksum.udp() && !checksum.ip_header());
        assert_eq!((checksum.transport_offset(), info.large_send), (34, None));
        let lso = DataInfo::parse(&words(&[16, 2, 12, 1448 | 54 << 20 | 3 << 30])).unwrap();
        let lso = lso.large_send.unwrap();
        assert_eq!((lso.segment_len(), lso.tcp_offset()), (1448, 54));
        assert!(lso.is_v2() && lso.is_ipv6());
    }

    #[test]
    fn parts_outside_are_refused() {
        let mut message = words(&[1, 104, 36, 60, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(DataHeader::parse(&message, 104).unwrap().data_offset, 44);
        assert_eq!(
            DataHeader::parse(&message, 103),
            Err(DataError::Length { len: 104, have: 103 })
        );
        let short = DataHeader::parse(&message[..43], 104);
        assert_eq!(short, Err(DataError::Short { have: 43 }));
        for (offset, len) in [(36, 61), (97, 60), (u32::MAX, 1), (36, u32::MAX)] {
            message[8..16].copy_from_slice(&words(&[offset, len]));
            let part = "frame";
            let expected = DataError::Outside { part, offset, len, have: 104 };
            assert_eq!(DataHeader::parse(&message, 104), Err(expected));
        }
        message[8..16].copy_from_slice(&words(&[36, 60]));
        message[28..36].copy_from_slice(&words(&[90, 16]));
        assert!(matches!(
            DataHeader::parse(&message, 104),
            Err(DataError::Outside { part: "notes", .. })
        ));
        message[4..8].copy_from_slice(&43_u32.to_le_bytes());
        assert_eq!(DataHeader::parse(&message, 104), Err(DataError::Length { len: 43, have: 104 }));
        message[0] = 2;
        let kind = DataError::Kind(MessageType::INITIALIZE);
        assert_eq!(DataHeader::parse(&message, 104), Err(kind));
    }

    #[test]
    fn notes_neither_end_too_early_nor_never() {
        for (len, offset) in [(0, 12), (11, 12), (17, 12), (16, 13), (16, u32::MAX), (12, 12)] {
            let note = words(&[len, 0, offset, 1]);
            let expected = DataError::Note { len, offset, have: 16 };
            assert_eq!(DataInfo::parse(&note), Err(expected), "{len} {offset}");
        }
        let rest = DataInfo::parse(&words(&[16, 0, 12, 1, 16, 0]));
        assert_eq!(rest, Err(DataError::Note { len: 0, offset: 0, have: 8 }));
        // Of unknown kinds, nothing is known but the length.
        assert_eq!(DataInfo::parse(&words(&[12, 77, 99])), Ok(DataInfo::default()));
    }

    #[test]
    fn what_linux_receives() {
        let mut out = [0xee; HEADER_ROOM];
        let plain = ReceiveInfo::default();
        assert_eq!(plain.write(&mut out, 112, 60), 44);
        assert_eq!(out[..44], words(&[1, 172, 104, 60, 0, 0, 0, 0, 0, 0, 0]));
        let info = ReceiveInfo {
            checksum: ReceiveChecksum::TCP_SUCCEEDED,
            vlan: Some(VlanTag(5 << 13 | 100)),
            hash: Some(0x1234_5678),
            piece: Some(PacketId::PIECE | PacketId::LAST),
        };
        assert_eq!(info.write(&mut out, 112, 1500), HEADER_ROOM);
        let mut expected = words(&[1, 1612, 104, 1500, 0, 0, 0, 36, 64, 0, 0]);
        expected.extend(words(&[16, 6, 12, 5 | 100 << 4]));
        expected.extend(words(&[16, 0, 12, 8]));
        expected.extend(words(&[16, 9, 12, 0x1234_5678]));
        expected.extend(words(&[16, 1 | 1 << 31, 12, 1 | 5 << 8]));
        assert_eq!(out[..], expected);
    }
}
