// SPDX-License-Identifier: MIT OR Apache-2.0

//! The 16-bit way into a kernel: its setup code, which runs in real mode and calls the BIOS.
//!
//! Source: Linux `Documentation/arch/x86/boot.rst`, "The Real-Mode Kernel Header" and "Running the Kernel".

use std::fs::File;

use busway_memory::{Bytes, GuestAddress, GuestMemory};

use super::BootError;
use super::initrd::Initrd;
use super::kernel::read_at;
use crate::firmware::rom;
use crate::memory::layout;

/// The kernel finds its setup code behind its first sector.
const SETUP_PARAGRAPHS: u16 = 0x20;
/// Setup code of a kernel that does not say how much it is, in sectors behind the first.
const DEFAULT_SECTORS: usize = 4;
const SECTOR: usize = 512;
/// Bytes of a segment that are setup code at most; the rest is heap and stack.
const SETUP_MAX: usize = 0x8000;
/// End of the heap, from where the kernel is.
const HEAP_END: u16 = 0xe000;
/// What `heap_end_ptr` is less.
const HEAP_END_BIAS: u16 = 0x200;

// Offsets of fields in the header.
const LOADER: u64 = 0x210;
const LOAD_FLAGS: u64 = 0x211;
const INITRD: u64 = 0x218;
const HEAP_END_POINTER: u64 = 0x224;
const COMMAND_LINE_POINTER: u64 = 0x228;
const LOADER_UNDEFINED: u8 = 0xff;
const CAN_USE_HEAP: u8 = 1 << 7;

/// Puts the first `sectors` behind the boot sector of `file` where it starts.
pub(super) fn load(memory: &GuestMemory, file: &File, sectors: u8) -> Result<(), BootError> {
    let sectors = if sectors == 0 { DEFAULT_SECTORS } else { sectors.into() };
    let mut setup = vec![0; (sectors + 1) * SECTOR];
    if setup.len() > SETUP_MAX {
        return Err(BootError::NotAKernel);
    }
    read_at(file, &mut setup, 0)?;
    memory.write_slice(&setup, GuestAddress(layout::REAL_MODE)).map_err(BootError::Memory)
}

/// Fills its header in, and writes what it needs of a firmware.
pub(super) fn write(
    memory: &GuestMemory,
    initrd: Option<&Initrd>,
) -> Result<(), vm_memory::GuestMemoryError> {
    let field = |offset| GuestAddress(layout::REAL_MODE + offset);
    let flags: u8 = memory.read_obj(field(LOAD_FLAGS))?;
    memory.write_obj(LOADER_UNDEFINED, field(LOADER))?;
    memory.write_obj(flags | CAN_USE_HEAP, field(LOAD_FLAGS))?;
    let [address, len] = initrd.map_or([0; 2], |initrd| [initrd.address, initrd.len]);
    memory.write_obj([address, len], field(INITRD))?;
    memory.write_obj(HEAP_END - HEAP_END_BIAS, field(HEAP_END_POINTER))?;
    memory.write_obj(layout::COMMAND_LINE as u32, field(COMMAND_LINE_POINTER))?;
    rom::write(memory, layout::REAL_MODE_SEGMENT + SETUP_PARAGRAPHS)
}

#[cfg(test)]
mod tests {
    use busway_memory::Region;

    use super::*;

    #[test]
    fn the_kernel_is_told_where_its_things_are() {
        let region = Region { start: GuestAddress(0), len: 1 << 20 };
        let memory = GuestMemory::allocate(&[region]).unwrap();
        write(&memory, Some(&Initrd { address: 0x123_4000, len: 77 })).unwrap();
        let word = |offset: u64| memory.read_obj::<u32>(GuestAddress(0x1_0000 + offset)).unwrap();
        assert_eq!([word(0x210) & 0xffff, word(0x218), word(0x21c)], [0x80ff, 0x123_4000, 77]);
        assert_eq!([word(0x224) & 0xffff, word(0x228)], [0xde00, 0x2_0000]);
    }
}
