// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rules on descriptors, transaction ids and signals.

use super::*;

/// The ranges of a GPA-direct packet, as words.
fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A bench with an open channel that no class has rules for.
fn open() -> (Bench, Place) {
    let place = place(Guid::from_text_order(1));
    let mut bench = Bench::default();
    let (target, incoming_len, outgoing_len) = (InterruptTarget::Polled, RING, RING);
    bench.event(&place, Event::Opened { target, incoming_len, outgoing_len });
    (bench, place)
}

#[test]
fn types_flags_and_offsets() {
    let (mut bench, place) = open();
    let good = Sent::in_band(1, &[0; 8]);
    bench.packet(&place, Side::Guest, &good);
    let cancel = Sent { kind: PacketType::CANCEL_REQUEST, flags: 0, ..good };
    bench.packet(&place, Side::Guest, &cancel);
    assert_eq!(bench.broken(), []);
    let next = Sent { id: 2, ..good };
    bench.packet(&place, Side::Guest, &Sent { kind: PacketType(0xd), ..next });
    bench.packet(&place, Side::Guest, &Sent { flags: 2, ..next });
    bench.packet(&place, Side::Guest, &Sent { id: 3, header: &[0; 8], ..next });
    assert_eq!(bench.broken(), [Rule::PacketType, Rule::PacketFlags, Rule::PacketOffset]);
    bench.packet(&place, Side::Host, &good);
    bench.packet(&place, Side::Guest, &Sent { flags: 1, ..Sent::completion(1) });
    assert_eq!(bench.broken(), [Rule::PacketFlags]);
}

#[test]
fn ranges_lie_before_the_data() {
    let (mut bench, place) = open();
    let direct = Sent { kind: PacketType::DATA_USING_GPA_DIRECT, ..Sent::in_band(1, &[0; 8]) };
    // A packet says where its data starts: there may be room before it.
    for (id, header) in
        [&[1 << 32, 0x1000, 7][..], &[0], &[1 << 32, 0x1000, 7, 0, 0]].iter().enumerate()
    {
        bench.packet(
            &place,
            Side::Guest,
            &Sent { id: id as u64, header: &words(header), ..direct },
        );
    }
    assert_eq!(bench.broken(), []);
    let header = words(&[1 << 32 | 5, 0x1000, 7]);
    bench.packet(&place, Side::Guest, &Sent { id: 10, header: &header, ..direct });
    assert_eq!(bench.broken(), [Rule::GpaReserved]);
    let wrong =
        [&[][..], &[1 << 32, 0x2000, 7], &[2 << 32, 0x1000, 7], &[1 << 32, 0x1000 << 32, 7]];
    for (id, header) in wrong.iter().enumerate() {
        let (id, header) = (20 + id as u64, words(header));
        bench.packet(&place, Side::Guest, &Sent { id, header: &header, ..direct });
    }
    assert_eq!(bench.broken(), [Rule::GpaRanges; 4]);
}

#[test]
fn an_id_is_free_once_it_is_answered() {
    let (mut bench, place) = open();
    let request = Sent::in_band(7, &[0; 8]);
    bench.packet(&place, Side::Guest, &request);
    bench.packet(&place, Side::Host, &Sent::completion(7));
    bench.packet(&place, Side::Guest, &request);
    // One that wants no answer may have any.
    bench.packet(&place, Side::Guest, &Sent { flags: 0, ..request });
    assert_eq!(bench.broken(), []);
    bench.packet(&place, Side::Guest, &request);
    assert_eq!(bench.broken(), [Rule::IdReused]);
    // A channel that is opened anew starts over.
    bench.event(&place, Event::Closed);
    bench.packet(&place, Side::Guest, &request);
    assert_eq!(bench.broken(), []);
}

#[test]
fn a_completion_answers_a_packet_once() {
    let (mut bench, place) = open();
    bench.packet(&place, Side::Host, &Sent::in_band(5, &[0; 8]));
    bench.packet(&place, Side::Host, &Sent { flags: 0, ..Sent::in_band(6, &[0; 8]) });
    bench.packet(&place, Side::Guest, &Sent::completion(5));
    assert_eq!(bench.broken(), []);
    bench.packet(&place, Side::Guest, &Sent::completion(5));
    bench.packet(&place, Side::Guest, &Sent::completion(6));
    bench.packet(&place, Side::Guest, &Sent::completion(99));
    assert_eq!(bench.broken(), [Rule::CompletionUnknown; 3]);
}

#[test]
fn a_guest_cannot_make_the_ids_grow() {
    let (mut bench, place) = open();
    for id in 0..100_000 {
        bench.packet(&place, Side::Guest, &Sent::in_band(id, &[0; 8]));
        bench.packet(&place, Side::Host, &Sent::in_band(id, &[0; 8]));
    }
    assert_eq!(bench.checker.channels[&place.key.number()].ids(), (16384, 16384));
    bench.packet(&place, Side::Guest, &Sent::in_band(99_999, &[0; 8]));
    bench.packet(&place, Side::Guest, &Sent::completion(99_999));
    assert_eq!(bench.broken(), [], "what is not followed is not held against it");
}

/// Where the rings stand after a batch of `taken` packets.
fn published(taken: u64, outgoing_used: u32) -> Event<'static> {
    Event::Published(Published {
        incoming_read: 0,
        incoming_write: 0,
        incoming_pending: 0,
        outgoing_read: 0,
        outgoing_write: outgoing_used,
        outgoing_mask: 0,
        reader_waits: false,
        writer_waits: false,
        taken: Traffic { packets: taken, bytes: 0 },
        put: Traffic::default(),
    })
}

#[test]
fn signals_come_for_packets() {
    let (mut bench, place) = open();
    bench.event(&place, Event::Turn(Cause::Start));
    for _ in 0..1000 {
        bench.event(&place, Event::Turn(Cause::Signal));
        bench.event(&place, published(3, 0));
    }
    // The start allows for one that comes late.
    bench.event(&place, Event::Turn(Cause::Signal));
    bench.event(&place, Event::Turn(Cause::Signal));
    assert_eq!(bench.broken(), []);
    bench.event(&place, Event::Turn(Cause::Signal));
    assert_eq!(bench.broken(), [Rule::SignalNeedless]);
}

#[test]
fn a_signal_may_be_late_or_for_room() {
    let (mut bench, place) = open();
    // The packet was found in a turn of the back end; its signal comes afterwards.
    for _ in 0..1000 {
        bench.event(&place, Event::Turn(Cause::BackEnd(0)));
        bench.event(&place, published(1, 0));
        bench.event(&place, Event::Turn(Cause::Signal));
    }
    // The host's ring is full, and the guest makes room.
    for _ in 0..1000 {
        bench.event(&place, Event::Turn(Cause::Signal));
        bench.event(&place, published(0, RING - 4096));
    }
    assert_eq!(bench.broken(), []);
    // Many such do not excuse a guest for ever.
    for _ in 0..1000 {
        bench.event(&place, Event::Turn(Cause::Signal));
    }
    assert!(bench.broken().len() > 900);
}
