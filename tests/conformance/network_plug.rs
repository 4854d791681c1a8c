// SPDX-License-Identifier: MIT OR Apache-2.0

//! Network cards that come and go while their guest runs.

use busway_frames::Network;
use busway_network::{CardOptions, Mac, NetworkCard};
use busway_ring::Outgoing;
use busway_testkit::{GuestChannel, Pair};
use busway_wire::Guid;
use busway_wire::nvsp::{
    Message, MessageType, RndisChannel, RndisPacket, Status, SubchannelComplete,
    SubchannelOperation, SubchannelRequest, Version,
};
use busway_wire::packet::COMPLETION_REQUESTED;
use busway_wire::rndis::{Oid, Status as RndisStatus};
use zerocopy::IntoBytes;

use crate::netvsc::{Netvsc, message, words};
use crate::network::{MAC, frame, rss, started, tcp_frame};

fn another() -> NetworkCard {
    let instance = Guid::from_text_order(0x6e65_7400_0000_4000_8000_0000_0000_0002);
    let options = CardOptions { instance, mac: Mac(MAC), mtu: 1500, queues: 4 };
    NetworkCard::new(&options, Network::loopback())
}

/// As many subchannels as there are, open.
pub(crate) fn open_subchannels(
    pair: &mut Pair,
    driver: &mut Netvsc,
    count: u32,
) -> Vec<GuestChannel> {
    let body = SubchannelRequest { operation: SubchannelOperation::ALLOCATE, count };
    let granted: SubchannelComplete = driver.ask_for(pair, MessageType::SUBCHANNEL, &body).1;
    assert_eq!((granted.status, granted.count), (Status::SUCCESS, count));
    let offers: Vec<_> = (0..count).map(|_| pair.expect_offer()).collect();
    let channels = offers.iter().map(|offer| pair.open(offer, 8, 1).unwrap()).collect();
    pair.work();
    let told = driver.channel.receive(pair);
    assert_eq!(told.payload[..4], words(&[134]));
    channels
}

/// F18: a connected guest finds a card at once, and its relid is the next one's when it is gone.
#[test]
fn cards_come_and_go() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    let mut relid = None;
    for _ in 0..20 {
        let device = pair.add(another());
        let offer = pair.expect_offer();
        assert_eq!(*relid.get_or_insert(offer.relid), offer.relid);
        let mut other = Netvsc::start(pair, &offer, Version::V6_1);
        for driver in [&mut driver, &mut other] {
            driver.send_frame(pair, &[], &frame(60));
            assert_eq!(driver.frames(pair).len(), 1);
        }
        pair.bus.remove(device);
        assert_eq!(pair.expect_rescind(), offer.relid);
        pair.work();
        assert_eq!(pair.open_channels(), 1, "the first card's");
        pair.release(offer.relid);
    }
    assert_eq!(pair.host_fault(), None);
}

/// F19: frames lie in every ring, in the letter boxes between channels and with the guest.
#[test]
fn a_card_with_many_channels_is_pulled_in_the_middle_of_traffic() {
    let (mut setup, _first) = started(1);
    let pair = &mut setup.pair;
    let mut relids = Vec::new();
    for _ in 0..5 {
        let device = pair.add(another());
        let offer = pair.expect_offer();
        let mut driver = Netvsc::start(pair, &offer, Version::V6_1);
        let others = open_subchannels(pair, &mut driver, 3);
        let table: Vec<_> = (0..128).map(|entry| entry % 4).collect();
        let status = driver.set(pair, Oid::GEN_RECEIVE_SCALE_PARAMETERS, &rss(&table, &[0x6d; 40]));
        assert_eq!(status, RndisStatus::SUCCESS);
        for port in 0..64 {
            driver.send_frame(pair, &[], &tcp_frame(100, 4000 + port, false));
        }
        assert!(driver.waiting.len() < 64, "the others have some too");
        // And more that the card has not looked at when it goes.
        let bytes = message(&[], &tcp_frame(100, 4000, false));
        driver.send.memory.write_at(0, &bytes);
        let (channel, section_len) = (RndisChannel::DATA, bytes.len() as u32);
        let body = RndisPacket { channel, section_index: 0, section_len };
        let request = Message::new(MessageType::SEND_RNDIS_PACKET, &body);
        for id in 0..100 {
            let packet = Outgoing::in_band(9000 + id, request.as_bytes());
            let packet = Outgoing { flags: COMPLETION_REQUESTED, ..packet };
            driver.channel.outgoing.push(&packet).unwrap();
        }
        // Without a signal.
        let _ = driver.channel.outgoing.publish();

        pair.bus.remove(device);
        let mut gone: Vec<_> = (0..4).map(|_| pair.expect_rescind()).collect();
        gone.sort_unstable();
        let mut open: Vec<_> = others.iter().map(GuestChannel::relid).collect();
        open.push(offer.relid);
        open.sort_unstable();
        assert_eq!(gone, open);
        if relids.is_empty() {
            relids.clone_from(&gone);
        }
        assert_eq!(gone, relids, "none is lost from one time to the next");
        pair.work();
        assert_eq!(pair.open_channels(), 1, "the first card's");
        gone.iter().for_each(|relid| pair.release(*relid));
    }
    assert_eq!(pair.host_fault(), None);
}
