// SPDX-License-Identifier: MIT OR Apache-2.0

//! What kvm-ioctls does not wrap, or wraps as unsafe: all of busway's `unsafe` outside of guest
//! memory.

#![expect(unsafe_code, reason = "the calls and the union of KVM's ABI that have no safe wrapper")]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};

use busway_hyperv::synic::SynicRegisters;
use busway_memory::GuestMemory;
use kvm_bindings::{
    CpuId, KVM_EXIT_HYPERV_HCALL, KVM_EXIT_HYPERV_SYNIC, KVM_EXIT_X86_RDMSR,
    KVM_HYPERV_EVENTFD_DEASSIGN, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, kvm_cpuid2,
    kvm_device_attr, kvm_hyperv_eventfd, kvm_run, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap};
use vmm_sys_util::errno;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ptr, ioctl_with_ref};
use vmm_sys_util::{ioctl_io_nr, ioctl_iow_nr, ioctl_iowr_nr};

ioctl_iowr_nr!(KVM_GET_SUPPORTED_HV_CPUID, KVMIO, 0xc1, kvm_cpuid2);
ioctl_io_nr!(KVM_GET_STATS_FD, KVMIO, 0xce);
ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);
ioctl_iow_nr!(KVM_HYPERV_EVENTFD, KVMIO, 0xbd, kvm_hyperv_eventfd);

/// More leaves than any KVM has.
const MAX_HV_LEAVES: usize = 64;

/// The Hyper-V leaves that KVM supports. Needs `KVM_CAP_SYS_HYPERV_CPUID`.
pub(super) fn supported_hv_cpuid(kvm: &Kvm) -> Result<CpuId, errno::Error> {
    let mut cpuid = CpuId::new(MAX_HV_LEAVES).map_err(|_| errno::Error::new(libc::E2BIG))?;
    let pointer = cpuid.as_mut_fam_struct_ptr();
    // SAFETY: the pointer is to a `kvm_cpuid2` with room for the `nent` entries that it names; KVM
    // writes no more of them and lowers `nent`.
    let result = unsafe { ioctl_with_mut_ptr(kvm, KVM_GET_SUPPORTED_HV_CPUID(), pointer) };
    if result < 0 { Err(errno::Error::last()) } else { Ok(cpuid) }
}

/// Makes KVM signal `event` when the guest signals `connection` (`Some`), or no longer (`None`).
pub(super) fn hyperv_eventfd(
    vm: &VmFd,
    connection: u32,
    event: Option<&EventFd>,
) -> Result<(), errno::Error> {
    let arguments = kvm_hyperv_eventfd {
        conn_id: connection,
        fd: event.map_or(-1, AsRawFd::as_raw_fd),
        flags: if event.is_some() { 0 } else { KVM_HYPERV_EVENTFD_DEASSIGN },
        ..Default::default()
    };
    // SAFETY: KVM reads one `kvm_hyperv_eventfd`, takes its own reference to the eventfd, and
    // writes nothing.
    let result = unsafe { ioctl_with_ref(vm, KVM_HYPERV_EVENTFD(), &arguments) };
    if result < 0 { Err(errno::Error::last()) } else { Ok(()) }
}

/// A descriptor of the counters of `vcpu`.
pub(super) fn stats_file(vcpu: &VcpuFd) -> Result<File, errno::Error> {
    // SAFETY: the call takes no argument and returns a descriptor.
    let fd = unsafe { ioctl(vcpu, KVM_GET_STATS_FD()) };
    if fd < 0 {
        return Err(errno::Error::last());
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// What the TSC of `vcpu` is ahead of the host's, modulo 2^64.
pub(super) fn tsc_offset(vcpu: &VcpuFd) -> Result<u64, errno::Error> {
    let mut offset = 0_u64;
    let attribute = kvm_device_attr {
        flags: 0,
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr: &raw mut offset as u64,
    };
    // SAFETY: KVM reads one `kvm_device_attr` and writes the eight bytes of `offset`, which lives
    // until then.
    let result = unsafe { ioctl_with_ref(vcpu, KVM_GET_DEVICE_ATTR(), &attribute) };
    if result < 0 { Err(errno::Error::last()) } else { Ok(offset) }
}

/// The host's TSC.
pub(super) fn host_tsc() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction, and Linux lets every program use it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Gives `memory` to the guest, a slot for each region.
///
/// The caller keeps `memory` for as long as the VM lives.
pub(super) fn set_memory(vm: &VmFd, memory: &GuestMemory) -> Result<(), errno::Error> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let slot = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: host_address(region),
        };
        // SAFETY: the range is one mapping of guest memory, which nothing else in the process
        // uses but through vm-memory's volatile accesses, and `Vm` keeps it mapped longer than
        // the VM exists.
        unsafe { vm.set_user_memory_region(slot)? };
    }
    Ok(())
}

fn host_address(region: &GuestRegionMmap) -> u64 {
    region.as_ptr() as u64
}

/// What the guest will find in the MSR whose read ended the last run, if that is how it ended.
pub(super) fn msr_answer(run: &mut kvm_run) -> Option<&mut u64> {
    if run.exit_reason != KVM_EXIT_X86_RDMSR {
        return None;
    }
    // SAFETY: the exit reason says that KVM filled this arm of the union, of integers.
    Some(unsafe { &mut run.__bindgen_anon_1.msr.data })
}

/// A `KVM_EXIT_HYPERV`.
pub(super) enum HypervExit<'a> {
    /// The guest wrote a SynIC register.
    Synic(SynicRegisters),
    /// The guest made a hypercall that KVM does not handle.
    Hypercall { control: u64, input: u64, output: u64, result: &'a mut u64 },
    /// A type that this program does not know, which KVM sends to nobody who did not ask for it.
    Unknown(u32),
}

/// The payload of a `KVM_EXIT_HYPERV`, which kvm-ioctls does not give.
///
/// Only to be called when that is the exit reason.
pub(super) fn hyperv_exit(run: &mut kvm_run) -> HypervExit<'_> {
    // SAFETY: the exit reason says that KVM filled this arm of the union, and each of its fields
    // is an integer, for which any bits are a value.
    let exit = unsafe { &mut run.__bindgen_anon_1.hyperv };
    match exit.type_ {
        KVM_EXIT_HYPERV_SYNIC => {
            // SAFETY: as above, by the type.
            let synic = unsafe { exit.u.synic };
            HypervExit::Synic(SynicRegisters {
                control: synic.control,
                message_page: synic.msg_page,
                event_page: synic.evt_page,
            })
        }
        KVM_EXIT_HYPERV_HCALL => {
            // SAFETY: as above, by the type.
            let call = unsafe { &mut exit.u.hcall };
            let [input, output] = call.params;
            HypervExit::Hypercall { control: call.input, input, output, result: &mut call.result }
        }
        unknown => HypervExit::Unknown(unknown),
    }
}
