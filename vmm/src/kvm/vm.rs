// SPDX-License-Identifier: MIT OR Apache-2.0

//! A virtual machine: memory, interrupt controllers, which MSRs come to busway.

use std::sync::Arc;

use busway_hyperv::cpuid::Interface;
use busway_hyperv::msr;
use busway_memory::GuestMemory;
use kvm_bindings::{
    KVM_CAP_X86_USER_SPACE_MSR, KVM_PIT_SPEAKER_DUMMY, kvm_enable_cap, kvm_pit_config,
};
use kvm_ioctls::{
    MsrExitReason, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd,
};
use vmm_sys_util::errno::Error as Errno;
use vmm_sys_util::eventfd::EventFd;

use super::cpuid::Place;
use super::interrupts::Routes;
use super::{During, Host, KvmError, MAX_VPS, Vcpu, ioctl};
use crate::engine::EngineKind;
use crate::memory::layout;

/// Makes a call until it ends by itself.
///
/// KVM gives up making a VM when a signal is pending, and what the kernel has still to do for I/O that has
/// ended counts as one (Linux `mm/mmap.c`, `mm_take_all_locks`).
fn uninterrupted<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result,
        }
    }
}

/// A machine with memory and interrupt controllers.
pub struct Vm {
    fd: Arc<VmFd>,
    routes: Arc<Routes>,
    /// What KVM has mapped has to stay mapped.
    _memory: GuestMemory,
}

impl Vm {
    /// A machine with `memory` for `vps` processors, whose Hyper-V is to be `kind`.
    pub fn new(
        host: &Host,
        memory: GuestMemory,
        vps: u32,
        kind: EngineKind,
    ) -> Result<Self, KvmError> {
        let fd = Arc::new(uninterrupted(|| host.kvm().create_vm()).during("create a VM")?);
        // Intel CPUs without "unrestricted guest" run real mode in these pages.
        fd.set_identity_map_address(layout::KVM_IDENTITY_MAP).during("place its identity map")?;
        fd.set_tss_address(layout::KVM_TSS).during("place its TSS")?;
        // All of it in the kernel: with a split one, the I/O APIC would be ours to write.
        fd.create_irq_chip().during("create interrupt controllers")?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        fd.create_pit2(pit).during("create a timer (PIT)")?;
        let routes = Arc::new(Routes::new(&fd, vps, kind).during("set interrupt routes")?);
        take_msrs(&fd, kind.msrs()).during("hand MSRs to busway")?;
        ioctl::set_memory(&fd, &memory).during("map guest memory")?;
        Ok(Self { fd, routes, _memory: memory })
    }

    /// Processor number `index`, of `count`, which is offered `interface`.
    pub fn create_vcpu(
        &self,
        host: &Host,
        index: u32,
        count: u32,
        interface: Interface,
    ) -> Result<Vcpu, KvmError> {
        Vcpu::new(host, &self.fd, Place { index, count }, &interface.leaves(MAX_VPS))
    }

    /// Makes each write to `event` an edge on interrupt line `gsi` of the I/O APIC.
    pub fn connect_line(&self, gsi: u32, event: &EventFd) -> Result<(), KvmError> {
        self.fd.register_irqfd(event, gsi).during("connect an irqfd")
    }

    pub(super) fn fd(&self) -> &Arc<VmFd> {
        &self.fd
    }

    pub(super) fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }
}

/// Makes accesses to `msrs` leave KVM, and no others.
fn take_msrs(vm: &VmFd, msrs: &[(u32, u32)]) -> Result<(), Errno> {
    let mut exits = kvm_enable_cap { cap: KVM_CAP_X86_USER_SPACE_MSR, ..Default::default() };
    exits.args[0] = MsrExitReason::Filter.bits().into();
    vm.enable_cap(&exits)?;
    // A clear bit denies KVM the MSR.
    const NONE: [u8; (msr::RANGE.1 as usize).div_ceil(8)] = [0; _];
    let ranges: Vec<_> = msrs
        .iter()
        .map(|&(base, msr_count)| MsrFilterRange {
            flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
            base,
            msr_count,
            bitmap: &NONE[..(msr_count as usize).div_ceil(8)],
        })
        .collect();
    vm.set_msr_filter(MsrFilterDefaultAction::ALLOW, &ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_call_is_made_again_and_a_failed_one_is_not() {
        let mut errors = [libc::EINTR, libc::EINTR, libc::ENOMEM].into_iter();
        let failed = uninterrupted(|| Err::<(), _>(Errno::new(errors.next().unwrap())));
        assert_eq!(failed.unwrap_err().errno(), libc::ENOMEM);
        assert_eq!(uninterrupted(|| Ok(7)).unwrap(), 7);
    }
}
