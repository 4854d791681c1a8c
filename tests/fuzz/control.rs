// SPDX-License-Identifier: MIT OR Apache-2.0

//! Channel messages: of every type, in any order, with numbers that fit and numbers that do not.

use busway_testkit::{Pair, PairConfig};
use busway_wire::Version;

use crate::echo::{ECHO, Echo};
use crate::random::Random;

pub(crate) const RAM_PAGES: u64 = 1024;
/// Pages below are the guest's own, for messages and flags.
pub(crate) const FIRST_PAGE: u64 = 64;

const VERSIONS: [Version; 6] =
    [Version::V0_13, Version::V2_4, Version::V4_0, Version::V5_0, Version::V5_3, Version::V6_0];

/// More messages than one of the guest's can cause here: an offer each, their end, what was asked for.
const ANSWERS: usize = 64;

pub(crate) fn case(random: &mut Random) {
    let mut pair = pair();
    if random.one_in(2) {
        pair.connect(random.pick(&VERSIONS));
    }
    for _ in 0..random.below(60) {
        let message = message(random);
        pair.post_bytes(&message);
        drain(&mut pair);
        if random.one_in(8) {
            pair.signal(random.pick(&[1, 0x1001, 0x2001, 0x2002, 0x2003]));
            pair.work();
        }
    }
    still_serves(&mut pair);
}

pub(crate) fn pair() -> Pair {
    let ram_pages = RAM_PAGES as usize;
    let mut pair = Pair::new(PairConfig { ram_pages, ..PairConfig::default() });
    for instance in 1..=3 {
        pair.add(Echo { instance, ..Echo::default() });
    }
    pair
}

/// Takes what the host has to say.
pub(crate) fn drain(pair: &mut Pair) {
    let mut count = 0;
    while pair.take_message().is_some() {
        count += 1;
        assert!(count <= ANSWERS, "the host talks without end");
    }
}

/// After all that, a guest that starts over finds every device, and can use it.
pub(crate) fn still_serves(pair: &mut Pair) {
    assert_eq!(pair.host_fault(), None);
    drain(pair);
    let connected = pair.connect(Version::V5_3);
    assert_eq!(connected.offers.len(), 3);
    let mut channel = pair.open(connected.offer(ECHO), 4, 0).unwrap();
    channel.request(pair, 7, b"are you there?  ");
    let answer = channel.receive(pair);
    assert_eq!(
        (answer.descriptor.transaction_id, &answer.payload[..]),
        (7, &b"are you there?  "[..])
    );
    pair.close(channel);
    assert_eq!(pair.open_channels(), 0);
    pair.unload();
}

fn page(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => random.pick(&[RAM_PAGES, RAM_PAGES + 1, u64::MAX >> 12, u64::MAX, 1 << 52]),
        _ => FIRST_PAGE + random.below(RAM_PAGES - FIRST_PAGE),
    }
}

/// A number of a channel, of a list, of anything.
fn id(random: &mut Random) -> u32 {
    match random.below(8) {
        0 => random.word_32(),
        _ => 1 + random.below(6) as u32,
    }
}

/// Types of `include/linux/hyperv.h`; bodies as it has them, and sometimes damaged.
fn message(random: &mut Random) -> Vec<u8> {
    let kind = random.pick(&[3, 5, 5, 7, 8, 8, 8, 9, 9, 11, 13, 14, 14, 16, 21, 22, 24, 99]);
    let mut words: Vec<u32> = vec![if random.one_in(20) { random.word_32() } else { kind }, 0];
    match kind {
        5 => {
            words.extend([id(random), id(random), id(random), random.below(3) as u32]);
            words.push(random.pick(&[0, 1, 1, 2, 2, 3, 1 << 20, !0]));
            words.extend([0; 30]);
            words.extend((0..random.below(3)).map(|_| random.word_32()));
        }
        8 => {
            let pages = random.below(30);
            let count = if random.one_in(8) { random.word_32() } else { 1 };
            let len = if random.one_in(8) { random.word_32() } else { 8 + 8 * pages as u32 };
            words.extend([id(random), id(random), count << 16 | len & 0xffff]);
            words.extend([pages as u32 * 4096, 0]);
            words.extend((0..pages.min(26)).flat_map(|_| halves(page(random))));
        }
        9 => {
            words.extend([0, id(random)]);
            words.extend((0..random.below(29)).flat_map(|_| halves(page(random))));
        }
        14 => {
            let version = random.pick(&VERSIONS);
            let version = if random.one_in(8) { random.word_32() } else { version.0 };
            words.extend([version, random.below(3) as u32]);
            for _ in 0..3 {
                words.extend(halves(page(random) << 12));
            }
        }
        _ => words.extend((0..random.below(10)).map(|_| id(random))),
    }
    let mut bytes: Vec<_> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    if random.one_in(8) {
        let body = bytes.len().min(4);
        random.damage(&mut bytes[body..]);
    }
    if random.one_in(16) {
        bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
    }
    bytes.truncate(240);
    bytes
}

fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}
