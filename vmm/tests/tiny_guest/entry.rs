// SPDX-License-Identifier: MIT OR Apache-2.0

//! Kernels that are entered in 32-bit mode, without paging: by the PVH protocol, with start info in
//! EBX, and as a 32-bit Linux, with boot parameters in ESI.
//!
//! Source: Xen `docs/misc/pvh.pandoc`, `xen/include/public/elfnote.h`; Linux
//! `Documentation/x86/boot.rst`.

use crate::boot_file;

const BASE: u32 = 0x20_0000;
const START_INFO_LEN: u8 = 56;

/// Puts paging and protection of CR0 at `offset` of what `rm` (as in ModRM: EBX or ESI) points to,
/// sends `len` bytes from there, and switches off.
#[rustfmt::skip]
fn code(rm: u8, offset: u8, len: u8) -> Vec<u8> {
    vec![
        0x0f, 0x20, 0xc0,                   // mov eax, cr0
        0x25, 0x01, 0x00, 0x00, 0x80,       // and eax, paging and protection
        0x89, 0x40 | rm, offset,            // mov [.. + offset], eax
        0x89, 0xc6 | rm << 3,               // mov esi, ..
        0xb9, len, 0x00, 0x00, 0x00,        // mov ecx
        0xba, 0xf8, 0x03, 0x00, 0x00,       // mov edx, the serial port
        0xf3, 0x6e,                         // rep outsb
        0x66, 0xba, 0x00, 0x06,             // mov dx, sleep control
        0xb0, 0x34,                         // mov al, off
        0xee, 0xeb, 0xfe,                   // out dx, al; jmp to itself
    ]
}

const EBX: u8 = 3;
const ESI: u8 = 6;

/// An executable of one segment and the note that names its entry point.
fn pvh_kernel() -> Vec<u8> {
    const NOTE: u64 = 0x100;
    const SEGMENT: u64 = 0x1000;
    let words =
        |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // Another entry, which must not be used.
    file.extend(words(&[
        1 << 32 | 62 << 16 | 2,
        u64::from(BASE) + 0x800,
        64,
        0,
        64 << 32 | 56 << 48,
        2,
    ]));
    let (base, len) = (u64::from(BASE), 0x1000);
    file.extend(words(&[7 << 32 | 1, SEGMENT, base, base, len, len, 0x1000]));
    file.extend(words(&[4 << 32 | 4, NOTE, 0, 0, 20, 20, 4]));
    file.resize(NOTE as usize, 0);
    // Length of name and contents; XEN_ELFNOTE_PHYS32_ENTRY.
    file.extend([4, 4, 18].map(u32::to_le_bytes).concat());
    file.extend(b"Xen\0");
    file.extend(BASE.to_le_bytes());
    file.resize(SEGMENT as usize, 0);
    file.extend(code(EBX, 52, START_INFO_LEN));
    // INT3 where it must not go.
    file.resize(SEGMENT as usize + len as usize, 0xcc);
    file
}

pub(crate) fn a_pvh_entry_is_taken() {
    let bytes = boot_file(&pvh_kernel(), &[]);
    let words: Vec<_> =
        bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    assert_eq!(words[..4], [0x336e_c578, 1, 0, 0], "magic, version, no flags, no module");
    assert_eq!(words[12], 3, "regions of memory");
    assert_eq!(words[13], 1, "CR0: protection, no paging");
}

/// A bzImage without a 64-bit entry point.
fn linux_32() -> Vec<u8> {
    let mut image = vec![0; 1024];
    let mut put = |offset: usize, bytes: &[u8]| {
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0x1f1, &[1]); // setup_sects
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes()); // version
    put(0x211, &[1]); // loadflags: loaded high
    put(0x22c, &0x37ff_ffff_u32.to_le_bytes()); // initrd_addr_max
    put(0x238, &2047_u32.to_le_bytes()); // cmdline_size
    put(0x258, &0x100_0000_u64.to_le_bytes()); // pref_address
    put(0x260, &0x20_0000_u32.to_le_bytes()); // init_size
    image.extend([0x81, 0xc6, 0x00, 0x02, 0x00, 0x00]); // add esi, 0x200
    image.extend(code(ESI, 6, 10));
    image.resize(4096, 0xcc);
    image
}

pub(crate) fn a_32_bit_linux_is_entered_as_such() {
    let bytes = boot_file(&linux_32(), &[]);
    assert_eq!(bytes[2..6], *b"HdrS");
    assert_eq!(bytes[6..10], [1, 0, 0, 0], "CR0: protection, no paging");
}
