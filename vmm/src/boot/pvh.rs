// SPDX-License-Identifier: MIT OR Apache-2.0

//! The start info of the PVH boot protocol: what a kernel with such an entry point learns of its
//! loader, in place of Linux's boot parameters.
//!
//! Source: Xen `docs/misc/pvh.pandoc`, `xen/include/public/arch-x86/hvm/start_info.h`.

use busway_memory::{Bytes, GuestAddress, GuestMemory};
use vm_memory::GuestMemoryError;
use zerocopy::{Immutable, IntoBytes};

use super::initrd::Initrd;
use super::zero_page::e820;
use crate::memory::{Layout, layout};

/// `hvm_start_info`, version 1.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<StartInfo>() == 56);

/// `hvm_modlist_entry`.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
struct Module {
    address: u64,
    size: u64,
    command_line: u64,
    reserved: u64,
}

/// `hvm_memmap_table_entry`. Its types are those of e820.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
struct MemoryMapEntry {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

const MAGIC: u32 = 0x336e_c578;
const MODULE_LIST: u64 = layout::BOOT_PARAMS + 0x100;
const MEMORY_MAP: u64 = layout::BOOT_PARAMS + 0x200;

/// Writes it where boot parameters would be.
pub(super) fn write(
    memory: &GuestMemory,
    map: &Layout,
    initrd: Option<&Initrd>,
) -> Result<(), GuestMemoryError> {
    let entries: Vec<_> = e820(map)
        .iter()
        .map(|e| MemoryMapEntry { address: e.addr, size: e.size, kind: e.r#type, reserved: 0 })
        .collect();
    let modules: Vec<_> = initrd
        .map(|initrd| Module {
            address: initrd.address.into(),
            size: initrd.len.into(),
            command_line: 0,
            reserved: 0,
        })
        .into_iter()
        .collect();
    let info = StartInfo {
        magic: MAGIC,
        version: 1,
        flags: 0,
        modules: modules.len() as u32,
        module_list: if modules.is_empty() { 0 } else { MODULE_LIST },
        command_line: layout::COMMAND_LINE,
        rsdp: layout::ACPI_TABLES,
        memory_map: MEMORY_MAP,
        memory_map_entries: entries.len() as u32,
        reserved: 0,
    };
    memory.write_slice(info.as_bytes(), GuestAddress(layout::BOOT_PARAMS))?;
    memory.write_slice(modules.as_bytes(), GuestAddress(MODULE_LIST))?;
    memory.write_slice(entries.as_bytes(), GuestAddress(MEMORY_MAP))
}

#[cfg(test)]
mod tests {
    use busway_memory::Region;

    use super::*;

    #[test]
    fn a_kernel_finds_its_initramfs_and_its_memory() {
        let region = Region { start: GuestAddress(0), len: 1 << 20 };
        let memory = GuestMemory::allocate(&[region]).unwrap();
        let initrd = Initrd { address: 0x123_4000, len: 77 };
        write(&memory, &Layout::new(64 << 20), Some(&initrd)).unwrap();
        let words = |address: u64| memory.read_obj::<[u64; 3]>(GuestAddress(address)).unwrap();
        let info = |offset| words(layout::BOOT_PARAMS + offset);
        assert_eq!(info(0)[..2], [1 << 32 | 0x336e_c578, 1 << 32], "magic, version, one module");
        let [module, command_line, rsdp] = info(16);
        assert_eq!((command_line, rsdp), (0x2_0000, 0xe_0000));
        assert_eq!(words(module), [0x123_4000, 77, 0]);
        let [map, count, _] = info(40);
        assert_eq!(count, 3);
        assert_eq!(words(map + 48), [0x10_0000, 63 << 20, 1], "RAM above 1 MiB");
    }
}
