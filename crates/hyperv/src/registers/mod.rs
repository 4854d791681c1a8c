// SPDX-License-Identifier: MIT OR Apache-2.0

//! The synthetic MSRs as a state machine, for an engine that answers for all of them itself.
//!
//! [`PartitionRegisters`] are those that the guest has once, [`VpRegisters`] those that each of its
//! VPs has. Time is an argument; what a write asks of the machine is its result, an [`Effect`]. So
//! nothing here waits, locks or knows a clock, and a register can be read and written in any order.
//!
//! A read returns what was written, reserved bits included: guests change single bits of registers
//! and write the rest back, and Nanos makes sure that it is all there. What the TLFS forbids is
//! [`GeneralProtection`].
//!
//! Source: TLFS, "Synthetic MSRs", "Virtual Interrupt Controller", "Timers and Time Services".

mod partition;
mod sint;
mod stimer;
#[cfg(test)]
mod tests;
mod vp;

pub use partition::{Frequencies, PartitionRegisters};
pub use sint::Sint;
pub use stimer::{Delivered, Expiry, Notice};
pub use vp::{Now, VpRegisters};

use crate::cpuid::{Access, Features, Interface};
use crate::crash::CrashReport;
use crate::msr;
use crate::synic::SynicRegisters;

/// The access is forbidden: the guest gets #GP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such MSR, or no such value in it")]
pub struct GeneralProtection;

/// What is left to do after a write, for who knows the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The VP's message and event pages are these now.
    Pages(SynicRegisters),
    /// A SINT has another vector, or other flags.
    Sint(u8, Sint),
    /// A message slot may be free: go on with messages and timers.
    EndOfMessage,
    /// The VP's timers changed: [run them](VpRegisters::run_timers).
    Timers,
    /// The guest wants to start over.
    Reset,
    /// The guest said that it dies.
    Crash(CrashReport),
    /// End the interrupt that the VP's APIC serves.
    EndOfInterrupt,
    /// Write the APIC's interrupt command register: its high half is bits 63:32.
    InterruptCommand(u64),
    /// Write the APIC's task priority.
    TaskPriority(u8),
}

/// What a read finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// This.
    Is(u64),
    /// The APIC's task priority, which only the APIC knows.
    TaskPriority,
}

/// Whether `msr` is one of the [`PartitionRegisters`].
pub const fn is_partitions(msr: u32) -> bool {
    matches!(
        msr,
        msr::GUEST_OS_ID
            | msr::HYPERCALL
            | msr::RESET
            | msr::TIME_REF_COUNT
            | msr::REFERENCE_TSC
            | msr::TSC_FREQUENCY
            | msr::APIC_FREQUENCY
            | msr::CRASH_P0..=msr::CRASH_CTL
    )
}

/// Whether a guest that is offered `interface` may touch `msr` at all.
fn is_offered(interface: &Interface, msr: u32) -> bool {
    let access = match msr {
        msr::GUEST_OS_ID | msr::HYPERCALL => Access::HYPERCALL,
        msr::VP_INDEX => Access::VP_INDEX,
        msr::RESET => Access::RESET,
        msr::VP_RUNTIME => Access::VP_RUNTIME,
        msr::TIME_REF_COUNT => Access::REFERENCE_TIME,
        msr::REFERENCE_TSC => Access::REFERENCE_TSC,
        msr::TSC_FREQUENCY | msr::APIC_FREQUENCY => Access::FREQUENCIES,
        msr::EOI | msr::ICR | msr::TPR => Access::APIC,
        // Linux writes it without asking (`arch/x86/hyperv/hv_init.c`, `hv_cpu_init`).
        msr::VP_ASSIST_PAGE => Access::empty(),
        msr::SCONTROL..=msr::EOM | msr::SINT0..=msr::SINT15 => Access::SYNIC,
        msr::STIMER0_CONFIG..=msr::STIMER3_COUNT => Access::STIMERS,
        msr::CRASH_P0..=msr::CRASH_CTL => return interface.features.contains(Features::CRASH),
        _ => return false,
    };
    interface.access.contains(access)
}
