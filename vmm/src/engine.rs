// SPDX-License-Identifier: MIT OR Apache-2.0

//! The seam behind which Hyper-V is implemented.
//!
//! An engine gives a guest the hypervisor that it sees: CPUID leaves, synthetic MSRs, hypercalls,
//! the interrupt controller, clocks. [`KvmEngine`](crate::kvm::KvmEngine) leaves that to KVM.
//! What lies above (the bus, the vCPU loop) knows this trait and [`Exit`](crate::kvm::Exit) only:
//!
//! - *Out of the guest.* A write to a SynIC register, a hypercall that the engine does not
//!   answer itself, and the MSRs of [`MSRS_TO_BUSWAY`] end the vCPU's run with an
//!   [`Exit`](crate::kvm::Exit), on that vCPU's thread.
//! - *Into the guest.* [`Engine::raise`], from any thread.
//! - *Signals.* A guest's HvSignalEvent on a connected id arrives at an eventfd; the vCPU need
//!   not leave the kernel.
//!
//! That a message slot was freed is such an MSR write too: a guest that found msg_pending in the
//! slot writes EOM, and only then. So whoever keeps messages back hears of each chance to go on,
//! on the thread of the vCPU that waits for them, and of nothing else. (KVM could tell by the
//! resample eventfd of an irqfd, but it signals that at every end of interrupt of the SINT's
//! vector.)

use std::io;

use busway_hyperv::cpuid::Leaf;
use busway_hyperv::msr;
use busway_integration::Reading;
use vmm_sys_util::eventfd::EventFd;

use crate::kvm::Vcpu;

/// The synthetic MSRs that busway answers for, whatever the engine: first and how many.
///
/// The crash MSRs, because they take a text from the guest (which KVM's own do not), and EOM.
pub const MSRS_TO_BUSWAY: [(u32, u32); 2] = [(msr::EOM, 1), (msr::CRASH_P0, 6)];

/// An implementation of Hyper-V for one machine. A VP is named by its index.
pub trait Engine: Send + Sync {
    /// The hypervisor's CPUID leaves as guests of this engine see them.
    fn cpuid(&self) -> Vec<Leaf>;

    /// Switches Hyper-V on for a new vCPU, whose CPUID is set and which has not run.
    fn prepare(&self, vcpu: &Vcpu) -> io::Result<()>;

    /// Raises `sint` of `vp` once. Nothing happens if the guest has masked it.
    fn raise(&self, vp: u32, sint: u8);

    /// From now on, HvSignalEvent on `connection` adds 1 to `event`.
    ///
    /// An id is below 2^24. Fails if it is connected already.
    fn connect(&self, connection: u32, event: &EventFd) -> io::Result<()>;

    /// Undoes [`connect`](Self::connect). When this returns, the eventfd is not signalled again.
    fn disconnect(&self, connection: u32) -> io::Result<()>;

    /// The guest wrote EOM on `vcpu`: lets the engine's own messages (timers) go on.
    fn end_of_message(&self, vcpu: &Vcpu) -> io::Result<()>;

    /// The host's time and the guest's reference counter (`HV_X64_MSR_TIME_REF_COUNT`) at one
    /// moment.
    fn time(&self) -> io::Result<Reading>;
}

/// An engine for tests without a vCPU: nothing that it is asked has an effect.
#[cfg(test)]
pub(crate) struct NoEngine;

#[cfg(test)]
impl Engine for NoEngine {
    fn cpuid(&self) -> Vec<Leaf> {
        Vec::new()
    }

    fn prepare(&self, _vcpu: &Vcpu) -> io::Result<()> {
        Ok(())
    }

    fn raise(&self, _vp: u32, _sint: u8) {}

    fn connect(&self, _connection: u32, _event: &EventFd) -> io::Result<()> {
        Ok(())
    }

    fn disconnect(&self, _connection: u32) -> io::Result<()> {
        Ok(())
    }

    fn end_of_message(&self, _vcpu: &Vcpu) -> io::Result<()> {
        Ok(())
    }

    fn time(&self) -> io::Result<Reading> {
        Ok(Reading { host: 0, reference: 0 })
    }
}
