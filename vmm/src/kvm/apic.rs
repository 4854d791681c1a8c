// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's local APIC, which is KVM's, written from outside: what the APIC MSRs of Hyper-V ask
//! for.
//!
//! KVM has no call for any of this, so the APIC's whole state is read, changed and written back on
//! its own vCPU's thread. That is slow, and guests are not told to come this way.
//!
//! Source: Intel SDM volume 3A, "Local APIC Registers", "Interrupt Command Register (ICR)".

use std::io;

use kvm_bindings::kvm_lapic_state;
use kvm_ioctls::{VcpuFd, VmFd};

use super::cpuid::Place;
use super::interrupts::{self, Msi};

/// Something to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApicWrite {
    /// EOI. Nothing here is level-triggered, so no other chip has to hear of it.
    EndOfInterrupt,
    /// ICR: the high half is bits 63:32.
    InterruptCommand(u64),
    /// TPR.
    TaskPriority(u8),
}

// Offsets of registers, each 16 bytes from the next.
const TASK_PRIORITY: usize = 0x80;
const IN_SERVICE: usize = 0x100;

/// Vectors are in eight registers of 32 bits.
const VECTOR_WORDS: usize = 8;

/// TPR of `vcpu`.
pub(super) fn task_priority(vcpu: &VcpuFd) -> io::Result<u8> {
    Ok(vcpu.get_lapic()?.regs[TASK_PRIORITY].cast_unsigned())
}

/// Writes to the APIC of `vcpu`, whose place is `own`; commands go to the others through `vm`.
pub(super) fn write(vm: &VmFd, vcpu: &VcpuFd, own: Place, write: ApicWrite) -> io::Result<()> {
    match write {
        ApicWrite::EndOfInterrupt => {
            let mut state = vcpu.get_lapic()?;
            if end_highest(&mut state) {
                vcpu.set_lapic(&state)?;
            }
        }
        ApicWrite::TaskPriority(priority) => {
            let mut state = vcpu.get_lapic()?;
            state.regs[TASK_PRIORITY] = priority.cast_signed();
            vcpu.set_lapic(&state)?;
        }
        ApicWrite::InterruptCommand(command) => {
            for msi in messages(command, own) {
                interrupts::send(vm, msi);
            }
        }
    }
    Ok(())
}

/// Clears the highest vector in service; false if there was none.
fn end_highest(state: &mut kvm_lapic_state) -> bool {
    for word in (0..VECTOR_WORDS).rev() {
        for byte in (0..4).rev() {
            let bits = &mut state.regs[IN_SERVICE + word * 16 + byte];
            let value = bits.cast_unsigned();
            if let Some(highest) = value.checked_ilog2() {
                *bits = (value & !(1 << highest)).cast_signed();
                return true;
            }
        }
    }
    false
}

/// What an ICR value sends, from the processor at `own`.
fn messages(command: u64, own: Place) -> Vec<Msi> {
    // Vector and delivery mode have the same place in a message.
    const MESSAGE: u64 = 0x7ff;
    const LOGICAL: u64 = 1 << 11;
    let data = (command & MESSAGE) as u32;
    let destination = (command >> 56) as u32;
    let to = |apic| Msi::new(apic, false, data);
    match command >> 18 & 3 {
        0 => vec![Msi::new(destination, command & LOGICAL != 0, data)],
        1 => vec![to(own.index)],
        2 => (0..own.count).map(to).collect(),
        _ => (0..own.count).filter(|&apic| apic != own.index).map(to).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(vectors: &[usize]) -> kvm_lapic_state {
        let mut state = kvm_lapic_state { regs: [0; 1024] };
        for vector in vectors {
            state.regs[0x100 + vector / 32 * 16 + vector % 32 / 8] |=
                (1_u8 << (vector % 8)).cast_signed();
        }
        state
    }

    #[test]
    fn the_interrupt_that_ends_is_the_highest() {
        let mut apic = state(&[0x31, 0xf3, 0x9f]);
        for rest in [&[0x31, 0x9f][..], &[0x31], &[]] {
            assert!(end_highest(&mut apic));
            assert_eq!(apic.regs, state(rest).regs);
        }
        assert!(!end_highest(&mut apic));
    }

    #[test]
    fn a_command_is_a_message() {
        let own = Place { index: 1, count: 3 };
        assert_eq!(messages(3 << 56 | 0xf3, own), [Msi::fixed(3, 0xf3)]);
        // NMI, logical.
        assert_eq!(messages(3 << 56 | 1 << 11 | 4 << 8, own), [Msi::new(3, true, 0x400)]);
        assert_eq!(messages(1 << 18 | 0x40, own), [Msi::fixed(1, 0x40)]);
        assert_eq!(messages(2 << 18 | 0x40, own), [0, 1, 2].map(|apic| Msi::fixed(apic, 0x40)));
        assert_eq!(messages(3 << 18 | 0x40, own), [0, 2].map(|apic| Msi::fixed(apic, 0x40)));
    }
}
