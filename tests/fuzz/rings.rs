// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rings of a storage controller: indices that jump, packets that lie, pages that change.

use busway_block::{Disk, DiskOptions};
use busway_memory::{Bytes, GuestAddress};
use busway_storage::{Luns, StorageController};
use busway_testkit::{Pair, PairConfig};
use busway_wire::{Guid, Version, class};

use crate::random::Random;

const RAM_PAGES: u64 = 1024;
const RINGS: u64 = 512;
const DATA: u64 = 600;

pub(crate) fn case(random: &mut Random) {
    let ram_pages = RAM_PAGES as usize;
    let mut pair = Pair::new(PairConfig { ram_pages, ..PairConfig::default() });
    let disk = Disk::ram(1 << 20, &DiskOptions::default()).unwrap();
    pair.add(StorageController::new(Guid::from_text_order(1), Luns::new([(0, disk)]).unwrap()));
    let offer = *pair.connect(Version::V5_3).offer(class::SCSI);

    let pages = 2 + random.below(3);
    let pfns: Vec<_> = (RINGS..RINGS + 2 * pages).collect();
    for &pfn in &pfns {
        pair.memory.write_slice(&[0; 4096], GuestAddress(pfn << 12)).unwrap();
    }
    let gpadl = pair.make_gpadl(offer.relid, &pfns).unwrap();
    let channel = pair.reopen(&offer, gpadl, &pfns, pages as usize, 0).unwrap();
    let mut rings = Rings { data_len: (pages - 1) * 4096, write_index: 0 };
    if random.one_in(2) {
        for operation in [7, 9, 10, 8] {
            rings.send(&mut pair, &packet(operation));
        }
    }
    for _ in 0..random.below(80) {
        rings.step(&mut pair, random);
        pair.signal(channel.connection_id());
        pair.work();
        assert_eq!(pair.host_fault(), None);
        while pair.take_message().is_some() {}
    }
    drop(channel);

    // What was wrong may have cost it the channel, which a guest that starts over has again.
    pair.unload();
    let offer = *pair.connect(Version::V5_3).offer(class::SCSI);
    let mut channel = pair.open(&offer, 4, 0).unwrap();
    channel.request(&mut pair, 5, &packet(7)[16..]);
    let answer = channel.receive(&mut pair);
    assert_eq!(answer.descriptor.transaction_id, 5);
    assert_eq!(answer.payload[..12], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    pair.close(channel);
    pair.unload();
}

struct Rings {
    data_len: u64,
    write_index: u64,
}

/// An in-band packet of `drivers/scsi/storvsc_drv.c` that wants a completion.
fn packet(operation: u32) -> Vec<u8> {
    let mut words = [6 | 2 << 16, 10 | 1 << 16, 0x77, 0, operation, 1, 0, 0x0602].to_vec();
    words.resize(20, 0);
    words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect()
}

/// A command on external pages.
fn command(random: &mut Random) -> Vec<u8> {
    let count = random.below(5);
    let offset = if random.one_in(4) { random.word_32() } else { random.below(4096) as u32 };
    let len = match random.below(4) {
        0 => random.word_32(),
        _ => (count * 4096) as u32 - offset.min((count * 4096) as u32),
    };
    let ranges = if random.one_in(8) { random.word_32() } else { 1 };
    let offset8 = 5 + count as u32;
    let total8 = offset8 + 8;
    let mut words = vec![9 | offset8 << 16, total8 | 1 << 16, random.word_32(), 0, 0, ranges];
    words.extend([len, offset]);
    for _ in 0..count {
        let pfn = if random.one_in(8) { random.word() } else { DATA + random.below(200) };
        words.extend([pfn as u32, (pfn >> 32) as u32]);
    }
    let mut bytes: Vec<_> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    let mut storvsc = [3_u32, 1, 0].map(u32::to_le_bytes).concat();
    storvsc.resize(64, 0);
    // Lengths of the request, of the CDB and of the sense; direction; bytes of data; the CDB.
    storvsc[12..14].copy_from_slice(&52_u16.to_le_bytes());
    storvsc[20..24].copy_from_slice(&[10, 20, random.next() as u8 % 3, 0]);
    storvsc[24..28].copy_from_slice(&len.to_le_bytes());
    let codes = [0x00, 0x12, 0x25, 0x28, 0x2a, 0x35, 0x41, 0x42, 0x88, 0x8a, 0x93, 0x9e, 0xa0];
    storvsc[28] = random.pick(&codes);
    storvsc[32..44].fill_with(|| if random.one_in(3) { random.next() as u8 } else { 0 });
    bytes.extend(storvsc);
    bytes
}

impl Rings {
    fn step(&mut self, pair: &mut Pair, random: &mut Random) {
        match random.below(8) {
            0 => {
                // Control words: indices, mask, pending size, feature bits, of either ring.
                let offset = random.pick(&[0, 4, 8, 12, 64]);
                let ring = random.below(2) * (self.data_len + 4096);
                let at = (RINGS << 12) + ring + offset;
                let value = match random.below(3) {
                    0 => random.below(self.data_len / 8 + 1) as u32 * 8,
                    _ => random.word_32(),
                };
                pair.memory.write_obj(value, GuestAddress(at)).unwrap();
            }
            1 => {
                let len = 8 * (1 + random.below(40) as usize);
                let mut bytes = random.bytes(len);
                bytes[0] = random.pick(&[0, 6, 7, 9, 11]);
                bytes[1] = 0;
                self.send(pair, &bytes);
            }
            2 => {
                let mut bytes = packet(random.pick(&[4, 5, 6, 7, 8, 9, 10, 11, 13]));
                random.damage(&mut bytes);
                self.send(pair, &bytes);
            }
            3 => {
                let mut bytes = command(random);
                random.damage(&mut bytes);
                self.send(pair, &bytes);
            }
            4 => {
                // The guest takes what there is: the host has room again.
                let ring = (RINGS << 12) + self.data_len + 4096;
                let written: u32 = pair.memory.read_obj(GuestAddress(ring)).unwrap();
                pair.memory.write_obj(written, GuestAddress(ring + 4)).unwrap();
            }
            _ => self.send(pair, &command(random)),
        }
    }

    /// Writes a packet and its trailer where the next one goes, whatever is there.
    fn send(&mut self, pair: &mut Pair, packet: &[u8]) {
        let trailer = (self.write_index << 32).to_le_bytes();
        for byte in packet.iter().chain(&trailer) {
            let at = (RINGS << 12) + 4096 + self.write_index;
            pair.memory.write_obj(*byte, GuestAddress(at)).unwrap();
            self.write_index = (self.write_index + 1) % self.data_len;
        }
        self.write_index = self.write_index.next_multiple_of(8) % self.data_len;
        pair.memory.write_obj(self.write_index as u32, GuestAddress(RINGS << 12)).unwrap();
        pair.work();
    }
}
