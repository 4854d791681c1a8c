// SPDX-License-Identifier: MIT OR Apache-2.0

//! Mode pages: how a disk caches, whether it is write-protected.

use zerocopy::byteorder::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;

open_enum! {
    /// Which mode page; six bits.
    pub enum PageCode: u8 {
        /// How it caches (SBC-3).
        CACHING = 0x08,
        /// How it behaves (SPC-4).
        CONTROL = 0x0a,
        /// How it reports failures that it expects (SPC-4).
        INFORMATIONAL_EXCEPTIONS = 0x1c,
        /// What a CD drive can do (MMC-3).
        CD_CAPABILITIES = 0x2a,
        /// Every page.
        ALL = 0x3f,
    }
}

bitflags::bitflags! {
    /// What a mode header says about a disk (SBC-3, "DEVICE-SPECIFIC PARAMETER").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct DeviceSpecific: u8 {
        /// It is read-only.
        const WRITE_PROTECTED = 0x80;
        /// Writes can be told to go past the volatile cache (DPOFUA).
        const FORCE_UNIT_ACCESS = 0x10;
        const _ = !0;
    }
}

/// The start of what MODE SENSE(6) returns (SPC-4, "Mode parameter header").
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ModeHeader6 {
    /// Bytes that follow this field.
    pub length: u8,
    /// 0 for disks.
    pub medium: u8,
    /// [`DeviceSpecific`].
    pub device_specific: u8,
    /// Bytes of block descriptors that stand before the pages.
    pub block_descriptors_length: u8,
}

const _: () = assert!(size_of::<ModeHeader6>() == 4);

/// The start of what MODE SENSE(10) returns.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ModeHeader10 {
    /// Bytes that follow this field.
    pub length: U16,
    /// 0 for disks.
    pub medium: u8,
    /// [`DeviceSpecific`].
    pub device_specific: u8,
    /// Bit 0: block descriptors are the long ones.
    pub long_lba: u8,
    /// Zero.
    pub reserved: u8,
    /// Bytes of block descriptors that stand before the pages.
    pub block_descriptors_length: U16,
}

const _: () = assert!(size_of::<ModeHeader10>() == 8);

/// Mode page 0x08 (SBC-3, "Caching mode page").
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CachingPage {
    /// [`PageCode::CACHING`].
    pub code: PageCode,
    /// Bytes that follow.
    pub length: u8,
    /// [`WRITE_CACHE`](Self::WRITE_CACHE); bit 0: reads are not cached.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 17],
}

const _: () = assert!(size_of::<CachingPage>() == 20);

impl CachingPage {
    /// Bit of `flags` (WCE): a write that is complete is durable only after SYNCHRONIZE CACHE.
    pub const WRITE_CACHE: u8 = 0x04;

    /// The page with these flags.
    pub const fn new(flags: u8) -> Self {
        Self { code: PageCode::CACHING, length: 20 - 2, flags, reserved: [0; 17] }
    }
}

/// Mode page 0x0a (SPC-4, "Control mode page").
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ControlPage {
    /// [`PageCode::CONTROL`].
    pub code: PageCode,
    /// Bytes that follow.
    pub length: u8,
    /// Zero: one task set, sense data in fixed format.
    pub flags: u8,
    /// [`UNRESTRICTED_REORDERING`](Self::UNRESTRICTED_REORDERING).
    pub queueing: u8,
    /// Zero.
    pub reserved: [u8; 8],
}

const _: () = assert!(size_of::<ControlPage>() == 12);

impl ControlPage {
    /// `queueing` of a device that orders commands as it likes.
    pub const UNRESTRICTED_REORDERING: u8 = 0x10;

    /// The page of a device that keeps no order.
    pub const fn unordered() -> Self {
        Self {
            code: PageCode::CONTROL,
            length: 12 - 2,
            flags: 0,
            queueing: Self::UNRESTRICTED_REORDERING,
            reserved: [0; 8],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `sd_read_cache_type` of Linux's `drivers/scsi/sd.c` looks at: page code, length, and
    /// WCE in bit 2 of byte 2.
    #[test]
    fn the_caching_page_is_laid_out_as_guests_read_it() {
        let mut expected = [0; 20];
        expected[..3].copy_from_slice(&[0x08, 0x12, 0x04]);
        assert_eq!(CachingPage::new(CachingPage::WRITE_CACHE).as_bytes(), expected);
    }

    #[test]
    fn the_control_page_is_ten_bytes_behind_its_header() {
        assert_eq!(ControlPage::unordered().as_bytes()[..4], [0x0a, 0x0a, 0, 0x10]);
    }
}
