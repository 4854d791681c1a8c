// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's physical address space.
//!
//! ```text
//! 0            RAM, with what the boot protocol needs below 1 MiB (see `layout`)
//! 3 GiB        the hole: MMIO window of VMBus devices, with the memory for pictures in it, if there
//!              is a screen; I/O APIC, local APICs, KVM's own pages
//! 4 GiB        the rest of RAM
//! above it     memory that the guest can be given while it runs, if there is any: in none of its
//!              tables, so no RAM to it until its driver for dynamic memory takes it
//! above it     the second MMIO window
//! ```

use std::ops::RangeInclusive;

use busway_memory::{GuestAddress, Region};

const GIB: u64 = 1 << 30;

/// Fixed addresses.
pub mod layout {
    /// End of conventional memory, as a PC's firmware reports it.
    pub const LOW_RAM_END: u64 = 0x9_fc00;
    /// Start of extended memory, and where kernels are loaded.
    pub const HIGH_RAM_START: u64 = 0x10_0000;
    /// The parameters of the Linux boot protocol ("zero page").
    pub const BOOT_PARAMS: u64 = 0x7000;
    /// The first 64 KiB of a program that starts in real mode.
    pub const REAL_MODE: u64 = 0x1_0000;
    /// Its segment.
    pub const REAL_MODE_SEGMENT: u16 = (REAL_MODE >> 4) as u16;
    /// The kernel command line.
    pub const COMMAND_LINE: u64 = 0x2_0000;
    /// Bytes kept for it.
    pub const COMMAND_LINE_MAX: usize = 0x1_0000;
    /// ACPI tables, in the area where firmware's are looked for.
    pub const ACPI_TABLES: u64 = 0xe_0000;
    /// Bytes kept for them.
    pub const ACPI_TABLES_MAX: usize = 0x1_0000;
    /// The memory for pictures, at the place that Hyper-V gives it.
    pub const VRAM: u64 = 0xf800_0000;
    /// Bytes of it.
    pub const VRAM_LEN: u64 = (busway_video::VRAM_MIB as u64) << 20;
    /// The I/O APIC's registers.
    pub const IO_APIC: u32 = 0xfec0_0000;
    /// The local APIC's registers.
    pub const LOCAL_APIC: u32 = 0xfee0_0000;
    /// A page for KVM on Intel CPUs.
    pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
    /// Three more.
    pub const KVM_TSS: usize = 0xfffb_d000;
}

/// First address of the hole below 4 GiB.
const HOLE_START: u64 = 3 * GIB;
/// First address behind it.
const HOLE_END: u64 = 4 * GIB;
/// The lower MMIO window: what is left of the hole below the I/O APIC, without the part that
/// firmware would use for PCI.
const LOW_WINDOW: RangeInclusive<u32> = 0xe000_0000..=0xfebf_ffff;
/// Bytes of the upper one.
const HIGH_WINDOW_LEN: u64 = 16 * GIB;

/// How a guest's memory is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// RAM, in ascending order; the first begins at 0.
    pub ram: Vec<Region>,
    /// Memory for pictures, which is no RAM to the guest, if there is a screen.
    pub vram: Option<Region>,
    /// Memory that the guest can be given while it runs.
    pub room: Option<Region>,
    /// Where VMBus devices may place registers below 4 GiB.
    pub low_window: RangeInclusive<u32>,
    /// And above.
    pub high_window: RangeInclusive<u64>,
}

impl Layout {
    /// The layout of a guest with `bytes` of RAM, whole pages.
    pub fn new(bytes: u64) -> Self {
        let region = |start, bytes: u64| Region {
            start: GuestAddress(start),
            len: usize::try_from(bytes).expect("x86-64 has 64-bit sizes"),
        };
        let mut ram = vec![region(0, bytes.min(HOLE_START))];
        let above = bytes.saturating_sub(HOLE_START);
        if above > 0 {
            ram.push(region(HOLE_END, above));
        }
        let high_window = (HOLE_END + above).next_multiple_of(GIB);
        Self {
            ram,
            vram: None,
            room: None,
            low_window: LOW_WINDOW,
            high_window: high_window..=high_window + HIGH_WINDOW_LEN - 1,
        }
    }

    /// The same, with memory for pictures.
    #[must_use]
    pub fn with_screen(mut self) -> Self {
        let len = layout::VRAM_LEN as usize;
        self.vram = Some(Region { start: GuestAddress(layout::VRAM), len });
        self
    }

    /// The same, with `bytes` that the guest can be given while it runs, whole pages. They begin at a
    /// whole GiB, so Linux's blocks of 128 MiB fit, and the upper window moves behind them.
    #[must_use]
    pub fn with_room(mut self, bytes: u64) -> Self {
        if bytes != 0 {
            let start = *self.high_window.start();
            let len = usize::try_from(bytes).expect("x86-64 has 64-bit sizes");
            self.room = Some(Region { start: GuestAddress(start), len });
            let high_window = (start + bytes).next_multiple_of(GIB);
            self.high_window = high_window..=high_window + HIGH_WINDOW_LEN - 1;
        }
        self
    }

    /// All that is memory of the machine, in ascending order.
    pub fn regions(&self) -> Vec<Region> {
        let mut regions: Vec<_> =
            self.ram.iter().chain(&self.vram).chain(&self.room).copied().collect();
        regions.sort_by_key(|region| region.start);
        regions
    }

    /// The first address behind RAM below the hole.
    pub fn low_ram_end(&self) -> u64 {
        self.ram.first().map_or(0, |region| region.start.0 + region.len as u64)
    }

    /// The last address that a guest of this layout may use.
    pub fn last_address(&self) -> u64 {
        *self.high_window.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::e820;

    #[test]
    fn a_small_guest_has_all_of_its_ram_below_the_hole() {
        let layout = Layout::new(GIB);
        assert_eq!(layout.ram.len(), 1);
        assert_eq!(layout.low_ram_end(), GIB);
        assert_eq!(*layout.high_window.start(), 4 * GIB);
    }

    #[test]
    fn a_large_guest_goes_on_at_4_gib() {
        let layout = Layout::new(8 * GIB + 4096);
        let total: usize = layout.ram.iter().map(|region| region.len).sum();
        assert_eq!(total as u64, 8 * GIB + 4096);
        assert_eq!(layout.ram[1].start.0, 4 * GIB);
        assert_eq!(layout.low_ram_end(), 3 * GIB);
        assert_eq!(*layout.high_window.start(), 10 * GIB, "whole GiB, behind RAM");
    }

    #[test]
    fn pictures_have_memory_in_the_low_window() {
        let layout = Layout::new(8 * GIB).with_screen();
        let starts: Vec<_> = layout.regions().iter().map(|region| region.start.0).collect();
        assert_eq!(starts, [0, 0xf800_0000, 4 * GIB]);
        assert_eq!(Layout::new(8 * GIB).regions().len(), 2);
        let vram = layout.vram.unwrap();
        let end = vram.start.0 + vram.len as u64 - 1;
        assert!(u64::from(*layout.low_window.end()) > end);
    }

    #[test]
    fn memory_for_later_is_behind_ram_and_before_the_window() {
        let layout = Layout::new(4 * GIB + 4096).with_room(GIB / 2);
        assert_eq!(layout.room, Some(Region { start: GuestAddress(6 * GIB), len: 1 << 29 }));
        assert_eq!(*layout.high_window.start(), 7 * GIB);
        let starts: Vec<_> = layout.regions().iter().map(|region| region.start.0).collect();
        assert_eq!(starts, [0, 4 * GIB, 6 * GIB]);
        assert!(e820(&layout).iter().all(|entry| { entry.addr } + { entry.size } <= 6 * GIB));
        assert_eq!(Layout::new(GIB).with_room(0), Layout::new(GIB));
    }

    /// Linux cuts MMIO windows off at the TPM's address (`drivers/hv/vmbus_drv.c`).
    #[test]
    fn the_low_window_is_clear_of_fixed_devices() {
        let layout = Layout::new(4 * GIB);
        assert!(u64::from(*layout.low_window.start()) >= layout.low_ram_end());
        assert!(*layout.low_window.end() < layout::IO_APIC);
    }
}
