// SPDX-License-Identifier: MIT OR Apache-2.0

//! Control words and inputs are spelled out as the TLFS lays them out; status codes are its numbers.

use busway_memory::Region;

use super::*;
use crate::cpuid::WANTED;

const RAM: usize = 0x8000;

struct Guest {
    memory: GuestMemory,
    interface: Interface,
}

impl Guest {
    fn new() -> Self {
        let region = Region { start: GuestAddress(0), len: RAM };
        Self { memory: GuestMemory::allocate(&[region]).unwrap(), interface: WANTED }
    }

    fn write(&self, address: u64, words: &[u64]) -> u64 {
        self.memory.write_slice(words.as_bytes(), GuestAddress(address)).unwrap();
        address
    }

    fn slow(&self, control: u64, input: u64) -> Result<Call, u16> {
        let no_xmm = || unreachable!("XMM registers hold no slow input");
        let registers = Registers { control: Control(control), input, output: 0 };
        decode(&registers, &self.interface, &self.memory, no_xmm).map_err(|status| status.0)
    }

    fn fast(&self, control: u64, input: u64, output: u64, xmm: &[u64]) -> Result<Call, u16> {
        let mut halves = [0; 12];
        halves[..xmm.len()].copy_from_slice(xmm);
        let control = Control(control | 1 << 16);
        let registers = Registers { control, input, output };
        decode(&registers, &self.interface, &self.memory, || halves).map_err(|status| status.0)
    }
}

fn vps(call: &Call) -> Vec<u32> {
    match call {
        Call::FlushTlb(set) | Call::SendIpi(_, set) => set.iter(200).collect(),
        other => panic!("{other:?}"),
    }
}

const fn varhead(words: u64) -> u64 {
    words << 17
}

const fn reps(start: u64, count: u64) -> u64 {
    start << 48 | count << 32
}

#[test]
fn a_message_is_copied_from_the_guests_page() {
    let guest = Guest::new();
    let input = guest.write(0x2000, &[4, 1 | 8 << 32, 0x0f]);
    let Ok(Call::PostMessage(message)) = guest.slow(0x5c, input) else {
        panic!("no message");
    };
    assert_eq!((message.0.connection_id, message.0.payload_len), (4, 8));
    assert_eq!(message.0.payload[..8], [15, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_message_has_bounds() {
    let guest = Guest::new();
    let input = guest.write(0x2000, &[4, 1 | 241 << 32]);
    assert_eq!(guest.slow(0x5c, input), Err(5), "payload too long");
    guest.write(0x2f00, &[4, 1 | 240 << 32]);
    assert!(guest.slow(0x5c, 0x2f00).is_ok(), "the last place in a page where it fits");
    assert_eq!(guest.slow(0x5c, 0x2f08), Err(4), "crosses a page");
    assert_eq!(guest.slow(0x5c, 0x2004), Err(4), "not aligned");
    assert_eq!(guest.slow(0x5c, RAM as u64), Err(4), "no RAM");
    assert_eq!(guest.slow(0x5c, !0xfff), Err(4), "no RAM");
    assert_eq!(guest.fast(0x5c, input, 0, &[]), Err(3), "never fast");
}

#[test]
fn a_signal_is_slow_or_fast() {
    let guest = Guest::new();
    let signal = Ok(Call::SignalEvent { connection: 0x2001 });
    let input = guest.write(0x3ff8, &[0x2001]);
    assert_eq!(guest.slow(0x5d, input), signal);
    assert_eq!(guest.fast(0x5d, 0x2001, 99, &[]), signal);
    assert_eq!(guest.fast(0x5d, 1 << 32 | 0x2001, 0, &[]), Err(5), "a second flag");
    assert_eq!(guest.fast(0x5d, 1 << 48 | 0x2001, 0, &[]), Err(5), "reserved");
    assert_eq!(guest.slow(0x5d, input + 4), Err(4));
}

#[test]
fn what_the_control_word_may_not_say() {
    let guest = Guest::new();
    for bit in [27, 30, 31, 44, 47, 60, 63] {
        assert_eq!(guest.fast(0x5d | 1 << bit, 1, 0, &[]), Err(3), "bit {bit}");
    }
    assert_eq!(guest.fast(0x5d | reps(0, 1), 1, 0, &[]), Err(3), "no rep call");
    assert_eq!(guest.fast(0x5d | reps(1, 0), 1, 0, &[]), Err(3), "no rep call");
    assert_eq!(guest.fast(0x5d | varhead(1), 1, 0, &[]), Err(3), "no variable header");
    assert_eq!(guest.slow(0x03, 0x2000), Err(3), "a rep call without repetitions");
    assert_eq!(guest.slow(0x03 | reps(2, 2), 0x2000), Err(3), "nothing left of it");
    for code in [0, 1, 0x46, 0x7e, 0x8002, 0x8004, 0xffff] {
        assert_eq!(guest.slow(code, 0x2000), Err(2), "{code:#x}");
    }
}

#[test]
fn privileges_are_those_of_cpuid() {
    let mut guest = Guest::new();
    guest.interface.privileges -= Privileges::POST_MESSAGES;
    assert_eq!(guest.slow(0x5c, 0x2000), Err(6));
    assert!(guest.fast(0x5d, 1, 0, &[]).is_ok());
    guest.interface.privileges = Privileges::empty();
    assert_eq!(guest.fast(0x5d, 1, 0, &[]), Err(6));
}

/// What Linux's hv_query_ext_cap and hv_free_page_report put into registers and page.
#[test]
fn the_extended_calls_are_a_question_and_a_list() {
    let mut guest = Guest::new();
    assert_eq!(guest.slow(0x8001, 0), Ok(Call::QueryCapabilities { output: 0 }));
    assert_eq!(guest.fast(0x8001, 0, 0, &[]), Err(3), "never fast");
    let registers = Registers { control: Control(0x8001), input: 0, output: 4 };
    let odd = decode(&registers, &guest.interface, &guest.memory, || [0; 12]);
    assert_eq!(odd, Err(Status::INVALID_ALIGNMENT));

    let ranges = [7 << 21 | 1 << 11, 9 << 21 | 1 << 11];
    let input = guest.write(0x2000, &[2, ranges[0], ranges[1]]);
    let discard = |ranges: &[u64]| Ok(Call::Discard(ranges.iter().map(|&r| GpaRange(r)).collect()));
    assert_eq!(guest.slow(0x8003 | reps(0, 2), input), discard(&ranges));
    assert_eq!(guest.slow(0x8003 | reps(1, 2), input), discard(&ranges[1..]));
    assert_eq!(guest.slow(0x8003, input), Err(3), "no ranges");
    assert_eq!(guest.slow(0x8003 | reps(0, 512), input), Err(4), "crosses the page");
    guest.write(0x2000, &[1]);
    assert_eq!(guest.slow(0x8003 | reps(0, 2), input), Err(5), "hot");

    guest.interface.privileges -= Privileges::EXTENDED_HYPERCALLS;
    assert_eq!(guest.slow(0x8001, 0), Err(2));
    assert_eq!(guest.slow(0x8003 | reps(0, 2), input), Err(2));
}

#[test]
fn a_flush_names_vps_by_mask() {
    let guest = Guest::new();
    let input = guest.write(0x2000, &[0x1234_5000, 0, 0b101]);
    assert_eq!(vps(&guest.slow(0x02, input).unwrap()), [0, 2]);
    assert_eq!(vps(&guest.fast(0x02, 0x1234_5000, 0, &[0b101]).unwrap()), [0, 2]);
    guest.write(0x2000, &[0x1234_5000, 1, 0b101]);
    assert_eq!(guest.slow(0x02, input), Ok(Call::FlushTlb(VpSet::All)), "the flag wins");
    guest.write(0x2000, &[0, 2, 0]);
    assert_eq!(guest.slow(0x02, input), Ok(Call::FlushTlb(VpSet::All)), "nobody is everybody");
    guest.write(0x2000, &[0, 1 << 4, 1]);
    assert_eq!(guest.slow(0x02, input), Err(5), "an unknown flag");
}

#[test]
fn a_list_has_to_fit_into_the_page() {
    let guest = Guest::new();
    let input = guest.write(0x2000, &[0, 0, 1, 0x7000]);
    assert!(guest.slow(0x03 | reps(0, 509), input).is_ok());
    assert_eq!(guest.slow(0x03 | reps(0, 510), input), Err(4));
    // 24 bytes of header, and 11 elements in what is left of the registers.
    assert!(guest.fast(0x03 | reps(0, 11), 0, 0, &[1]).is_ok());
    assert_eq!(guest.fast(0x03 | reps(0, 12), 0, 0, &[1]), Err(3));
}

#[test]
fn a_sparse_set_is_the_variable_header() {
    let guest = Guest::new();
    let input = guest.write(0x2000, &[0, 0, 0, 0b110, 1 << 1, 1 << 2]);
    assert_eq!(vps(&guest.slow(0x13 | varhead(2), input).unwrap()), [65, 130]);
    let fast = guest.fast(0x13 | varhead(2), 0, 0, &[0, 0b110, 1 << 1, 1 << 2]);
    assert_eq!(vps(&fast.unwrap()), [65, 130]);
    assert_eq!(guest.slow(0x13 | varhead(1), input), Err(5), "a word too few");
    assert_eq!(guest.slow(0x13 | varhead(3), input), Err(5), "a word too many");
    let list = guest.slow(0x14 | varhead(2) | reps(0, 3), input);
    assert_eq!(vps(&list.unwrap()), [65, 130]);
    assert_eq!(guest.slow(0x14 | varhead(2) | reps(0, 507), input), Err(4), "beyond the page");
    assert_eq!(guest.slow(0x13 | varhead(1023), input), Err(4), "beyond the page");
    assert_eq!(guest.fast(0x13 | varhead(11), 0, 0, &[]), Err(3), "beyond the registers");
}

#[test]
fn an_ipi_has_a_vector_and_vps() {
    let guest = Guest::new();
    let ipi = guest.fast(0x0b, 0xf3, 0b11, &[]).unwrap();
    assert!(matches!(ipi, Call::SendIpi(0xf3, _)));
    assert_eq!(vps(&ipi), [0, 1]);
    let input = guest.write(0x2000, &[0xf3, 0b11]);
    assert_eq!(guest.slow(0x0b, input), Ok(ipi));
    assert_eq!(guest.fast(0x0b, 0x0f, 1, &[]), Err(5), "an exception");
    assert_eq!(guest.fast(0x0b, 0x100, 1, &[]), Err(5), "no vector");
    assert_eq!(guest.fast(0x0b, 1 << 32 | 0xf3, 1, &[]), Err(5), "another trust level");
    assert_eq!(guest.fast(0x0b, 1 << 40 | 0xf3, 1, &[]), Err(5), "reserved");
}

/// RDX, R8 and the lower half of XMM0 are the fixed part (Linux `arch/x86/hyperv/hv_apic.c`,
/// `struct hv_send_ipi_ex`).
#[test]
fn an_ipi_to_a_sparse_set() {
    let guest = Guest::new();
    let ipi = guest.fast(0x15 | varhead(1), 0x40, 0, &[0b10, 1 << 3]).unwrap();
    assert_eq!(vps(&ipi), [67]);
    let input = guest.write(0x2000, &[0x40, 0, 0b10, 1 << 3]);
    assert_eq!(guest.slow(0x15 | varhead(1), input), Ok(ipi));
    let all = Call::SendIpi(0x40, VpSet::All);
    assert_eq!(guest.fast(0x15, 0x40, 1, &[]), Ok(all));
    assert_eq!(guest.fast(0x15, 0x40, 7, &[]), Err(5), "no such format");
}

#[test]
fn xmm_registers_are_used_only_where_they_are_offered() {
    let mut guest = Guest::new();
    guest.interface.features -= Features::XMM_INPUT;
    assert_eq!(guest.fast(0x02, 0, 0, &[1]), Err(3));
    assert!(guest.fast(0x0b, 0x40, 1, &[]).is_ok(), "two registers are enough");
}

#[test]
fn a_long_spin_wait_is_heard() {
    assert_eq!(Guest::new().fast(0x08, 0xfff, 0, &[]), Ok(Call::LongSpinWait));
}
