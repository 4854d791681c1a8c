// SPDX-License-Identifier: MIT OR Apache-2.0

//! The network card against a driver's end, its cable led back to itself.

use busway_frames::Network;
use busway_network::{CardOptions, LinkControl, Mac, NetworkCard};
use busway_ring::Outgoing;
use busway_testkit::{Pair, PairConfig};
use busway_vmbus::DeviceId;
use busway_wire::control::layout::OfferChannel;
use busway_wire::nvsp::{
    Message, MessageType, RndisChannel, Status, SubchannelComplete, SubchannelOperation,
    SubchannelRequest, SwitchDataPath, Version,
};
use busway_wire::packet::PacketType;
use busway_wire::rndis::{Oid, Status as RndisStatus};
use busway_wire::{Guid, Version as BusVersion, class};
use zerocopy::IntoBytes;

use crate::netvsc::{CHECKSUM, HASH, LARGE_SEND, Netvsc, PACKET_ID, VLAN, message, whole, words};

pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

/// A guest with a card that has `queues` channels.
pub(crate) struct Setup {
    pub(crate) pair: Pair,
    pub(crate) device: DeviceId,
    pub(crate) link: LinkControl,
    pub(crate) offer: OfferChannel,
}

pub(crate) fn setup(queues: u16) -> Setup {
    setup_on(Network::loopback(), queues)
}

pub(crate) fn setup_on(network: Network, queues: u16) -> Setup {
    let mut pair = Pair::new(PairConfig { vps: 2, ram_pages: 8192, ..PairConfig::default() });
    let instance = Guid::from_text_order(0x6e65_7400_0000_4000_8000_0000_0000_0001);
    let options = CardOptions { instance, mac: Mac(MAC), mtu: 9000, queues };
    let card = NetworkCard::new(&options, network);
    let link = card.link();
    let device = pair.add(card);
    let connected = pair.connect(BusVersion::V5_3);
    let offer = *connected.offer(class::NETWORK);
    Setup { pair, device, link, offer }
}

pub(crate) fn started(queues: u16) -> (Setup, Netvsc) {
    let mut setup = setup(queues);
    let driver = Netvsc::start(&mut setup.pair, &setup.offer, Version::V6_1);
    (setup, driver)
}

/// A frame to the card itself, of which no byte is like its neighbours.
pub(crate) fn frame(len: usize) -> Vec<u8> {
    let mut frame = [&MAC[..], &[2, 0, 0, 0, 0, 9], &[0x88, 0xb5]].concat();
    frame.extend((frame.len()..len).map(|i| (i * 13 % 251) as u8));
    frame
}

/// An IPv4 packet with TCP in a frame to the card; lengths and checksums as `hv_netvsc` leaves them
/// for the card to compute: TCP's holds the sum of the pseudo header, with or without the length.
pub(crate) fn tcp_frame(payload: usize, source_port: u16, for_cutting: bool) -> Vec<u8> {
    let mut frame = [&MAC[..], &[2, 0, 0, 0, 0, 9], &[8, 0]].concat();
    let total = if for_cutting { 0 } else { 40 + payload as u16 };
    frame.extend([0x45, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(source_port.to_be_bytes());
    frame.extend([0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0]);
    let len = if for_cutting { 0 } else { 20 + payload as u32 };
    let pseudo = 0x0a00 + 0x0001 + 0x0a00 + 0x0002 + 6 + len;
    frame[50..52]
        .copy_from_slice(&((pseudo & 0xffff) as u16 + (pseudo >> 16) as u16).to_be_bytes());
    frame.extend((0..payload).map(|i| (i * 7 % 253) as u8));
    frame
}

/// The one's complement sum of big-endian words (RFC 1071), the slow way.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)));
    let mut total: u64 = words.map(u64::from).sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Whether TCP's checksum is right in an IPv4 frame.
fn tcp_is_right(frame: &[u8]) -> bool {
    let len = (frame.len() - 34) as u16;
    let pseudo = [&frame[26..34], &[0, 6], &len.to_be_bytes(), &frame[34..]].concat();
    sum(&pseudo) == 0xffff
}

const TCP_CHECKSUM_NOTE: (u32, u32) = (CHECKSUM, 1 | 1 << 2 | 34 << 16);

#[test]
fn every_version_is_spoken_and_no_other() {
    let mut setup = setup(1);
    let mut driver = Netvsc::open(&mut setup.pair, &setup.offer, 4);
    for wrong in [0, 1, 3, 0x4_0001, 0x6_0002, 0x7_0000] {
        let complete = driver.init(&mut setup.pair, Version(wrong));
        assert_ne!(complete.status, Status::SUCCESS, "{wrong:#x}");
    }
    for version in Version::ALL {
        let complete = driver.init(&mut setup.pair, version);
        assert_eq!((complete.status, complete.version), (Status::SUCCESS, version));
    }
}

/// T4: OpenBSD and iPXE ask for completions of what has no answer, and want nothing in them.
#[test]
fn what_has_no_answer_is_completed_with_nothing() {
    let mut setup = setup(1);
    let pair = &mut setup.pair;
    let mut driver = Netvsc::open(pair, &setup.offer, 4);
    driver.init(pair, Version::V5);
    let config = Message::new(MessageType::SEND_NDIS_CONFIG, &[1514_u32, 0, 8, 0]);
    assert!(driver.ask(pair, config.as_bytes()).is_empty());
    // As short as FreeBSD's: no more than it needs.
    let version = Message::new(MessageType::SEND_NDIS_VERSION, &[6_u32, 1]);
    assert!(driver.ask(pair, &version.as_bytes()[..16]).is_empty());
    let switch = Message::new(MessageType::SWITCH_DATA_PATH, &SwitchDataPath { active: 0 });
    assert!(driver.ask(pair, switch.as_bytes()).is_empty());
    let unknown = Message::new(MessageType(199), &0_u32);
    assert!(driver.ask(pair, unknown.as_bytes()).is_empty());
    driver.channel.send(pair, &Outgoing::in_band(0, unknown.as_bytes()));
    pair.work();
    assert_eq!(driver.channel.try_receive(pair), None, "nobody asked for an answer");
}

/// iPXE: NVSP 1, without a word about NDIS, and completions of frames that are empty.
#[test]
fn a_guest_of_version_1_sends_and_receives() {
    let mut setup = setup(1);
    let pair = &mut setup.pair;
    let mut driver = Netvsc::open(pair, &setup.offer, 2);
    driver.init(pair, Version::V1);
    driver.share(pair);
    driver.initialize(pair);
    driver.set_filter(pair, 0x0d);
    for turn in 0..10 {
        let sent = frame(60 + turn);
        let message = message(&[], &sent);
        assert_eq!(driver.send_pages(pair, &[&message], None), Status::SUCCESS);
        let packet = driver.next_packet(pair).unwrap();
        let (_, messages) = driver.messages(&packet);
        assert_eq!(whole(&messages)[0].bytes, sent);
        let id = packet.descriptor.transaction_id;
        driver.channel.send(pair, &Outgoing::completion(id, &[]));
    }
    driver.revoke(pair);
}

#[test]
fn an_mtu_makes_room_for_its_frames() {
    let mut setup = setup(1);
    let pair = &mut setup.pair;
    let mut driver = Netvsc::open(pair, &setup.offer, 16);
    driver.init(pair, Version::V6_1);
    driver.configure(pair, 9014, 0x8c);
    driver.share(pair);
    driver.initialize(pair);
    driver.set_filter(pair, 0x0d);
    assert_eq!(driver.query(pair, Oid::GEN_MAXIMUM_FRAME_SIZE, 0), Ok(words(&[9000])));
    for len in [60, 9014] {
        let sent = frame(len);
        assert_eq!(driver.send_pages(pair, &[&message(&[], &sent)], None), Status::SUCCESS);
        assert_eq!(driver.frames(pair)[0].bytes, sent);
    }
    let long = frame(9100);
    assert_eq!(driver.send_pages(pair, &[&message(&[], &long)], None), Status::SUCCESS);
    assert!(driver.frames(pair).is_empty(), "too long to come in");
}

#[test]
fn frames_are_sent_from_wherever_they_are() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    let sent = frame(1514);
    let bytes = message(&[(HASH, 7)], &sent);
    // In a section; in one range; the header in one and the frame in pieces of no size in others.
    driver.send_frame(pair, &[], &sent);
    assert_eq!(driver.send_pages(pair, &[&bytes], None), Status::SUCCESS);
    let parts = [&bytes[..60], &bytes[60..61], &bytes[61..900], &bytes[900..]];
    assert_eq!(driver.send_pages(pair, &parts, None), Status::SUCCESS);
    // The header in a section and the frame in pages, as a copy that is not worth it.
    driver.send.memory.write_at(2 * 6144, &bytes[..60]);
    assert_eq!(driver.send_pages(pair, &[&bytes[60..]], Some((2, 60))), Status::SUCCESS);
    let frames = driver.frames(pair);
    assert_eq!(frames.len(), 4);
    assert!(frames.iter().all(|frame| frame.bytes == sent && frame.notes.is_empty()));
}

/// As `netvsc_copy_to_send_buf` of Linux does with a burst: each padded to 8 bytes.
#[test]
fn several_frames_are_sent_at_once() {
    let (mut setup, mut driver) = started(1);
    let mut bytes = Vec::new();
    for len in [60, 61, 1001] {
        let mut one = message(&[], &frame(len));
        let padded = one.len().next_multiple_of(8);
        one.resize(padded, 0xee);
        one[4..8].copy_from_slice(&(padded as u32).to_le_bytes());
        bytes.extend(one);
    }
    let pair = &mut setup.pair;
    let status = driver.send_section(pair, RndisChannel::DATA, 3, &bytes);
    assert_eq!(status, Status::SUCCESS);
    let packet = driver.next_packet(pair).unwrap();
    let (_, messages) = driver.messages(&packet);
    let lengths: Vec<_> = whole(&messages).iter().map(|frame| frame.bytes.len()).collect();
    assert_eq!(lengths, [60, 61, 1001], "and come in by one packet");
}

#[test]
fn a_filter_decides_what_comes_in() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    let to = |mac: [u8; 6]| [&mac[..], &frame(60)[6..]].concat();
    let cases =
        [(MAC, 0x01), ([2, 0, 0, 0, 0, 8], 0), ([1, 0, 0x5e, 1, 2, 3], 0x04), ([0xff; 6], 0x08)];
    for filter in [0x01, 0x04, 0x08, 0x0d, 0x20, 0] {
        driver.set_filter(pair, filter);
        for (mac, wanted) in cases {
            driver.send_frame(pair, &[], &to(mac));
            let came = !driver.frames(pair).is_empty();
            assert_eq!(came, filter == 0x20 || filter & wanted != 0, "{mac:x?} {filter:#x}");
        }
    }
    // The guest may choose another address.
    driver.set_filter(pair, 0x01);
    let other = [2, 0, 0, 0, 0, 8];
    assert_eq!(driver.set(pair, Oid::ETHERNET_CURRENT_ADDRESS, &other), RndisStatus::SUCCESS);
    driver.send_frame(pair, &[], &to(MAC));
    driver.send_frame(pair, &[], &to(other));
    assert_eq!(driver.frames(pair).len(), 1);
    let group = [3, 0, 0, 0, 0, 8];
    assert_ne!(driver.set(pair, Oid::ETHERNET_CURRENT_ADDRESS, &group), RndisStatus::SUCCESS);
}

#[test]
fn missing_checksums_are_computed() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    for payload in [0, 1, 700, 1460] {
        let sent = tcp_frame(payload, 1000, false);
        assert!(!tcp_is_right(&sent));
        driver.send_frame(pair, &[TCP_CHECKSUM_NOTE], &sent);
        let frames = driver.frames(pair);
        assert!(tcp_is_right(&frames[0].bytes), "{payload}");
        assert_eq!(frames[0].note(CHECKSUM), Some(8), "the guest need not look");
        assert_eq!(frames[0].bytes[..50], sent[..50]);
    }
    // Nothing is claimed of a frame whose checksum nobody computed.
    let sent = tcp_frame(9, 1000, false);
    driver.send_frame(pair, &[], &sent);
    assert_eq!(driver.frames(pair)[0].note(CHECKSUM), None);
}

#[test]
fn a_vlan_tag_travels_in_a_note() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    let (tag, sent) = ((VLAN, 3 | 1 << 3 | 0x123 << 4), frame(100));
    driver.send_frame(pair, &[tag], &sent);
    let frames = driver.frames(pair);
    assert_eq!((frames[0].note(VLAN), &frames[0].bytes), (Some(tag.1), &sent));
    // With a checksum behind it, whose place moves.
    let sent = tcp_frame(300, 1000, false);
    driver.send_frame(pair, &[tag, TCP_CHECKSUM_NOTE], &sent);
    let frames = driver.frames(pair);
    assert!(tcp_is_right(&frames[0].bytes));
    assert_eq!((frames[0].note(VLAN), frames[0].note(CHECKSUM)), (Some(tag.1), Some(8)));
}

/// Switches coalescing on, of both kinds.
pub(crate) fn coalesce(pair: &mut Pair, driver: &mut Netvsc) {
    let mut parameters = [0; 28];
    parameters[..4].copy_from_slice(&[0x80, 3, 28, 0]);
    (parameters[22], parameters[23]) = (2, 2);
    let status = driver.set(pair, Oid::TCP_OFFLOAD_PARAMETERS, &parameters);
    assert_eq!(status, RndisStatus::SUCCESS);
}

pub(crate) fn large_send(segment: u32) -> (u32, u32) {
    (LARGE_SEND, segment | 34 << 20 | 1 << 30)
}

#[test]
fn a_large_frame_is_cut_by_nobody_on_its_way_to_a_guest_that_coalesces() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    coalesce(pair, &mut driver);
    for payload in [3000, 61_000] {
        let sent = tcp_frame(payload, 1000, true);
        let status = driver.send_pages(pair, &[&message(&[large_send(1448)], &sent)], None);
        assert_eq!(status, Status::SUCCESS);
        let frames = driver.frames(pair);
        let bytes = &frames[0].bytes;
        assert_eq!((frames.len(), bytes.len()), (1, sent.len()));
        assert_eq!(bytes[54..], sent[54..]);
        assert_eq!(bytes[16..18], (40 + payload as u16).to_be_bytes(), "the packet's length");
        assert_eq!(sum(&bytes[14..34]), 0xffff, "the IP header's checksum");
        assert_eq!(frames[0].note(CHECKSUM), Some(8));
        assert!(frames[0].note(PACKET_ID).is_some());
        // Of TCP's checksum, the pseudo header's part is there, now with the length.
        let pseudo = [&bytes[26..34], &[0, 6], &(20 + payload as u16).to_be_bytes()[..]].concat();
        assert_eq!(bytes[50..52], sum(&pseudo).to_be_bytes());
    }
}

/// Parts for the longest frame are kept ready, of which a short one takes the first.
#[test]
fn frames_of_all_lengths_come_in_whole() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    coalesce(pair, &mut driver);
    for turn in 0..120_usize {
        let payload = [10, 100, 1400, 2500, 20_000, 5][turn % 6] + turn;
        let sent = tcp_frame(payload, 1000 + turn as u16, true);
        let status = driver.send_pages(pair, &[&message(&[large_send(1448)], &sent)], None);
        assert_eq!(status, Status::SUCCESS);
        let frames = driver.frames(pair);
        assert_eq!((frames.len(), frames[0].bytes.len()), (1, sent.len()), "{turn}");
        assert_eq!(frames[0].bytes[34..50], sent[34..50], "{turn}");
        assert_eq!(frames[0].bytes[54..], sent[54..], "{turn}");
    }
}

#[test]
fn a_large_frame_is_lost_on_a_guest_that_does_not_coalesce() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    let large = message(&[large_send(1448)], &tcp_frame(3000, 1000, true));
    assert_eq!(driver.send_pages(pair, &[&large], None), Status::SUCCESS);
    assert!(driver.frames(pair).is_empty());
    driver.send_frame(pair, &[], &frame(60));
    assert_eq!(driver.frames(pair).len(), 1);
}

/// What `rndis_set_rss_param_msg` of Linux sends.
pub(crate) fn rss(table: &[u32], key: &[u8; 40]) -> Vec<u8> {
    let table_len = table.len() as u32 * 4;
    let mut value = vec![0x89, 2, 40, 0, 0, 0, 0, 0];
    value.extend(words(&[0x1701, table_len, 40, 40, 40 + table_len, 0, 0, 0]));
    value.extend(words(table));
    value.extend(key);
    value
}

/// The card grants channels, and frames come in by those that table and hash choose.
#[test]
fn frames_are_spread_over_channels() {
    let (mut setup, mut driver) = started(4);
    let pair = &mut setup.pair;
    let operation = SubchannelOperation::ALLOCATE;
    let body = SubchannelRequest { operation, count: 3 };
    let (kind, granted): (_, SubchannelComplete) =
        driver.ask_for(pair, MessageType::SUBCHANNEL, &body);
    assert_eq!(
        (kind, granted.status, granted.count),
        (MessageType::SUBCHANNEL, Status::SUCCESS, 3)
    );
    let offers: Vec<_> = (0..3).map(|_| pair.expect_offer()).collect();
    let indices: Vec<_> = offers.iter().map(|offer| offer.subchannel_index).collect();
    assert_eq!(indices, [1, 2, 3]);
    let open = |offer| pair.open(offer, 8, 1).unwrap();
    let mut others: Vec<_> = offers.iter().map(open).collect();
    // Told which of them to send on, once all are open.
    pair.work();
    let told = driver.channel.receive(pair);
    assert_eq!(told.descriptor.kind, PacketType::DATA_IN_BAND);
    assert_eq!((told.descriptor.transaction_id, told.descriptor.wants_completion()), (0, false));
    let mut table = words(&[134, 16, 12]);
    table.extend(words(&[0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]));
    assert_eq!(told.payload[..76], table);
    // Everything by channel 2.
    let status = driver.set(pair, Oid::GEN_RECEIVE_SCALE_PARAMETERS, &rss(&[2; 128], &[0x6d; 40]));
    assert_eq!(status, RndisStatus::SUCCESS);
    driver.send_frame(pair, &[], &tcp_frame(100, 4000, false));
    assert!(driver.frames(pair).is_empty(), "not by the first channel");
    pair.work();
    let packet = others[1].try_receive(pair).expect("a frame on channel 2");
    let (_, messages) = driver.messages(&packet);
    assert!(whole(&messages)[0].note(HASH).is_some());
    let body = words(&[108, 1]);
    let id = packet.descriptor.transaction_id;
    others[1].send(pair, &Outgoing::completion(id, &body));
    // What is no IP has no hash, and comes by the first channel.
    driver.send_frame(pair, &[], &frame(60));
    assert_eq!(driver.frames(pair).len(), 1);
    // A table that names a channel that there is not.
    let status = driver.set(pair, Oid::GEN_RECEIVE_SCALE_PARAMETERS, &rss(&[4; 128], &[0; 40]));
    assert_ne!(status, RndisStatus::SUCCESS);
    // The first channel goes, and with it the others; the buffers come back.
    let (gpadl, relid) = (driver.receive.gpadl, driver.channel.relid());
    pair.close_only(driver.channel);
    for _ in 0..3 {
        pair.expect_rescind();
    }
    pair.teardown(relid, gpadl);
}

#[test]
fn more_channels_than_there_are_are_not_granted() {
    let (mut setup, mut driver) = started(2);
    let operation = SubchannelOperation::ALLOCATE;
    let mut ask = |count| {
        let body = SubchannelRequest { operation, count };
        let answer = driver.ask_for(&mut setup.pair, MessageType::SUBCHANNEL, &body);
        let granted: SubchannelComplete = answer.1;
        granted
    };
    assert_eq!(ask(0).count, 0);
    assert_eq!((ask(u32::MAX).status, ask(u32::MAX).count), (Status::SUCCESS, 1));
}

/// A host of each age answers as it did in its time, and the guest asks on the same channel for older
/// versions until one fits.
#[test]
fn nothing_newer_is_spoken_than_was_said() {
    for newest in Version::ALL {
        let mut pair = Pair::new(PairConfig { ram_pages: 8192, ..PairConfig::default() });
        let instance = Guid::from_text_order(1);
        let options = CardOptions { instance, mac: Mac(MAC), mtu: 9000, queues: 1 };
        let card = NetworkCard::new(&options, Network::loopback());
        pair.add(card.with_newest_version(newest));
        let offer = *pair.connect(BusVersion::V5_3).offer(class::NETWORK);
        let mut driver = Netvsc::open(&mut pair, &offer, 16);
        for version in Version::ALL.into_iter().rev().filter(|version| *version > newest) {
            let answer = driver.init(&mut pair, version);
            assert_ne!(answer.status, Status::SUCCESS, "{version} of a host of {newest}");
        }
        let answer = driver.init(&mut pair, newest);
        assert_eq!((answer.status, answer.version), (Status::SUCCESS, newest));
        driver.configure(&mut pair, 1514, 0);
        driver.share(&mut pair);
        driver.initialize(&mut pair);
        driver.set_filter(&mut pair, 0x0d);
        driver.send_frame(&mut pair, &[], &frame(60));
        assert_eq!(driver.frames(&mut pair).len(), 1, "{newest}");
    }
}

/// Pulls the cable, and puts it back.
#[test]
fn the_guest_hears_of_its_link() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    let mut indications = |pair: &mut Pair| {
        let mut told = Vec::new();
        while let Some((channel, messages)) = driver.take_packet(pair) {
            assert_eq!((channel, messages.len()), (RndisChannel::CONTROL, 1));
            assert_eq!(messages[0][..8], words(&[7, 20]));
            told.push(u32::from_le_bytes(messages[0][8..12].try_into().unwrap()));
        }
        told
    };
    setup.link.set_up(false);
    setup.link.set_up(false);
    assert_eq!(indications(pair), [0x4001_000c]);
    setup.link.set_up(true);
    setup.link.network_changed();
    assert_eq!(indications(pair), [0x4001_000b, 0x4001_0018]);
    setup.link.set_up(false);
    assert_eq!(indications(pair).len(), 1);
    assert_eq!(driver.query(pair, Oid::GEN_MEDIA_CONNECT_STATUS, 0), Ok(words(&[1])));
    driver.send_frame(pair, &[], &frame(60));
    assert!(driver.frames(pair).is_empty());
}
