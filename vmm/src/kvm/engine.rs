// SPDX-License-Identifier: MIT OR Apache-2.0

//! KVM's own Hyper-V as an [`Engine`].
//!
//! KVM keeps the synthetic MSRs, the hypercall page, the TSC page and the timers; it exits for
//! SynIC registers and for HvPostMessage, and it signals an eventfd for HvSignalEvent. Writing
//! message slots and event flags is busway's part.
//!
//! Facts of KVM used here (`arch/x86/kvm/hyperv.c`, `arch/x86/kvm/irq_comm.c`, 6.1): a route of
//! type HV_SINT is delivered without a worker thread from an irqfd; one to a masked SINT is
//! dropped; the SynIC2 capability leaves the guest's pages as they are, while the older one clears
//! them; a host's own write to EOM restarts messages of timers; connection ids above 2^24, and
//! those that nobody connected, end in user space.

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use busway_hyperv::cpuid::{Features, Hints, Interface, Leaf, WANTED};
use busway_hyperv::msr;
use busway_integration::Reading;
use busway_wire::ic::time_sync;
use busway_wire::synic::{SINT_COUNT, VMBUS_SINT};
use kvm_bindings::{KVM_CAP_HYPERV_ENFORCE_CPUID, KVM_CAP_HYPERV_SYNIC2, KVM_CLOCK_REALTIME};
use kvm_ioctls::VmFd;
use log::warn;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{During, Host, KvmError, Vcpu, Vm, ioctl};
use crate::engine::Engine;

/// The highest number of VPs that CPUID may announce.
pub(super) const MAX_VPS: u32 = 64;

/// Hyper-V by KVM, for one [`Vm`].
pub struct KvmEngine {
    vm: Arc<VmFd>,
    interface: Interface,
    enforces_cpuid: bool,
    /// For each VP, the irqfd of the SINT that carries all of VMBus.
    vmbus_sint: Vec<EventFd>,
}

/// The interrupt line that KVM routes to `sint` of `vp`.
pub(super) fn sint_gsi(vp: u32, sint: u8) -> u32 {
    const FIRST: u32 = 24;
    FIRST + vp * SINT_COUNT as u32 + u32::from(sint)
}

impl KvmEngine {
    /// Hyper-V for the first `vps` processors of `vm`, which need not exist yet.
    pub fn new(host: &Host, vm: &Vm, vps: u32) -> Result<Self, KvmError> {
        let mut interface = host.hyperv_interface()?;
        if apic_is_virtualized() {
            // The CPU ends interrupts by itself; Hyper-V's way would leave the guest each time.
            interface.hints -= Hints::APIC_ACCESS;
        }
        let vmbus_sint = (0..vps)
            .map(|vp| {
                let irqfd = EventFd::new(EFD_NONBLOCK)
                    .map_err(|e| vmm_sys_util::errno::Error::new(e.raw_os_error().unwrap_or(0)))
                    .during("make an eventfd")?;
                let gsi = sint_gsi(vp, VMBUS_SINT);
                vm.fd().register_irqfd(&irqfd, gsi).during("connect an irqfd to a SINT")?;
                Ok(irqfd)
            })
            .collect::<Result<_, _>>()?;
        let enforces_cpuid = host.can(KVM_CAP_HYPERV_ENFORCE_CPUID);
        Ok(Self { vm: Arc::clone(vm.fd()), interface, enforces_cpuid, vmbus_sint })
    }

    /// What this KVM and busway together offer, of what guests want.
    pub(super) fn interface(supported: &[Leaf]) -> Interface {
        let mut supported = Interface::parse(supported);
        // Busway answers for these MSRs itself.
        supported.features |= Features::CRASH;
        WANTED.intersection(supported)
    }
}

/// Whether KVM uses the CPU's APIC virtualization.
fn apic_is_virtualized() -> bool {
    ["/sys/module/kvm_intel/parameters/enable_apicv", "/sys/module/kvm_amd/parameters/avic"]
        .into_iter()
        .any(|path| std::fs::read_to_string(path).is_ok_and(|value| value.starts_with(['Y', '1'])))
}

impl Engine for KvmEngine {
    fn cpuid(&self) -> Vec<Leaf> {
        self.interface.leaves(MAX_VPS)
    }

    fn prepare(&self, vcpu: &Vcpu) -> io::Result<()> {
        vcpu.enable(KVM_CAP_HYPERV_SYNIC2, 0)?;
        if self.enforces_cpuid {
            vcpu.enable(KVM_CAP_HYPERV_ENFORCE_CPUID, 1)?;
        }
        Ok(())
    }

    fn raise(&self, vp: u32, sint: u8) {
        let raised = match self.vmbus_sint.get(vp as usize) {
            Some(irqfd) if sint == VMBUS_SINT => irqfd.write(1),
            Some(_) if usize::from(sint) < SINT_COUNT => {
                self.vm.set_irq_line(sint_gsi(vp, sint), true).map_err(io::Error::from)
            }
            _ => return,
        };
        if let Err(error) = raised {
            warn!("SINT{sint} of VP {vp} could not be raised: {error}");
        }
    }

    fn connect(&self, connection: u32, event: &EventFd) -> io::Result<()> {
        Ok(ioctl::hyperv_eventfd(&self.vm, connection, Some(event))?)
    }

    fn disconnect(&self, connection: u32) -> io::Result<()> {
        Ok(ioctl::hyperv_eventfd(&self.vm, connection, None)?)
    }

    fn end_of_message(&self, vcpu: &Vcpu) -> io::Result<()> {
        vcpu.set_msrs(&[(msr::EOM, 0)])
    }

    fn time(&self) -> io::Result<Reading> {
        // KVM makes the reference counter of its own clock, which counts nanoseconds.
        let clock = self.vm.get_clock().map_err(io::Error::from)?;
        let host = if clock.flags & KVM_CLOCK_REALTIME == 0 {
            // Before Linux 5.16 the two are read one after the other.
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
        } else {
            clock.realtime
        };
        Ok(Reading { host: host / 100 + time_sync::UNIX_EPOCH, reference: clock.clock / 100 })
    }
}
