// SPDX-License-Identifier: MIT OR Apache-2.0

//! The four shapes of a command descriptor block.
//!
//! A command's group, the upper three bits of its opcode, decides which (SPC-4, "Operation code").

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Opcode;

macro_rules! cdb {
    ($( $(#[$meta:meta])* pub struct $name:ident : $total:literal {
        $( $(#[$fmeta:meta])* pub $field:ident : $type:ty, )*
    } )*) => {
        $(
            $(#[$meta])*
            #[repr(C)]
            #[derive(
                Clone, Copy, Debug, PartialEq, Eq,
                FromBytes, IntoBytes, Immutable, KnownLayout,
            )]
            pub struct $name { $( $(#[$fmeta])* pub $field: $type, )* }

            const _: () = assert!(size_of::<$name>() == $total);
        )*
    };
}

cdb! {
    /// Six bytes: groups 0.
    pub struct Cdb6: 6 {
        /// Which command.
        pub opcode: Opcode,
        /// Flags; in READ(6) and WRITE(6) bits 20:16 of the address.
        pub flags: u8,
        /// Two bytes of the command's own.
        pub middle: U16,
        /// Length of data, or of the transfer in blocks.
        pub length: u8,
        /// Vendor bits and NACA.
        pub control: u8,
    }

    /// Ten bytes: groups 1 and 2.
    pub struct Cdb10: 10 {
        /// Which command.
        pub opcode: Opcode,
        /// Flags.
        pub flags: u8,
        /// First block.
        pub lba: U32,
        /// Group number, or a byte of the command's own.
        pub group: u8,
        /// Length of data, or of the transfer in blocks.
        pub length: U16,
        /// Vendor bits and NACA.
        pub control: u8,
    }

    /// Twelve bytes: group 5.
    pub struct Cdb12: 12 {
        /// Which command.
        pub opcode: Opcode,
        /// Flags.
        pub flags: u8,
        /// First block.
        pub lba: U32,
        /// Length of data, or of the transfer in blocks.
        pub length: U32,
        /// Group number.
        pub group: u8,
        /// Vendor bits and NACA.
        pub control: u8,
    }

    /// Sixteen bytes: group 4.
    pub struct Cdb16: 16 {
        /// Which command.
        pub opcode: Opcode,
        /// Flags, or the service action in bits 4:0.
        pub flags: u8,
        /// First block.
        pub lba: U64,
        /// Length of data, or of the transfer in blocks.
        pub length: U32,
        /// Group number.
        pub group: u8,
        /// Vendor bits and NACA.
        pub control: u8,
    }
}
