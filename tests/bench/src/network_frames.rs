// SPDX-License-Identifier: MIT OR Apache-2.0

//! network/frames: guest and card in turn on one thread. On loopback each frame goes out and comes
//! back in; on a TAP one way at a time (`network_tap.rs`). Nanoseconds a frame are the processor's, on both
//! sides of a system call: nobody sleeps. With 4 queues they are those of all four, of which each hands most of
//! what comes to the others.
//!
//! As in a stock Linux guest, coalescing is off, except for frames that are longer than the MTU.

use std::hint::black_box;

use busway_frames::Network;
use busway_network::{CardOptions, Mac, NetworkCard};
use busway_ring::{Outgoing, PacketBuf};
use busway_testkit::{GuestChannel, Pair, PairConfig};
use busway_vmbus::{Channel, Progress};
use busway_wire::nvsp::{
    Message, MessageType, RndisChannel, RndisPacket, SubchannelComplete, SubchannelOperation,
    SubchannelRequest, Version,
};
use busway_wire::packet::{COMPLETION_REQUESTED, PacketType};
use busway_wire::rndis::Oid;
use busway_wire::{Guid, Version as BusVersion, class};
use zerocopy::IntoBytes;

use crate::netvsc::{CHECKSUM, LARGE_SEND, Netvsc, message, words};
use crate::network_tap;
use crate::report::{Line, cpu_time};

pub(crate) const NAME: &str = "network/frames";
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
/// Frames in one go.
pub(crate) const BATCH: usize = 16;

pub fn run(lines: &mut Vec<Line>) {
    for (what, len) in [("64 B", 64), ("1500 B", 1514), ("65000 B LSO", 65_000)] {
        for (queues, how) in [(1, ""), (4, ", 4 queues")] {
            let params = format!("loopback, there and back, {what}{how}");
            let value = cpu_time(batch(len) as u64, on_loopback(len, queues));
            lines.push(Line::nanoseconds(NAME, params, value, None));
        }
    }
    for queues in [1, 4] {
        if let Err(error) = network_tap::run(lines, queues) {
            eprintln!("bench: {NAME} on a TAP is left out: {error}");
        }
    }
}

/// A card on `network` whose guest has said all that is to be said.
pub(crate) struct Card {
    driver: Netvsc,
    /// The guest's ends of subchannels.
    others: Vec<GuestChannel>,
    /// The card's ends of all channels.
    hosts: Vec<Channel>,
    buf: PacketBuf,
    pair: Pair,
}

impl Card {
    pub(crate) fn new(network: Network, queues: u16, len: usize) -> Self {
        let config = PairConfig { vps: 1, ram_pages: 8192, ..PairConfig::default() };
        let mut pair = Pair::new(config);
        let instance = Guid::from_text_order(1);
        let options = CardOptions { instance, mac: Mac(MAC), mtu: 9000, queues };
        pair.add(NetworkCard::new(&options, network));
        let offer = *pair.connect(BusVersion::V5_3).offer(class::NETWORK);
        let mut driver = Netvsc::start(&mut pair, &offer, Version::V6_1);
        let others = if queues > 1 { spread(&mut pair, &mut driver, queues) } else { Vec::new() };
        if is_large(len) {
            let mut coalesce = [0; 28];
            (coalesce[22], coalesce[23]) = (2, 2);
            driver.set(&mut pair, Oid::TCP_OFFLOAD_PARAMETERS, &coalesce);
        }
        let channels = [&driver.channel].into_iter().chain(&others);
        let hosts = channels.map(|channel| pair.take_channel(channel)).collect();
        Self { driver, others, hosts, buf: PacketBuf::for_ring(16 * 4096), pair }
    }

    /// Sends packets, by each channel in turn, and lets the card work.
    pub(crate) fn send(&mut self, packets: &[Vec<u8>]) {
        let body = RndisPacket {
            channel: RndisChannel::DATA,
            section_index: RndisPacket::NO_SECTION,
            section_len: 0,
        };
        let message = Message::new(MessageType::SEND_RNDIS_PACKET, &body);
        let mut channels: Vec<_> =
            [&mut self.driver.channel].into_iter().chain(&mut self.others).collect();
        let count = channels.len();
        for (number, header) in packets.iter().enumerate() {
            let packet = Outgoing {
                kind: PacketType::DATA_USING_GPA_DIRECT,
                flags: COMPLETION_REQUESTED,
                transaction_id: 1,
                header,
                payload: message.as_bytes(),
            };
            channels[number % count].outgoing.push(&packet).expect("room");
        }
        for channel in channels {
            black_box(channel.outgoing.publish());
        }
        self.work();
    }

    /// Takes what the network has.
    pub(crate) fn receive(&mut self) {
        for host in &mut self.hosts {
            while host.ready(0).expect("a turn") == Progress::More {}
        }
        self.take_mail();
    }

    fn work(&mut self) {
        for host in &mut self.hosts {
            while host.run().expect("a turn") == Progress::More {}
        }
        self.take_mail();
    }

    /// What the channels have handed to each other.
    fn take_mail(&mut self) {
        if self.hosts.len() > 1 {
            for host in &mut self.hosts {
                while host.ready(1).expect("a turn") == Progress::More {}
            }
        }
    }

    /// Takes what has come, and completes it; how many frames that were.
    pub(crate) fn take(&mut self) -> usize {
        let mut frames = 0;
        let body = [108_u32, 1];
        for channel in [&mut self.driver.channel].into_iter().chain(&mut self.others) {
            while let Some(packet) = channel.incoming.next(&mut self.buf).expect("a sound ring") {
                if packet.descriptor.kind == PacketType::DATA_USING_TRANSFER_PAGES {
                    // Of a coalesced frame every piece is counted; those are counted otherwise.
                    frames += packet.header.len() / 8 - 1;
                    let id = packet.descriptor.transaction_id;
                    let completion = Outgoing::completion(id, body.as_bytes());
                    channel.outgoing.push(&completion).expect("room");
                }
            }
            black_box(channel.incoming.publish());
            black_box(channel.outgoing.publish());
        }
        frames
    }

    /// The page lists of a packet with a frame of `len` bytes, as Linux lays it out.
    pub(crate) fn packet(&mut self, len: usize, to: [u8; 6], flow: u8) -> Vec<u8> {
        let (notes, mut frame) = frame(len, to);
        // The last byte of the source's port.
        frame[35] = flow;
        Netvsc::lay_out(&mut self.pair, &[&message(&notes, &frame)])
    }
}

/// Opens the subchannels and has frames spread over all channels.
fn spread(pair: &mut Pair, driver: &mut Netvsc, queues: u16) -> Vec<GuestChannel> {
    let (operation, count) = (SubchannelOperation::ALLOCATE, u32::from(queues) - 1);
    let body = SubchannelRequest { operation, count };
    let granted: SubchannelComplete = driver.ask_for(pair, MessageType::SUBCHANNEL, &body).1;
    let offers: Vec<_> = (0..granted.count).map(|_| pair.expect_offer()).collect();
    let open = |offer| pair.open(offer, 16, 0).expect("a subchannel");
    let others = offers.iter().map(open).collect();
    driver.channel.receive(pair);
    // As Linux's `rndis_set_rss_param_msg` lays it out.
    let mut value = vec![0x89, 2, 40, 0, 0, 0, 0, 0];
    value.extend(words(&[0x1701, 512, 40, 40, 552, 0, 0, 0]));
    value.extend((0..128).flat_map(|entry: u32| (entry % u32::from(queues)).to_le_bytes()));
    value.extend((0..40_u8).map(|byte| byte.wrapping_mul(37) ^ 0x6d));
    driver.set(pair, Oid::GEN_RECEIVE_SCALE_PARAMETERS, &value);
    others
}

pub(crate) const fn is_large(len: usize) -> bool {
    len > 1514
}

/// TCP on IPv4, its checksum left to the card, and longer ones to be cut.
pub(crate) fn frame(len: usize, to: [u8; 6]) -> (Vec<(u32, u32)>, Vec<u8>) {
    let mut frame = [&to[..], &[2, 0, 0, 0, 0, 9], &[8, 0, 0x45, 0]].concat();
    let large = is_large(len);
    let total = if large { 0 } else { len as u16 - 14 };
    frame.extend(total.to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 99, 0, 2, 10, 99, 0, 3, 9, 9, 0, 80]);
    frame.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0]);
    frame.resize(len, 7);
    let note = if large {
        (LARGE_SEND, 1448 | 34 << 20 | 1 << 30)
    } else {
        (CHECKSUM, 1 | 1 << 2 | 34 << 16)
    };
    (vec![note], frame)
}

/// Frames of this length that make a turn on loopback.
pub const fn batch(len: usize) -> usize {
    if is_large(len) { 4 } else { BATCH }
}

/// A turn: [`batch`] frames out and back in.
pub fn on_loopback(len: usize, queues: u16) -> impl FnMut() {
    let mut card = Card::new(Network::loopback(), queues, len);
    let batch = batch(len);
    let packets: Vec<_> = (0..batch).map(|flow| card.packet(len, MAC, flow as u8)).collect();
    move || {
        card.send(&packets);
        assert!(card.take() >= batch, "a frame is missing");
    }
}
