// SPDX-License-Identifier: MIT OR Apache-2.0

//! The MADT: processors and the I/O APIC.
//!
//! Source: ACPI specification 6.5, section 5.2.12.

use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::{Aml, AmlSink};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes};

use super::{OEM, REVISION, TABLE};
use crate::memory::layout;

/// An interrupt source override, which acpi_tables does not have (section 5.2.12.5).
#[repr(C)]
#[derive(Clone, Copy, IntoBytes, Immutable)]
struct InterruptSourceOverride {
    kind: u8,
    len: u8,
    bus: u8,
    source: u8,
    interrupt: U32,
    flags: U16,
}

const _: () = assert!(size_of::<InterruptSourceOverride>() == 10);

impl Aml for InterruptSourceOverride {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(self.as_bytes());
    }
}

/// The table for processors 0 to `vcpus` - 1, whose APIC ids are their numbers.
pub(super) fn build(vcpus: u32) -> MADT {
    let local_apic = LocalInterruptController::Address(layout::LOCAL_APIC);
    let mut madt = MADT::new(OEM, TABLE, REVISION, local_apic);
    for vcpu in 0..u8::try_from(vcpus).unwrap_or(u8::MAX) {
        madt.add_structure(ProcessorLocalApic::new(vcpu, vcpu, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IO_APIC, 0));
    // The timer's line ends at pin 2, as on every PC since the I/O APIC.
    madt.add_structure(InterruptSourceOverride {
        kind: 2,
        len: 10,
        bus: 0,
        source: 0,
        interrupt: 2.into(),
        flags: 0.into(),
    });
    madt
}
