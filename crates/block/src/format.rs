// SPDX-License-Identifier: MIT OR Apache-2.0

//! Formats of images, and how one is recognized by what a file begins with.
//!
//! Sources: QEMU `docs/interop/qcow2.txt`, VMware's "Virtual Disk Format 5.0", Microsoft's
//! "Virtual Hard Disk Image Format Specification" and [MS-VHDX].

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

/// How an image holds the bytes of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Byte for byte.
    Raw,
    /// QEMU's, version 2 or 3, with backing files.
    Qcow2,
    /// VMware's: a description, and extents in other files.
    Vmdk,
    /// Hyper-V's first: fixed or dynamic, no differencing one.
    Vhd,
    /// Hyper-V's: fixed or dynamic, no differencing one.
    Vhdx,
}

const NAMES: [(Format, &str); 5] = [
    (Format::Raw, "raw"),
    (Format::Qcow2, "qcow2"),
    (Format::Vmdk, "vmdk"),
    (Format::Vhd, "vhd"),
    (Format::Vhdx, "vhdx"),
];

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(format, _)| format == self).map_or("?", |(_, name)| name);
        f.write_str(name)
    }
}

/// There is no such format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no format of an image: give raw, qcow2, vmdk, vhd or vhdx")]
pub struct UnknownFormat(pub String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        let found = NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(format, _)| *format).ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

/// What a file seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probed {
    /// An image that can be used.
    Known(Format),
    /// An image of some other program.
    Foreign(&'static str),
}

/// What a program's images begin with, and where.
const FOREIGN: [(usize, &[u8], &str); 6] = [
    // The library reads those whose description is a file of its own.
    (0, b"KDMV", "single-file VMDK"),
    (0, b"QED\0", "QED"),
    (0x40, &[0x7f, 0x10, 0xda, 0xbe], "VDI"),
    (0, b"WithoutFreeSpace", "Parallels"),
    (0, b"WithouFreSpacExt", "Parallels"),
    (0, b"LUKS\xba\xbe", "LUKS"),
];

const OWN: [(&[u8], Format); 4] = [
    (b"QFI\xfb", Format::Qcow2),
    (b"# Disk DescriptorFile", Format::Vmdk),
    (b"vhdxfile", Format::Vhdx),
    // A dynamic VHD begins with a copy of its footer.
    (VHD, Format::Vhd),
];

/// What the footer of a VHD begins with.
const VHD: &[u8] = b"conectix";

/// Bytes of a VHD's footer, which a fixed one has at its end alone.
pub(crate) const VHD_FOOTER: u64 = 512;

/// What `file`, of `len` bytes, seems to be; raw if it is nothing else.
pub(crate) fn probe(file: &File, len: u64) -> io::Result<Probed> {
    let mut head = [0; 128];
    let count = file.read_at(&mut head, 0)?;
    let head = head.get(..count).unwrap_or_default();
    let at =
        |place: usize, magic: &[u8]| head.get(place..).is_some_and(|rest| rest.starts_with(magic));
    if let Some((_, format)) = OWN.iter().find(|(magic, _)| at(0, magic)) {
        return Ok(Probed::Known(*format));
    }
    if let Some((_, _, name)) = FOREIGN.iter().find(|(place, magic, _)| at(*place, magic)) {
        return Ok(Probed::Foreign(name));
    }
    let mut cookie = [0; 8];
    let has_footer = len >= VHD_FOOTER
        && file.read_exact_at(&mut cookie, len - VHD_FOOTER).is_ok()
        && cookie == VHD;
    Ok(Probed::Known(if has_footer { Format::Vhd } else { Format::Raw }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(bytes: &[u8]) -> Probed {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        probe(&file, bytes.len() as u64).unwrap()
    }

    #[test]
    fn formats_are_known_by_their_first_bytes_or_by_their_last() {
        let padded = |magic: &[u8]| [magic, &[0; 4096]].concat();
        for (magic, format) in OWN {
            assert_eq!(probed(&padded(magic)), Probed::Known(format));
        }
        let mut fixed = vec![0; 4096 + 512];
        fixed[4096..4104].copy_from_slice(b"conectix");
        assert_eq!(probed(&fixed), Probed::Known(Format::Vhd));
        assert_eq!(probed(&[0; 4096]), Probed::Known(Format::Raw));
        assert_eq!(probed(b""), Probed::Known(Format::Raw));
        let mut vdi = vec![0; 4096];
        vdi[0x40..0x44].copy_from_slice(&0xbeda_107f_u32.to_le_bytes());
        assert_eq!(probed(&vdi), Probed::Foreign("VDI"));
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for (format, name) in NAMES {
            assert_eq!((name.parse(), format.to_string().as_str()), (Ok(format), name));
        }
        assert!("vdi".parse::<Format>().is_err());
    }
}
