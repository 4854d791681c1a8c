// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a PC's BIOS does for a program that starts in real mode, as boot loaders do: the memory map, a screen and
//! a keyboard, which are the serial port here, and nothing to boot from. [`rom`] is the part that the guest
//! executes; it writes to a port, and busway finds in the processor's registers what is wanted.
//!
//! Source: Linux `Documentation/arch/x86/boot.rst` and `arch/x86/boot/memory.c`, iPXE
//! `src/arch/x86/interface/pcbios` for what is asked; ACPI 6.5, 15.1 for the memory map.

use std::sync::{Arc, Mutex};

use busway_memory::{Bytes, GuestAddress, GuestMemory};

use crate::boot::e820;
use crate::devices::serial::SerialPort;
use crate::lock;
use crate::memory::Layout;

pub mod rom;

/// A processor's registers in a BIOS call, the lower halves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// EAX, the function in AH or AX; most answers.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
    /// ES:DI as an address.
    pub buffer: u64,
    /// IP.
    pub offset: u64,
    /// SS:SP as an address, where IP, CS and the flags of the caller are.
    pub frame: u64,
}

impl Call {
    const fn ax(&self) -> u16 {
        self.eax as u16
    }

    const fn ah(&self) -> u8 {
        (self.eax >> 8) as u8
    }

    const fn set_ax(&mut self, value: u16) {
        self.eax = self.eax & 0xffff_0000 | value as u32;
    }

    const fn set_ah(&mut self, value: u8) {
        self.eax = self.eax & 0xffff_00ff | (value as u32) << 8;
    }
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With flags as they were.
    Done,
    /// With the carry flag clear.
    Good,
    /// With the carry flag set.
    Bad,
    /// With the zero flag, which says that no key is there.
    NoKey(bool),
    /// The guest cannot go on.
    End(&'static str),
}

/// The part that the guest does not see.
pub struct Firmware {
    memory: GuestMemory,
    map: Layout,
    serial: Arc<Mutex<SerialPort>>,
    /// A character that was looked at and not taken.
    key: Mutex<Option<u8>>,
}

const CARRY: u16 = 1;
const ZERO: u16 = 1 << 6;
/// From the frame to the flags in it.
const FLAGS: u64 = 4;
const SMAP: u32 = 0x534d_4150;
const MIB: u64 = 1 << 20;
/// AH of a call that does not exist.
const UNSUPPORTED: u8 = 0x86;
/// The serial port's line status, its bit for a received character, and its data.
const LINE_STATUS: u16 = 5;
const DATA_READY: u8 = 1;
const DATA: u16 = 0;

impl Firmware {
    /// That of a machine with this memory, whose screen and keyboard are `serial`.
    pub fn new(memory: GuestMemory, map: Layout, serial: Arc<Mutex<SerialPort>>) -> Self {
        Self { memory, map, serial, key: Mutex::default() }
    }

    /// Does what `call` wants, and puts the answer into it and into the flags on the guest's stack. Says why
    /// if the guest cannot go on.
    pub fn serve(&self, call: &mut Call) -> Option<&'static str> {
        let answer = match rom::vector_at(call.offset) {
            Some(vector) => self.answer(vector, call),
            None => Answer::Done,
        };
        let (set, clear) = match answer {
            Answer::Done => return None,
            Answer::Good => (0, CARRY),
            Answer::Bad => (CARRY, 0),
            Answer::NoKey(true) => (ZERO, 0),
            Answer::NoKey(false) => (0, ZERO),
            Answer::End(how) => return Some(how),
        };
        let flags = GuestAddress(call.frame.wrapping_add(FLAGS));
        // A guest whose stack is nowhere finds its flags nowhere.
        if let Ok(value) = self.memory.read_obj::<u16>(flags) {
            let _ = self.memory.write_obj(value & !clear | set, flags);
        }
        None
    }

    fn answer(&self, vector: u8, call: &mut Call) -> Answer {
        match vector {
            0x00 | 0x06 => Answer::End("an exception in real mode"),
            0x10 => self.screen(call),
            0x11 => {
                call.set_ax(0);
                Answer::Done
            }
            0x12 => {
                call.set_ax(self.memory.read_obj(GuestAddress(rom::MEMORY_SIZE)).unwrap_or(0));
                Answer::Done
            }
            // No disk: only the guest's own drivers know VMBus.
            0x13 => {
                call.set_ah(1);
                Answer::Bad
            }
            0x15 => self.system(call),
            0x16 => self.keyboard(call),
            0x18 | 0x19 => {
                Answer::End("it left its boot loader, and the firmware has nothing else to boot")
            }
            0x1a => self.time(call),
            _ => Answer::Done,
        }
    }

    fn screen(&self, call: &mut Call) -> Answer {
        match call.ah() {
            // The cursor: in the corner.
            0x03 => (call.ecx, call.edx) = (0x0607, 0),
            // The character beneath it: a blank, light grey on black.
            0x08 => call.set_ax(0x0720),
            0x0e => lock(&self.serial).write(DATA, call.eax as u8),
            // Mode 3, 80 columns.
            0x0f => {
                call.set_ax(80 << 8 | 3);
                call.ebx &= 0xffff_00ff;
            }
            _ => {}
        }
        Answer::Done
    }

    fn keyboard(&self, call: &mut Call) -> Answer {
        match call.ah() {
            // Whoever has not asked before whether there is one gets none.
            0x00 | 0x10 => {
                let key = self.look_at_key();
                *lock(&self.key) = None;
                call.set_ax(key.unwrap_or(0).into());
                Answer::Done
            }
            0x01 | 0x11 => {
                let key = self.look_at_key();
                call.set_ax(key.unwrap_or(0).into());
                Answer::NoKey(key.is_none())
            }
            0x02 | 0x12 => {
                call.set_ax(0);
                Answer::Done
            }
            _ => Answer::Done,
        }
    }

    fn look_at_key(&self) -> Option<u8> {
        let mut key = lock(&self.key);
        if key.is_none() {
            let mut serial = lock(&self.serial);
            if serial.read(LINE_STATUS) & DATA_READY != 0 {
                *key = Some(serial.read(DATA));
            }
        }
        *key
    }

    fn system(&self, call: &mut Call) -> Answer {
        let above_1 = self.map.low_ram_end().saturating_sub(MIB);
        match call.ax() {
            0xe820 => return self.memory_map(call),
            // KiB from 1 to 16 MiB, and 64 KiB each from there on.
            0xe801 => {
                let low = (above_1.min(15 * MIB) >> 10) as u32;
                let high = (above_1.saturating_sub(15 * MIB) >> 16) as u32;
                (call.ebx, call.ecx, call.edx) = (high, low, high);
                call.set_ax(low as u16);
            }
            // KiB above 1 MiB, of 64 MiB.
            ax if ax >> 8 == 0x88 => call.set_ax((above_1.min(63 * MIB) >> 10) as u16),
            // Line A20 is on for good.
            0x2401 => call.set_ah(0),
            0x2402 => call.set_ax(1),
            0x2403 => {
                call.set_ah(0);
                call.ebx = 2;
            }
            _ => {
                call.set_ah(UNSUPPORTED);
                return Answer::Bad;
            }
        }
        Answer::Good
    }

    /// One entry of the memory map, by its number in EBX.
    fn memory_map(&self, call: &mut Call) -> Answer {
        let entries = e820(&self.map);
        let number = call.ebx as usize;
        let Some(&entry) = entries.get(number) else {
            call.set_ah(UNSUPPORTED);
            return Answer::Bad;
        };
        let bytes = [entry.addr.to_le_bytes(), entry.size.to_le_bytes()].concat();
        let kind = entry.r#type.to_le_bytes();
        if self
            .memory
            .write_slice(&[&bytes[..], &kind].concat(), GuestAddress(call.buffer))
            .is_err()
        {
            call.set_ah(UNSUPPORTED);
            return Answer::Bad;
        }
        let next = number + 1;
        call.ebx = if next < entries.len() { next as u32 } else { 0 };
        (call.eax, call.ecx) = (SMAP, 20);
        Answer::Good
    }

    fn time(&self, call: &mut Call) -> Answer {
        if call.ah() != 0 {
            // Neither the clock nor PCI.
            call.set_ah(0x81);
            return Answer::Bad;
        }
        let ticks: u32 = self.memory.read_obj(GuestAddress(rom::TICKS)).unwrap_or(0);
        (call.ecx, call.edx) = (ticks >> 16, ticks & 0xffff);
        call.eax &= 0xffff_ff00;
        Answer::Good
    }
}

#[cfg(test)]
mod tests;
