// SPDX-License-Identifier: MIT OR Apache-2.0

//! The hypercall page of an engine that does not use VMCALL or VMMCALL.
//!
//! Those instructions belong to KVM, which answers them itself. So the page leaves the guest by port
//! I/O, which is the same on every CPU, and by these ports:
//!
//! - [`signal_port`]: a fast HvSignalEvent, the call that a guest makes most. Four bytes, the connection
//!   id. An eventfd that KVM connects to just this value keeps the signal inside of the kernel: the
//!   guest goes on with EAX as it was, and the page turns that into status 0. If nobody is connected,
//!   the write ends in user space, which answers by [`signal_answer`]. KVM looks through all eventfds
//!   of a port (`virt/kvm/kvm_main.c`, `__kvm_io_bus_write`), so there are 256 ports, by the lowest
//!   byte of the id: with the 2047 channels that a bus may have, eight at most on each.
//! - [`CALL_64`] and [`CALL_32`]: everything else, in the registers of the guest's own mode. User
//!   space reads them and writes the result.
//!
//! One page serves both modes, because a guest enables it once and may use it in either: it finds
//! out which one it runs in by an instruction that is a prefix in 64-bit mode.
//!
//! No register changes but the ones of the result, RAX or EDX:EAX, and flags: FreeBSD counts on
//! RCX and RDX (`sys/dev/hyperv/vmbus/amd64`), which the TLFS allows to change. Interrupts may come
//! between any two instructions.
//!
//! Source: TLFS, "Hypercall Interface", "Establishing the Hypercall Interface", "Hypercall Inputs".

use busway_memory::PAGE_SIZE;

/// The first of the ports that fast HvSignalEvents are written to.
const SIGNALS: u16 = 0xc000;
/// The port that announces a hypercall from 64-bit mode.
pub const CALL_64: u16 = 0xe4;
/// The port that announces one from 32-bit mode.
pub const CALL_32: u16 = 0xe8;

/// The port that a fast HvSignalEvent on `connection` is written to, four bytes at once.
pub const fn signal_port(connection: u32) -> u16 {
    SIGNALS | (connection as u8 as u16) << 2
}

/// Ports that an instruction of two bytes names.
const fn short(port: u16) -> u8 {
    assert!(port < 0x100);
    port as u8
}

/// The upper half of all ports of signals.
const fn high(port: u16) -> u8 {
    assert!(port & 0x3ff == 0);
    (port >> 8) as u8
}

#[rustfmt::skip]
const CODE: [u8; 81] = [
    // For guests that track indirect branches; a no-op elsewhere.
    0xf3, 0x0f, 0x1e, 0xfa,                   // 00  endbr64
    // Sets ZF in 64-bit mode alone: there, 0x40 is a prefix of the nop.
    0x50,                                     // 04  push  rax             push  eax
    0x31, 0xc0,                               // 05  xor   eax, eax        xor   eax, eax
    0x40, 0x90,                               // 07  rex nop               inc   eax; nop
    0x58,                                     // 09  pop   rax             pop   eax
    0x74, 0x23,                               // 0a  jz    2f (64-bit mode)

    // 32-bit mode. EDX:EAX is the control word, EBX:ECX the input.
    0x3d, 0x5d, 0x00, 0x01, 0x00,             // 0c  cmp   eax, FAST_SIGNAL
    0x75, 0x19,                               // 11  jne   2c
    0x85, 0xd2,                               // 13  test  edx, edx        (no reserved bit)
    0x75, 0x15,                               // 15  jnz   2c
    0x85, 0xdb,                               // 17  test  ebx, ebx        (flag number 0)
    0x75, 0x11,                               // 19  jnz   2c
    0x89, 0xc8,                               // 1b  mov   eax, ecx        (the connection)
    0x0f, 0xb6, 0xd1,                         // 1d  movzx edx, cl         (its port)
    0xc1, 0xe2, 0x02,                         // 20  shl   edx, 2
    0x80, 0xce, high(SIGNALS),                // 23  or    dh, SIGNALS
    0xef,                                     // 26  out   dx, eax
    0x31, 0xd2,                               // 27  xor   edx, edx        (what it was)
    0x31, 0xc8,                               // 29  xor   eax, ecx        (status 0, or the answer)
    0xc3,                                     // 2b  ret
    0xe7, short(CALL_32),                     // 2c  out   CALL_32, eax    (sets EDX:EAX)
    0xc3,                                     // 2e  ret

    // 64-bit mode. RCX is the control word, RDX the input, and RAX is free.
    0x48, 0x81, 0xf9, 0x5d, 0x00, 0x01, 0x00, // 2f  cmp   rcx, FAST_SIGNAL
    0x75, 0x16,                               // 36  jne   4e
    0x89, 0xd0,                               // 38  mov   eax, edx        (the connection)
    0x48, 0x39, 0xd0,                         // 3a  cmp   rax, rdx        (flag number 0)
    0x75, 0x0f,                               // 3d  jne   4e
    0x52,                                     // 3f  push  rdx
    0x0f, 0xb6, 0xd2,                         // 40  movzx edx, dl         (its port)
    0xc1, 0xe2, 0x02,                         // 43  shl   edx, 2
    0x80, 0xce, high(SIGNALS),                // 46  or    dh, SIGNALS
    0xef,                                     // 49  out   dx, eax
    0x5a,                                     // 4a  pop   rdx
    0x31, 0xd0,                               // 4b  xor   eax, edx        (status 0, or the answer)
    0xc3,                                     // 4d  ret
    0xe7, short(CALL_64),                     // 4e  out   CALL_64, eax    (sets RAX)
    0xc3,                                     // 50  ret
];

/// INT3: who lands behind the code is told at once.
const FILLER: u8 = 0xcc;

/// The page.
pub(crate) fn contents() -> [u8; PAGE_SIZE] {
    let mut page = [FILLER; PAGE_SIZE];
    for (byte, code) in page.iter_mut().zip(CODE) {
        *byte = code;
    }
    page
}

/// What a write to a port means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortCall {
    /// A fast HvSignalEvent on this connection, with which no eventfd is connected. EAX is to
    /// become [`signal_answer`].
    Signal(u32),
    /// A hypercall in the registers of 64-bit mode.
    Call64,
    /// A hypercall in the registers of 32-bit mode.
    Call32,
}

impl PortCall {
    /// What a write of `data` to `port` means, if it means a hypercall.
    pub fn parse(port: u16, data: &[u8]) -> Option<Self> {
        let data = <[u8; 4]>::try_from(data).ok()?;
        let connection = u32::from_le_bytes(data);
        match port {
            CALL_64 => Some(Self::Call64),
            CALL_32 => Some(Self::Call32),
            port if port == signal_port(connection) => Some(Self::Signal(connection)),
            _ => None,
        }
    }
}

/// The value of EAX by which a signal on `connection` ends with `status`.
pub const fn signal_answer(connection: u32, status: u16) -> u32 {
    connection ^ status as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The control word of Linux's fast HvSignalEvent (`drivers/hv/connection.c`).
    const FAST_SIGNAL: [u8; 4] = 0x1_005d_u32.to_le_bytes();

    #[test]
    fn jumps_land_on_instructions() {
        let target = |at: usize| (at + 2).wrapping_add_signed((CODE[at + 1] as i8).into());
        assert_eq!(CODE[target(0x0a)..][..3], [0x48, 0x81, 0xf9], "64-bit mode's cmp rcx");
        for jump in [0x11, 0x15, 0x19] {
            assert_eq!(CODE[target(jump)..][..2], [0xe7, 0xe8], "32-bit mode's general call");
        }
        for jump in [0x36, 0x3d] {
            assert_eq!(CODE[target(jump)..][..2], [0xe7, 0xe4], "64-bit mode's general call");
        }
        assert_eq!(CODE[0x0d..][..4], FAST_SIGNAL);
        assert_eq!(CODE[0x32..][..4], FAST_SIGNAL);
    }

    #[test]
    fn the_page_starts_with_endbr64_and_the_rest_traps() {
        let page = contents();
        assert_eq!(page[..4], [0xf3, 0x0f, 0x1e, 0xfa]);
        assert!(page[CODE.len()..].iter().all(|&byte| byte == 0xcc));
    }

    #[test]
    fn only_whole_words_on_our_ports_are_calls() {
        assert_eq!(PortCall::parse(0xc004, &[1, 0x20, 0, 0]), Some(PortCall::Signal(0x2001)));
        assert_eq!(PortCall::parse(0xc3fc, &[0xff, 0x27, 0, 0]), Some(PortCall::Signal(0x27ff)));
        assert_eq!(PortCall::parse(0xc000, &[1, 0x20, 0, 0]), None, "the port of another");
        assert_eq!(PortCall::parse(0xe4, &[0; 4]), Some(PortCall::Call64));
        assert_eq!(PortCall::parse(0xe8, &[9; 4]), Some(PortCall::Call32));
        assert_eq!(PortCall::parse(0xe4, &[0; 2]), None);
        assert_eq!(PortCall::parse(0xe0, &[0; 4]), None);
        assert_eq!(PortCall::parse(0xe4, &[0; 8]), None);
    }

    #[test]
    fn an_answer_is_what_the_page_makes_a_status_of() {
        assert_eq!(signal_answer(0x2001, 0x12) ^ 0x2001, 0x12);
    }
}
