// SPDX-License-Identifier: MIT OR Apache-2.0

//! Dynamic memory, against a driver that does as Linux's `hv_balloon.c`.

use busway_balloon::Balloon;
use busway_memory::{Bytes, GuestAddress};
use busway_ring::Outgoing;
use busway_testkit::{GuestChannel, Pair, PairConfig};
use busway_vmbus::Device;
use busway_wire::Version;

struct Guest {
    balloon: Balloon,
    pair: Pair,
    channel: GuestChannel,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// `struct dm_header` and what follows it.
fn message(kind: u16, id: u32, body: &[u8]) -> Vec<u8> {
    let mut message = [kind.to_le_bytes(), (8 + body.len() as u16).to_le_bytes()].concat();
    message.extend(id.to_le_bytes());
    message.extend(body);
    message
}

impl Guest {
    fn new() -> Self {
        let balloon = Balloon::new().unwrap();
        let mut pair = Pair::new(PairConfig::default());
        let device = balloon.device();
        let class = device.offer().interface_type;
        pair.add(device);
        let offer = *pair.connect(Version::V5_3).offer(class);
        let channel = pair.open(&offer, 5, 0).unwrap();
        Self { balloon, pair, channel }
    }

    /// One that has agreed on version 2.0.
    fn ready() -> Self {
        let mut guest = Self::new();
        assert!(guest.asks_for(0x2_0000));
        guest.say(3, 8, &[0; 24]);
        let answer = guest.hear();
        assert_eq!((answer[0], u32_at(&answer, 4), answer[8]), (4, 8, 1));
        assert!(guest.balloon.state().ready);
        guest
    }

    fn asks_for(&mut self, version: u32) -> bool {
        self.say(1, 7, &[version.to_le_bytes(), [0; 4]].concat());
        let answer = self.hear();
        assert_eq!((answer[0], answer[2], u32_at(&answer, 4)), (2, 16, 7));
        answer[8] == 1
    }

    fn say(&mut self, kind: u16, id: u32, body: &[u8]) {
        let message = message(kind, id, body);
        self.channel.send(&mut self.pair, &Outgoing::in_band(0, &message));
        self.pair.work();
    }

    fn hear(&mut self) -> Vec<u8> {
        self.channel.receive(&mut self.pair).payload
    }

    /// The pages that it is asked for, and the request's name.
    fn is_asked(&mut self) -> (u32, u32) {
        let request = self.hear();
        assert_eq!((request[0], request[2]), (6, 16));
        (u32_at(&request, 8), u32_at(&request, 4))
    }

    fn lends(&mut self, id: u32, ranges: &[(u64, u64)], more: bool) {
        let mut body = vec![0; 4];
        body.extend((ranges.len() as u32 * 2 + u32::from(more)).to_le_bytes());
        body.extend(ranges.iter().flat_map(|(first, n)| (first | n << 40).to_le_bytes()));
        self.say(7, id, &body);
    }

    fn byte(&self, page: u64) -> u8 {
        let mut byte = [0xff];
        self.pair.memory.read_slice(&mut byte, GuestAddress(page << 12)).unwrap();
        byte[0]
    }

    fn file_kib(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        self.pair.memory.file().metadata().unwrap().blocks() / 2
    }
}

#[test]
fn versions_of_windows_8_and_10_are_spoken() {
    let mut guest = Guest::new();
    assert!(!guest.asks_for(0x3_0000));
    assert!(guest.asks_for(0x2_0000) && guest.asks_for(0x1_0000));
    assert!(!guest.asks_for(0x3), "of Windows 7");
}

#[test]
fn pages_leave_the_host_and_come_back_zeroed() {
    let mut guest = Guest::ready();
    let pages = 8000..8100_u64;
    for page in pages {
        guest.pair.memory.write_slice(&[7; 4096], GuestAddress(page << 12)).unwrap();
    }
    let before = guest.file_kib();
    guest.balloon.set_target(90);
    let (wanted, id) = guest.is_asked();
    assert_eq!(wanted, 90);
    guest.lends(id, &[(8000, 30), (8050, 10)], true);
    guest.lends(id, &[(8030, 20), (8060, 30)], false);
    assert_eq!(guest.balloon.state().held, 90);
    assert!(guest.file_kib() <= before - 90 * 4, "{before} KiB before");
    assert!((8000..8090).all(|page| guest.byte(page) == 0));
    assert!((8090..8100).all(|page| guest.byte(page) == 7), "those were not lent");

    guest.balloon.set_target(50);
    let request = guest.hear();
    assert_eq!(request[0], 8);
    // `struct dm_unballoon_request`: a word for "more", a word for the count.
    assert_eq!(u32_at(&request, 8), 0, "no more messages follow");
    let count = u32_at(&request, 12) as usize;
    assert_eq!(usize::from(u16::from_le_bytes([request[2], request[3]])), 16 + 8 * count);
    let ranges = request[16..].chunks_exact(8).take(count);
    let back: u64 = ranges
        .map(|range| u64::from_le_bytes(range.try_into().unwrap()))
        .inspect(|range| assert!((8000..8090).contains(&(range & 0xff_ffff_ffff))))
        .map(|range| range >> 40)
        .sum();
    assert_eq!(back, 40);
    guest.say(9, 2, &[]);
    assert_eq!(guest.balloon.state().held, 50);
}

#[test]
fn a_guest_that_has_no_more_is_left_alone_until_the_target_changes() {
    let mut guest = Guest::ready();
    guest.balloon.set_target(100);
    let (_, id) = guest.is_asked();
    guest.lends(id, &[(8000, 30)], false);
    assert_eq!(guest.channel.try_receive(&mut guest.pair), None);
    assert_eq!(guest.balloon.state().held, 30);
    guest.balloon.set_target(40);
    assert_eq!(guest.is_asked().0, 10);
}

#[test]
fn what_the_guest_says_of_its_memory_is_kept() {
    let mut guest = Guest::ready();
    let numbers = [1000_u64, 2000, 0, 5];
    let body: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).chain([0; 8]).collect();
    guest.say(5, 9, &body);
    let state = guest.balloon.state();
    assert_eq!((state.available, state.committed), (1000, 2000));
}

#[test]
fn pages_that_cannot_be_lent_close_the_channel() {
    for ranges in [[(1 << 39, 1), (0, 0)], [(8000, 11), (0, 0)], [(8000, 4), (8003, 2)]] {
        let mut guest = Guest::ready();
        guest.balloon.set_target(10);
        let (_, id) = guest.is_asked();
        guest.lends(id, &ranges, false);
        assert_eq!(guest.pair.faults.len(), 1, "{ranges:?}");
        assert!(!guest.balloon.state().ready);
    }
}

/// Nobody has asked for them: nothing happens to them.
#[test]
fn pages_that_nobody_wants_are_not_taken() {
    let mut guest = Guest::ready();
    guest.pair.memory.write_slice(&[7; 4096], GuestAddress(8000 << 12)).unwrap();
    guest.lends(1, &[(8000, 1)], false);
    assert_eq!(guest.byte(8000), 7);
    assert_eq!(guest.balloon.state().held, 0);
}
