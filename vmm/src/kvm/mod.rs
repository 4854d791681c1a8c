// SPDX-License-Identifier: MIT OR Apache-2.0

//! KVM, and nothing of it outside of this folder.
//!
//! [`Host`] is /dev/kvm and what it can do, [`Vm`] a machine without devices, [`Vcpu`] one of its
//! processors. [`KvmEngine`] is KVM's own Hyper-V behind the [`Engine`](crate::engine::Engine)
//! trait, and [`UserspaceEngine`] the one that needs nothing of it. The rest of the program sees their methods and [`Exit`]; no type of kvm-ioctls or
//! kvm-bindings passes this border, and no other file makes an ioctl.

mod apic;
mod cpuid;
mod engine;
mod host;
mod interrupts;
mod ioctl;
mod stats;
mod userspace;
mod vcpu;
mod vm;

pub use apic::ApicWrite;
pub use engine::KvmEngine;
pub use host::{Choice, Host, Need, OpenError, Support};
pub use stats::Counters;
pub use userspace::{CLOCKSOURCE, UserspaceEngine, is_by_tsc};
pub use vcpu::{CallAnswer, CallMode, Exit, MsrRead, MsrWrite, Registers, Vcpu};
pub use vm::Vm;

/// The highest number of VPs that CPUID may announce.
const MAX_VPS: u32 = 64;

/// An operation of KVM failed.
#[derive(Debug, thiserror::Error)]
#[error("KVM cannot {what}")]
pub struct KvmError {
    /// The operation, as what follows "cannot".
    pub what: &'static str,
    /// The system's reason.
    pub source: vmm_sys_util::errno::Error,
}

/// Says what failed.
trait During<T> {
    fn during(self, what: &'static str) -> Result<T, KvmError>;
}

impl<T> During<T> for Result<T, vmm_sys_util::errno::Error> {
    fn during(self, what: &'static str) -> Result<T, KvmError> {
        self.map_err(|source| KvmError { what, source })
    }
}
