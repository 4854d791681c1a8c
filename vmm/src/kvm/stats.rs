// SPDX-License-Identifier: MIT OR Apache-2.0

//! KVM's own counters of a vCPU: exits by kind, interrupts, emulated instructions.
//!
//! Source: Linux `Documentation/virt/kvm/api.rst`, KVM_GET_STATS_FD: a header, descriptors with
//! names, and 64-bit values, each block at an offset that the header names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Counters by KVM's names.
pub type Counters = BTreeMap<String, u64>;

/// `struct kvm_stats_header`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Header {
    flags: u32,
    name_size: u32,
    num_desc: u32,
    id_offset: u32,
    desc_offset: u32,
    data_offset: u32,
}

/// `struct kvm_stats_desc`, which `name_size` bytes of name follow.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Descriptor {
    flags: u32,
    exponent: i16,
    size: u16,
    offset: u32,
    bucket_size: u32,
}

/// Bits of a descriptor's flags that are its type, of which 0 is a count.
const TYPE: u32 = 0xf;

/// Reads the counters in `file`, a statistics descriptor of KVM's.
pub(super) fn read(file: &File) -> io::Result<Counters> {
    let mut header = Header::new_zeroed();
    file.read_exact_at(header.as_mut_bytes(), 0)?;
    let mut counters = Counters::new();
    let stride = size_of::<Descriptor>() as u64 + u64::from(header.name_size);
    for index in 0..u64::from(header.num_desc) {
        let at = u64::from(header.desc_offset) + index * stride;
        let mut descriptor = Descriptor::new_zeroed();
        file.read_exact_at(descriptor.as_mut_bytes(), at)?;
        if descriptor.flags & TYPE != 0 || descriptor.size != 1 {
            continue;
        }
        let mut name = vec![0; header.name_size as usize];
        file.read_exact_at(&mut name, at + size_of::<Descriptor>() as u64)?;
        let mut value = 0_u64;
        let offset = u64::from(header.data_offset) + u64::from(descriptor.offset);
        file.read_exact_at(value.as_mut_bytes(), offset)?;
        counters.insert(text(&name), value);
    }
    Ok(counters)
}

fn text(name: &[u8]) -> String {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(name.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as KVM lays it out: counts, between them a histogram and a momentary value.
    #[test]
    fn counts_are_read_by_name_and_nothing_else() {
        let mut bytes = Vec::new();
        let words = |bytes: &mut Vec<u8>, words: &[u32]| {
            bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        };
        words(&mut bytes, &[0, 8, 4, 24, 32, 128]);
        bytes.extend(*b"kvm-1/v\0");
        let descriptors = [
            (b"exits\0\0\0", 0_u32, 1_u32, 0),
            (b"hist\0\0\0\0", 4, 2, 8),
            (b"blocking", 1, 1, 24),
            (b"io_exits", 0, 1, 32),
        ];
        for (name, kind, size, offset) in descriptors {
            words(&mut bytes, &[kind, size << 16, offset, 0]);
            bytes.extend(name);
        }
        bytes.extend([7_u64, 1, 2, 1, 9].into_iter().flat_map(u64::to_le_bytes));

        let path = std::env::temp_dir().join(format!("busway-stats-{}", std::process::id()));
        std::fs::write(&path, &bytes).unwrap();
        let counters = read(&File::open(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        let expected = [("exits".to_owned(), 7), ("io_exits".to_owned(), 9)];
        assert_eq!(counters, Counters::from(expected));
    }
}
