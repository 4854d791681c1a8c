// SPDX-License-Identifier: MIT OR Apache-2.0

//! The bus as a tiny guest uses it: the channel of the first device that it is offered, a disk, and
//! channels beside it that nothing goes over.
//!
//! Messages and packets are spelled out as Linux `include/linux/hyperv.h` and
//! `drivers/scsi/storvsc_drv.c` have them.

use super::{EVENTS, FAST, HYPERCALL_PAGE, MESSAGES, PAGES, Program, SIGNAL_EVENT};

const SLOT: u64 = MESSAGES + 0x200;
const POST: u64 = PAGES.start + 0x5000;
const OFFER: u64 = PAGES.start + 0x6000;
const MONITOR: u64 = PAGES.start + 0x7000;
const RINGS: u64 = PAGES.start + 0x1_0000;
/// Each direction: a page of control and one of data.
const RING_PAGES: u64 = 2;
const IN_RING: u64 = RINGS + RING_PAGES * 0x1000;
/// The rings of all other channels.
const OTHER_RINGS: u64 = RINGS + 0x1_0000;

const CONNECTION: u32 = 1;
const GPADL: u32 = 0xe1e10;

// Offsets of an offer (`struct vmbus_channel_offer_channel`).
const OFFER_RELID: u64 = 8 + 176;
const OFFER_CONNECTION: u64 = 8 + 184;

/// Bytes of a packet and its trailer: 16 of descriptor, 64, 8.
const PACKET: u64 = 16 + 64 + 8;

/// The channel of a disk's controller.
#[derive(Debug, Default)]
pub struct DiskChannel {
    packets: u64,
}

impl DiskChannel {
    /// Results of [`open`](Self::open), in 32 bits each but the second: of the calls 0; version
    /// response 15 and 4.0 accepted; offer 1, no more 4; GPADL created 10 and 0; opened 6 and 0.
    pub const OPENED: [u64; 12] = [0, 15, 0x4_0000 << 32 | 1, 0, 1, 4, 0, 10, 0, 0, 6, 0];

    /// Connects to a bus that has one device, and opens its channel. The program has to have its
    /// SynIC enabled.
    pub fn open(guest: &mut Program) -> Self {
        Self::open_after(guest, 0)
    }

    /// The same on a bus that has `others` devices behind that one, whose channels are opened before its
    /// own. Their results, those of the last, are like the last six of [`OPENED`](Self::OPENED), and
    /// stand before these.
    pub fn open_after(guest: &mut Program, others: u32) -> Self {
        let page = |address: u64| [address as u32, 0];
        let contact = [[14, 0], [0x4_0000, 0], page(0), page(MONITOR), page(MONITOR + 0x1000)];
        post(guest, 0, contact.as_flattened(), &[]);
        receive(guest, &[0, 2], None);
        post(guest, 1, &[3, 0], &[]);
        receive(guest, &[0], Some(OFFER));
        guest.repeat(others, |guest| receive(guest, &[], None));
        receive(guest, &[0], None);
        guest.repeat(others, open_another);

        post(guest, 2, &gpadl(0, GPADL, RINGS), &[(OFFER + OFFER_RELID, 2)]);
        receive(guest, &[0, 4], None);
        post(guest, 3, &open_channel(0, GPADL), &[(OFFER + OFFER_RELID, 2)]);
        receive(guest, &[0, 4], None);
        Self { packets: 0 }
    }

    /// Puts a packet of these words into the ring: in-band, completion requested.
    pub fn send(&mut self, guest: &mut Program, words: &[u32]) {
        let number = self.packets;
        let descriptor = [6 | 2 << 16, 10 | 1 << 16, 0x1234 + number as u32, 0];
        let words = descriptor.iter().chain(words);
        let bytes: Vec<_> = words.flat_map(|word: &u32| word.to_le_bytes()).collect();
        guest.put(RINGS + 0x1000 + number * PACKET, &bytes);
        self.packets += 1;
        guest.store(RINGS, (self.packets * PACKET) as u32);
    }

    /// Signals by the slow call; its status becomes a result.
    pub fn signal(&self, guest: &mut Program) {
        guest.copy(OFFER + OFFER_CONNECTION, POST + 0xf00);
        guest.call_64(HYPERCALL_PAGE, SIGNAL_EVENT, POST + 0xf00, 0);
    }

    /// Signals by the fast call, `count` times; the last one's status becomes a result.
    pub fn signal_fast(&self, guest: &mut Program, count: u32) {
        let connection = OFFER + OFFER_CONNECTION;
        guest.call_64_with(HYPERCALL_PAGE, SIGNAL_EVENT | FAST, connection, count);
    }

    /// Waits for the answer to the last packet; its first eight words become results.
    pub fn receive(&self, guest: &mut Program) {
        guest.wait(IN_RING, !0, (self.packets * PACKET) as u32);
        for offset in [0, 8, 16, 24] {
            guest.read(IN_RING + 0x1000 + (self.packets - 1) * PACKET + offset);
        }
    }

    /// Waits for the event flag of the bus's first channel.
    pub fn wait_for_flag(&self, guest: &mut Program) {
        guest.wait(EVENTS + 0x200, 2, 2);
    }
}

/// GPADL_HEADER for two rings, as one range: 8 bytes of header, 8 for each page.
fn gpadl(relid: u32, id: u32, rings: u64) -> Vec<u32> {
    let pages = RING_PAGES * 2;
    let pfns = (0..pages).flat_map(|index| [((rings >> 12) + index) as u32, 0]);
    let range = [pages as u32 * 4096, 0].into_iter().chain(pfns);
    let len = 8 + pages as u32 * 8;
    [8, 0, relid, id, 1 << 16 | len].into_iter().chain(range).collect()
}

fn open_channel(relid: u32, gpadl: u32) -> Vec<u32> {
    [&[5, 0, relid, 0x77, gpadl, 0, RING_PAGES as u32][..], &[0; 30]].concat()
}

/// Opens the channel of the next relid, of those from 2 on.
fn open_another(guest: &mut Program) {
    let word = |number: u64, word: u64| message(number) + 16 + word * 4;
    for address in [word(4, 2), word(4, 3), word(5, 2), word(5, 4)] {
        guest.increment(address);
    }
    post(guest, 4, &gpadl(1, GPADL, OTHER_RINGS), &[]);
    receive(guest, &[0, 4], None);
    post(guest, 5, &open_channel(1, GPADL), &[]);
    receive(guest, &[0, 4], None);
}

/// Where a message is put together.
const fn message(number: u64) -> u64 {
    POST + number * 0x200
}

/// Posts a message of these words, behind which `copies` are filled in: from where, to which word.
fn post(guest: &mut Program, number: u64, words: &[u32], copies: &[(u64, u64)]) {
    let at = message(number);
    let header = [CONNECTION, 0, 1, words.len() as u32 * 4];
    let bytes: Vec<_> = header.iter().chain(words).flat_map(|word| word.to_le_bytes()).collect();
    guest.put(at, &bytes);
    for (from, word) in copies {
        guest.copy(*from, at + 16 + word * 4);
    }
    guest.call_64(HYPERCALL_PAGE, 0x5c, at, 0);
}

/// Waits for a channel message; these words of it become results, and the slot is free again.
fn receive(guest: &mut Program, words: &[u64], keep: Option<u64>) {
    guest.wait(SLOT, !0, 1);
    for word in words {
        guest.read(SLOT + 16 + word * 4);
    }
    if let Some(to) = keep {
        for word in 0..60 {
            guest.copy(SLOT + 16 + word * 4, to + word * 4);
        }
    }
    guest.store(SLOT, 0);
    guest.write_msr(0x4000_0084, 0);
}
