// SPDX-License-Identifier: MIT OR Apache-2.0

//! The initramfs: as high as the kernel finds it, so that the kernel has room to unpack itself.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use busway_memory::{Bytes, GuestAddress, GuestMemory, PAGE_SIZE};

use super::kernel::Kernel;
use super::{BootError, mib};
use crate::memory::Layout;

/// An initramfs in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Initrd {
    pub(super) address: u32,
    pub(super) len: u32,
}

/// Loads `file` behind `kernel`.
pub(super) fn load(
    memory: &GuestMemory,
    map: &Layout,
    kernel: &Kernel,
    file: &mut File,
) -> Result<Initrd, BootError> {
    let read = |source| BootError::Read { flag: "initrd", source };
    let len = file.seek(SeekFrom::End(0)).map_err(read)?;
    file.rewind().map_err(read)?;
    let address = place(len, kernel.end, map.low_ram_end(), kernel.initrd_max)?;
    memory
        .read_exact_volatile_from(GuestAddress(address), file, len as usize)
        .map_err(BootError::Memory)?;
    let in_low_memory = |value| u32::try_from(value).expect("low RAM ends at 3 GiB");
    Ok(Initrd { address: in_low_memory(address), len: in_low_memory(len) })
}

/// The highest page-aligned address for `len` bytes between `kernel_end` and the end of RAM, of
/// which the last byte is at `last` or below.
fn place(len: u64, kernel_end: u64, ram_end: u64, last: u64) -> Result<u64, BootError> {
    let end = ram_end.min(last.saturating_add(1));
    let start = end.checked_sub(len).map(|start| start - start % PAGE_SIZE as u64);
    start.filter(|&start| start >= kernel_end).ok_or(BootError::InitrdTooLarge {
        needed: mib(len),
        available: end.saturating_sub(kernel_end) >> 20,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_end_of_ram_is_the_place() {
        assert_eq!(place(MIB + 1, 64 * MIB, 512 * MIB, u64::MAX).unwrap(), 511 * MIB - 4096);
    }

    /// A stock kernel takes an initramfs up to 0x7fffffff only.
    #[test]
    fn the_kernel_has_a_say() {
        assert_eq!(place(MIB, 64 * MIB, 3072 * MIB, 0x7fff_ffff).unwrap(), 2047 * MIB);
    }

    #[test]
    fn what_does_not_fit_is_said_in_numbers() {
        let error = place(100 * MIB, 64 * MIB, 128 * MIB, u64::MAX).unwrap_err();
        assert!(matches!(error, BootError::InitrdTooLarge { needed: 100, available: 64 }));
        place(u64::MAX, 64 * MIB, 128 * MIB, u64::MAX).unwrap_err();
    }
}
