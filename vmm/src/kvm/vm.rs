// SPDX-License-Identifier: MIT OR Apache-2.0

//! A virtual machine: memory, interrupt controllers, which MSRs come to busway.

use std::sync::Arc;

use busway_memory::GuestMemory;
use busway_wire::synic::SINT_COUNT;
use kvm_bindings::{
    KVM_CAP_X86_USER_SPACE_MSR, KVM_IRQ_ROUTING_HV_SINT, KVM_IRQ_ROUTING_IRQCHIP,
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_PIT_SPEAKER_DUMMY,
    KvmIrqRouting, kvm_enable_cap, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_hv_sint, kvm_irq_routing_irqchip, kvm_pit_config,
};
use kvm_ioctls::{
    MsrExitReason, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd,
};
use vmm_sys_util::errno::Error as Errno;
use vmm_sys_util::eventfd::EventFd;

use super::engine::sint_gsi;
use super::{During, Host, KvmError, Vcpu, ioctl};
use crate::engine::MSRS_TO_BUSWAY;
use crate::memory::layout;

/// A machine with memory and interrupt controllers.
pub struct Vm {
    fd: Arc<VmFd>,
    /// What KVM has mapped has to stay mapped.
    _memory: GuestMemory,
}

impl Vm {
    /// A machine with `memory`, whose SINTs are routed for `vps` processors.
    pub fn new(host: &Host, memory: GuestMemory, vps: u32) -> Result<Self, KvmError> {
        let fd = Arc::new(host.kvm().create_vm().during("create a VM")?);
        // Intel CPUs without "unrestricted guest" run real mode in these pages.
        fd.set_identity_map_address(layout::KVM_IDENTITY_MAP).during("place its identity map")?;
        fd.set_tss_address(layout::KVM_TSS).during("place its TSS")?;
        // All of it in the kernel: with a split one, the I/O APIC would be ours to write.
        fd.create_irq_chip().during("create interrupt controllers")?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        fd.create_pit2(pit).during("create a timer (PIT)")?;
        fd.set_gsi_routing(&routes(vps).during("describe its interrupt routes")?)
            .during("set interrupt routes")?;
        take_msrs(&fd).during("hand crash MSRs to busway")?;
        ioctl::set_memory(&fd, &memory).during("map guest memory")?;
        Ok(Self { fd, _memory: memory })
    }

    /// Processor number `index`, of `count`, whose CPUID shows `hypervisor`.
    pub fn create_vcpu(
        &self,
        host: &Host,
        index: u32,
        count: u32,
        hypervisor: &[busway_hyperv::cpuid::Leaf],
    ) -> Result<Vcpu, KvmError> {
        Vcpu::new(host, &self.fd, index, count, hypervisor)
    }

    /// Makes each write to `event` an edge on interrupt line `gsi` of the I/O APIC.
    pub fn connect_line(&self, gsi: u32, event: &EventFd) -> Result<(), KvmError> {
        self.fd.register_irqfd(event, gsi).during("connect an irqfd")
    }

    pub(super) fn fd(&self) -> &Arc<VmFd> {
        &self.fd
    }
}

/// The routes of a PC, and one for each SINT.
///
/// The timer (line 0) is pin 2 of the I/O APIC, as the MADT says; so line 2 is none of it.
fn routes(vps: u32) -> Result<KvmIrqRouting, Errno> {
    let pic = (0..16).map(|line| match line {
        0..8 => chip_route(line, KVM_IRQCHIP_PIC_MASTER, line),
        _ => chip_route(line, KVM_IRQCHIP_PIC_SLAVE, line - 8),
    });
    let io_apic = (0..24).filter(|&line| line != 2).map(|line| {
        let pin = if line == 0 { 2 } else { line };
        chip_route(line, KVM_IRQCHIP_IOAPIC, pin)
    });
    let sints = (0..vps).flat_map(|vp| (0..SINT_COUNT as u8).map(move |sint| sint_route(vp, sint)));
    let entries: Vec<_> = pic.chain(io_apic).chain(sints).collect();
    KvmIrqRouting::from_entries(&entries).map_err(|_| Errno::new(libc::E2BIG))
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

/// Makes accesses to [`MSRS_TO_BUSWAY`] leave KVM, and no others.
fn take_msrs(vm: &VmFd) -> Result<(), Errno> {
    let mut exits = kvm_enable_cap { cap: KVM_CAP_X86_USER_SPACE_MSR, ..Default::default() };
    exits.args[0] = MsrExitReason::Filter.bits().into();
    vm.enable_cap(&exits)?;
    let ranges = MSRS_TO_BUSWAY.map(|(base, msr_count)| MsrFilterRange {
        flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
        base,
        msr_count,
        bitmap: &[0],
    });
    vm.set_msr_filter(MsrFilterDefaultAction::ALLOW, &ranges)
}
