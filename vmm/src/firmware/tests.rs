// SPDX-License-Identifier: MIT OR Apache-2.0

use busway_memory::Region;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::spec::SerialSpec;

const STACK: u64 = 0x7000;
const BUFFER: u64 = 0x8000;
const MIB_128: u64 = 128 << 20;

fn firmware() -> Firmware {
    let region = Region { start: GuestAddress(0), len: 1 << 20 };
    let memory = GuestMemory::allocate(&[region]).unwrap();
    rom::write(&memory, 0x1020).unwrap();
    let event = || EventFd::new(EFD_NONBLOCK).unwrap();
    let output = crate::console::Console::open(&SerialSpec::Null).unwrap().output();
    let serial = Arc::new(Mutex::new(SerialPort::new(event(), event(), output)));
    Firmware::new(memory, Layout::new(MIB_128), serial)
}

/// INT `vector` with these registers, and the flags that its caller had; the flags that it gets.
fn call(firmware: &Firmware, vector: u8, call: &mut Call, flags: u16) -> u16 {
    (call.offset, call.frame) = (u64::from(vector) * 4 + 2, STACK);
    firmware.memory.write_obj([0x1234, 0x5678, flags], GuestAddress(STACK)).unwrap();
    assert_eq!(firmware.serve(call), None);
    let [ip, cs, flags] = firmware.memory.read_obj(GuestAddress(STACK)).unwrap();
    assert_eq!([ip, cs], [0x1234, 0x5678]);
    flags
}

/// As Linux walks it (`arch/x86/boot/memory.c`): until EBX is 0 again.
#[test]
fn the_memory_map_has_all_of_the_ram() {
    let firmware = firmware();
    let (mut next, mut usable) = (0, 0);
    loop {
        let mut asked = Call {
            eax: 0xe820,
            ebx: next,
            ecx: 24,
            edx: 0x534d_4150,
            buffer: BUFFER,
            ..Call::default()
        };
        assert_eq!(call(&firmware, 0x15, &mut asked, 0x203), 0x202, "no carry");
        assert_eq!((asked.eax, asked.ecx), (0x534d_4150, 20));
        let [_, size, kind] = firmware.memory.read_obj::<[u64; 3]>(GuestAddress(BUFFER)).unwrap();
        usable += if kind as u32 == 1 { size } else { 0 };
        next = asked.ebx;
        if next == 0 {
            break;
        }
    }
    assert_eq!(usable, MIB_128 - (0x10_0000 - 0x9_fc00));
    let mut beyond = Call { eax: 0xe820, ebx: 77, ..Call::default() };
    assert_eq!(call(&firmware, 0x15, &mut beyond, 0x202), 0x203, "carry");
}

#[test]
fn a_map_that_goes_nowhere_is_refused() {
    let firmware = firmware();
    let mut asked = Call { eax: 0xe820, buffer: 0xf_ffff, ..Call::default() };
    assert_eq!(call(&firmware, 0x15, &mut asked, 2), 3, "carry");
    let mut nowhere =
        Call { eax: 0xe801, offset: 0x15 * 4, frame: u64::MAX - 3, ..Call::default() };
    assert_eq!(firmware.serve(&mut nowhere), None);
}

#[test]
fn the_older_calls_tell_the_memory_too() {
    let firmware = firmware();
    let mut asked = Call { eax: 0x1234_8800, ..Call::default() };
    assert_eq!(call(&firmware, 0x15, &mut asked, 3), 2);
    assert_eq!(asked.eax, 0x1234_0000 | 63 << 10);
    let mut asked = Call { eax: 0xe801, ..Call::default() };
    assert_eq!(call(&firmware, 0x15, &mut asked, 3), 2);
    assert_eq!((asked.eax, asked.ebx), (15 << 10, (128 - 16) << 4));
    let mut asked = Call::default();
    call(&firmware, 0x12, &mut asked, 2);
    assert_eq!(asked.eax, 639);
}

#[test]
fn keys_come_from_the_serial_port() {
    let firmware = firmware();
    let zero = |flags| flags & 0x40 != 0;
    assert!(zero(call(&firmware, 0x16, &mut Call { eax: 0x1100, ..Call::default() }, 2)));
    lock(&firmware.serial).receive(b"ab");
    for wanted in [b'a', b'b'] {
        let mut looked = Call { eax: 0x1100, ..Call::default() };
        assert!(!zero(call(&firmware, 0x16, &mut looked, 0x42)));
        let mut taken = Call { eax: 0x1000, ..Call::default() };
        call(&firmware, 0x16, &mut taken, 2);
        assert_eq!([looked.eax, taken.eax], [u32::from(wanted); 2]);
    }
    assert!(zero(call(&firmware, 0x16, &mut Call { eax: 0x1100, ..Call::default() }, 2)));
}

#[test]
fn there_is_no_disk_no_pci_and_no_way_on() {
    let firmware = firmware();
    assert_eq!(call(&firmware, 0x13, &mut Call { eax: 0x0201, ..Call::default() }, 2), 3);
    assert_eq!(call(&firmware, 0x1a, &mut Call { eax: 0xb101, ..Call::default() }, 2), 3);
    let mut on = Call { offset: 0x18 * 4, ..Call::default() };
    assert!(firmware.serve(&mut on).is_some());
}
