// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rings with what a guest and a device put into them, and the guest's nonsense.

use std::time::Duration;

use busway_integration::Heartbeat;
use busway_ring::{Outgoing, RingMem, Word};
use busway_testkit::{GuestChannel, Pair, PairConfig};
use busway_wire::Version;

use super::*;

/// A bus with an open heartbeat channel, in whose host's ring the offer of versions stands.
struct Scene {
    pair: Pair,
    channel: GuestChannel,
}

impl Scene {
    fn new() -> Self {
        let mut pair = Pair::new(PairConfig::default());
        pair.add(Heartbeat::new(Duration::from_secs(2)).unwrap().device());
        let offer = *pair.connect(Version::V5_3).offer(class::HEARTBEAT);
        let channel = pair.open(&offer, 4, 0).unwrap();
        pair.work();
        Self { pair, channel }
    }

    fn rings(&mut self) -> Rings {
        let (to, from) = mpsc::sync_channel(1);
        self.pair.bus.show(self.channel.relid(), to);
        Rings::new(self.channel.relid(), &from.try_recv().unwrap())
    }
}

#[test]
fn packets_in_both_rings_are_explained() {
    let mut scene = Scene::new();
    let packet = Outgoing::in_band(0x77, &[0; 4]);
    scene.channel.outgoing.push(&packet).unwrap();
    // Shown, and not signalled: it lies there.
    let _ = scene.channel.outgoing.publish();
    let Rings { device, incoming, outgoing, stopped: false, backlog: 0, .. } = scene.rings() else {
        panic!("nothing is wrong");
    };
    assert_eq!(device, "heartbeat");
    // Descriptor, padded payload, trailer.
    assert_eq!((incoming.write_index, incoming.read_index, incoming.used), (32, 0, 32));
    let [packet] = &*incoming.packets else { panic!("{:?}", incoming.packets) };
    assert_eq!((packet.at, packet.len, &*packet.transaction_id), (0, 24, "0x77"));
    let [packet] = &*outgoing.packets else { panic!("{:?}", outgoing.packets) };
    assert!(packet.known && packet.text.contains("NEGOTIATE"), "{packet:?}");
    assert_eq!(outgoing.used, packet.len + 8);
    assert_eq!(outgoing.write_index as usize, outgoing.used);
    assert_eq!((outgoing.len, outgoing.feature_bits & 1, outgoing.broken), (12288, 1, None));
}

#[test]
fn what_a_reader_has_taken_is_gone() {
    let mut scene = Scene::new();
    scene.channel.try_receive(&mut scene.pair).unwrap();
    let Rings { outgoing, .. } = scene.rings();
    assert_eq!((outgoing.packets_in_all, outgoing.used), (0, 0));
    assert_eq!(outgoing.read_index, outgoing.write_index);
}

#[test]
fn indices_and_lengths_that_make_no_sense_are_named() {
    let mut scene = Scene::new();
    let guest = &scene.channel;
    guest.outgoing.mem().store(Word::WriteIndex, 0xfff0_0001);
    let Rings { incoming, .. } = scene.rings();
    assert_eq!((incoming.used, incoming.packets_in_all), (0, 0));
    assert!(incoming.broken.unwrap().contains("0xfff00001"));

    // 40 bytes are between the indices; the packet says that it has 0xffff units.
    let guest = &scene.channel;
    guest.outgoing.mem().store(Word::WriteIndex, 40);
    guest.outgoing.mem().write(0, &[6, 0, 2, 0, 0xff, 0xff, 0, 0]);
    let Rings { incoming, .. } = scene.rings();
    assert_eq!((incoming.used, incoming.packets_in_all), (40, 0));
    assert!(incoming.broken.unwrap().contains("40 B are between"));
}

#[test]
fn a_channel_that_is_not_open_has_none() {
    let mut scene = Scene::new();
    let relid = scene.channel.relid();
    scene.pair.close(scene.channel);
    for relid in [relid, 99, u32::MAX] {
        let (to, from) = mpsc::sync_channel(1);
        scene.pair.bus.show(relid, to);
        assert_eq!(from.try_recv(), Err(mpsc::TryRecvError::Disconnected), "{relid}");
    }
}
