// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packets of a ring: the descriptor, the ranges of external pages, the trailer.
//!
//! ```text
//! 0        16                      data_offset8 * 8      total_len8 * 8        + 8
//! | desc   | ranges (some types)   | payload             | trailer             |
//! ```
//!
//! The descriptor does not say how long the payload really is (it is rounded up to 8): protocols
//! carry their own lengths. Source: Linux `include/linux/hyperv.h` (`struct vmpacket_descriptor`,
//! `struct vmtransfer_page_packet_header`, `struct vmdata_gpa_direct`).

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::PAGE_SIZE;
use crate::open_enum::open_enum;

/// Bytes of a [`Descriptor`].
pub const DESCRIPTOR_LEN: usize = 16;

/// Bytes of the trailer behind each packet: the start of the packet in the upper 32 bits.
pub const TRAILER_LEN: usize = 8;

/// Bytes between a descriptor and the first range of a GPA-direct or transfer-page packet.
pub const RANGES_OFFSET: usize = 24;

open_enum! {
    /// What a packet is (`enum vmbus_packet_type`).
    pub enum PacketType: u16 {
        /// All data within the packet.
        DATA_IN_BAND = 6,
        /// Ranges of a buffer that was shared before, by a GPADL.
        DATA_USING_TRANSFER_PAGES = 7,
        /// Data in a GPADL.
        DATA_USING_GPADL = 8,
        /// Ranges of guest pages by PFN.
        DATA_USING_GPA_DIRECT = 9,
        /// The sender gives a request up.
        CANCEL_REQUEST = 0xa,
        /// The answer to a packet that asked for one.
        COMPLETION = 0xb,
        /// Data of an earlier packet, continued.
        DATA_USING_ADDITIONAL_PACKETS = 0xc,
    }
}

/// The flag of [`Descriptor::flags`] by which a packet asks for a completion.
pub const COMPLETION_REQUESTED: u16 = 1;

/// The first 16 bytes of every packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Descriptor {
    /// What the packet is.
    pub kind: PacketType,
    /// Where the payload starts, in units of 8 bytes from the descriptor's start.
    pub data_offset8: u16,
    /// Where the packet ends, in units of 8 bytes, the trailer not counted.
    pub total_len8: u16,
    /// [`COMPLETION_REQUESTED`] or 0.
    pub flags: u16,
    /// The sender's name for the request; a completion repeats it.
    pub transaction_id: u64,
}

const _: () = assert!(size_of::<Descriptor>() == DESCRIPTOR_LEN);

impl Descriptor {
    /// Where the payload starts, in bytes from the descriptor's start.
    pub const fn data_offset(&self) -> usize {
        self.data_offset8 as usize * 8
    }

    /// Bytes of the packet without its trailer.
    pub const fn total_len(&self) -> usize {
        self.total_len8 as usize * 8
    }

    /// The two words that it is in memory. Fields of two bytes that are stored one by one and then
    /// copied at once make a processor wait for each store.
    #[inline]
    pub fn words(&self) -> [u64; 2] {
        let Self { kind: PacketType(kind), data_offset8, total_len8, flags, .. } = *self;
        let fields = [kind, data_offset8, total_len8, flags];
        let first = fields.iter().rev().fold(0, |word, field| word << 16 | u64::from(*field));
        [first, self.transaction_id]
    }

    /// Whether the sender waits for a completion.
    pub const fn wants_completion(&self) -> bool {
        self.flags & COMPLETION_REQUESTED != 0
    }
}

impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} id={:#x} len={}", self.kind, self.transaction_id, self.total_len())?;
        if self.data_offset8 != 2 {
            write!(f, " data@{}", self.data_offset())?;
        }
        if self.wants_completion() {
            f.write_str(" completion-requested")?;
        }
        Ok(())
    }
}

/// What stands between the descriptor and the ranges of a GPA-direct packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct GpaDirectHeader {
    /// May hold garbage.
    pub reserved: u32,
    /// Ranges that follow.
    pub range_count: u32,
}

/// What stands between the descriptor and the ranges of a transfer-page packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TransferPageHeader {
    /// Which shared buffer: the id under which it was given to the host.
    pub page_set_id: u16,
    /// Non-zero: the sender keeps the pages.
    pub sender_owns_set: u8,
    /// Zero.
    pub reserved: u8,
    /// Ranges that follow.
    pub range_count: u32,
}

/// One range of a transfer-page packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TransferRange {
    /// Bytes.
    pub byte_count: u32,
    /// Where in the shared buffer.
    pub byte_offset: u32,
}

const _: () = assert!(size_of::<GpaDirectHeader>() == 8);
const _: () = assert!(size_of::<TransferPageHeader>() == 8);
const _: () = assert!(size_of::<TransferRange>() == 8);

/// The start of one range of external pages; `ceil((byte_offset + byte_count) / 4096)` PFNs of
/// eight bytes follow (`struct gpa_range`).
///
/// GPADL_HEADER messages hold the same structure.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct GpaRangeHeader {
    /// Bytes of data in the range.
    pub byte_count: u32,
    /// Where in the first page the data starts.
    pub byte_offset: u32,
}

const _: () = assert!(size_of::<GpaRangeHeader>() == 8);

impl GpaRangeHeader {
    /// The PFNs that the range needs.
    pub const fn page_count(&self) -> usize {
        (self.byte_offset as usize).saturating_add(self.byte_count as usize).div_ceil(PAGE_SIZE)
    }
}

/// One range of external pages of a guest: `byte_count` bytes that start `byte_offset` into the
/// first of `pfns`.
#[derive(Clone, Copy, Debug)]
pub struct GpaRange<'a> {
    /// Length and offset.
    pub header: GpaRangeHeader,
    pfns: &'a [[u8; 8]],
}

impl<'a> GpaRange<'a> {
    /// The page frame numbers, in the order in which the data goes through the pages.
    pub fn pfns(&self) -> impl ExactSizeIterator<Item = u64> + 'a {
        self.pfns.iter().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

/// The ranges of a packet are not what they claim to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Fewer bytes than the header of the ranges needs.
    #[error("the packet ends {have} B into the 8 B header of its ranges")]
    NoHeader {
        /// Bytes present.
        have: usize,
    },
    /// A range's own header lies beyond the end.
    #[error("range {index} of {count} starts beyond the packet's data offset")]
    Missing {
        /// Which range.
        index: u32,
        /// Ranges announced.
        count: u32,
    },
    /// A range announces more PFNs than stand in the packet.
    #[error(
        "range {index}: {byte_count} B at offset {byte_offset} need {need} PFNs, the packet has room for {have}"
    )]
    TooFewPfns {
        /// Which range.
        index: u32,
        /// Bytes of the range.
        byte_count: u32,
        /// Offset in the first page.
        byte_offset: u32,
        /// PFNs needed.
        need: usize,
        /// PFNs present.
        have: usize,
    },
    /// The data would start beyond the first page.
    #[error("range {index}: offset {byte_offset} is beyond the first page")]
    OffsetBeyondPage {
        /// Which range.
        index: u32,
        /// Offset in the first page.
        byte_offset: u32,
    },
}

/// Walks the ranges of a GPA-direct packet, in the general form: any number of ranges, each of any
/// number of pages.
///
/// Yields an error once, at the first range that does not fit into the packet, and then ends.
#[derive(Clone, Debug)]
pub struct GpaRanges<'a> {
    rest: &'a [u8],
    index: u32,
    count: u32,
}

impl<'a> GpaRanges<'a> {
    /// The ranges in `bytes`: what stands between the descriptor and the payload of a GPA-direct
    /// packet.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RangeError> {
        let (header, rest) = GpaDirectHeader::read_from_prefix(bytes)
            .map_err(|_| RangeError::NoHeader { have: bytes.len() })?;
        Ok(Self::new(rest, header.range_count))
    }

    /// `count` ranges that stand back to back in `bytes`.
    pub const fn new(bytes: &'a [u8], count: u32) -> Self {
        Self { rest: bytes, index: 0, count }
    }

    /// How many ranges were announced.
    pub const fn count(&self) -> u32 {
        self.count
    }

    fn take(&mut self) -> Result<GpaRange<'a>, RangeError> {
        let index = self.index;
        let (header, rest) = GpaRangeHeader::read_from_prefix(self.rest)
            .map_err(|_| RangeError::Missing { index, count: self.count })?;
        if header.byte_offset as usize >= PAGE_SIZE {
            return Err(RangeError::OffsetBeyondPage { index, byte_offset: header.byte_offset });
        }
        let need = header.page_count();
        let (pfns, _) = rest.as_chunks::<8>();
        let Some(pfns) = pfns.get(..need) else {
            return Err(RangeError::TooFewPfns {
                index,
                byte_count: header.byte_count,
                byte_offset: header.byte_offset,
                need,
                have: pfns.len(),
            });
        };
        self.rest = rest.get(pfns.as_flattened().len()..).unwrap_or_default();
        Ok(GpaRange { header, pfns })
    }
}

impl<'a> Iterator for GpaRanges<'a> {
    type Item = Result<GpaRange<'a>, RangeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            return None;
        }
        let range = self.take();
        self.index = match range {
            Ok(_) => self.index.saturating_add(1),
            Err(_) => self.count,
        };
        Some(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn a_range_of_several_pages() {
        // 0x1200 bytes at 0xe00 touch pages 0..=2.
        let bytes = ranges(&[1 << 32, 0xe00 << 32 | 0x1300, 7, 3, 9, 0xdead]);
        let mut parsed = GpaRanges::parse(&bytes).unwrap();
        let range = parsed.next().unwrap().unwrap();
        assert_eq!(range.header, GpaRangeHeader { byte_count: 0x1300, byte_offset: 0xe00 });
        assert_eq!(range.pfns().collect::<Vec<_>>(), [7, 3, 9]);
        assert!(parsed.next().is_none());
    }

    #[test]
    fn several_ranges_stand_back_to_back() {
        let bytes = ranges(&[2 << 32, 0x1000, 7, 0x10 << 32 | 0x20, 8]);
        let parsed: Vec<_> = GpaRanges::parse(&bytes).unwrap().map(Result::unwrap).collect();
        assert_eq!(parsed.len(), 2);
        assert_eq!(parsed[1].pfns().collect::<Vec<_>>(), [8]);
    }

    #[test]
    fn no_ranges_is_legal() {
        assert_eq!(GpaRanges::parse(&[0; 8]).unwrap().count(), 0);
    }

    #[test]
    fn lies_about_pfns_end_the_walk_with_the_numbers() {
        let bytes = ranges(&[u64::from(u32::MAX) << 32, 0x3000, 7, 8]);
        let mut parsed = GpaRanges::parse(&bytes).unwrap();
        assert_eq!(
            parsed.next().unwrap().unwrap_err(),
            RangeError::TooFewPfns {
                index: 0,
                byte_count: 0x3000,
                byte_offset: 0,
                need: 3,
                have: 2
            }
        );
        assert!(parsed.next().is_none());
    }

    #[test]
    fn huge_numbers_neither_overflow_nor_allocate() {
        let bytes = ranges(&[1 << 32, 0xfff << 32 | 0xffff_ffff]);
        let error = GpaRanges::parse(&bytes).unwrap().next().unwrap().unwrap_err();
        assert!(matches!(error, RangeError::TooFewPfns { need: 0x10_0001, have: 0, .. }));
        assert!(matches!(GpaRanges::parse(&[0; 7]), Err(RangeError::NoHeader { have: 7 })));
    }

    #[test]
    fn offsets_beyond_the_first_page_are_refused() {
        let bytes = ranges(&[1 << 32, 0x1000 << 32 | 0x10, 7, 8]);
        let error = GpaRanges::parse(&bytes).unwrap().next().unwrap().unwrap_err();
        assert_eq!(error, RangeError::OffsetBeyondPage { index: 0, byte_offset: 0x1000 });
    }
}
