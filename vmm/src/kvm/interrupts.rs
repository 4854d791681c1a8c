// SPDX-License-Identifier: MIT OR Apache-2.0

//! How interrupts reach a machine's processors: the routes of a PC's lines, those of the SINTs, and
//! messages (MSIs) for a processor's local APIC.
//!
//! An eventfd that is connected to a SINT's line raises it inside of the kernel. With KVM's engine
//! the line leads to KVM's SynIC; with busway's it is an MSI with the vector that the guest gave
//! the SINT, or leads nowhere while the guest has masked it.
//!
//! Source: Intel SDM volume 3A, "Message Signalled Interrupts".

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use busway_wire::synic::{SINT_COUNT, VMBUS_SINT};
use kvm_bindings::{
    KVM_IRQ_ROUTING_HV_SINT, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC,
    KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_hv_sint, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi, kvm_msi,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::errno::Error as Errno;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{During, KvmError, Vm};
use crate::engine::EngineKind;
use crate::memory::layout;
use crate::{limited, lock};

/// The interrupt line of `sint` of `vp`.
pub(super) fn sint_gsi(vp: u32, sint: u8) -> u32 {
    const FIRST: u32 = 24;
    FIRST + vp * SINT_COUNT as u32 + u32::from(sint)
}

/// For each of `count` VPs, an eventfd that raises the SINT that carries all of VMBus.
pub(super) fn vmbus_sints(vm: &Vm, count: usize) -> Result<Vec<EventFd>, KvmError> {
    (0..count as u32)
        .map(|vp| {
            let irqfd = EventFd::new(EFD_NONBLOCK)
                .map_err(|e| Errno::new(e.raw_os_error().unwrap_or(0)))
                .during("make an eventfd")?;
            let line = sint_gsi(vp, VMBUS_SINT);
            vm.fd().register_irqfd(&irqfd, line).during("connect an irqfd to a SINT")?;
            Ok(irqfd)
        })
        .collect()
}

/// A message to local APICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Msi {
    address: u32,
    data: u32,
}

/// Address bits 19:12.
const DESTINATION_SHIFT: u32 = 12;
/// Address bit 2.
const LOGICAL: u32 = 1 << 2;

impl Msi {
    /// Interrupt `vector`, an edge, for the processor whose APIC id is `apic`.
    pub(super) const fn fixed(apic: u32, vector: u8) -> Self {
        Self::new(apic, false, vector as u32)
    }

    /// `data` for the APICs of `destination`, a logical one or an id.
    pub(super) const fn new(destination: u32, logical: bool, data: u32) -> Self {
        let mode = if logical { LOGICAL } else { 0 };
        let destination = (destination & 0xff) << DESTINATION_SHIFT;
        Self { address: layout::LOCAL_APIC | destination | mode, data }
    }
}

/// Sends `msi` at once.
pub(super) fn send(vm: &VmFd, msi: Msi) {
    let Msi { address, data } = msi;
    if let Err(error) = vm.signal_msi(kvm_msi { address_lo: address, data, ..Default::default() }) {
        limited!(Warn, "the interrupt {msi:x?} could not be sent: {error}");
    }
}

/// The routes of a machine's interrupt lines.
pub(super) struct Routes {
    vm: Arc<VmFd>,
    /// What never changes.
    fixed: Vec<kvm_irq_routing_entry>,
    /// SINTs that are messages, by line.
    messages: Mutex<BTreeMap<u32, Msi>>,
}

impl Routes {
    /// The routes of a PC. With KVM's engine, those of all SINTs of `vps` processors too.
    pub(super) fn new(vm: &Arc<VmFd>, vps: u32, kind: EngineKind) -> Result<Self, Errno> {
        let mut fixed: Vec<_> = pc_routes().collect();
        if kind == EngineKind::Kvm {
            let sints = |vp| (0..SINT_COUNT as u8).map(move |sint| sint_route(vp, sint));
            fixed.extend((0..vps).flat_map(sints));
        }
        let routes = Self { vm: Arc::clone(vm), fixed, messages: Mutex::default() };
        routes.apply(&BTreeMap::new())?;
        Ok(routes)
    }

    /// Makes line `gsi` this message, or nothing.
    pub(super) fn set(&self, gsi: u32, msi: Option<Msi>) -> Result<(), Errno> {
        let mut messages = lock(&self.messages);
        let before = match msi {
            Some(msi) => messages.insert(gsi, msi),
            None => messages.remove(&gsi),
        };
        // Guests write SINTs again and again, mostly what they are already.
        if before == msi { Ok(()) } else { self.apply(&messages) }
    }

    fn apply(&self, messages: &BTreeMap<u32, Msi>) -> Result<(), Errno> {
        let messages = messages.iter().map(|(&gsi, &msi)| message_route(gsi, msi));
        let entries: Vec<_> = self.fixed.iter().copied().chain(messages).collect();
        let table = KvmIrqRouting::from_entries(&entries).map_err(|_| Errno::new(libc::E2BIG))?;
        self.vm.set_gsi_routing(&table)
    }
}

/// The timer (line 0) is pin 2 of the I/O APIC, as the MADT says; so line 2 is none of it.
fn pc_routes() -> impl Iterator<Item = kvm_irq_routing_entry> {
    let pic = (0..16).map(|line| match line {
        0..8 => chip_route(line, KVM_IRQCHIP_PIC_MASTER, line),
        _ => chip_route(line, KVM_IRQCHIP_PIC_SLAVE, line - 8),
    });
    let io_apic = (0..24).filter(|&line| line != 2).map(|line| {
        let pin = if line == 0 { 2 } else { line };
        chip_route(line, KVM_IRQCHIP_IOAPIC, pin)
    });
    pic.chain(io_apic)
}

fn chip_route(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            irqchip: kvm_irq_routing_irqchip { irqchip, pin },
        },
        ..Default::default()
    }
}

fn sint_route(vp: u32, sint: u8) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi: sint_gsi(vp, sint),
        type_: KVM_IRQ_ROUTING_HV_SINT,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            hv_sint: kvm_irq_routing_hv_sint { vcpu: vp, sint: sint.into() },
        },
        ..Default::default()
    }
}

fn message_route(gsi: u32, Msi { address, data }: Msi) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            msi: kvm_irq_routing_msi { address_lo: address, data, ..Default::default() },
        },
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Intel SDM 3A, figures "Layout of the MSI Message Address Register" and "... Data Register".
    #[test]
    fn a_message_is_laid_out_as_the_manual_says() {
        assert_eq!(Msi::fixed(5, 0xf3), Msi { address: 0xfee0_5000, data: 0xf3 });
        assert_eq!(Msi::new(0x81, true, 0x4500), Msi { address: 0xfee8_1004, data: 0x4500 });
    }

    #[test]
    fn every_sint_has_a_line_of_its_own_behind_the_io_apics() {
        let mut lines: Vec<_> =
            (0..64).flat_map(|vp| (0..16).map(move |sint| sint_gsi(vp, sint))).collect();
        assert!(lines.iter().all(|&line| line >= 24));
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 64 * 16);
    }
}
