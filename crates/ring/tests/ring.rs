// SPDX-License-Identifier: MIT OR Apache-2.0

//! What each end does, step by step, and what it does when the other end lies.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::atomic::Ordering;

use busway_memory::RingArea;
use busway_ring::{Full, Outgoing, PacketBuf, Reader, RingError, Word};
use busway_wire::packet::{COMPLETION_REQUESTED, PacketType};
use common::{Ring, ring};

fn take(reader: &mut Reader<RingArea>) -> Option<(u64, Vec<u8>)> {
    let mut buf = PacketBuf::for_ring(reader.mem().data_len());
    let packet = reader.next(&mut buf).unwrap()?;
    Some((packet.descriptor.transaction_id, packet.payload.to_vec()))
}

fn set(view: &RingArea, word: Word, value: u32) {
    view.control_word(word.offset()).store(value, Ordering::SeqCst);
}

fn get(view: &RingArea, word: Word) -> u32 {
    view.control_word(word.offset()).load(Ordering::SeqCst)
}

/// The bytes of a completion as `struct vmpacket_descriptor` lays them out, with its padding and
/// trailer.
#[test]
fn a_packet_in_memory() {
    let Ring { mut writer, view, .. } = ring(1);
    writer.push(&Outgoing::completion(0x1122_3344_5566_7788, b"abc")).unwrap();
    assert!(writer.publish());
    writer.push(&Outgoing::completion(2, &[])).unwrap();
    assert!(!writer.publish());

    let mut bytes = [0xee; 56];
    view.read(0, &mut bytes);
    #[rustfmt::skip]
    assert_eq!(bytes, [
        0x0b, 0, 2, 0, 3, 0, 0, 0,  0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
        b'a', b'b', b'c', 0, 0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,
        0x0b, 0, 2, 0, 2, 0, 0, 0,  2, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 32, 0, 0, 0,
    ]);
    assert_eq!(get(&view, Word::WriteIndex), 56);
}

#[test]
fn header_and_payload_are_apart() {
    let Ring { mut writer, mut reader, .. } = ring(1);
    let packet = Outgoing {
        kind: PacketType::DATA_USING_GPA_DIRECT,
        flags: COMPLETION_REQUESTED,
        transaction_id: 9,
        header: &[1; 24],
        payload: &[2; 5],
    };
    writer.push(&packet).unwrap();
    let _ = writer.publish();
    let mut buf = PacketBuf::for_ring(4096);
    let read = reader.next(&mut buf).unwrap().unwrap();
    assert!(read.descriptor.wants_completion());
    assert_eq!(read.header, [1; 24]);
    assert_eq!(read.payload, [2, 2, 2, 2, 2, 0, 0, 0]);
}

#[test]
fn room_can_be_spared_for_others() {
    let Ring { mut writer, mut reader, .. } = ring(1);
    let packet = Outgoing::in_band(1, &[0; 1000]);
    let len = packet.ring_len() as u32;
    for _ in 0..3 {
        writer.push_sparing(&packet, 512).unwrap();
    }
    // 1024 B are left: 512 of them must stay.
    let full = Full::NoRoom { need: len + 512, free: 4096 - 3 * len };
    assert_eq!(writer.push_sparing(&packet, 512), Err(full));
    // What is longer than the ring less what is spared goes into an empty ring.
    let long = Outgoing::in_band(2, &[0; 3800]);
    assert_eq!(
        writer.push_sparing(&long, 512),
        Err(Full::NoRoom { need: 4095, free: 4096 - 3 * len })
    );
    writer.push(&Outgoing::in_band(1, &[0; 900])).unwrap();
    let _ = writer.publish();
    while take(&mut reader).is_some() {}
    let _ = reader.publish();
    writer.push_sparing(&long, 512).unwrap();
}

#[test]
fn nothing_is_seen_before_it_is_published() {
    let Ring { mut writer, mut reader, .. } = ring(1);
    writer.push(&Outgoing::in_band(1, &[0; 8])).unwrap();
    assert_eq!(take(&mut reader), None);
    let _ = writer.publish();
    assert!(take(&mut reader).is_some());
}

#[test]
fn only_the_first_packet_into_an_empty_unmasked_ring_signals() {
    let Ring { mut writer, mut reader, .. } = ring(1);
    let mut send = || {
        writer.push(&Outgoing::in_band(1, &[])).unwrap();
        writer.publish()
    };
    assert!(send(), "empty");
    assert!(!send(), "not empty");
    reader.mask();
    while take(&mut reader).is_some() {}
    assert!(!reader.publish());
    assert!(!send(), "empty, but masked");
    assert!(!reader.rearm(), "a packet came while masked");
    while take(&mut reader).is_some() {}
    let _ = reader.publish();
    assert!(reader.rearm());
    assert!(send(), "empty again");
    assert!(!writer.publish(), "nothing new");
}

#[test]
fn a_full_ring_keeps_a_unit_free_and_room_is_asked_for() {
    let Ring { mut writer, mut reader, view } = ring(1);
    let packet = Outgoing::in_band(1, &[0; 1000]);
    for _ in 0..3 {
        writer.push(&packet).unwrap();
    }
    // 4 packets of 1024 B would fill 4096 B to the last byte.
    let full = writer.push(&packet).unwrap_err();
    assert_eq!(full, Full::NoRoom { need: 1024, free: 1024 });
    let _ = writer.publish();

    assert_eq!(writer.wait_for_room(2048), Ok(true));
    assert_eq!(get(&view, Word::PendingSendSize), 2048);
    take(&mut reader).unwrap();
    assert!(!reader.publish(), "2048 B are free, more is needed");
    take(&mut reader).unwrap();
    assert!(reader.publish(), "the step over the line");
    take(&mut reader).unwrap();
    assert!(!reader.publish(), "once");
    assert_eq!(writer.wait_for_room(2048), Ok(false), "room is there already");
    writer.stop_waiting();
    assert_eq!(get(&view, Word::PendingSendSize), 0);
}

/// Windows asks for the ring's size less one, which is no multiple of 8.
#[test]
fn low_bits_of_the_pending_size_mean_nothing() {
    let Ring { mut writer, mut reader, view } = ring(1);
    writer.push(&Outgoing::in_band(1, &[0; 8])).unwrap();
    let _ = writer.publish();
    set(&view, Word::PendingSendSize, 4095);
    take(&mut reader).unwrap();
    assert!(reader.publish());
}

#[test]
fn the_writer_says_that_it_uses_the_pending_size() {
    let Ring { view, .. } = ring(1);
    assert_eq!(get(&view, Word::FeatureBits), 1);
}

#[test]
fn what_can_never_fit_is_told_apart_from_what_does_not_fit_now() {
    let Ring { mut writer, .. } = ring(1);
    let error = writer.push(&Outgoing::in_band(1, &[0; 4096 - 24])).unwrap_err();
    assert_eq!(error, Full::Never { need: 4096, len: 4096 });
    writer.push(&Outgoing::in_band(1, &[0; 4096 - 32])).unwrap();
}

#[test]
fn indices_that_point_nowhere_are_errors() {
    for index in [4096, 4, u32::MAX] {
        let Ring { mut writer, mut reader, view } = ring(1);
        set(&view, Word::WriteIndex, index);
        let mut buf = PacketBuf::for_ring(4096);
        let error = reader.next(&mut buf).unwrap_err();
        assert_eq!(error, RingError::Index { word: Word::WriteIndex, index, len: 4096 });

        set(&view, Word::ReadIndex, index);
        let error = RingError::Index { word: Word::ReadIndex, index, len: 4096 };
        assert_eq!(writer.free(), Err(error));
    }
}

/// The reader's own index in the ring is the reader's to write, not to believe.
#[test]
fn an_index_overwritten_by_the_other_end_changes_nothing() {
    let Ring { mut writer, mut reader, view } = ring(1);
    for id in [1, 2] {
        writer.push(&Outgoing::in_band(id, &[])).unwrap();
    }
    let _ = writer.publish();
    take(&mut reader).unwrap();
    set(&view, Word::ReadIndex, 2000);
    assert_eq!(take(&mut reader), Some((2, vec![])));
}

#[test]
fn lengths_that_lie_are_errors() {
    let descriptor = |data_offset8: u16, total_len8: u16| {
        let mut bytes = [0; 16];
        bytes[0] = 6;
        bytes[2..4].copy_from_slice(&data_offset8.to_le_bytes());
        bytes[4..6].copy_from_slice(&total_len8.to_le_bytes());
        bytes
    };
    let cases = [
        (descriptor(2, 1), RingError::PacketLength { at: 0, total: 16, available: 32 }),
        (descriptor(2, 4), RingError::PacketLength { at: 0, total: 40, available: 32 }),
        (descriptor(2, u16::MAX), RingError::PacketLength { at: 0, total: 524_288, available: 32 }),
        (descriptor(1, 3), RingError::DataOffset { at: 0, offset: 8, total: 24 }),
        (descriptor(4, 3), RingError::DataOffset { at: 0, offset: 32, total: 24 }),
    ];
    for (bytes, error) in cases {
        let Ring { mut reader, view, .. } = ring(1);
        view.write(0, &bytes);
        set(&view, Word::WriteIndex, 32);
        let mut buf = PacketBuf::for_ring(4096);
        assert_eq!(reader.next(&mut buf).unwrap_err(), error);
    }
}
