// SPDX-License-Identifier: MIT OR Apache-2.0

//! ACPI: the hardware-reduced kind, as far as it describes this machine.
//!
//! RSDP -> XSDT -> FADT (sleep and reset registers) -> DSDT; XSDT -> MADT (processors, I/O APIC).
//!
//! Source: ACPI specification 6.5, sections 4 and 5.2.

mod dsdt;
mod madt;

use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, sdt::Sdt};

use crate::devices::ports;
use crate::memory::{Layout, layout};

const OEM: [u8; 6] = *b"BUSWAY";
const TABLE: [u8; 8] = *b"BUSWAYVM";
const REVISION: u32 = 1;

/// The tables as they stand in guest memory from [`layout::ACPI_TABLES`] on; the RSDP is first.
///
/// They fit the room that the layout keeps for them with any number of `vcpus` up to 64.
pub fn tables(vcpus: u32, map: &Layout, hibernates: bool) -> Vec<u8> {
    let mut area = Area::new(Rsdp::len());
    let dsdt = area.add(dsdt::build(map, hibernates).as_slice());
    let fadt = area.add(&bytes(&fadt(dsdt)));
    let madt = area.add(&bytes(&madt::build(vcpus)));
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = area.add(&bytes(&xsdt));
    let rsdp = bytes(&Rsdp::new(OEM, xsdt));
    area.bytes.splice(..rsdp.len(), rsdp);
    assert!(area.bytes.len() <= layout::ACPI_TABLES_MAX, "64 processors fit");
    area.bytes
}

/// Tables one behind the other.
struct Area {
    bytes: Vec<u8>,
}

impl Area {
    fn new(kept: usize) -> Self {
        Self { bytes: vec![0; kept] }
    }

    /// Returns the table's address.
    fn add(&mut self, table: &[u8]) -> u64 {
        let start = self.bytes.len().next_multiple_of(16);
        self.bytes.resize(start, 0);
        self.bytes.extend_from_slice(table);
        layout::ACPI_TABLES + start as u64
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// An empty table that AML can be appended to.
fn empty_sdt(signature: [u8; 4], revision: u8) -> Sdt {
    const HEADER_LEN: u32 = 36;
    Sdt::new(signature, HEADER_LEN, revision, OEM, TABLE, REVISION)
}

fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    /// A PC has no keyboard controller and no VGA unless the FADT says so; the CMOS clock is there
    /// unless it says no (`iapc_boot_arch`).
    const NO_VGA: u16 = 1 << 2;
    const LEGACY_DEVICES: u16 = 1;
    let port =
        |port: u16| GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into());
    let mut fadt = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = (LEGACY_DEVICES | NO_VGA).into();
    fadt.reset_reg = port(ports::RESET);
    fadt.reset_value = ports::RESET_NOW;
    fadt.sleep_control_reg = port(ports::SLEEP_CONTROL);
    fadt.sleep_status_reg = port(ports::SLEEP_STATUS);
    fadt.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32_at(bytes: &[u8], offset: usize) -> u32 {
        u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
    }

    fn u64_at(bytes: &[u8], offset: usize) -> u64 {
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    /// The table at a guest address, by the length in its header.
    fn table(area: &[u8], address: u64) -> &[u8] {
        let start = (address - 0xe_0000) as usize;
        let len = u32_at(area, start + 4) as usize;
        &area[start..start + len]
    }

    #[test]
    fn every_table_is_found_from_the_rsdp_and_sums_to_zero() {
        let area = tables(64, &Layout::new(1 << 30), true);
        assert_eq!(&area[..8], b"RSD PTR ");
        assert_eq!((sum(&area[..20]), sum(&area[..36])), (0, 0));
        let xsdt = table(&area, u64_at(&area, 24));
        let fadt = table(&area, u64_at(xsdt, 36));
        let madt = table(&area, u64_at(xsdt, 44));
        let dsdt = table(&area, u64_at(fadt, 140));
        let all = [(xsdt, b"XSDT"), (fadt, b"FACP"), (madt, b"APIC"), (dsdt, b"DSDT")];
        for (table, signature) in all {
            assert_eq!(&table[..4], signature);
            assert_eq!(sum(table), 0, "{}", String::from_utf8_lossy(signature));
        }
    }

    /// Offsets of ACPI 6.5 table 5.9.
    #[test]
    fn the_fadt_names_the_ports_that_the_machine_has() {
        let area = tables(1, &Layout::new(1 << 30), false);
        let xsdt = table(&area, u64_at(&area, 24));
        let fadt = table(&area, u64_at(xsdt, 36));
        let flags = u32_at(fadt, 112);
        assert_ne!(flags & 1 << 20, 0, "hardware-reduced");
        assert_ne!(flags & 1 << 10, 0, "reset register");
        assert_eq!((fadt[116], u64_at(fadt, 120), fadt[128]), (1, 0xcf9, 6));
        assert_eq!((fadt[244], u64_at(fadt, 248)), (1, 0x600));
        assert_eq!((fadt[256], u64_at(fadt, 260)), (1, 0x601));
    }
}
