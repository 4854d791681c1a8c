// SPDX-License-Identifier: MIT OR Apache-2.0

//! network/frames: guest and card in turn on one thread. On loopback each frame goes out and comes
//! back in; on a TAP one way at a time, in turns with a loop that reads or writes the same frames on
//! another with nothing of ours in between. Nanoseconds a frame are the processor's, on both sides of a system
//! call: nobody sleeps. With 4 queues they are those of all four, of which each hands most of what
//! comes to the others.
//!
//! As in a stock Linux guest, coalescing is off, except for frames that are longer than the MTU.

use std::fs::File;
use std::hint::black_box;
use std::io::{IoSlice, Read, Write};
use std::net::UdpSocket;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

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
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use zerocopy::IntoBytes;

use crate::netvsc::{CHECKSUM, LARGE_SEND, Netvsc, message, words};
use crate::report::{Line, cpu_time, cpu_times};

const NAME: &str = "network/frames";
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
/// Frames in one go.
const BATCH: usize = 16;
/// TAPs of the bench's own: the card's, and one with nothing of ours.
const TAP: &str = "bwbench";
const BARE: &str = "bwbare";

pub fn run(lines: &mut Vec<Line>) {
    for (what, len) in [("64 B", 64), ("1500 B", 1514), ("65000 B LSO", 65_000)] {
        for (queues, how) in [(1, ""), (4, ", 4 queues")] {
            let params = format!("loopback, there and back, {what}{how}");
            let value = cpu_time(batch(len) as u64, on_loopback(len, queues));
            lines.push(Line::nanoseconds(NAME, params, value, None));
        }
    }
    if let Err(error) = on_tap(lines) {
        eprintln!("bench: {NAME} on a TAP is left out: {error}");
    }
}

/// A card on `network` whose guest has said all that is to be said.
struct Card {
    driver: Netvsc,
    /// The guest's ends of subchannels.
    others: Vec<GuestChannel>,
    /// The card's ends of all channels.
    hosts: Vec<Channel>,
    buf: PacketBuf,
    pair: Pair,
}

impl Card {
    fn new(network: Network, queues: u16, len: usize) -> Self {
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
    fn send(&mut self, packets: &[Vec<u8>]) {
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

    fn work(&mut self) {
        for host in &mut self.hosts {
            while host.run().expect("a turn") == Progress::More {}
        }
        if self.hosts.len() > 1 {
            // What they have handed to each other.
            for host in &mut self.hosts {
                while host.ready(1).expect("a turn") == Progress::More {}
            }
        }
    }

    /// Takes what has come, and completes it; how many frames that were.
    fn take(&mut self) -> usize {
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
    fn packet(&mut self, len: usize, to: [u8; 6], flow: u8) -> Vec<u8> {
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

const fn is_large(len: usize) -> bool {
    len > 1514
}

/// TCP on IPv4, its checksum left to the card, and longer ones to be cut.
fn frame(len: usize, to: [u8; 6]) -> (Vec<(u32, u32)>, Vec<u8>) {
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

/// A TAP that `ip` has made, gone at the end.
struct Tap(&'static str);

impl Tap {
    /// The host's address there, and the guest's.
    fn new(name: &'static str, address: &str, guest: &str) -> Result<Self, String> {
        ip(&["tuntap", "add", name, "mode", "tap"])?;
        let tap = Self(name);
        ip(&["addr", "add", &format!("{address}/24"), "dev", name])?;
        ip(&["link", "set", name, "up"])?;
        ip(&["neigh", "replace", guest, "lladdr", "02:00:00:00:00:07", "dev", name])?;
        Ok(tap)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", self.0]);
    }
}

/// The bare TAP, opened as busway does, with nothing of busway in between.
#[expect(unsafe_code, reason = "an ioctl")]
fn raw_tap() -> Result<File, String> {
    /// `_IOW('T', 202, int)`; IFF_TAP, IFF_NO_PI, IFF_VNET_HDR (Linux `include/uapi/linux/if_tun.h`).
    const TUNSETIFF: u64 = 0x4004_54ca;
    const FLAGS: u16 = 0x5002;
    let mut options = File::options();
    let options = options.read(true).write(true).custom_flags(0o4000);
    let file = options.open("/dev/net/tun").map_err(|error| error.to_string())?;
    let mut request = [0_u8; 40];
    request[..BARE.len()].copy_from_slice(BARE.as_bytes());
    request[16..18].copy_from_slice(&FLAGS.to_le_bytes());
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which the array has the size of.
    let done = unsafe { ioctl_with_mut_ref(&file, TUNSETIFF, &mut request) };
    if done < 0 { Err(std::io::Error::last_os_error().to_string()) } else { Ok(file) }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(words).output().map_err(|error| format!("ip: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {said}", words.join(" "))) }
}

/// Frames to an address that the host drops at once.
const NOBODY: [u8; 6] = [2, 0, 0, 0, 0, 0x55];

fn on_tap(lines: &mut Vec<Line>) -> Result<(), String> {
    let _taps =
        [Tap::new(TAP, "10.99.0.1", "10.99.0.2")?, Tap::new(BARE, "10.98.0.1", "10.98.0.2")?];
    let network = Network::tap(TAP, 1).map_err(|error| error.to_string())?;
    let mut file = raw_tap()?;
    for (what, len) in [("64 B", 64), ("1500 B", 1514), ("65000 B LSO", 65_000)] {
        let (_, bytes) = frame(len, NOBODY);
        // What the card asks of the kernel for these frames (`struct virtio_net_hdr`).
        let header = match is_large(len) {
            true => [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0],
            false => [1, 0, 0, 0, 0, 0, 34, 0, 16, 0],
        };
        // As the guest's frames are: no two in the same place, of which a cache would be fond.
        let frames = vec![[&header[..], &bytes].concat(); BATCH];
        let mut card = Card::new(network.clone(), 1, len);
        let packets: Vec<_> = (0..BATCH).map(|_| card.packet(len, NOBODY, 9)).collect();
        let send = || {
            card.send(&packets);
            card.take();
        };
        let bare = || frames.iter().for_each(|frame| drop(black_box((&file).write(frame))));
        let (value, limit) = cpu_times(BATCH as u64, send, bare);
        lines.push(Line::nanoseconds(NAME, format!("TAP, sent, {what}"), value, Some(limit)));
        // The header is ours and the frame the guest's: without a copy, a frame has two pieces.
        let pieces = || {
            for frame in &frames {
                let (header, frame) = frame.split_at(header.len());
                let vectors = [IoSlice::new(header), IoSlice::new(frame)];
                let _ = black_box((&file).write_vectored(&vectors));
            }
        };
        let (value, limit) = cpu_times(BATCH as u64, pieces, bare);
        let params = format!("TAP, two pieces with nothing of ours, {what}");
        lines.push(Line::nanoseconds(NAME, params, value, Some(limit)));
    }
    for (what, len) in [("64 B", 64), ("1500 B", 1514)] {
        let socket = UdpSocket::bind("0.0.0.0:0").map_err(|error| error.to_string())?;
        let payload = vec![7; len - 42];
        let feed = |to: &str| {
            for _ in 0..BATCH {
                socket.send_to(&payload, to).expect("a datagram");
            }
        };
        let mut card = Card::new(network.clone(), 1, len);
        let receive = || {
            feed("10.99.0.2:9");
            while card.hosts[0].ready(0).expect("a turn") == Progress::More {}
            card.take();
        };
        let mut bytes = [0; 2048];
        let bare = || {
            feed("10.98.0.2:9");
            let mut frames = 0;
            while file.read(&mut bytes).is_ok() {
                frames += 1;
            }
            black_box(frames);
        };
        let (value, limit) = cpu_times(BATCH as u64, receive, bare);
        lines.push(Line::nanoseconds(NAME, format!("TAP, received, {what}"), value, Some(limit)));
    }
    Ok(())
}
