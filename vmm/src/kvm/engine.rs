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
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use busway_hyperv::cpuid::{Features, Hints, Interface, Leaf, WANTED};
use busway_hyperv::crash::CrashRegisters;
use busway_hyperv::msr;
use busway_hyperv::registers::{Effect, GeneralProtection, Value};
use busway_integration::Reading;
use busway_wire::hypercall::Status;
use busway_wire::ic::time_sync;
use busway_wire::synic::{SINT_COUNT, VMBUS_SINT};
use kvm_bindings::{
    KVM_CAP_HYPERV_ENFORCE_CPUID, KVM_CAP_HYPERV_SYNIC2, KVM_CLOCK_REALTIME, kvm_clock_data,
};
use kvm_ioctls::VmFd;
use log::warn;
use vmm_sys_util::eventfd::EventFd;

use super::{During, Host, KvmError, Vcpu, Vm, interrupts, ioctl};
use crate::engine::Engine;
use crate::lock;

/// Hyper-V by KVM, for one [`Vm`].
pub struct KvmEngine {
    vm: Arc<VmFd>,
    interface: Interface,
    /// For each VP, the irqfd of the SINT that carries all of VMBus.
    vmbus_sint: Vec<EventFd>,
    crash: Mutex<CrashRegisters>,
    /// What KVM's clock said when it was to stand still.
    frozen: Mutex<Option<u64>>,
}

impl KvmEngine {
    /// Hyper-V for `vcpus` of `vm`, which have not run.
    pub fn new(host: &Host, vm: &Vm, vcpus: &[Vcpu]) -> Result<Self, KvmError> {
        let enforces_cpuid = host.can(KVM_CAP_HYPERV_ENFORCE_CPUID);
        for vcpu in vcpus {
            vcpu.enable(KVM_CAP_HYPERV_SYNIC2, 0).during("switch Hyper-V on")?;
            if enforces_cpuid {
                vcpu.enable(KVM_CAP_HYPERV_ENFORCE_CPUID, 1).during("switch Hyper-V on")?;
            }
        }
        Ok(Self {
            vm: Arc::clone(vm.fd()),
            interface: Self::offered(host)?,
            vmbus_sint: interrupts::vmbus_sints(vm, vcpus.len())?,
            crash: Mutex::default(),
            frozen: Mutex::default(),
        })
    }

    /// What this KVM and busway together offer, of what guests want.
    pub(super) fn interface(supported: &[Leaf]) -> Interface {
        let mut supported = Interface::parse(supported);
        // Busway answers for these MSRs itself.
        supported.features |= Features::CRASH;
        WANTED.intersection(supported)
    }

    /// What its guests are offered on `host`.
    pub(super) fn offered(host: &Host) -> Result<Interface, KvmError> {
        let mut interface = host.hyperv_interface()?;
        if apic_is_virtualized() {
            // The CPU ends interrupts by itself; Hyper-V's way would leave the guest each time.
            interface.hints -= Hints::APIC_ACCESS;
        }
        Ok(interface)
    }
}

/// Whether KVM uses the CPU's APIC virtualization.
fn apic_is_virtualized() -> bool {
    ["/sys/module/kvm_intel/parameters/enable_apicv", "/sys/module/kvm_amd/parameters/avic"]
        .into_iter()
        .any(|path| std::fs::read_to_string(path).is_ok_and(|value| value.starts_with(['Y', '1'])))
}

impl Engine for KvmEngine {
    fn interface(&self) -> Interface {
        self.interface
    }

    fn read_msr(&self, _vp: u32, msr: u32) -> Result<Value, GeneralProtection> {
        match msr {
            msr::EOM => Ok(Value::Is(0)),
            _ => lock(&self.crash).read(msr).map(Value::Is).ok_or(GeneralProtection),
        }
    }

    fn write_msr(&self, _vp: u32, msr: u32, value: u64) -> Result<Effect, GeneralProtection> {
        if msr == msr::EOM {
            return Ok(Effect::EndOfMessage);
        }
        Ok(lock(&self.crash).write(msr, value).map_or(Effect::None, Effect::Crash))
    }

    fn end_of_message(&self, vcpu: &Vcpu) -> io::Result<()> {
        vcpu.set_msrs(&[(msr::EOM, 0)])
    }

    fn identity(&self, vcpu: &Vcpu) -> io::Result<[u64; 2]> {
        vcpu.msrs([msr::GUEST_OS_ID, msr::HYPERCALL])
    }

    fn raise(&self, vp: u32, sint: u8) {
        let raised = match self.vmbus_sint.get(vp as usize) {
            Some(irqfd) if sint == VMBUS_SINT => irqfd.write(1),
            Some(_) if usize::from(sint) < SINT_COUNT => {
                let line = interrupts::sint_gsi(vp, sint);
                self.vm.set_irq_line(line, true).map_err(io::Error::from)
            }
            _ => return,
        };
        if let Err(error) = raised {
            warn!("SINT{sint} of VP {vp} could not be raised: {error}");
        }
    }

    fn interrupt(&self, vp: u32, vector: u8) {
        interrupts::send(&self.vm, interrupts::Msi::fixed(vp, vector));
    }

    fn connect(&self, connection: u32, event: &EventFd) -> io::Result<()> {
        Ok(ioctl::hyperv_eventfd(&self.vm, connection, Some(event))?)
    }

    fn disconnect(&self, connection: u32) -> io::Result<()> {
        Ok(ioctl::hyperv_eventfd(&self.vm, connection, None)?)
    }

    /// KVM signals what is connected; what comes here is not.
    fn signal(&self, _connection: u32) -> Status {
        Status::INVALID_CONNECTION_ID
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
        let reference = lock(&self.frozen).unwrap_or(clock.clock) / 100;
        Ok(Reading { host: host / 100 + time_sync::UNIX_EPOCH, reference })
    }

    fn freeze(&self) -> io::Result<()> {
        let clock = self.vm.get_clock()?.clock;
        lock(&self.frozen).get_or_insert(clock);
        Ok(())
    }

    /// KVM does not stop its clock, but sets it back, and then fills the TSC page anew and looks which
    /// timers are due (`kvm_vm_ioctl_set_clock`, `kvm_hv_process_stimers`).
    fn thaw(&self) -> io::Result<()> {
        if let Some(clock) = lock(&self.frozen).take() {
            self.vm.set_clock(&kvm_clock_data { clock, ..kvm_clock_data::default() })?;
        }
        Ok(())
    }
}
