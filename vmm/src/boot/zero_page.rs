// SPDX-License-Identifier: MIT OR Apache-2.0

//! The boot parameters: what the kernel learns of its loader, and the memory map.

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};

use super::initrd::Initrd;
use super::kernel::Kernel;
use crate::memory::{Layout, layout};

/// `type_of_loader`: one without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
/// The e820 type of usable RAM.
const RAM: u32 = 1;
/// The e820 type of what is to be left alone.
const RESERVED: u32 = 2;

/// The boot parameters of `kernel`.
pub(super) fn build(
    map: &Layout,
    kernel: &Kernel,
    initrd: Option<Initrd>,
    cmdline_len: usize,
) -> boot_params {
    let mut page = boot_params {
        hdr: kernel.header,
        acpi_rsdp_addr: layout::ACPI_TABLES,
        ..Default::default()
    };
    page.hdr.type_of_loader = LOADER_UNDEFINED;
    page.hdr.cmd_line_ptr = layout::COMMAND_LINE as u32;
    page.hdr.cmdline_size = cmdline_len as u32;
    if let Some(initrd) = initrd {
        page.hdr.ramdisk_image = initrd.address;
        page.hdr.ramdisk_size = initrd.len;
    }
    if let Some(vram) = &map.vram {
        // Linux before 6.1 keeps this for hyperv_fb, whatever kind of screen the loader had; without it, it
        // gives hyperv_fb the first MMIO that it finds (drivers/hv/vmbus_drv.c, vmbus_reserve_fb).
        page.screen_info.lfb_base = vram.start.0 as u32;
        page.screen_info.lfb_size = vram.len as u32;
    }
    let entries = e820(map);
    for (slot, entry) in page.e820_table.iter_mut().zip(&entries) {
        *slot = *entry;
        page.e820_entries += 1;
    }
    page
}

/// The memory map.
pub fn e820(map: &Layout) -> Vec<boot_e820_entry> {
    let entry = |start, end, kind| boot_e820_entry { addr: start, size: end - start, r#type: kind };
    let mut entries = vec![
        entry(0, layout::LOW_RAM_END, RAM),
        entry(layout::LOW_RAM_END, layout::HIGH_RAM_START, RESERVED),
    ];
    for region in &map.ram {
        let start = region.start.0.max(layout::HIGH_RAM_START);
        entries.push(entry(start, region.start.0 + region.len as u64, RAM));
    }
    entries
}

#[cfg(test)]
mod tests {
    use linux_loader::loader::bootparam::setup_header;

    use super::*;
    use crate::boot::Mode;

    #[test]
    fn old_kernels_are_told_where_pictures_go() {
        let kernel = Kernel {
            entry: 0,
            mode: Mode::Long,
            end: 0,
            initrd_max: 0,
            cmdline_max: 0,
            header: setup_header::default(),
        };
        let claim = |map: &Layout| {
            let screen = build(map, &kernel, None, 0).screen_info;
            (screen.lfb_base, screen.lfb_size, screen.orig_video_isVGA)
        };
        assert_eq!(claim(&Layout::new(1 << 30)), (0, 0, 0));
        assert_eq!(claim(&Layout::new(1 << 30).with_screen()), (0xf800_0000, 8 << 20, 0));
    }

    #[test]
    fn the_map_has_all_ram_but_the_pcs_hole() {
        let map = Layout::new(5 << 30);
        let usable: u64 = e820(&map).iter().filter(|e| { e.r#type } == 1).map(|e| e.size).sum();
        assert_eq!(usable, (5 << 30) - (0x10_0000 - 0x9_fc00));
        for pair in e820(&map).windows(2) {
            assert!({ pair[0].addr } + { pair[0].size } <= { pair[1].addr }, "in order");
        }
    }
}
