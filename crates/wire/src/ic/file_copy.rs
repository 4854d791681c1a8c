// SPDX-License-Identifier: MIT OR Apache-2.0

//! The file copy component ("guest services").
//!
//! Source: Linux `include/uapi/linux/hyperv.h` (`struct hv_start_fcopy` …),
//! `drivers/hv/hv_fcopy.c`, `tools/hv/hv_fcopy_daemon.c`.

use std::fmt;

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Version;
use crate::open_enum::open_enum;
use crate::utf16;

/// Versions that guests are known to speak.
pub const VERSIONS: [Version; 1] = [Version::new(1, 1)];

/// UTF-16 units of a file's name, and of the path to it, with the zero.
pub const PATH_UNITS: usize = 260;
/// Bytes of a file that one message carries.
pub const FRAGMENT_LEN: usize = 6144;

open_enum! {
    /// What is asked.
    pub enum Operation: u32 {
        /// To make the file.
        START = 0,
        /// To write into it.
        WRITE = 1,
        /// To close it.
        COMPLETE = 2,
        /// To remove it.
        CANCEL = 3,
    }
}

/// What each request begins with, and what COMPLETE and CANCEL are (`struct hv_fcopy_hdr`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// What is asked.
    pub operation: Operation,
    /// Not used.
    pub services: [[u8; 16]; 2],
}

bitflags::bitflags! {
    /// Flags of a [`Start`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct StartFlags: u32 {
        /// Replace a file that is there.
        const OVERWRITE = 1;
        /// Make the directories to it.
        const CREATE_PATH = 2;
        const _ = !0;
    }
}

/// The body of [`Operation::START`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Start {
    /// What is asked.
    pub header: Header,
    /// The file's name.
    pub name: [u16; PATH_UNITS],
    /// The directory.
    pub path: [u16; PATH_UNITS],
    /// [`StartFlags`].
    pub flags: u32,
    /// Bytes of the whole file.
    pub size: u64,
}

/// The body of [`Operation::WRITE`], which [`FRAGMENT_LEN`] bytes follow, the last ones perhaps
/// without meaning.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Write {
    /// What is asked.
    pub header: Header,
    /// Zero.
    pub padding: u32,
    /// Where in the file.
    pub offset: U64,
    /// Bytes that count.
    pub len: u32,
}

const _: () = assert!(size_of::<Header>() == 36);
const _: () = assert!(size_of::<Start>() == 1088);
const _: () = assert!(size_of::<Write>() == 52);

impl Header {
    /// The header of a request.
    pub const fn request(operation: Operation) -> Self {
        Self { operation, services: [[0; 16]; 2] }
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.operation.fmt(f)
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, name) = (utf16::text(&self.path), utf16::text(&self.name));
        let flags = StartFlags::from_bits_retain(self.flags);
        write!(f, "{} {path:?} {name:?}, {} B, {flags:?}", self.header, self.size)
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} B at {}", self.header, self.len, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// Offsets of the packed structures of `include/uapi/linux/hyperv.h`.
    #[test]
    fn fields_stand_where_linux_reads_them() {
        let start = [
            offset_of!(Start, name),
            offset_of!(Start, path),
            offset_of!(Start, flags),
            offset_of!(Start, size),
        ];
        assert_eq!(start, [36, 556, 1076, 1080]);
        let write = [offset_of!(Write, padding), offset_of!(Write, offset), offset_of!(Write, len)];
        assert_eq!(write, [36, 40, 48]);
    }

    #[test]
    fn a_request_is_printed() {
        let start = Start {
            header: Header::request(Operation::START),
            name: utf16::field("motd").unwrap(),
            path: utf16::field("/etc").unwrap(),
            flags: 1,
            size: 12,
        };
        assert_eq!(start.to_string(), r#"START "/etc" "motd", 12 B, StartFlags(OVERWRITE)"#);
    }
}
