// SPDX-License-Identifier: MIT OR Apache-2.0

//! What of the firmware is in guest memory: a table of interrupt vectors, and the code behind them, which hands
//! most of them to busway.
//!
//! Source: the PC's interrupt vectors and BIOS data area; Intel 8259A and 8254 for the code that a PC's
//! firmware sets them up with.

use busway_memory::{Bytes, GuestAddress, GuestMemory};
use vm_memory::GuestMemoryError;

use crate::devices::ports;
use crate::memory::layout;

/// The segment of the code.
pub const SEGMENT: u16 = 0xf000;
/// Where in it the first processor starts.
pub const START: u16 = 0x460;
/// Where in the BIOS data area, from address 0, the timer counts its ticks.
pub const TICKS: u64 = 0x46c;
/// Where it says how many KiB of conventional memory there are.
pub const MEMORY_SIZE: u64 = 0x413;

const VECTORS: u16 = 256;
/// Bytes of code for each vector that is busway's.
const CALL_LEN: u16 = 4;
const TICK: u16 = 0x400;
const END_OF_INTERRUPT: u16 = 0x420;
const END_OF_INTERRUPTS: u16 = 0x440;

/// The vectors of the first interrupt controller's lines, of which the first is the timer's.
const TIMER: u16 = 0x08;
const FIRST_LINES: std::ops::RangeInclusive<u16> = 0x09..=0x0f;
const SECOND_LINES: std::ops::RangeInclusive<u16> = 0x70..=0x77;

#[rustfmt::skip]
const TICK_CODE: [u8; 17] = [
    0x50,                               // push ax
    0x1e,                               // push ds
    0x31, 0xc0,                         // xor ax, ax
    0x8e, 0xd8,                         // mov ds, ax
    0x66, 0xff, 0x06, 0x6c, 0x04,       // inc dword [TICKS]
    0x1f,                               // pop ds
    0xb0, 0x20,                         // mov al, end of interrupt
    0xe6, 0x20,                         // out 0x20, al
    0x58,                               // pop ax
];

#[rustfmt::skip]
const END_OF_INTERRUPT_CODE: [u8; 6] = [
    0x50,                               // push ax
    0xb0, 0x20,                         // mov al, end of interrupt
    0xe6, 0x20,                         // out 0x20, al
    0x58,                               // pop ax
];

#[rustfmt::skip]
const END_OF_INTERRUPTS_CODE: [u8; 8] = [
    0x50,                               // push ax
    0xb0, 0x20,                         // mov al, end of interrupt
    0xe6, 0xa0,                         // out 0xa0, al
    0xe6, 0x20,                         // out 0x20, al
    0x58,                               // pop ax
];

const IRET: u8 = 0xcf;

/// What a PC's firmware writes to which ports before it starts anything: the interrupt controllers get their
/// vectors, with the timer alone let through, and the timer ticks 18.2 times a second.
const SETTINGS: [(u8, u8); 13] = [
    (0x20, 0x11),
    (0xa0, 0x11),
    (0x21, TIMER as u8),
    (0xa1, 0x70),
    (0x21, 0x04),
    (0xa1, 0x02),
    (0x21, 0x01),
    (0xa1, 0x01),
    (0x21, 0xfa),
    (0xa1, 0xff),
    (0x43, 0x34),
    (0x40, 0x00),
    (0x40, 0x00),
];

/// The vector whose code a processor is in at `offset` of [`SEGMENT`].
pub fn vector_at(offset: u64) -> Option<u8> {
    u8::try_from(offset / u64::from(CALL_LEN)).ok()
}

/// Writes all of it, for a processor that goes on at the beginning of segment `next`.
pub fn write(memory: &GuestMemory, next: u16) -> Result<(), GuestMemoryError> {
    for vector in 0..VECTORS {
        let entry = [offset_of(vector), SEGMENT];
        memory.write_obj(entry, GuestAddress(u64::from(vector) * 4))?;
        write_code(memory, vector * CALL_LEN, &[0xe6, ports::FIRMWARE as u8, IRET])?;
    }
    write_code(memory, TICK, &ending(&TICK_CODE))?;
    write_code(memory, END_OF_INTERRUPT, &ending(&END_OF_INTERRUPT_CODE))?;
    write_code(memory, END_OF_INTERRUPTS, &ending(&END_OF_INTERRUPTS_CODE))?;
    write_code(memory, START, &start(next))?;
    memory.write_obj((layout::LOW_RAM_END >> 10) as u16, GuestAddress(MEMORY_SIZE))
}

const fn in_segment(offset: u16) -> GuestAddress {
    GuestAddress(((SEGMENT as u64) << 4) + offset as u64)
}

fn write_code(memory: &GuestMemory, offset: u16, code: &[u8]) -> Result<(), GuestMemoryError> {
    memory.write_slice(code, in_segment(offset))
}

fn offset_of(vector: u16) -> u16 {
    match vector {
        TIMER => TICK,
        _ if FIRST_LINES.contains(&vector) => END_OF_INTERRUPT,
        _ if SECOND_LINES.contains(&vector) => END_OF_INTERRUPTS,
        _ => vector * CALL_LEN,
    }
}

// No piece runs into the next, its last instruction included.
const _: () = assert!(TICK >= VECTORS * CALL_LEN);
const _: () = assert!(TICK as usize + TICK_CODE.len() < END_OF_INTERRUPT as usize);
const _: () =
    assert!(END_OF_INTERRUPT as usize + END_OF_INTERRUPT_CODE.len() < END_OF_INTERRUPTS as usize);
const _: () = assert!(END_OF_INTERRUPTS as usize + END_OF_INTERRUPTS_CODE.len() < START as usize);

fn ending(code: &[u8]) -> Vec<u8> {
    [code, &[IRET]].concat()
}

fn start(next: u16) -> Vec<u8> {
    let mut code = Vec::new();
    for (port, value) in SETTINGS {
        code.extend([0xb0, value, 0xe6, port]); // mov al, value; out port, al
    }
    let [low, high] = next.to_le_bytes();
    code.push(0xfb); // sti
    code.extend([0xea, 0, 0, low, high]); // jmp next:0
    code
}

#[cfg(test)]
mod tests {
    use busway_memory::Region;

    use super::*;

    #[test]
    fn each_vector_leads_to_code() {
        let region = Region { start: GuestAddress(0), len: 1 << 20 };
        let memory = GuestMemory::allocate(&[region]).unwrap();
        write(&memory, 0x1020).unwrap();
        for vector in 0..256_u64 {
            let [offset, segment] = memory.read_obj::<[u16; 2]>(GuestAddress(vector * 4)).unwrap();
            let at = (u64::from(segment) << 4) + u64::from(offset);
            let first: u8 = memory.read_obj(GuestAddress(at)).unwrap();
            let line = matches!(vector, 8..=15 | 0x70..=0x77);
            assert_eq!(first, if line { 0x50 } else { 0xe6 }, "vector {vector:#x}");
            // KVM may have the instruction before it or behind it.
            let seen = [offset, offset + 2].map(|offset| vector_at(offset.into()));
            assert!(line || seen == [Some(vector as u8); 2], "vector {vector:#x}");
        }
        assert_eq!(vector_at(START.into()), None);
        assert_eq!(memory.read_obj::<u16>(GuestAddress(0x413)).unwrap(), 639);
    }
}
