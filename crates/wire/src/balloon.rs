// SPDX-License-Identifier: MIT OR Apache-2.0

//! Dynamic memory: pages that the guest lends its host.
//!
//! Source: Linux `drivers/hv/hv_balloon.c` (`enum dm_message_type`, `struct dm_balloon` …).

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;

/// A version of the protocol, the major number in the upper half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32);

impl Version {
    /// Windows 8.
    pub const V1_0: Self = Self(0x0001_0000);
    /// Windows 10.
    pub const V2_0: Self = Self(0x0002_0000);

    /// Every version that is spoken, oldest first.
    pub const ALL: [Self; 2] = [Self::V1_0, Self::V2_0];
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 16, self.0 & 0xffff)
    }
}

open_enum! {
    /// What a message is.
    pub enum MessageType: u16 {
        /// The guest asks for a version.
        VERSION_REQUEST = 1,
        /// Whether the host speaks it.
        VERSION_RESPONSE = 2,
        /// What the guest can do.
        CAPABILITIES_REPORT = 3,
        /// Whether that will do.
        CAPABILITIES_RESPONSE = 4,
        /// How much memory the guest has and needs.
        STATUS_REPORT = 5,
        /// The host wants pages.
        BALLOON_REQUEST = 6,
        /// Pages.
        BALLOON_RESPONSE = 7,
        /// The host gives pages back.
        UNBALLOON_REQUEST = 8,
        /// The guest has them.
        UNBALLOON_RESPONSE = 9,
        /// The host has memory that the guest did not start with.
        HOT_ADD_REQUEST = 10,
        /// How much of it the guest has taken.
        HOT_ADD_RESPONSE = 11,
    }
}

/// What each message begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// What it is.
    pub kind: MessageType,
    /// Bytes of the message, this counted.
    pub len: u16,
    /// The request's name, which its answer repeats.
    pub transaction_id: u32,
}

/// [`MessageType::VERSION_RESPONSE`] and [`MessageType::CAPABILITIES_RESPONSE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Answer {
    /// What it is.
    pub header: Header,
    /// Bit 0: yes.
    pub accepted: u64,
}

/// [`MessageType::CAPABILITIES_REPORT`]'s first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// The guest takes memory that it did not start with.
    pub const fn hot_add(self) -> bool {
        self.0 & 1 << 1 != 0
    }

    /// The pages that such memory's start and length must be a multiple of: of 2ⁿ MiB, n has four bits.
    pub const fn hot_add_alignment(self) -> u64 {
        256 << (self.0 >> 2 & 0xf)
    }
}

/// [`MessageType::HOT_ADD_REQUEST`] of a host that leaves the region around the range to the guest.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HotAddRequest {
    /// What it is.
    pub header: Header,
    /// The memory.
    pub range: PageRange,
}

/// [`MessageType::HOT_ADD_RESPONSE`]'s body.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HotAdded {
    /// Pages that the guest has taken.
    pub pages: u32,
    /// 1 with no pages: it will never take any. 0 with no pages: it may be asked again.
    pub result: u32,
}

/// [`MessageType::STATUS_REPORT`]'s body, in pages.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Status {
    /// Pages that nothing needs.
    pub available: u64,
    /// Pages that programs have been promised.
    pub committed: u64,
    /// Pages of swap space.
    pub page_file: u64,
    /// Pages that are free and zero.
    pub zeroed: u64,
}

/// [`MessageType::BALLOON_REQUEST`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BalloonRequest {
    /// What it is.
    pub header: Header,
    /// Pages wanted.
    pub pages: u32,
    /// Zero.
    pub reserved: u32,
}

/// Pages in a row: the first one's number in the lower 40 bits, how many in the upper 24.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PageRange(pub u64);

impl PageRange {
    /// `count` pages from `first` on; both must fit.
    pub const fn new(first: u64, count: u64) -> Self {
        Self(first & ((1 << 40) - 1) | count << 40)
    }

    /// The first page.
    pub const fn first(self) -> u64 {
        self.0 & ((1 << 40) - 1)
    }

    /// How many pages.
    pub const fn count(self) -> u64 {
        self.0 >> 40
    }
}

/// The front of [`MessageType::UNBALLOON_REQUEST`]; the ranges follow. Unlike the guest's list of
/// pages, whose one word holds both, this has a word for each number.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UnballoonRequest {
    /// What it is.
    pub header: Header,
    /// Bit 0: more such messages follow, and the guest answers the last.
    pub more: u32,
    /// How many ranges stand here.
    pub range_count: u32,
}

/// Prints a message of either side.
#[derive(Clone, Copy)]
pub struct Text<'a>(pub &'a [u8]);

impl Text<'_> {
    /// What it is.
    pub fn kind(&self) -> Option<MessageType> {
        Header::read_from_prefix(self.0).ok().map(|(header, _)| header.kind)
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok((header, body)) = Header::read_from_prefix(self.0) else {
            return write!(f, "{} B, too few for a message", self.0.len());
        };
        let Header { kind, transaction_id: id, .. } = header;
        write!(f, "{kind} #{id}")?;
        let word = body.first_chunk().map(|word| u32::from_le_bytes(*word)).unwrap_or_default();
        match kind {
            MessageType::VERSION_REQUEST => write!(f, " {}", Version(word)),
            MessageType::VERSION_RESPONSE | MessageType::CAPABILITIES_RESPONSE => {
                f.write_str(if word & 1 != 0 { " accepted" } else { " refused" })
            }
            MessageType::STATUS_REPORT => {
                let status = Status::read_from_prefix(body).map(|(status, _)| status);
                let Status { available, committed, .. } = status.unwrap_or_default();
                write!(f, " available={available} committed={committed} pages")
            }
            MessageType::BALLOON_REQUEST => write!(f, " {word} pages"),
            MessageType::HOT_ADD_REQUEST => {
                let range =
                    PageRange::read_from_prefix(body).map_or(PageRange(0), |(range, _)| range);
                write!(f, " {} pages from {:#x} on", range.count(), range.first())
            }
            MessageType::HOT_ADD_RESPONSE => write!(f, " {word} pages"),
            MessageType::CAPABILITIES_REPORT => write!(f, " {word:#x}"),
            _ => Ok(()),
        }
    }
}

const _: () = assert!(size_of::<Header>() == 8);
const _: () = assert!(size_of::<Answer>() == 16);
const _: () = assert!(size_of::<BalloonRequest>() == 16);
const _: () = assert!(size_of::<UnballoonRequest>() == 16);
const _: () = assert!(size_of::<HotAddRequest>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_printed() {
        let text = |bytes: &[u8]| Text(bytes).to_string();
        assert_eq!(text(&[1, 0, 16, 0, 7, 0, 0, 0, 0, 0, 2, 0]), "VERSION_REQUEST #7 2.0");
        assert_eq!(
            text(&[4, 0, 16, 0, 7, 0, 0, 0, 1, 0, 0, 0]),
            "CAPABILITIES_RESPONSE #7 accepted"
        );
        assert_eq!(text(&[6, 0, 16, 0, 8, 0, 0, 0, 0, 2, 0, 0]), "BALLOON_REQUEST #8 512 pages");
        assert_eq!(
            text(&[10, 0, 16, 0, 9, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0x80, 0]),
            "HOT_ADD_REQUEST #9 32768 pages from 0x100000 on"
        );
        assert_eq!(text(&[6, 0]), "2 B, too few for a message");
    }

    /// `union dm_mem_page_range`: `start_page:40, page_cnt:24`.
    #[test]
    fn a_range_is_two_numbers_in_one() {
        let range = PageRange::new(0x12_3456_789a, 0xabc);
        assert_eq!(range.as_bytes(), [0x9a, 0x78, 0x56, 0x34, 0x12, 0xbc, 0x0a, 0]);
        assert_eq!((range.first(), range.count()), (0x12_3456_789a, 0xabc));
    }
}
