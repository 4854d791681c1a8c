// SPDX-License-Identifier: MIT OR Apache-2.0

//! What every device and guest rely on: connecting, opening, packets, interrupts, faults, ends.

use busway_memory::{Bytes, GuestAddress};
use busway_ring::{Full, Outgoing, RingMem, Word};
use busway_testkit::{GuestChannel, Pair, PairConfig};
use busway_wire::Version;
use busway_wire::control::GuestMessage;
use busway_wire::control::layout::{OfferChannel, Relid};
use busway_wire::packet::{COMPLETION_REQUESTED, PacketType};
use proptest::prelude::*;

use crate::echo::{ECHO, Echo};

fn open(version: Version, ring_pages: usize) -> (Pair, OfferChannel, GuestChannel) {
    let mut pair = Pair::new(PairConfig::default());
    pair.add(Echo::default());
    let offer = *pair.connect(version).offer(ECHO);
    let channel = pair.open(&offer, ring_pages, 1).unwrap();
    (pair, offer, channel)
}

#[test]
fn a_request_is_answered_in_every_version() {
    for version in Version::ALL {
        let (mut pair, _, mut channel) = open(version, 4);
        channel.request(&mut pair, 7, b"hello");
        let packet = channel.receive(&mut pair);
        assert_eq!(packet.descriptor.kind, PacketType::COMPLETION, "{version}");
        assert_eq!(packet.descriptor.transaction_id, 7);
        assert_eq!(packet.payload, b"hello\0\0\0");
        assert!(pair.interrupts() >= 1);
    }
}

/// All wait for one message slot, and come in order; the last is as good as the first.
#[test]
fn five_hundred_devices_are_offered_and_opened() {
    let config = PairConfig { ram_pages: 16_384, ..PairConfig::default() };
    let mut pair = Pair::new(config);
    for instance in 1..=500 {
        pair.add(Echo { instance, ..Echo::default() });
    }
    let offers = pair.connect(Version::V5_3).offers;
    let relids: Vec<_> = offers.iter().map(|offer| offer.relid).collect();
    assert_eq!(relids, (1..=500).collect::<Vec<_>>());
    let mut channels: Vec<_> = offers.iter().map(|offer| pair.open(offer, 4, 0).unwrap()).collect();
    for (id, channel) in (1..).zip(&mut channels) {
        channel.request(&mut pair, id, b"hello");
    }
    for (id, channel) in (1..).zip(&mut channels) {
        assert_eq!(channel.receive(&mut pair).descriptor.transaction_id, id);
    }
    pair.unload();
    assert_eq!(pair.connect(Version::V5_3).offers.len(), 500);
}

#[test]
fn a_request_without_the_flag_is_not_answered_whatever_its_id() {
    let (mut pair, _, mut channel) = open(Version::V5_3, 4);
    channel.send(&mut pair, &Outgoing::in_band(9, b"quiet"));
    channel.request(&mut pair, 0, b"loud");
    let packet = channel.receive(&mut pair);
    assert_eq!((packet.descriptor.transaction_id, &packet.payload[..4]), (0, b"loud".as_slice()));
    assert_eq!(channel.try_receive(&mut pair), None);
}

#[test]
fn interrupts_go_to_the_vp_of_the_open_and_then_of_the_modify() {
    let (mut pair, offer, mut channel) = open(Version::V5_3, 4);
    channel.request(&mut pair, 1, b"x");
    channel.receive(&mut pair);
    assert!(pair.take_event(1, offer.relid) && !pair.take_event(0, offer.relid));
    assert_eq!(pair.modify(offer.relid, 0), Some(0));
    channel.request(&mut pair, 2, b"x");
    channel.receive(&mut pair);
    assert!(pair.take_event(0, offer.relid) && !pair.take_event(1, offer.relid));
}

#[test]
fn many_answers_are_one_interrupt() {
    let (mut pair, _, mut channel) = open(Version::V5_3, 8);
    let before = pair.interrupts();
    for id in 1..=32 {
        let packet = Outgoing { flags: COMPLETION_REQUESTED, ..Outgoing::in_band(id, b"x") };
        channel.outgoing.push(&packet).unwrap();
    }
    assert!(channel.outgoing.publish());
    pair.signal(channel.connection_id());
    for _ in 0..32 {
        channel.receive(&mut pair);
    }
    assert_eq!(pair.interrupts() - before, 1);
}

#[test]
fn a_guest_that_masks_is_not_interrupted() {
    let (mut pair, _, mut channel) = open(Version::V5_3, 8);
    channel.incoming.mask();
    let before = pair.interrupts();
    channel.request(&mut pair, 1, b"x");
    channel.receive(&mut pair);
    assert_eq!(pair.interrupts(), before);
}

#[test]
fn answers_that_find_no_room_wait_and_none_is_lost() {
    let (mut pair, _, mut channel) = open(Version::V5_3, 2);
    let payload = [7; 1000];
    let mut sent = 0;
    // The guest sends as much as it can and reads nothing.
    for _ in 0..100 {
        let packet = Outgoing { flags: COMPLETION_REQUESTED, ..Outgoing::in_band(sent, &payload) };
        match channel.outgoing.push(&packet) {
            Ok(()) => sent += 1,
            Err(Full::NoRoom { .. }) => break,
            Err(error) => panic!("{error}"),
        }
        if channel.outgoing.publish() {
            pair.signal(channel.connection_id());
        }
        pair.work();
    }
    assert!(sent > 6, "both rings are full: {sent}");
    assert_ne!(channel.incoming.mem().load(Word::PendingSendSize), 0, "the host waits for room");
    for id in 0..sent {
        assert_eq!(channel.receive(&mut pair).descriptor.transaction_id, id);
    }
    assert_eq!(channel.incoming.mem().load(Word::PendingSendSize), 0);
}

#[test]
fn a_guest_that_waits_for_room_is_interrupted() {
    let (mut pair, offer, mut channel) = open(Version::V5_3, 2);
    channel.incoming.mask();
    while channel.outgoing.push(&Outgoing::in_band(1, &[0; 500])).is_ok() {}
    let _ = channel.outgoing.publish();
    assert_eq!(channel.outgoing.wait_for_room(2000), Ok(true));
    pair.take_event(1, offer.relid);
    pair.signal(channel.connection_id());
    pair.work();
    assert!(pair.take_event(1, offer.relid));
}

#[test]
fn a_device_with_little_room_gets_everything_in_the_end() {
    let mut pair = Pair::new(PairConfig::default());
    pair.add(Echo { room: 3, ..Echo::default() });
    let offer = *pair.connect(Version::V5_3).offer(ECHO);
    let mut channel = pair.open(&offer, 16, 0).unwrap();
    for id in 0..200 {
        channel.request(&mut pair, id, b"x");
    }
    for id in 0..200 {
        assert_eq!(channel.receive(&mut pair).descriptor.transaction_id, id);
    }
}

#[test]
fn external_pages_are_the_guests_own() {
    let (mut pair, _, mut channel) = open(Version::V5_3, 4);
    let pfns = pair.pages.take_many(3);
    let data: Vec<u8> = (0..8192).map(|i| (i % 253) as u8).collect();
    let at = |index: usize, offset: u64| GuestAddress((pfns[index] << 12) + offset);
    pair.memory.write_slice(&data[..3996], at(0, 100)).unwrap();
    pair.memory.write_slice(&data[3996..8092], at(1, 0)).unwrap();
    pair.memory.write_slice(&data[8092..], at(2, 0)).unwrap();
    channel.request_on_pages(&mut pair, 1, b"turn", &pfns, (100, 8192));
    channel.receive(&mut pair);
    let mut first = vec![0; 3996];
    pair.memory.read_slice(&mut first, at(0, 100)).unwrap();
    assert!(first.iter().eq(data.iter().rev().take(3996)));
    let mut untouched = [1; 100];
    pair.memory.read_slice(&mut untouched, at(2, 100)).unwrap();
    assert_eq!(untouched, [0; 100]);
}

#[test]
fn a_fault_withdraws_the_channel_and_spares_the_others() {
    let mut pair = Pair::new(PairConfig::default());
    for instance in [1, 2] {
        pair.add(Echo { instance, ..Echo::default() });
    }
    let offers = pair.connect(Version::V5_3).offers;
    let mut bad = pair.open(&offers[0], 4, 0).unwrap();
    let mut good = pair.open(&offers[1], 4, 0).unwrap();
    bad.request(&mut pair, 1, b"fault");
    assert_eq!(pair.expect_rescind(), bad.relid());
    assert_eq!(pair.faults.len(), 1);
    assert!(bad.try_receive(&mut pair).is_none());
    good.request(&mut pair, 2, b"fine");
    good.receive(&mut pair);

    pair.unload();
    assert_eq!(pair.connect(Version::V5_3).offers.len(), 2, "it is back for the next guest");
}

#[test]
fn each_lie_in_a_packet_is_a_fault_with_its_reason() {
    let lie = |header: &[u8]| {
        let (mut pair, _, mut channel) = open(Version::V5_3, 4);
        let kind = PacketType::DATA_USING_GPA_DIRECT;
        let packet = Outgoing { kind, header, ..Outgoing::in_band(1, b"lie") };
        channel.send(&mut pair, &packet);
        pair.work();
        pair.faults[0].to_string()
    };
    let words = |words: &[u64]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    assert!(lie(&words(&[1 << 32, 4096, 1 << 40])).contains("not all RAM"));
    assert!(lie(&words(&[1 << 32, 8192, 1])).contains("need 2 PFNs"));
    assert!(lie(&words(&[2 << 32, 4096, 1])).contains("range 1 of 2"));
    assert!(lie(&[]).contains("header of its ranges"));
}

#[test]
fn indices_that_point_nowhere_close_the_channel() {
    for word in [Word::WriteIndex, Word::ReadIndex] {
        let (mut pair, _, mut channel) = open(Version::V5_3, 4);
        channel.request(&mut pair, 1, b"x");
        let mem = match word {
            Word::WriteIndex => channel.outgoing.mem(),
            _ => channel.incoming.mem(),
        };
        mem.store(word, 0x7fff_fff8);
        pair.signal(channel.connection_id());
        pair.work();
        // The host looks at the guest's read index only when its own view says that room is short.
        if word == Word::WriteIndex {
            assert_eq!(pair.faults.len(), 1, "{word:?}");
        }
    }
}

#[test]
fn close_and_open_again_a_hundred_times() {
    let (mut pair, offer, channel) = open(Version::V5_3, 4);
    pair.close(channel);
    for id in 0..100 {
        let mut channel = pair.open(&offer, 4, 0).unwrap();
        channel.request(&mut pair, id, b"again");
        channel.receive(&mut pair);
        pair.close(channel);
        assert_eq!(pair.open_channels(), 0);
    }
}

#[test]
fn after_a_close_the_rings_are_left_alone() {
    let (mut pair, _, mut channel) = open(Version::V5_3, 4);
    pair.post(&GuestMessage::CloseChannel(Relid { relid: channel.relid() }));
    channel.request(&mut pair, 1, b"late");
    pair.work();
    assert_eq!(channel.try_receive(&mut pair), None);
    assert_eq!(channel.outgoing.mem().load(Word::ReadIndex), 0);
}

#[test]
fn unload_closes_everything() {
    let (mut pair, _, _channel) = open(Version::V5_3, 4);
    pair.unload();
    assert_eq!(pair.open_channels(), 0);
    assert_eq!(pair.bus.version(), None);
    let offer = *pair.connect(Version::V3_0).offer(ECHO);
    pair.open(&offer, 4, 0).unwrap();
}

#[test]
fn a_kernel_that_takes_over_without_a_word_finds_a_fresh_bus() {
    let (mut pair, _, _channel) = open(Version::V5_3, 4);
    let offer = *pair.connect(Version::V4_1).offer(ECHO);
    let mut channel = pair.open(&offer, 4, 1).unwrap();
    channel.request(&mut pair, 1, b"new");
    channel.receive(&mut pair);
}

#[test]
fn offers_for_a_full_slot_arrive_in_order() {
    let mut pair = Pair::new(PairConfig::default());
    for instance in 1..=200 {
        pair.add(Echo { instance, ..Echo::default() });
    }
    let offers = pair.connect(Version::V5_3).offers;
    assert!(offers.iter().map(|offer| offer.relid).eq(1..=200));
}

#[test]
fn hot_removal_and_return() {
    let mut pair = Pair::new(PairConfig::default());
    let id = pair.add(Echo::default());
    let offer = *pair.connect(Version::V5_3).offer(ECHO);
    let _channel = pair.open(&offer, 4, 0).unwrap();
    pair.bus.remove(id);
    assert_eq!(pair.expect_rescind(), offer.relid);
    pair.work();
    assert_eq!(pair.open_channels(), 0);
    pair.release(offer.relid);
    pair.add(Echo::default());
    let again = pair.expect_offer();
    assert_eq!(again.relid, offer.relid);
    let _channel = pair.open(&again, 4, 0).unwrap();
    // By who knows nothing but the device.
    pair.bus.remove_instance(again.instance);
    assert_eq!(pair.expect_rescind(), again.relid);
    pair.work();
    assert_eq!(pair.open_channels(), 0);
}

#[test]
fn flags_for_a_vp_that_is_offline_wait_for_it() {
    let (mut pair, offer, mut channel) = open(Version::V5_3, 4);
    pair.disable_synic(1);
    channel.request(&mut pair, 1, b"x");
    channel.receive(&mut pair);
    assert!(!pair.take_event(1, offer.relid));
    pair.enable_synic(1);
    assert!(pair.take_event(1, offer.relid));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    /// Whatever bytes a guest posts, in whatever state, the bus answers or refuses, and serves the
    /// next guest as if nothing had been.
    #[test]
    fn any_messages_leave_a_bus_that_works(
        messages in prop::collection::vec(
            (1_u32..32, prop::collection::vec(prop_oneof![0_u32..6, any::<u32>()], 0..38)),
            1..60,
        ),
        connected in any::<bool>(),
    ) {
        let mut pair = Pair::new(PairConfig::default());
        pair.add(Echo::default());
        if connected {
            let offer = *pair.connect(Version::V5_3).offer(ECHO);
            pair.open(&offer, 4, 0).unwrap();
        }
        for (kind, words) in messages {
            let bytes: Vec<u8> =
                [kind, 0].iter().chain(&words).flat_map(|word| word.to_le_bytes()).collect();
            pair.post_bytes(&bytes);
            while pair.take_message().is_some() {}
        }
        prop_assert_eq!(pair.host_fault(), None);
        let offer = *pair.connect(Version::V5_3).offer(ECHO);
        let mut channel = pair.open(&offer, 4, 0).unwrap();
        channel.request(&mut pair, 1, b"alive");
        channel.receive(&mut pair);
        prop_assert_eq!(pair.open_channels(), 1);
    }
}
