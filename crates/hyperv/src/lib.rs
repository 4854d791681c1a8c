// SPDX-License-Identifier: MIT OR Apache-2.0

//! The Hyper-V interface as a guest finds it, without KVM, threads or clocks.
//!
//! An engine that leaves Hyper-V to KVM needs [`cpuid`], [`synic`], [`crash`] and [`hypercall`]. One
//! that does it all itself adds [`registers`] (the MSRs), [`hypercall_page`] (the code that a guest
//! calls) and [`reference_tsc`] (its clock).

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod cpuid;
pub mod crash;
pub mod hypercall;
pub mod hypercall_page;
pub mod msr;
pub mod reference_tsc;
pub mod registers;
pub mod synic;
pub mod vp_set;
