// SPDX-License-Identifier: MIT OR Apache-2.0

//! Capacities, lists of logical units, lists of blocks to be given up.

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What READ CAPACITY(10) returns (SBC-3, "READ CAPACITY (10) parameter data").
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Capacity10 {
    /// The last block's address; 0xffffffff: ask READ CAPACITY(16).
    pub last_lba: U32,
    /// Bytes of a block.
    pub block_len: U32,
}

const _: () = assert!(size_of::<Capacity10>() == 8);

/// What READ CAPACITY(16) returns (SBC-3, "READ CAPACITY (16) parameter data").
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Capacity16 {
    /// The last block's address.
    pub last_lba: U64,
    /// Bytes of a block.
    pub block_len: U32,
    /// Protection information; 0 for none.
    pub protection: u8,
    /// Bits 3:0: a physical block is 2 to this power logical blocks.
    pub physical_exponent: u8,
    /// Bits of [`capacity16`]; the upper six bits of the lowest aligned address below them.
    pub flags: u8,
    /// The lowest address that is aligned to a physical block, its lower eight bits.
    pub lowest_aligned: u8,
    /// Zero.
    pub reserved: [u8; 16],
}

const _: () = assert!(size_of::<Capacity16>() == 32);

/// Bits of [`Capacity16::flags`].
pub mod capacity16 {
    /// Blocks can be given up (LBPME).
    pub const PROVISIONING: u8 = 0x80;
    /// Blocks that were given up read as zeroes (LBPRZ).
    pub const READS_ZEROES: u8 = 0x40;
}

/// The start of what REPORT LUNS returns; [`LunEntry`]s follow (SPC-4, "REPORT LUNS parameter
/// data").
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LunListHeader {
    /// Bytes of all entries, also of those that found no room.
    pub length: U32,
    /// Zero.
    pub reserved: U32,
}

const _: () = assert!(size_of::<LunListHeader>() == 8);

/// The address of a logical unit.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LunEntry(pub [u8; 8]);

impl LunEntry {
    /// Unit `lun` in the simplest form, peripheral device addressing on bus 0 (SAM-5).
    pub const fn peripheral(lun: u8) -> Self {
        Self([0, lun, 0, 0, 0, 0, 0, 0])
    }
}

/// The start of the list that UNMAP brings; [`UnmapDescriptor`]s follow (SBC-3, "UNMAP parameter
/// list").
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UnmapHeader {
    /// Bytes that follow this field.
    pub data_length: U16,
    /// Bytes of all descriptors.
    pub descriptors_length: U16,
    /// Zero.
    pub reserved: U32,
}

/// Blocks to be given up.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UnmapDescriptor {
    /// First block.
    pub lba: U64,
    /// How many.
    pub blocks: U32,
    /// Zero.
    pub reserved: U32,
}

const _: () = assert!(size_of::<UnmapHeader>() == 8);
const _: () = assert!(size_of::<UnmapDescriptor>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    /// `read_capacity_16` of Linux's `drivers/scsi/sd.c` reads the last address at 0, the block
    /// size at 8, the exponent in byte 13, LBPME and LBPRZ in byte 14.
    #[test]
    fn capacity_16_is_laid_out_as_guests_read_it() {
        let capacity = Capacity16 {
            last_lba: 0x0102_0304_0506_0708.into(),
            block_len: 512.into(),
            protection: 0,
            physical_exponent: 3,
            flags: capacity16::PROVISIONING | capacity16::READS_ZEROES,
            lowest_aligned: 0,
            reserved: [0; 16],
        };
        let mut expected = [0; 32];
        expected[..12].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 2, 0]);
        expected[13] = 3;
        expected[14] = 0xc0;
        assert_eq!(capacity.as_bytes(), expected);
    }

    /// The list of `sd_setup_unmap_cmnd`: lengths 22 and 16, the address at 8, the count at 16.
    #[test]
    fn an_unmap_list_is_read_as_guests_lay_it_out() {
        let mut list = [0; 24];
        list[..2].copy_from_slice(&22_u16.to_be_bytes());
        list[2..4].copy_from_slice(&16_u16.to_be_bytes());
        list[8..16].copy_from_slice(&2048_u64.to_be_bytes());
        list[16..20].copy_from_slice(&64_u32.to_be_bytes());
        let (header, rest) = UnmapHeader::read_from_prefix(&list).unwrap();
        assert_eq!((header.data_length.get(), header.descriptors_length.get()), (22, 16));
        let descriptor = UnmapDescriptor::read_from_bytes(rest).unwrap();
        assert_eq!((descriptor.lba.get(), descriptor.blocks.get()), (2048, 64));
    }
}
