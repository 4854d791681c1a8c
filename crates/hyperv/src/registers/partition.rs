// SPDX-License-Identifier: MIT OR Apache-2.0

//! The registers that a guest has once.

use busway_memory::{GuestMemory, PAGE_SIZE};
use vm_memory::{Bytes, GuestAddress};

use super::{Effect, GeneralProtection, is_offered};
use crate::cpuid::Interface;
use crate::crash::CrashRegisters;
use crate::hypercall_page;
use crate::msr;
use crate::reference_tsc::ReferenceTsc;

/// What the frequency MSRs say, in Hz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequencies {
    /// The TSC's.
    pub tsc: u64,
    /// The local APIC timer's.
    pub apic: u64,
}

/// HYPERCALL bit 1: the register keeps its value until a reset.
const LOCKED: u64 = 1 << 1;

/// The registers of one guest.
#[derive(Debug)]
pub struct PartitionRegisters {
    interface: Interface,
    memory: GuestMemory,
    frequencies: Frequencies,
    clock: Option<ReferenceTsc>,
    guest_os_id: u64,
    hypercall: u64,
    reference_tsc: u64,
    crash: CrashRegisters,
}

impl PartitionRegisters {
    /// The registers after a reset, of a guest that is offered `interface`. Reference time follows
    /// from the TSC by `clock`; without one, the guest has to read it from its MSR.
    pub fn new(
        interface: Interface,
        memory: GuestMemory,
        frequencies: Frequencies,
        clock: Option<ReferenceTsc>,
    ) -> Self {
        Self {
            interface,
            memory,
            frequencies,
            clock,
            guest_os_id: 0,
            hypercall: 0,
            reference_tsc: 0,
            crash: CrashRegisters::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// RDMSR, at reference time `now`.
    pub fn read(&self, msr: u32, now: u64) -> Result<u64, GeneralProtection> {
        if !is_offered(&self.interface, msr) {
            return Err(GeneralProtection);
        }
        Ok(match msr {
            msr::GUEST_OS_ID => self.guest_os_id,
            msr::HYPERCALL => self.hypercall,
            msr::RESET => 0,
            msr::TIME_REF_COUNT => now,
            msr::REFERENCE_TSC => self.reference_tsc,
            msr::TSC_FREQUENCY => self.frequencies.tsc,
            msr::APIC_FREQUENCY => self.frequencies.apic,
            _ => self.crash.read(msr).ok_or(GeneralProtection)?,
        })
    }

    /// WRMSR.
    pub fn write(&mut self, msr: u32, value: u64) -> Result<Effect, GeneralProtection> {
        if !is_offered(&self.interface, msr) {
            return Err(GeneralProtection);
        }
        match msr {
            msr::GUEST_OS_ID => self.set_guest_os_id(value),
            msr::HYPERCALL => self.set_hypercall(value)?,
            msr::RESET if value & 1 != 0 => return Ok(Effect::Reset),
            msr::RESET => {}
            msr::REFERENCE_TSC => self.set_reference_tsc(value),
            msr::CRASH_P0..=msr::CRASH_CTL => {
                return Ok(self.crash.write(msr, value).map_or(Effect::None, Effect::Crash));
            }
            // Clocks and frequencies are the host's.
            _ => return Err(GeneralProtection),
        }
        Ok(Effect::None)
    }

    /// Reference time follows by `clock` from now on, by the page too if there is one.
    pub fn set_clock(&mut self, clock: Option<ReferenceTsc>) {
        self.clock = match (clock, self.clock) {
            (Some(clock), Some(before)) => Some(clock.after(before)),
            _ => clock,
        };
        self.fill_reference_tsc();
    }

    /// Who the guest is. Nobody makes no hypercalls.
    fn set_guest_os_id(&mut self, value: u64) {
        self.guest_os_id = value;
        if value == 0 {
            self.hypercall &= !msr::ENABLE;
        }
    }

    fn set_hypercall(&mut self, value: u64) -> Result<(), GeneralProtection> {
        if self.hypercall & LOCKED != 0 {
            return Err(GeneralProtection);
        }
        // A guest that has not said who it is reads bit 0 back as 0, and knows.
        let value = if self.guest_os_id == 0 { value & !msr::ENABLE } else { value };
        if value & msr::ENABLE != 0 {
            let page = hypercall_page::contents();
            self.memory.write_slice(&page, page_of(value)).map_err(|_| GeneralProtection)?;
        }
        self.hypercall = value;
        Ok(())
    }

    /// A page that is no RAM stays what it is, as the TLFS wants it: the guest cannot read it.
    fn set_reference_tsc(&mut self, value: u64) {
        self.reference_tsc = value;
        self.fill_reference_tsc();
    }

    fn fill_reference_tsc(&self) {
        if self.reference_tsc & msr::ENABLE != 0 {
            let (clock, page) = (self.clock.as_ref(), page_of(self.reference_tsc));
            let _ = ReferenceTsc::write(clock, &self.memory, page);
        }
    }
}

/// The page that a register's bits 63:12 name.
const fn page_of(value: u64) -> GuestAddress {
    GuestAddress(value & !(PAGE_SIZE as u64 - 1))
}
