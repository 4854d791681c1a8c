// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel image: what it is, what it needs, where it goes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use busway_memory::{GuestAddress, GuestMemory};
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use zerocopy::little_endian;

use super::{BootError, Mode, mib, real_mode};
use crate::firmware::rom;
use crate::memory::{Layout, layout};

/// A kernel in guest memory.
pub(super) struct Kernel {
    /// The entry point.
    pub(super) entry: u64,
    /// What it expects of the processor.
    pub(super) mode: Mode,
    /// The first address that the kernel leaves alone while it starts.
    pub(super) end: u64,
    /// The last address that the kernel finds an initramfs at.
    pub(super) initrd_max: u64,
    /// The longest command line in bytes.
    pub(super) cmdline_max: usize,
    /// The setup header for the boot parameters.
    pub(super) header: setup_header,
}

/// From a bzImage's load address, which is its 32-bit entry point, to its 64-bit one.
const ENTRY_64: u64 = 0x200;
/// Setup header, `xloadflags`: the image has the latter.
const XLF_KERNEL_64: u16 = 1;
/// "HdrS", at 0x202 of a bzImage.
const HEADER_MAGIC: u32 = 0x5372_6448;
/// The protocol version that introduced `xloadflags`.
const VERSION_2_12: u16 = 0x020c;
/// The one that introduced `cmdline_size`.
const VERSION_2_06: u16 = 0x0206;
/// The one since which the command line is wherever the loader wants it.
const VERSION_2_02: u16 = 0x0202;
/// Command line length of a kernel that does not say, as of protocol 2.06.
const DEFAULT_CMDLINE_MAX: usize = 2047;
/// The same before it.
const OLD_CMDLINE_MAX: usize = 255;

/// Loads `file`.
pub(super) fn load(
    memory: &GuestMemory,
    map: &Layout,
    file: &mut File,
) -> Result<Kernel, BootError> {
    if starts_with_elf(file)? {
        load_elf(memory, map, file)
    } else {
        load_bzimage(memory, map, file)
    }
}

fn starts_with_elf(file: &File) -> Result<bool, BootError> {
    let mut magic = [0; 4];
    read_at(file, &mut magic, 0)?;
    Ok(magic == *b"\x7fELF")
}

/// Reads what there is, and zeroes beyond the end.
pub(super) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> Result<(), BootError> {
    match file.read_exact_at(bytes, offset) {
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            Err(BootError::Read { flag: "kernel", source: error })
        }
        _ => Ok(()),
    }
}

fn load_bzimage(memory: &GuestMemory, map: &Layout, file: &mut File) -> Result<Kernel, BootError> {
    let mut magic = [0; 4];
    read_at(file, &mut magic, 0x202)?;
    if little_endian::U32::from_bytes(magic).get() != HEADER_MAGIC {
        return Err(BootError::NotAKernel);
    }
    let size = file.metadata().map_err(|source| BootError::Read { flag: "kernel", source })?.len();
    fits(map, layout::HIGH_RAM_START + size)?;
    let start = Some(GuestAddress(layout::HIGH_RAM_START));
    let loaded = BzImage::load(&**memory, start, file, None).map_err(BootError::Kernel)?;
    let header = loaded.setup_header.ok_or(BootError::NotAKernel)?;
    if header.version < VERSION_2_02 {
        let [major, minor] = [header.version >> 8, header.version & 0xff];
        return Err(BootError::TooOld { major, minor });
    }
    if header.version < VERSION_2_12 {
        return with_16_bit_entry(memory, file, header);
    }
    let (offset, mode) = match header.xloadflags & XLF_KERNEL_64 {
        0 => (0, Mode::Protected),
        _ => (ENTRY_64, Mode::Long),
    };
    // The kernel unpacks itself at its preferred address, or where it was loaded if that is
    // higher, and needs `init_size` bytes there until it reads the memory map.
    let unpacked = header.pref_address.max(layout::HIGH_RAM_START);
    let end = unpacked.saturating_add(header.init_size.into());
    fits(map, end)?;
    Ok(Kernel {
        entry: loaded.kernel_load.0 + offset,
        mode,
        end,
        initrd_max: header.initrd_addr_max.into(),
        cmdline_max: header.cmdline_size as usize,
        header,
    })
}

/// A boot loader, or a kernel from before 2012: only its setup code knows how the rest is entered.
fn with_16_bit_entry(
    memory: &GuestMemory,
    file: &File,
    header: setup_header,
) -> Result<Kernel, BootError> {
    real_mode::load(memory, file, header.setup_sects)?;
    let size = file.metadata().map_err(|source| BootError::Read { flag: "kernel", source })?.len();
    let cmdline_max = match header.version {
        VERSION_2_06.. => header.cmdline_size as usize,
        _ => OLD_CMDLINE_MAX,
    };
    Ok(Kernel {
        entry: rom::START.into(),
        mode: Mode::Real,
        end: layout::HIGH_RAM_START + size,
        initrd_max: header.initrd_addr_max.into(),
        cmdline_max,
        header,
    })
}

fn load_elf(memory: &GuestMemory, map: &Layout, file: &mut File) -> Result<Kernel, BootError> {
    let lowest = Some(GuestAddress(layout::HIGH_RAM_START));
    let loaded = Elf::load(&**memory, None, file, lowest).map_err(BootError::Kernel)?;
    fits(map, loaded.kernel_end)?;
    // A kernel that brings both leaves its loader the choice, and not all of the others' ELF entries
    // are Linux's.
    let (entry, mode) = match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => (entry.0, Mode::Pvh),
        _ => (loaded.kernel_load.0, Mode::Long),
    };
    Ok(Kernel {
        entry,
        mode,
        end: loaded.kernel_end,
        initrd_max: u64::MAX,
        cmdline_max: DEFAULT_CMDLINE_MAX,
        // What the kernel checks of a header that it did not bring itself.
        header: setup_header {
            boot_flag: 0xaa55,
            header: HEADER_MAGIC,
            kernel_alignment: 0x20_0000,
            ..Default::default()
        },
    })
}

fn fits(map: &Layout, end: u64) -> Result<(), BootError> {
    let available = map.low_ram_end();
    if end > available {
        return Err(BootError::KernelTooLarge { needed: mib(end), available: mib(available) });
    }
    Ok(())
}
