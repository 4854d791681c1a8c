// SPDX-License-Identifier: MIT OR Apache-2.0

//! KVM, and nothing of it outside of this folder.
//!
//! [`Host`] is /dev/kvm and what it can do, [`Vm`] a machine without devices, [`Vcpu`] one of its
//! processors, and [`KvmEngine`] KVM's own Hyper-V behind the [`Engine`](crate::engine::Engine)
//! trait. The rest of the program sees their methods and [`Exit`]; no type of kvm-ioctls or
//! kvm-bindings passes this border, and no other file makes an ioctl.

mod cpuid;
mod engine;
mod host;
mod ioctl;
mod stats;
mod vcpu;
mod vm;

pub use engine::KvmEngine;
pub use host::{Host, OpenError, Support};
pub use stats::Counters;
pub use vcpu::{Exit, Registers, Vcpu};
pub use vm::Vm;

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
