// SPDX-License-Identifier: MIT OR Apache-2.0

//! Keyboard and mouse, against drivers that do as Linux's `hyperv-keyboard.c` and `hid-hyperv.c`.

use busway_input::{Key, Keyboard, Mouse, Pointer, Refused};
use busway_ring::Outgoing;
use busway_testkit::{GuestChannel, Pair, PairConfig};
use busway_vmbus::Device;
use busway_wire::Version;
use busway_wire::packet::PacketType;

fn open(device: impl Device + 'static) -> (Pair, GuestChannel) {
    let class = device.offer().interface_type;
    let mut pair = Pair::new(PairConfig::default());
    pair.add(device);
    let offer = *pair.connect(Version::V5_3).offer(class);
    let channel = pair.open(&offer, 9, 0).unwrap();
    (pair, channel)
}

/// The next packet that is no completion.
fn hear(pair: &mut Pair, channel: &mut GuestChannel) -> Vec<u8> {
    loop {
        let packet = channel.receive(pair);
        if packet.descriptor.kind != PacketType::COMPLETION {
            return packet.payload;
        }
    }
}

const A: Key = Key { code: 0x1e, extended: false, down: true };
const KEYBOARD_1_0: [u8; 8] = [1, 0, 0, 0, 0, 0, 1, 0];

#[test]
fn keys_go_to_a_driver_that_has_asked_for_the_version() {
    let keyboard = Keyboard::new().unwrap();
    assert_eq!(keyboard.press(&[A]), Err(Refused::NoDriver));
    let (mut pair, mut channel) = open(keyboard.device());
    assert_eq!(keyboard.press(&[A]), Err(Refused::NoDriver), "it has not said a word yet");
    channel.request(&mut pair, 9, &KEYBOARD_1_0);
    assert_eq!(hear(&mut pair, &mut channel), [2, 0, 0, 0, 1, 0, 0, 0]);
    let up = Key { code: 0x1c, extended: true, down: false };
    keyboard.press(&[A, up]).unwrap();
    assert_eq!(hear(&mut pair, &mut channel)[..12], [3, 0, 0, 0, 0x1e, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(hear(&mut pair, &mut channel)[..12], [3, 0, 0, 0, 0x1c, 0, 0, 0, 6, 0, 0, 0]);
    // Its lights.
    channel.send(&mut pair, &Outgoing::in_band(0, &[4, 0, 0, 0, 7, 0, 0, 0]));
    pair.close(channel);
    assert_eq!(keyboard.press(&[A]), Err(Refused::NoDriver));
    assert!(pair.faults.is_empty());
}

#[test]
fn a_keyboard_of_another_version_is_not_approved() {
    let keyboard = Keyboard::new().unwrap();
    let (mut pair, mut channel) = open(keyboard.device());
    channel.request(&mut pair, 9, &[1, 0, 0, 0, 0, 0, 2, 0]);
    assert_eq!(hear(&mut pair, &mut channel), [2, 0, 0, 0, 0, 0, 0, 0]);
    assert!(!keyboard.is_ready());
}

/// A driver that reads nothing fills the ring, then the queue, and nothing more.
#[test]
fn keys_wait_for_a_driver_that_is_slow_and_none_is_lost() {
    let keyboard = Keyboard::new().unwrap();
    let (mut pair, mut channel) = open(keyboard.device());
    channel.request(&mut pair, 9, &KEYBOARD_1_0);
    hear(&mut pair, &mut channel);
    let mut typed = 0_u16;
    while keyboard.press(&[Key { code: typed, ..A }]).is_ok() {
        typed += 1;
        pair.work();
    }
    assert!(typed > 1024);
    for code in 0..typed {
        let event = hear(&mut pair, &mut channel);
        assert_eq!(u16::from_le_bytes([event[4], event[5]]), code);
    }
}

/// A message of the driver's in its pipe.
fn pipe(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = body.len() as u32;
    let words = [1, len + 8, kind, len];
    let mut payload: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    payload.extend(body);
    payload
}

fn handshake(pair: &mut Pair, channel: &mut GuestChannel) {
    channel.request(pair, 1, &pipe(0, &0x0002_0000_u32.to_le_bytes()));
    let response = hear(pair, channel);
    // `struct mousevsc_prt_msg` has room for no more.
    assert_eq!(response[..21], pipe(1, &[0, 0, 2, 0, 1]));
    let info = hear(pair, channel);
    let word = |at: usize| u32::from_le_bytes(info[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(8), word(12)), (1, 2, word(4) - 8));
    // `struct hv_input_dev_info`, then the descriptor, then as many bytes as that says.
    assert_eq!((word(16), info[48]), (32, 9));
    let report_len = u32::from(u16::from_le_bytes([info[55], info[56]]));
    assert_eq!(word(12), 32 + 9 + report_len);
    channel.request(pair, 2, &pipe(3, &[0]));
    pair.work();
}

#[test]
fn the_pointer_is_where_it_is_put() {
    let mouse = Mouse::new().unwrap();
    let (mut pair, mut channel) = open(mouse.device());
    assert_eq!(mouse.point(&[Pointer::default()]), Err(Refused::NoDriver));
    handshake(&mut pair, &mut channel);
    mouse.point(&[Pointer { x: 0x1234, y: 0xffff, buttons: 1, wheel: -1 }]).unwrap();
    let report = hear(&mut pair, &mut channel);
    assert_eq!(report[..22], pipe(4, &[1, 0x34, 0x12, 0xff, 0x7f, 0xff]));
    pair.close(channel);
    assert!(!mouse.is_ready());
}

#[test]
fn a_mouse_message_without_a_pipe_closes_the_channel() {
    let (mut pair, mut channel) = open(Mouse::new().unwrap().device());
    channel.request(&mut pair, 1, &[9; 8]);
    pair.work();
    assert_eq!(pair.faults.len(), 1);
}
