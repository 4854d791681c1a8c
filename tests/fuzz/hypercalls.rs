// SPDX-License-Identifier: MIT OR Apache-2.0

//! Hypercalls: control words, registers and pages of any kind.

use busway_hyperv::cpuid::{Features, Privileges, WANTED};
use busway_hyperv::hypercall::{Call, Registers, XmmHalves, decode};
use busway_memory::{Bytes, GuestAddress, GuestMemory, Region};
use busway_wire::hypercall::{Control, Status};

use crate::random::Random;

const RAM: u64 = 1 << 16;
const CODES: [u64; 14] =
    [2, 3, 8, 0xb, 0x13, 0x14, 0x15, 0x46, 0x5c, 0x5d, 0x7e, 0x8001, 0x8003, 0xffff];

pub(crate) fn case(random: &mut Random) {
    let region = Region { start: GuestAddress(0), len: RAM as usize };
    let memory = GuestMemory::allocate(&[region]).unwrap();
    let mut interface = WANTED;
    if random.one_in(4) {
        interface.features -= Features::XMM_INPUT;
    }
    if random.one_in(8) {
        interface.privileges -= random.pick(&[Privileges::POST_MESSAGES, Privileges::all()]);
    }
    for _ in 0..100 {
        let input = input(random, &memory);
        let registers = Registers { control: control(random), input, output: random.word() };
        let xmm: XmmHalves = std::array::from_fn(|_| random.word());
        let status = match decode(&registers, &interface, &memory, || xmm) {
            Ok(call) => {
                check(&call);
                Status::SUCCESS
            }
            Err(status) => status,
        };
        assert!(matches!(status.0, 0 | 2..=6), "{registers:?}: {status}");
        let done = registers.control.result(status) >> 32;
        let control = registers.control;
        assert!(done <= u64::from(control.rep_count().max(control.rep_start())));
    }
}

fn control(random: &mut Random) -> Control {
    let mut control = if random.one_in(16) { random.next() & 0xffff } else { random.pick(&CODES) };
    if random.one_in(2) {
        control |= 1 << 16;
    }
    if random.one_in(2) {
        let units = random.pick(&[8, 8, 8, 0x400]);
        control |= random.below(units) << 17;
    }
    if random.one_in(2) {
        let count = random.pick(&[8, 8, 8, 0x1000]);
        control |= random.below(count) << 32;
    }
    if random.one_in(4) {
        control |= random.below(8) << 48;
    }
    if random.one_in(16) {
        control |= random.word();
    }
    Control(control)
}

/// An address with something at it, mostly.
fn input(random: &mut Random, memory: &GuestMemory) -> u64 {
    if random.one_in(4) {
        return random.word();
    }
    let address = random.below(RAM / 8) * 8;
    for index in 0..36 {
        let _ = memory.write_obj(random.word(), GuestAddress(address + index * 8));
    }
    if random.one_in(2) {
        // The length of a message's payload.
        let _ = memory.write_obj(random.below(300) as u32, GuestAddress(address + 12));
    }
    address
}

fn check(call: &Call) {
    match call {
        Call::PostMessage(message) => assert!(message.0.payload_len <= 240),
        Call::SendIpi(vector, vps) => {
            assert!(*vector >= 16);
            assert!(vps.iter(64).all(|vp| vp < 64));
        }
        Call::FlushTlb(vps) => assert!(vps.iter(64).count() <= 64),
        Call::QueryCapabilities { output } => assert!(output.is_multiple_of(8)),
        Call::Discard(ranges) => assert!((1..512).contains(&ranges.len())),
        Call::SignalEvent { .. } | Call::LongSpinWait => {}
    }
}
