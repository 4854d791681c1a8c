// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lists of pages (GPADLs): headers that promise anything, bodies that bring anything.

use busway_wire::Version;

use crate::control::{FIRST_PAGE, RAM_PAGES, drain, pair, still_serves};
use crate::random::Random;

pub(crate) fn case(random: &mut Random) {
    let mut pair = pair();
    let connected = pair.connect(Version::V5_3);
    let relids: Vec<_> = connected.offers.iter().map(|offer| offer.relid).collect();
    for gpadl in 1..random.below(30) as u32 {
        let relid = random.pick(&relids);
        let (header, mut rest) = list(random);
        let buffer_len = match random.below(4) {
            0 => random.word() as u16,
            _ => (header.len() + rest.len()) as u16,
        };
        let count = if random.one_in(6) { random.word() as u16 } else { 1 };
        let mut bytes = [8, 0, relid, gpadl].map(u32::to_le_bytes).concat();
        bytes.extend(buffer_len.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(header);
        pair.post_bytes(&bytes);
        while !rest.is_empty() && !random.one_in(10) {
            let part = rest.len().min(8 * (1 + random.below(28) as usize));
            let mut bytes = [9, 0, 0, gpadl].map(u32::to_le_bytes).concat();
            bytes.extend(rest.drain(..part));
            pair.post_bytes(&bytes);
        }
        // Once more than was promised.
        if random.one_in(4) {
            let mut bytes = [9, 0, 0, gpadl].map(u32::to_le_bytes).concat();
            bytes.extend(random.bytes(64));
            pair.post_bytes(&bytes);
        }
        if random.one_in(2) {
            let open = [&[5, 0, relid, 1, gpadl, 0, random.below(4) as u32][..], &[0; 30]].concat();
            pair.post_bytes(&open.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>());
        }
        if random.one_in(2) {
            pair.post_bytes(&[11, 0, relid, gpadl].map(u32::to_le_bytes).concat());
        }
        drain(&mut pair);
    }
    still_serves(&mut pair);
}

/// The bytes of ranges, as much as a header holds and the rest.
fn list(random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    let most = random.pick(&[12, 12, 12, 600]);
    let pages = random.below(most);
    let len = match random.below(6) {
        0 => random.word_32(),
        1 => 0,
        _ => pages as u32 * 4096,
    };
    let offset = if random.one_in(6) { random.word_32() } else { 0 };
    let mut bytes = [len, offset].map(u32::to_le_bytes).concat();
    for _ in 0..pages {
        let pfn = match random.below(40) {
            0 => random.word(),
            _ => FIRST_PAGE + random.below(RAM_PAGES - FIRST_PAGE),
        };
        bytes.extend(pfn.to_le_bytes());
    }
    let rest = bytes.split_off(bytes.len().min(216));
    (bytes, rest)
}
