// SPDX-License-Identifier: MIT OR Apache-2.0

//! The bus from end to end: contact, offer, rings, a packet, its answer, signals both ways.

use std::fs;

use crate::program::{PAGES, Program};
use crate::{EVENTS, FAST, HYPERCALL_PAGE, MESSAGES, VECTOR, boot, with_synic};

const SLOT: u64 = MESSAGES + 0x200;
const POST: u64 = PAGES.start + 0x5000;
const OFFER: u64 = PAGES.start + 0x6000;
const RINGS: u64 = PAGES.start + 0x1_0000;
/// Each direction: a page of control and one of data.
const RING_PAGES: u64 = 2;
const IN_RING: u64 = RINGS + RING_PAGES * 0x1000;

const CONNECTION: u32 = 1;
const GPADL: u32 = 0xe1e10;

// Offsets of an offer (`struct vmbus_channel_offer_channel`).
const OFFER_RELID: u64 = 8 + 176;
const OFFER_CONNECTION: u64 = 8 + 184;

/// Posts a message of these words, behind which `copies` are filled in: from where, to which word.
fn post(guest: &mut Program, number: u64, words: &[u32], copies: &[(u64, u64)]) {
    let at = POST + number * 0x200;
    let header = [CONNECTION, 0, 1, words.len() as u32 * 4];
    let bytes: Vec<_> = header.iter().chain(words).flat_map(|word| word.to_le_bytes()).collect();
    guest.put(at, &bytes);
    for (from, word) in copies {
        guest.copy(*from, at + 16 + word * 4);
    }
    guest.call_64(HYPERCALL_PAGE, 0x5c, at, 0);
}

/// Waits for a channel message; its first words become results, and the slot is free again.
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

/// Message types of `include/linux/hyperv.h`: 14 contact, 15 its answer, 3 and 1 and 4 offers, 8 and
/// 10 a GPADL, 5 and 6 an open channel.
pub(crate) fn a_disk_answers_on_its_rings() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    fs::write(&disk, [0; 4096]).unwrap();

    let mut guest = with_synic();
    guest.on_interrupt(VECTOR);
    guest.allow_interrupts();
    let page = |address: u64| [address as u32, 0];
    let contact = [[14, 0], [0x4_0000, 0], page(0), page(0x21_e000), page(0x21_f000)];
    post(&mut guest, 0, contact.as_flattened(), &[]);
    receive(&mut guest, &[0, 2], None);
    post(&mut guest, 1, &[3, 0], &[]);
    receive(&mut guest, &[0], Some(OFFER));
    receive(&mut guest, &[0], None);

    // One range of four pages: 8 bytes of header, 8 for each page.
    let pfns = (0..RING_PAGES * 2).flat_map(|index| page((RINGS >> 12) + index));
    let range = [RING_PAGES as u32 * 2 * 4096, 0].into_iter().chain(pfns);
    let gpadl: Vec<_> = [8, 0, 0, GPADL, 1 << 16 | (8 + 32)].into_iter().chain(range).collect();
    post(&mut guest, 2, &gpadl, &[(OFFER + OFFER_RELID, 2)]);
    receive(&mut guest, &[0, 4], None);
    let open = [&[5, 0, 0, 0x77, GPADL, 0, RING_PAGES as u32][..], &[0; 30]].concat();
    post(&mut guest, 3, &open, &[(OFFER + OFFER_RELID, 2)]);
    receive(&mut guest, &[0, 4], None);

    send(&mut guest, 0, &[7, 1]);
    guest.copy(OFFER + OFFER_CONNECTION, POST + 0xf00);
    guest.call_64(HYPERCALL_PAGE, 0x5d, POST + 0xf00, 0);
    receive_packet(&mut guest, 0);
    // The event flag is the relid's, 1 for the first channel. Nobody clears it, so that no second
    // interrupt comes; the fast signal does not leave the kernel.
    guest.wait(EVENTS + 0x200, 2, 2);
    send(&mut guest, 1, &[9, 1, 0, 0x0600]);
    guest.call_64_with(HYPERCALL_PAGE, 0x5d | FAST, OFFER + OFFER_CONNECTION);
    receive_packet(&mut guest, 1);
    guest.read_faults();

    let argument = disk.display().to_string();
    let found = boot(guest, &["--integration", "none", "--disk", &argument]);
    let (contact, rest) = found.split_at(3);
    assert_eq!(contact, [0, 15, 0x4_0000 << 32 | 1]);
    let words: Vec<_> = rest.iter().map(|word| *word as u32).collect();
    let (setup, packets) = words.split_at(9);
    assert_eq!(setup, [0, 1, 4, 0, 10, 0, 0, 6, 0], "offer, no more, GPADL, open channel");
    // Each: status of the signal; a completion at 16 bytes; transaction; operation; status.
    let answer = |number: u32| [0, 2 << 16 | 11, 0x1234 + number, 1, 0];
    assert_eq!(packets[..5], answer(0));
    assert_eq!(packets[5..], [&answer(1)[..], &[0]].concat(), "and no fault");
}

/// Bytes of a packet and its trailer: 16 of descriptor, 64, 8.
const PACKET: u64 = 16 + 64 + 8;

/// Puts the ring's packet `number` behind those before: in-band, completion requested.
fn send(guest: &mut Program, number: u64, words: &[u32]) {
    let descriptor = [6 | 2 << 16, 10 | 1 << 16, 0x1234 + number as u32, 0];
    let bytes: Vec<_> =
        descriptor.iter().chain(words).flat_map(|word: &u32| word.to_le_bytes()).collect();
    guest.put(RINGS + 0x1000 + number * PACKET, &bytes);
    guest.store(RINGS, ((number + 1) * PACKET) as u32);
}

/// Waits for the answer to it; its words become results.
fn receive_packet(guest: &mut Program, number: u64) {
    guest.wait(IN_RING, !0, ((number + 1) * PACKET) as u32);
    for offset in [0, 8, 16, 24] {
        guest.read(IN_RING + 0x1000 + number * PACKET + offset);
    }
}
