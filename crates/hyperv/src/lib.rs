// SPDX-License-Identifier: MIT OR Apache-2.0

//! The Hyper-V interface as a guest finds it, without KVM, threads or clocks.

pub mod cpuid;
pub mod crash;
pub mod hypercall;
pub mod msr;
pub mod synic;
pub mod vp_set;
