// SPDX-License-Identifier: MIT OR Apache-2.0

//! Dynamic memory, against a driver that does as Linux's `hv_balloon.c`.

use busway_balloon::{Balloon, Shortfall};
use busway_memory::{Bytes, GuestAddress};
use busway_ring::Outgoing;
use busway_testkit::{GuestChannel, Pair, PairConfig};
use busway_vmbus::Device;
use busway_wire::Version;

/// Memory of the pair's, as if the guest had started without it.
const ROOM: std::ops::Range<u64> = 0x1000..0x1700;

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
        Self::of(Balloon::new(ROOM).unwrap())
    }

    /// That of a machine with this balloon, which starts.
    fn of(balloon: Balloon) -> Self {
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
        Self::able(0)
    }

    /// One that has said what it can do.
    fn able(capabilities: u64) -> Self {
        Self::new().can(capabilities)
    }

    fn can(self, capabilities: u64) -> Self {
        let mut guest = self;
        assert!(guest.asks_for(0x2_0000));
        guest.say(3, 8, &[capabilities.to_le_bytes(), [0; 8], [0; 8]].concat());
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

    /// The pages that it is offered: the first, and how many.
    fn is_offered(&mut self) -> (u64, u64) {
        let request = self.hear();
        assert_eq!((request[0], request[2], request.len()), (10, 16, 16));
        let range = u64::from_le_bytes(request[8..].try_into().unwrap());
        (range & 0xff_ffff_ffff, range >> 40)
    }

    fn takes(&mut self, pages: u32, result: u32) {
        self.say(11, 77, &[pages.to_le_bytes(), result.to_le_bytes()].concat());
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
fn an_older_host_speaks_the_older_version_only() {
    let balloon =
        Balloon::new(ROOM).unwrap().with_newest_version(busway_wire::balloon::Version::V1_0);
    let mut guest = Guest::of(balloon);
    assert!(!guest.asks_for(0x2_0000));
    assert!(guest.asks_for(0x1_0000));
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
    assert_eq!(guest.balloon.state().shortfall, Some(Shortfall::LendsNoMore));
    guest.balloon.set_target(40);
    assert_eq!(guest.is_asked().0, 10);
    assert_eq!(guest.balloon.state().shortfall, None);
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

/// Bit 1, and blocks of 2² MiB.
const TAKES_BLOCKS_OF_4_MIB: u64 = 2 | 2 << 2;

/// Room for 7 MiB, of which one block fits: what was lent comes back first, what is too much is lent.
#[test]
fn a_guest_gets_memory_that_it_did_not_start_with() {
    let mut guest = Guest::able(TAKES_BLOCKS_OF_4_MIB);
    guest.balloon.set_target(10);
    let (_, id) = guest.is_asked();
    guest.lends(id, &[(8000, 10)], false);
    guest.balloon.set_target(-1000);
    assert_eq!(guest.hear()[0], 8);
    guest.say(9, 2, &[]);
    assert_eq!(guest.is_offered(), (0x1000, 1024));
    guest.takes(1024, 1);
    assert_eq!(guest.balloon.state().added, 1024);
    assert_eq!(guest.is_asked().0, 24, "more than it should have");
    guest.lends(1, &[(8000, 24)], false);
    guest.balloon.set_target(-5000);
    assert_eq!(guest.hear()[0], 8);
    guest.say(9, 2, &[]);
    assert_eq!(guest.channel.try_receive(&mut guest.pair), None, "no room for another block");
    assert_eq!((guest.balloon.state().added, guest.balloon.state().held), (1024, 0));
}

/// A part taken uses the block up; the machine's next life begins with nothing taken.
#[test]
fn blocks_follow_one_another_until_there_are_no_more() {
    let mut guest = Guest::able(2 | 1 << 2);
    guest.balloon.set_target(-5000);
    assert_eq!(guest.is_offered(), (0x1000, 512));
    guest.takes(100, 1);
    for first in [0x1200, 0x1400] {
        assert_eq!(guest.is_offered(), (first, 512));
        guest.takes(512, 1);
    }
    assert_eq!(guest.channel.try_receive(&mut guest.pair), None);
    assert_eq!(guest.balloon.state().added, 1124);
    let mut next = Guest::of(guest.balloon.clone());
    assert_eq!(next.balloon.state().added, 0);
    next = next.can(2 | 1 << 2);
    // What it reports each second.
    next.say(5, 9, &[0; 40]);
    assert_eq!(next.is_offered(), (0x1000, 512), "all of it again");
}

#[test]
fn a_guest_that_takes_nothing_is_asked_again_only_if_it_may_change_its_mind() {
    let mut guest = Guest::able(TAKES_BLOCKS_OF_4_MIB);
    guest.balloon.set_target(-1);
    assert_eq!(guest.is_offered(), (0x1000, 1024));
    guest.takes(0, 0);
    assert_eq!(guest.channel.try_receive(&mut guest.pair), None);
    assert_eq!(guest.balloon.state().shortfall, Some(Shortfall::TakesNoMore));
    guest.balloon.set_target(-2);
    assert_eq!(guest.balloon.state().shortfall, None);
    assert_eq!(guest.is_offered(), (0x1000, 1024));
    guest.takes(0, 1);
    guest.balloon.set_target(-3);
    guest.pair.work();
    assert_eq!(guest.channel.try_receive(&mut guest.pair), None, "never again");
    assert!(guest.balloon.state().ready);
    assert_eq!(guest.balloon.state().shortfall, Some(Shortfall::TakesNoMore));
}

#[test]
fn a_guest_that_cannot_take_memory_is_offered_none() {
    let mut guest = Guest::able(1 | 7 << 2);
    guest.balloon.set_target(-1);
    guest.pair.work();
    assert_eq!(guest.channel.try_receive(&mut guest.pair), None);
    assert_eq!(guest.balloon.state().shortfall, Some(Shortfall::TakesNoMore));
}

#[test]
fn memory_that_was_not_offered_cannot_be_taken() {
    let mut guest = Guest::able(TAKES_BLOCKS_OF_4_MIB);
    guest.takes(1, 1);
    assert_eq!(guest.pair.faults.len(), 1, "nobody has asked");
    let mut guest = Guest::able(TAKES_BLOCKS_OF_4_MIB);
    guest.balloon.set_target(-1);
    guest.is_offered();
    guest.takes(1025, 1);
    assert_eq!(guest.pair.faults.len(), 1, "more than was offered");
    assert_eq!(guest.balloon.state().added, 0);
}
