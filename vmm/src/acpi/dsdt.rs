// SPDX-License-Identifier: MIT OR Apache-2.0

//! The DSDT: VMBus, the serial port, and how the machine sleeps.
//!
//! The tree is the one of a Hyper-V machine. A guest looks for VMBus by the name "VMBus" and for
//! room for its devices' registers in the resources of the nearest ancestor that has any (Linux
//! `drivers/hv/vmbus_drv.c`, `vmbus_acpi_add`). Linux 5.10 crashes if there is no such ancestor;
//! 6.12 has no bus if the node lacks resources of its own, and an interrupt that nobody uses is
//! enough.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Name, Package, Path,
    ResourceTemplate, Scope,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};
use busway_memory::Region;

use super::{bytes, empty_sdt};
use crate::devices::{pci, ports};
use crate::memory::Layout;

/// Present, enabled, shown, functioning.
const STATUS_OK: u8 = 0xf;
/// The interrupt in VMBus's resources: it has to be there, and is never raised.
const VMBUS_LINE: u32 = 5;

/// The table for a machine laid out like `map`.
pub(super) fn build(map: &Layout, hibernates: bool) -> Sdt {
    let mut dsdt = empty_sdt(*b"DSDT", 2);
    dsdt.append_slice(&bytes(&sleep_state("_S5_", ports::SLEEP_TYPE_S5)));
    if hibernates {
        dsdt.append_slice(&bytes(&sleep_state("_S4_", ports::SLEEP_TYPE_S4)));
    }
    let (vmbus, pci) = (Vmbus(map), map.vram.map(PciBus));
    let mut devices: Vec<&dyn Aml> = vec![&vmbus, &SerialPort, &Clock];
    devices.extend(pci.as_ref().map(|pci| pci as &dyn Aml));
    dsdt.append_slice(&bytes(&Scope::new("_SB_".into(), devices)));
    dsdt
}

/// A sleep state by the type that [`ports::SLEEP_CONTROL`] takes: "_S5" is soft off, "_S4" the same after the guest
/// has saved itself.
fn sleep_state(name: &str, sleep_type: u8) -> Name {
    Name::new(name.into(), &Package::new(vec![&sleep_type, &0_u8, &0_u8, &0_u8]))
}

/// The container with its MMIO windows, and VMBus in it.
struct Vmbus<'a>(&'a Layout);

impl Aml for Vmbus<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let low = AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            *self.0.low_window.start(),
            *self.0.low_window.end(),
            None,
        );
        let high = AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            *self.0.high_window.start(),
            *self.0.high_window.end(),
            None,
        );
        Device::new(
            "VMOD".into(),
            vec![
                &name("_HID", &"ACPI0004"),
                &name("_UID", &0_u8),
                &name("_CRS", &ResourceTemplate::new(vec![&low, &high])),
                &BusNode,
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// What a guest looks for.
struct BusNode;

impl Aml for BusNode {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let line = Interrupt::new(true, true, false, false, VMBUS_LINE);
        Device::new(
            "VMBS".into(),
            vec![
                &name("_HID", &"VMBus"),
                &name("_DDN", &"VMBUS"),
                &name("_UID", &0_u8),
                &name("_STA", &STATUS_OK),
                &name("_CRS", &ResourceTemplate::new(vec![&line])),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// The bus with the video adapter whose memory is that region. It has to be described: with ACPI
/// there, Linux looks for no bus by itself.
struct PciBus(Region);

impl Aml for PciBus {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let start = self.0.start.0 as u32;
        let numbers = AddressSpace::new_bus_number(0_u16, 0);
        let config = IO::new(pci::CONFIG_ADDRESS, pci::CONFIG_ADDRESS, 1, pci::CONFIG_LEN);
        let memory = AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            start,
            start + (self.0.len as u32 - 1),
            None,
        );
        Device::new(
            "PCI0".into(),
            vec![
                &name("_HID", &EISAName::new("PNP0A03")),
                &name("_UID", &0_u8),
                &name("_BBN", &0_u8),
                &name("_CRS", &ResourceTemplate::new(vec![&numbers, &config, &memory])),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// The first serial port.
struct SerialPort;

impl Aml for SerialPort {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let registers = IO::new(ports::SERIAL, ports::SERIAL, 1, ports::SERIAL_LEN);
        let line = Interrupt::new(true, true, false, false, ports::SERIAL_LINE);
        Device::new(
            "COM1".into(),
            vec![
                &name("_HID", &EISAName::new("PNP0501")),
                &name("_UID", &0_u8),
                &name("_STA", &STATUS_OK),
                &name("_CRS", &ResourceTemplate::new(vec![&registers, &line])),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// The CMOS clock. It has no interrupt, so it must be described: Linux would take line 8 for one
/// that it finds by itself, and fail.
struct Clock;

impl Aml for Clock {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let registers = IO::new(ports::CMOS, ports::CMOS, 1, ports::CMOS_LEN);
        Device::new(
            "RTC_".into(),
            vec![
                &name("_HID", &EISAName::new("PNP0B00")),
                &name("_STA", &STATUS_OK),
                &name("_CRS", &ResourceTemplate::new(vec![&registers])),
            ],
        )
        .to_aml_bytes(sink);
    }
}

fn name(path: &str, value: &dyn Aml) -> Name {
    Name::new(Path::new(path), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(table: &[u8], part: &[u8]) -> bool {
        table.windows(part.len()).any(|window| window == part)
    }

    /// Byte by byte, ACPI 6.5 sections 20.2 and 6.4.3.5.1.
    #[test]
    fn vmbus_is_found_by_name_in_a_container_with_windows() {
        let map = Layout::new(1 << 30);
        let dsdt = build(&map, false);
        let table = dsdt.as_slice();
        assert!(contains(table, b"\x08_HID\x0dVMBus\0"));
        assert!(contains(table, b"\x08_HID\x0dACPI0004\0"));
        // QWord address space descriptor, memory, both ends fixed, read-write.
        let mut high = b"\x8a\x2b\0\0\x0c\x01".to_vec();
        for value in [0, 0x1_0000_0000, 0x4_ffff_ffff, 0, 0x4_0000_0000_u64] {
            high.extend(value.to_le_bytes());
        }
        assert!(contains(table, &high));
        let mut low = b"\x87\x17\0\0\x0c\x01".to_vec();
        for value in [0, 0xe000_0000, 0xfebf_ffff, 0, 0x1ec0_0000_u32] {
            low.extend(value.to_le_bytes());
        }
        assert!(contains(table, &low));
    }

    /// Word and double word address space descriptors, ACPI 6.5 section 6.4.3.5.
    #[test]
    fn a_screen_brings_a_pci_bus() {
        let map = Layout::new(1 << 30).with_screen();
        let mut memory = b"\x87\x17\0\0\x0c\x01".to_vec();
        for value in [0, 0xf800_0000, 0xf87f_ffff, 0, 0x80_0000_u32] {
            memory.extend(value.to_le_bytes());
        }
        // Bus numbers, fixed at both ends: 0 to 0, one of them.
        let numbers = b"\x88\x0d\0\x02\x0c\0\0\0\0\0\0\0\0\0\x01\0";
        let (with, without) = (build(&map, false), build(&Layout::new(1 << 30), false));
        for part in [b"PCI0".as_slice(), &memory, numbers] {
            assert!(contains(with.as_slice(), part), "{part:x?}");
            assert!(!contains(without.as_slice(), part));
        }
    }

    #[test]
    fn soft_off_is_type_5() {
        // A package of four: byte 5, and three times the constant zero.
        let package = b"\x08_S5_\x12\x07\x04\x0a\x05\0\0\0";
        assert!(contains(build(&Layout::new(1 << 30), false).as_slice(), package));
    }

    #[test]
    fn hibernation_is_there_if_it_is_wanted() {
        let package = b"\x08_S4_\x12\x07\x04\x0a\x04\0\0\0";
        assert!(contains(build(&Layout::new(1 << 30), true).as_slice(), package));
        assert!(!contains(build(&Layout::new(1 << 30), false).as_slice(), b"_S4_"));
    }
}
