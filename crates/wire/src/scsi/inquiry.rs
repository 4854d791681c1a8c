// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a device says about itself: standard INQUIRY data and pages of vital product data.

use std::fmt;

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;

open_enum! {
    /// The first byte of everything that INQUIRY returns: what is there, and of what type.
    pub enum Peripheral: u8 {
        /// A disk.
        DISK = 0x00,
        /// A drive of optical discs.
        DISC_DRIVE = 0x05,
        /// Nothing, and nothing can be: qualifier 3, type 0x1f.
        ABSENT = 0x7f,
    }
}

open_enum! {
    /// A page of vital product data.
    pub enum VpdPage: u8 {
        /// Which pages there are.
        SUPPORTED_PAGES = 0x00,
        /// The serial number, in ASCII.
        UNIT_SERIAL_NUMBER = 0x80,
        /// Names that are unique in the world.
        DEVICE_IDENTIFICATION = 0x83,
        /// How much one command may do.
        BLOCK_LIMITS = 0xb0,
        /// Whether it rotates.
        BLOCK_CHARACTERISTICS = 0xb1,
        /// How blocks are given up.
        LOGICAL_BLOCK_PROVISIONING = 0xb2,
    }
}

/// Standard INQUIRY data, as short as it may be (SPC-4, "Standard INQUIRY data").
///
/// Guests ask for 36 bytes first and again for as many as `additional_length` promises, so a
/// promise of more costs a command for each unit.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Inquiry {
    /// What is there.
    pub peripheral: Peripheral,
    /// Bit 7: the medium can be removed.
    pub removable: u8,
    /// The standard that it follows: 5 for SPC-3, 6 for SPC-4.
    pub version: u8,
    /// 2: laid out as described here.
    pub response_format: u8,
    /// Bytes that follow this one.
    pub additional_length: u8,
    /// Zero.
    pub flags5: u8,
    /// Zero.
    pub flags6: u8,
    /// [`COMMAND_QUEUE`](Self::COMMAND_QUEUE).
    pub flags7: u8,
    /// Who made it, padded with spaces.
    pub vendor: [u8; 8],
    /// What it is, padded with spaces.
    pub product: [u8; 16],
    /// Its version, padded with spaces.
    pub revision: [u8; 4],
}

const _: () = assert!(size_of::<Inquiry>() == 36);

impl Inquiry {
    /// Bit of `flags7`: several commands may be under way at once.
    pub const COMMAND_QUEUE: u8 = 0x02;

    /// Bit of `removable`.
    pub const REMOVABLE: u8 = 0x80;

    /// Hyper-V's virtual disk.
    ///
    /// Linux's storvsc trusts the provisioning pages and allows WRITE SAME only for the vendor
    /// "Msft" (`drivers/scsi/storvsc_drv.c`, `storvsc_device_configure`), and asks for vital
    /// product data without further ado from SPC-3 (version 5) on.
    pub const VIRTUAL_DISK: Self = Self {
        peripheral: Peripheral::DISK,
        removable: 0,
        version: 5,
        response_format: 2,
        additional_length: 36 - 5,
        flags5: 0,
        flags6: 0,
        flags7: Self::COMMAND_QUEUE,
        vendor: *b"Msft    ",
        product: *b"Virtual Disk    ",
        revision: *b"1.0 ",
    };

    /// Hyper-V's DVD drive.
    pub const VIRTUAL_DVD: Self = Self {
        peripheral: Peripheral::DISC_DRIVE,
        removable: Self::REMOVABLE,
        product: *b"Virtual DVD-ROM ",
        ..Self::VIRTUAL_DISK
    };
}

impl fmt::Display for Inquiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes).trim_end().to_owned();
        write!(f, "{} '{}' '{}'", self.peripheral, text(&self.vendor), text(&self.product))?;
        write!(f, " revision '{}' version {}", text(&self.revision), self.version)
    }
}

/// The start of each page of vital product data (SPC-4, "Vital product data parameters").
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VpdHeader {
    /// What is there.
    pub peripheral: Peripheral,
    /// Which page.
    pub page: VpdPage,
    /// Bytes that follow.
    pub length: U16,
}

const _: () = assert!(size_of::<VpdHeader>() == 4);

/// The first of a disk's names in the body of page 0x83 (SPC-4, "Device Identification VPD page"); the
/// second, its world-wide name, follows with [`world_wide_name`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VendorName {
    /// Binary (1), T10 vendor identification (1), zero, 24 bytes.
    header: [u8; 4],
    vendor: [u8; 8],
    id: [u8; 16],
}

const _: () = assert!(size_of::<VendorName>() == 28);

impl VendorName {
    /// The name of the virtual disk with the unique number `id`.
    pub const fn virtual_disk(id: [u8; 16]) -> Self {
        Self { header: [1, 1, 0, 24], vendor: Inquiry::VIRTUAL_DISK.vendor, id }
    }
}

/// What comes before an NAA name of `len` bytes, 8 or 16: binary (1), NAA (3), zero, the length.
pub const fn world_wide_name(len: u8) -> [u8; 4] {
    [1, 3, 0, len]
}

/// The NAA name of a virtual disk that was given none.
///
/// Like Hyper-V's, it is of format 6 with Microsoft's company id, 00-22-48, which guests' rules for
/// `/dev/disk/by-id` know.
pub fn virtual_disk_name(id: [u8; 16]) -> [u8; 16] {
    let mut name = [0; 16];
    let (company, number) = name.split_at_mut(4);
    company.copy_from_slice(&[0x60, 0x02, 0x24, 0x80]);
    number.copy_from_slice(id.first_chunk::<12>().unwrap_or(&[0; 12]));
    name
}

/// The body of page 0xb0 (SBC-3, "Block Limits VPD page"); lengths in blocks.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BlockLimits {
    /// Bit 0 (WSNZ): WRITE SAME of no blocks does not mean all.
    pub flags: u8,
    /// COMPARE AND WRITE; 0 for not supported.
    pub max_compare_and_write: u8,
    /// Transfers should be a multiple of this.
    pub optimal_granularity: U16,
    /// One read or write.
    pub max_transfer: U32,
    /// One read or write that is best.
    pub optimal_transfer: U32,
    /// One prefetch.
    pub max_prefetch: U32,
    /// All descriptors of one UNMAP.
    pub max_unmap_blocks: U32,
    /// Descriptors in one UNMAP.
    pub max_unmap_descriptors: U32,
    /// Blocks are given up in units of this.
    pub unmap_granularity: U32,
    /// Where the first of these units starts; counts with [`UNMAP_ALIGNED`](Self::UNMAP_ALIGNED).
    pub unmap_alignment: U32,
    /// One WRITE SAME.
    pub max_write_same: U64,
    /// Zero.
    pub reserved: [u8; 20],
}

const _: () = assert!(size_of::<VpdHeader>() + size_of::<BlockLimits>() == 64);

impl BlockLimits {
    /// Bit 0 of `flags`.
    pub const WRITE_SAME_NON_ZERO: u8 = 1;
    /// Bit 31 of `unmap_alignment`: the rest of it counts.
    pub const UNMAP_ALIGNED: u32 = 1 << 31;
}

/// The body of page 0xb1 (SBC-3, "Block Device Characteristics VPD page").
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BlockCharacteristics {
    /// Revolutions a minute; 1 for none.
    pub rotation: U16,
    /// Zero: not said.
    pub product_type: u8,
    /// Zero: not said.
    pub form_factor: u8,
    /// Zero: no zones.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 55],
}

const _: () = assert!(size_of::<VpdHeader>() + size_of::<BlockCharacteristics>() == 64);

impl BlockCharacteristics {
    /// `rotation` of a disk that does not rotate.
    pub const NON_ROTATING: u16 = 1;
}

/// The body of page 0xb2 (SBC-3, "Logical Block Provisioning VPD page").
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Provisioning {
    /// Zero: no thresholds.
    pub threshold_exponent: u8,
    /// Bits of [`provisioning`].
    pub flags: u8,
    /// Bits 2:0: 0 for fully provisioned, 2 for thin.
    pub kind: u8,
    /// Zero.
    pub reserved: u8,
}

const _: () = assert!(size_of::<VpdHeader>() + size_of::<Provisioning>() == 8);

impl Provisioning {
    /// `kind` of a disk whose blocks take room when they are written.
    pub const THIN: u8 = 2;
}

/// Bits of [`Provisioning::flags`].
pub mod provisioning {
    /// UNMAP works (LBPU).
    pub const UNMAP: u8 = 0x80;
    /// WRITE SAME(16) with UNMAP works (LBPWS).
    pub const WRITE_SAME_16: u8 = 0x40;
    /// WRITE SAME(10) with UNMAP works (LBPWS10).
    pub const WRITE_SAME_10: u8 = 0x20;
    /// Blocks that were given up read as zeroes (LBPRZ).
    pub const READS_ZEROES: u8 = 0x04;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The offsets of `scsi_probe_lun` and `scsi_add_lun` (Linux `drivers/scsi/scsi_scan.c`):
    /// version in byte 2, additional length in 4, CMDQUE in 7, vendor at 8, model at 16, revision
    /// at 32.
    #[test]
    fn standard_data_is_laid_out_as_guests_read_it() {
        let bytes = Inquiry::VIRTUAL_DISK.as_bytes();
        assert_eq!(bytes[..8], [0, 0, 5, 2, 31, 0, 0, 2]);
        assert_eq!(&bytes[8..], b"Msft    Virtual Disk    1.0 ");
        assert_eq!(
            Inquiry::VIRTUAL_DISK.to_string(),
            "DISK 'Msft' 'Virtual Disk' revision '1.0' version 5"
        );
    }

    /// The offsets of `sd_read_block_limits` (Linux `drivers/scsi/sd.c`), from the page's start.
    #[test]
    fn block_limits_are_laid_out_as_guests_read_them() {
        let limits = BlockLimits {
            flags: BlockLimits::WRITE_SAME_NON_ZERO,
            max_compare_and_write: 0,
            optimal_granularity: 8.into(),
            max_transfer: 0x11.into(),
            optimal_transfer: 0x12.into(),
            max_prefetch: 0.into(),
            max_unmap_blocks: 0x13.into(),
            max_unmap_descriptors: 0x14.into(),
            unmap_granularity: 0x15.into(),
            unmap_alignment: BlockLimits::UNMAP_ALIGNED.into(),
            max_write_same: 0x16.into(),
            reserved: [0; 20],
        };
        let mut page = vec![0; 4];
        page.extend_from_slice(limits.as_bytes());
        let be32 = |at: usize| u32::from_be_bytes(page[at..at + 4].try_into().unwrap());
        assert_eq!(page[4], 1);
        assert_eq!(u16::from_be_bytes([page[6], page[7]]), 8);
        assert_eq!((be32(8), be32(12)), (0x11, 0x12));
        assert_eq!((be32(20), be32(24), be32(28)), (0x13, 0x14, 0x15));
        assert_eq!(page[32], 0x80);
        assert_eq!((be32(36), be32(40)), (0, 0x16));
    }

    /// Each designator: code set, type, reserved, length, then the name (`scsi_vpd_lun_id` of
    /// Linux's `drivers/scsi/scsi_lib.c`).
    #[test]
    fn identifiers_are_two_designators() {
        let id = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
        let vendor = VendorName::virtual_disk(id);
        let name = [&world_wide_name(16)[..], &virtual_disk_name(id)].concat();
        let bytes = [vendor.as_bytes(), &name].concat();
        assert_eq!(bytes[..4], [1, 1, 0, 24]);
        assert_eq!(&bytes[4..12], b"Msft    ");
        assert_eq!(bytes[12..28], id);
        assert_eq!(bytes[28..32], [1, 3, 0, 16]);
        assert_eq!(bytes[32..36], [0x60, 0x02, 0x24, 0x80]);
        assert_eq!(bytes[36..], id[..12]);
    }
}
