// SPDX-License-Identifier: MIT OR Apache-2.0

//! The seam behind which Hyper-V is implemented.
//!
//! An engine gives a guest the hypervisor that it sees: CPUID leaves, synthetic MSRs, hypercalls,
//! the interrupt controller, clocks. [`KvmEngine`](crate::kvm::KvmEngine) leaves that to KVM;
//! [`UserspaceEngine`](crate::kvm::UserspaceEngine) does it with `busway_hyperv`, on any KVM. What
//! lies above (the bus, the vCPU loop) knows this trait and [`Exit`](crate::kvm::Exit) only:
//!
//! - *Out of the guest.* Accesses to the MSRs that are busway's ([`EngineKind::msrs`]), and
//!   hypercalls that the engine does not answer in the kernel, end the vCPU's run with an
//!   [`Exit`](crate::kvm::Exit), on that vCPU's thread.
//! - *Into the guest.* [`Engine::raise`], from any thread.
//! - *Signals.* A guest's HvSignalEvent on a connected id arrives at an eventfd; the vCPU need
//!   not leave the kernel.
//!
//! That a message slot was freed is an MSR write on both: a guest that found msg_pending in the
//! slot writes EOM, and only then. So whoever keeps messages back hears of each chance to go on,
//! on the thread of the vCPU that waits for them, and of nothing else. (KVM could tell by the
//! resample eventfd of an irqfd, but it signals that at every end of interrupt of the SINT's
//! vector.)

use std::fmt;
use std::io;

use busway_hyperv::cpuid::Interface;
use busway_hyperv::msr;
use busway_hyperv::registers::{Effect, GeneralProtection, Value};
use busway_integration::Reading;
use busway_wire::hypercall::Status;
use vmm_sys_util::eventfd::EventFd;

use crate::kvm::Vcpu;

/// Which implementation of Hyper-V.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// KVM's own.
    Kvm,
    /// Busway's.
    Userspace,
}

impl EngineKind {
    /// The synthetic MSRs that come to busway: first and how many.
    ///
    /// From KVM the crash MSRs, because busway's take a text from the guest, and EOM.
    pub const fn msrs(self) -> &'static [(u32, u32)] {
        match self {
            Self::Kvm => &[(msr::EOM, 1), (msr::CRASH_P0, 6)],
            Self::Userspace => &[msr::RANGE],
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Userspace => "userspace",
        })
    }
}

/// An implementation of Hyper-V for one machine. A VP is named by its index.
pub trait Engine: Send + Sync {
    /// What its guest is offered.
    fn interface(&self) -> Interface;

    /// RDMSR of one of [`EngineKind::msrs`], on the thread of `vp`.
    fn read_msr(&self, vp: u32, msr: u32) -> Result<Value, GeneralProtection>;

    /// WRMSR of one of [`EngineKind::msrs`], on the thread of `vp`. What the engine cannot do by
    /// itself is left to the caller.
    fn write_msr(&self, vp: u32, msr: u32, value: u64) -> Result<Effect, GeneralProtection>;

    /// The guest wrote EOM on `vcpu`: lets the engine's own messages (timers) go on.
    fn end_of_message(&self, vcpu: &Vcpu) -> io::Result<()>;

    /// What GUEST_OS_ID and the hypercall MSR hold, on the thread of `vcpu`.
    fn identity(&self, vcpu: &Vcpu) -> io::Result<[u64; 2]> {
        let read = |msr| match self.read_msr(vcpu.index(), msr) {
            Ok(Value::Is(value)) => value,
            _ => 0,
        };
        Ok([read(msr::GUEST_OS_ID), read(msr::HYPERCALL)])
    }

    /// Raises `sint` of `vp` once. Nothing happens if the guest has masked it.
    fn raise(&self, vp: u32, sint: u8);

    /// Gives `vcpu`, which has stopped between two instructions, an interrupt that its APIC could
    /// not carry, if one waits.
    fn inject(&self, _vcpu: &Vcpu) -> io::Result<()> {
        Ok(())
    }

    /// Raises interrupt `vector` on `vp` once.
    fn interrupt(&self, vp: u32, vector: u8);

    /// From now on, HvSignalEvent on `connection` adds 1 to `event`.
    ///
    /// An id is below 2^24. Fails if it is connected already.
    fn connect(&self, connection: u32, event: &EventFd) -> io::Result<()>;

    /// Undoes [`connect`](Self::connect). When this returns, the eventfd is not signalled again.
    fn disconnect(&self, connection: u32) -> io::Result<()>;

    /// HvSignalEvent on `connection`, of which the kernel knew nothing.
    fn signal(&self, connection: u32) -> Status;

    /// The host's time and the guest's reference counter (`HV_X64_MSR_TIME_REF_COUNT`) at one
    /// moment.
    fn time(&self) -> io::Result<Reading>;

    /// Has the reference counter stand still. No vCPU runs guest code until [`thaw`](Self::thaw).
    fn freeze(&self) -> io::Result<()>;

    /// Has it go on from where it was.
    fn thaw(&self) -> io::Result<()>;
}

/// An engine for tests without a vCPU: nothing that it is asked has an effect.
#[cfg(test)]
pub(crate) struct NoEngine;

#[cfg(test)]
impl Engine for NoEngine {
    fn interface(&self) -> Interface {
        busway_hyperv::cpuid::WANTED
    }

    fn read_msr(&self, _vp: u32, _msr: u32) -> Result<Value, GeneralProtection> {
        Err(GeneralProtection)
    }

    fn write_msr(&self, _vp: u32, _msr: u32, _value: u64) -> Result<Effect, GeneralProtection> {
        Err(GeneralProtection)
    }

    fn end_of_message(&self, _vcpu: &Vcpu) -> io::Result<()> {
        Ok(())
    }

    fn raise(&self, _vp: u32, _sint: u8) {}

    fn interrupt(&self, _vp: u32, _vector: u8) {}

    fn connect(&self, _connection: u32, _event: &EventFd) -> io::Result<()> {
        Ok(())
    }

    fn disconnect(&self, _connection: u32) -> io::Result<()> {
        Ok(())
    }

    fn signal(&self, _connection: u32) -> Status {
        Status::INVALID_CONNECTION_ID
    }

    fn time(&self) -> io::Result<Reading> {
        Ok(Reading { host: 0, reference: 0 })
    }

    fn freeze(&self) -> io::Result<()> {
        Ok(())
    }

    fn thaw(&self) -> io::Result<()> {
        Ok(())
    }
}
