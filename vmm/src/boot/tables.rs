// SPDX-License-Identifier: MIT OR Apache-2.0

//! The GDT and the page tables that the boot protocol asks for: flat segments, and the first
//! 4 GiB mapped one to one.
//!
//! Pages are of 2 MiB. Those of 1 GiB would need five times less table and a CPU that has them.

use busway_memory::{Bytes, GuestAddress, GuestMemory};
use vm_memory::GuestMemoryError;

use super::Mode;

/// Where the GDT is.
pub const GDT: u64 = 0x500;
/// Its last byte.
pub const GDT_LIMIT: u16 = (size_of::<[u64; SEGMENTS]>() - 1) as u16;
/// The code segment (`__BOOT_CS`).
pub const CODE_SELECTOR: u16 = 0x10;
/// The data segment (`__BOOT_DS`).
pub const DATA_SELECTOR: u16 = 0x18;
/// The task segment, which a processor in long mode has to have.
pub const TASK_SELECTOR: u16 = 0x20;
/// The top of the page tables.
pub const PML4: u64 = 0x9000;

const SEGMENTS: usize = 6;
const PDPT: u64 = 0xa000;
/// Four page directories, one for each GiB.
const DIRECTORIES: u64 = 0xb000;
const PAGE: u64 = 0x1000;
const ENTRIES: u64 = 512;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;

/// Segment descriptors: none, none, code, data, and a task segment of two.
const fn descriptors(mode: Mode) -> [u64; SEGMENTS] {
    let code = match mode {
        Mode::Long => 0x00af_9b00_0000_ffff,
        Mode::Protected | Mode::Pvh | Mode::Real => 0x00cf_9b00_0000_ffff,
    };
    [0, 0, code, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067, 0]
}

/// Writes both.
pub(super) fn write(memory: &GuestMemory, mode: Mode) -> Result<(), GuestMemoryError> {
    memory.write_obj(descriptors(mode), GuestAddress(GDT))?;
    memory.write_obj(PDPT | PRESENT | WRITABLE, GuestAddress(PML4))?;
    for gib in 0..4 {
        let directory = DIRECTORIES + gib * PAGE;
        memory.write_obj(directory | PRESENT | WRITABLE, GuestAddress(PDPT + gib * 8))?;
        for index in 0..ENTRIES {
            let frame = (gib * ENTRIES + index) << 21;
            let entry = GuestAddress(directory + index * 8);
            memory.write_obj(frame | PRESENT | WRITABLE | LARGE, entry)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use busway_memory::Region;

    use super::*;

    /// Walks the tables as a processor does.
    fn translate(memory: &GuestMemory, address: u64) -> u64 {
        let entry = |table: u64, shift: u32| -> u64 {
            let index = address >> shift & 0x1ff;
            let entry = memory.read_obj(GuestAddress((table & !0xfff) + index * 8)).unwrap();
            assert_ne!(entry & 1, 0, "{address:#x} is not mapped");
            entry
        };
        let directory = entry(entry(PML4, 39), 30);
        let page = entry(directory, 21);
        assert_ne!(page & 1 << 7, 0, "a 2 MiB page");
        page & !0x1f_ffff | address & 0x1f_ffff
    }

    #[test]
    fn four_gib_are_mapped_one_to_one() {
        let region = Region { start: GuestAddress(0), len: 1 << 20 };
        let memory = GuestMemory::allocate(&[region]).unwrap();
        write(&memory, Mode::Long).unwrap();
        for address in [0, 0x10_0200, 0x1fff_ffff, 0x4000_0000, 0xbfff_f123, 0xffff_ffff] {
            assert_eq!(translate(&memory, address), address);
        }
    }
}
