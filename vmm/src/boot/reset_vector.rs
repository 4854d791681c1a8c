// SPDX-License-Identifier: MIT OR Apache-2.0

//! The place where a PC's firmware starts, with the only thing that a guest expects of it.
//!
//! Linux on hardware-reduced ACPI asks EFI for a reset, and when there is none it returns to real
//! mode and jumps here (Linux `arch/x86/kernel/reboot.c`, BOOT_BIOS).

use busway_memory::{Bytes, GuestAddress, GuestMemory};
use vm_memory::GuestMemoryError;

use crate::devices::ports;

/// F000:FFF0.
const RESET_VECTOR: u64 = 0xf_fff0;

const RESET_PORT: [u8; 2] = ports::RESET.to_le_bytes();

#[rustfmt::skip]
const CODE: [u8; 9] = [
    0xba, RESET_PORT[0], RESET_PORT[1], // mov dx, RESET
    0xb0, ports::RESET_NOW,             // mov al, RESET_NOW
    0xee,                               // out dx, al
    0xf4,                               // hlt
    0xeb, 0xfd,                         // jmp to the hlt
];

/// Writes it.
pub(super) fn write(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    memory.write_slice(&CODE, GuestAddress(RESET_VECTOR))
}
