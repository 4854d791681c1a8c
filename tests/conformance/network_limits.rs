// SPDX-License-Identifier: MIT OR Apache-2.0

//! The network card and a guest that is slow, rude or wrong.

use busway_ring::Outgoing;
use busway_testkit::Pair;
use busway_vmbus::{Channel, Progress};
use busway_wire::nvsp::{
    Init, Message, MessageType, ReceiveBufferComplete, RndisChannel, ShareBuffer, Status, Version,
};
use busway_wire::packet::PacketType;
use busway_wire::rndis::{Oid, Status as RndisStatus};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zerocopy::IntoBytes;

use crate::netvsc::{CHECKSUM, LARGE_SEND, Netvsc, message, poke, words};
use crate::network::{frame, large_send, rss, setup, started, tcp_frame};
use crate::network_plug::open_subchannels;

/// A small ring, and a guest that reads nothing for long: nothing is lost that was promised.
#[test]
fn full_rings_lose_no_completion() {
    let mut setup = setup(1);
    let pair = &mut setup.pair;
    let mut driver = Netvsc::open(pair, &setup.offer, 3);
    driver.init(pair, Version::V6_1);
    driver.configure(pair, 1514, 0);
    driver.share(pair);
    driver.initialize(pair);
    driver.set_filter(pair, 0x0d);
    let bytes = message(&[], &frame(60));
    driver.send.memory.write_at(0, &bytes);
    let body = busway_wire::nvsp::RndisPacket {
        channel: RndisChannel::DATA,
        section_index: 0,
        section_len: bytes.len() as u32,
    };
    let request = Message::new(MessageType::SEND_RNDIS_PACKET, &body);
    let (mut sent, mut completed, mut received) = (0_u64, 0_u64, 0);
    for _ in 0..50 {
        // As many as fit, without reading.
        loop {
            let packet = Outgoing {
                flags: busway_wire::packet::COMPLETION_REQUESTED,
                ..Outgoing::in_band(1000 + sent, request.as_bytes())
            };
            if driver.channel.outgoing.push(&packet).is_err() {
                break;
            }
            sent += 1;
            if driver.channel.outgoing.publish() {
                pair.signal(driver.channel.connection_id());
            }
            if sent % 100 == 0 {
                pair.work();
            }
        }
        pair.work();
        while let Some(packet) = driver.channel.try_receive(pair) {
            if packet.descriptor.kind == PacketType::COMPLETION {
                assert_eq!(packet.descriptor.transaction_id, 1000 + completed);
                completed += 1;
            } else {
                received += driver.messages(&packet).1.len();
                driver.complete(pair, &packet);
            }
            pair.work();
        }
    }
    assert_eq!(completed, sent);
    assert!(sent > 1000 && received > 500, "{sent} {received}");
}

/// The guest keeps every part of its buffer: there is an end to what comes in, and it goes on when
/// it gives them back.
#[test]
fn a_guest_that_completes_nothing_gets_no_more_than_it_has_room_for() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    let mut kept = Vec::new();
    for _ in 0..2 * driver.parts {
        driver.send_frame(pair, &[], &frame(60));
        kept.append(&mut driver.waiting);
        while let Some(packet) = driver.channel.try_receive(pair) {
            kept.push(packet);
        }
    }
    let named: usize = kept.iter().map(|packet| driver.messages(packet).1.len()).sum();
    assert!(named <= driver.parts as usize && named > driver.parts as usize / 2, "{named}");
    for packet in &kept {
        driver.complete(pair, packet);
    }
    pair.work();
    driver.frames(pair);
    driver.send_frame(pair, &[], &frame(60));
    assert_eq!(driver.frames(pair).len(), 1);
}

/// Frames lie in the letter box of a channel whose worker is busy, and its bell has rung: once for
/// all of them, and anew when it has looked.
#[test]
fn frames_wait_for_a_channel_that_is_busy() {
    let (mut setup, mut driver) = started(4);
    let pair = &mut setup.pair;
    let mut others = open_subchannels(pair, &mut driver, 3);
    let mut worker = pair.take_channel(&others[1]);
    let value = rss(&[2; 128], &[0x6d; 40]);
    let status = driver.set(pair, Oid::GEN_RECEIVE_SCALE_PARAMETERS, &value);
    assert_eq!(status, RndisStatus::SUCCESS);
    let _ = worker.ready(1).unwrap();
    for count in [100, 1, 50] {
        assert!(!rings(&worker));
        for _ in 0..count {
            driver.send_frame(pair, &[], &tcp_frame(100, 4000, false));
        }
        assert!(driver.frames(pair).is_empty() && rings(&worker));
        while worker.ready(1).unwrap() == Progress::More {}
        let mut came = 0;
        while let Some(packet) = others[1].try_receive(pair) {
            came += driver.messages(&packet).1.len();
            let id = packet.descriptor.transaction_id;
            others[1].send(pair, &Outgoing::completion(id, &words(&[108, 1])));
        }
        assert_eq!(came, count);
        while worker.run().unwrap() == Progress::More {}
    }
}

/// Whether a channel's bell is to be heard.
fn rings(worker: &Channel) -> bool {
    let wakeups = worker.wakeups();
    let bell = wakeups.iter().find(|wakeup| wakeup.token == 1).expect("a bell");
    let mut fds = [PollFd::new(&bell.fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).unwrap() == 1
}

/// FreeBSD: the buffers' lists are torn down while the channel is open.
#[test]
fn buffers_are_given_back_and_shared_again() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    for _ in 0..3 {
        driver.send_frame(pair, &[], &frame(60));
        assert_eq!(driver.share_receive(pair, driver.receive.gpadl).status, Status::FAIL);
        driver.revoke(pair);
        let relid = driver.channel.relid();
        pair.teardown(relid, driver.receive.gpadl);
        pair.teardown(relid, driver.send.gpadl);
        let channel = driver.channel;
        pair.close(channel);
        driver = Netvsc::start(pair, &setup.offer, Version::V6_1);
    }
    // Without a word before.
    driver.send_frame(pair, &[], &frame(60));
    pair.teardown(driver.channel.relid(), driver.receive.gpadl);
    let status = driver.send_section(pair, RndisChannel::CONTROL, 1, &words(&[2, 24, 9, 1, 0, 0]));
    assert_eq!(status, Status::INVALID_RNDIS_PACKET, "there is nowhere to answer");
}

#[test]
fn a_card_is_pulled_in_the_middle_of_traffic() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    driver.send_frame(pair, &[], &frame(60));
    pair.bus.remove(setup.device);
    let relid = pair.expect_rescind();
    assert_eq!(relid, driver.channel.relid());
    pair.work();
    assert_eq!(pair.open_channels(), 0);
    pair.release(relid);
    assert_eq!(pair.host_fault(), None);
}

/// What a guest gets wrong about one message is refused, and the next one is taken.
#[test]
fn nonsense_is_refused_and_the_card_goes_on() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    let good = message(&[], &frame(60));
    let changed = |at: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let noted = |len: u32, offset: u32| {
        let mut bytes = message(&[(CHECKSUM, 0)], &frame(60));
        bytes[44..48].copy_from_slice(&len.to_le_bytes());
        bytes[52..56].copy_from_slice(&offset.to_le_bytes());
        bytes
    };
    let cases = [
        ("a kind", changed(0, 77)),
        ("too long", changed(4, 105)),
        ("too short", changed(4, 43)),
        ("endless", changed(4, u32::MAX)),
        ("no length", changed(4, 0)),
        ("a frame outside", changed(8, 37)),
        ("a frame far outside", changed(8, u32::MAX)),
        ("an endless frame", changed(12, u32::MAX)),
        ("no frame", changed(12, 0)),
        ("half a header", changed(12, 13)),
        ("notes outside", changed(32, 1 << 20)),
        ("notes of nothing", noted(0, 12)),
        ("a note too long", noted(17, 12)),
        ("a note without a value", noted(16, 13)),
        ("cut, no TCP", message(&[(LARGE_SEND, 1448 | 1 << 30)], &tcp_frame(900, 1, true))),
        (
            "cut, far away",
            message(&[(LARGE_SEND, 9 | 1023 << 20 | 1 << 30)], &tcp_frame(900, 1, true)),
        ),
        ("cut into nothing", message(&[large_send(0)], &tcp_frame(900, 1, true))),
        ("cut, the old way", message(&[(LARGE_SEND, 9 | 34 << 20)], &tcp_frame(900, 1, true))),
        ("a checksum outside", message(&[(CHECKSUM, 4 | 60 << 16)], &frame(60))),
        ("a checksum of nothing", message(&[(CHECKSUM, 8)], &frame(60))),
        ("few bytes", good[..43].to_vec()),
    ];
    for (what, bytes) in cases {
        let status = driver.send_section(pair, RndisChannel::DATA, 0, &bytes);
        assert_eq!(status, Status::INVALID_RNDIS_PACKET, "{what}");
        driver.send_frame(pair, &[], &frame(60));
        assert_eq!(driver.frames(pair).len(), 1, "{what}");
    }
    for (index, len) in [(10, 60), (0, 6145), (u32::MAX - 1, 60), (9, u32::MAX), (0, 0)] {
        let status = driver.send_named(pair, RndisChannel::DATA, index, len);
        assert_eq!(status, Status::INVALID_RNDIS_PACKET, "{index} {len}");
    }
    assert_eq!(driver.send_section(pair, RndisChannel(9), 0, &good), Status::INVALID_RNDIS_PACKET);
    let long = vec![0; 5000];
    for bytes in [&words(&[4, 28, 1])[..], &words(&[99, 8]), &[1], &long] {
        let status = driver.send_section(pair, RndisChannel::CONTROL, 0, bytes);
        assert_eq!(status, Status::INVALID_RNDIS_PACKET);
    }
    // Completions of nothing, and twice.
    for id in [0, 1, 999, u64::MAX] {
        driver.channel.send(pair, &Outgoing::completion(id, &words(&[108, 1])));
    }
    driver.send_frame(pair, &[], &frame(60));
    let packet = driver.next_packet(pair).unwrap();
    driver.complete(pair, &packet);
    driver.complete(pair, &packet);
    driver.send_frame(pair, &[], &frame(60));
    assert_eq!(driver.frames(pair).len(), 1);
    assert!(pair.faults.is_empty(), "{:?}", pair.faults);
}

/// What is no packet of a network card's, or names memory that is not there, closes the channel.
#[test]
fn what_cannot_be_parsed_closes_the_channel_and_no_other() {
    let outside = |driver: &mut Netvsc, pair: &mut Pair| {
        let mut header = words(&[0, 1, 100, 0]);
        header.extend(0xffff_ffff_u64.to_le_bytes());
        let body = busway_wire::nvsp::RndisPacket {
            channel: RndisChannel::DATA,
            section_index: u32::MAX,
            section_len: 0,
        };
        let message = Message::new(MessageType::SEND_RNDIS_PACKET, &body);
        let packet = Outgoing {
            kind: PacketType::DATA_USING_GPA_DIRECT,
            flags: 1,
            transaction_id: 5,
            header: &header,
            payload: message.as_bytes(),
        };
        driver.channel.send(pair, &packet);
    };
    let too_short = |driver: &mut Netvsc, pair: &mut Pair| {
        driver.channel.send(pair, &Outgoing::in_band(5, &[]));
    };
    let of_no_kind = |driver: &mut Netvsc, pair: &mut Pair| {
        let kind = PacketType::DATA_USING_GPADL;
        driver.channel.send(pair, &Outgoing { kind, ..Outgoing::in_band(5, &[0; 40]) });
    };
    type Wrong = fn(&mut Netvsc, &mut Pair);
    let cases: [Wrong; 3] = [outside, too_short, of_no_kind];
    for wrong in cases {
        let (mut setup, mut driver) = started(1);
        let pair = &mut setup.pair;
        wrong(&mut driver, pair);
        pair.work();
        assert_eq!(pair.faults.len(), 1);
        assert_eq!(pair.expect_rescind(), driver.channel.relid());
        assert_eq!(pair.host_fault(), None);
    }
}

/// The channel's worker is busy, and hears of nothing but packets.
#[test]
fn a_list_may_be_named_as_soon_as_the_guest_has_heard_of_it() {
    let mut setup = setup(1);
    let pair = &mut setup.pair;
    let mut channel = pair.open(&setup.offer, 4, 0).unwrap();
    let mut worker = pair.take_channel(&channel);
    let pfns = pair.pages.take_many(16);
    let gpadl = pair.make_gpadl(setup.offer.relid, &pfns).unwrap();
    let init = Init { min: Version::V6_1, max: Version::V6_1 };
    channel.request(pair, 1, Message::new(MessageType::INIT, &init).as_bytes());
    let share = ShareBuffer { gpadl, id: 1, reserved: 0 };
    let share = Message::new(MessageType::SEND_RECEIVE_BUFFER, &share);
    channel.request(pair, 2, share.as_bytes());
    assert_eq!(worker.run().unwrap(), Progress::Idle);
    channel.try_receive(pair).unwrap();
    let answer = channel.try_receive(pair).unwrap();
    let complete: ReceiveBufferComplete = Message::parse(&answer.payload).unwrap().body();
    assert_eq!(complete.status, Status::SUCCESS);
}

#[test]
fn a_buffer_that_is_none_is_refused() {
    let mut setup = setup(1);
    let pair = &mut setup.pair;
    let mut driver = Netvsc::open(pair, &setup.offer, 4);
    driver.init(pair, Version::V6_1);
    assert_eq!(driver.share_receive(pair, 0xdead).status, Status::FAIL);
    let pfn = pair.pages.take();
    poke(pair, pfn, &[0; 16]);
    driver.configure(pair, 9014, 0);
    let small = pair.make_gpadl(setup.offer.relid, &[pfn]).unwrap();
    assert_eq!(driver.share_receive(pair, small).status, Status::FAIL, "not one frame");
    assert_eq!(driver.share_receive(pair, driver.receive.gpadl).status, Status::SUCCESS);
}
