// SPDX-License-Identifier: MIT OR Apache-2.0

//! Raw channels: a program of the test's is the device.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use busway_raw::{Listener, RawDevice};
use busway_ring::Outgoing;
use busway_testkit::{GuestChannel, Pair, PairConfig};
use busway_wire::packet::PacketType;
use busway_wire::{Guid, Version};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, connect, recv, send, socket,
};
use tempfile::TempDir;

const CLASS: Guid = Guid::from_text_order(0x11223344_0000_4000_8000_000000000001);

struct Raw {
    pair: Pair,
    channel: GuestChannel,
    path: PathBuf,
    _place: TempDir,
}

/// A program at the socket.
struct Program(OwnedFd);

impl Program {
    fn connect(path: &Path) -> Self {
        let program = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        connect(&program, &SocketAddrUnix::new(path).unwrap()).unwrap();
        Self(program)
    }

    fn say(&self, message: &[u8]) {
        send(&self.0, message, SendFlags::empty()).unwrap();
    }

    fn try_hear(&self) -> Option<Vec<u8>> {
        let mut message = vec![0; 64 << 10];
        let (len, _) = recv(&self.0, &mut message[..], RecvFlags::DONTWAIT).ok()?;
        message.truncate(len);
        Some(message)
    }

    fn hear(&self) -> Vec<u8> {
        let mut message = vec![0; 64 << 10];
        let (len, _) = recv(&self.0, &mut message[..], RecvFlags::empty()).unwrap();
        message.truncate(len);
        message
    }
}

fn open(pipe: bool) -> Raw {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("raw");
    let listener = Listener::bind(&path).unwrap();
    let mut pair = Pair::new(PairConfig::default());
    pair.add(RawDevice::new(CLASS, Guid::from_text_order(1), pipe, Some(listener)));
    let offer = *pair.connect(Version::V5_3).offer(CLASS);
    assert_eq!(offer.flags != 0, pipe);
    let channel = pair.open(&offer, 8, 0).unwrap();
    Raw { pair, channel, path, _place: place }
}

/// A frame: type, flags, length of the header, transaction.
fn frame(kind: u16, flags: u16, header: &[u8], id: u64, payload: &[u8]) -> Vec<u8> {
    let mut message = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
    message.extend((header.len() as u32).to_le_bytes());
    message.extend(id.to_le_bytes());
    message.extend(header);
    message.extend(payload);
    message
}

#[test]
fn a_request_is_answered_by_the_program() {
    let mut raw = open(false);
    // Before anybody is there.
    raw.channel.request(&mut raw.pair, 7, b"question");
    raw.pair.work();
    let program = Program::connect(&raw.path);
    raw.pair.work();
    assert_eq!(program.hear(), frame(6, 1, &[], 7, b"question"));
    program.say(&frame(11, 0, &[], 7, b"the answer"));
    let packet = raw.channel.receive(&mut raw.pair);
    assert_eq!(packet.descriptor.kind, PacketType::COMPLETION);
    assert_eq!((packet.descriptor.transaction_id, &packet.payload[..10]), (7, &b"the answer"[..]));
}

#[test]
fn page_lists_go_both_ways_as_they_are() {
    let mut raw = open(false);
    let program = Program::connect(&raw.path);
    raw.channel.request_on_pages(&mut raw.pair, 3, b"on pages", &[5, 6], (8, 4100));
    raw.pair.work();
    let mut ranges = (1_u64 << 32).to_le_bytes().to_vec();
    ranges.extend([4100_u32.to_le_bytes(), 8_u32.to_le_bytes()].concat());
    ranges.extend([5_u64.to_le_bytes(), 6_u64.to_le_bytes()].concat());
    assert_eq!(program.hear(), frame(9, 1, &ranges, 3, b"on pages"));
    program.say(&frame(7, 1, &[1; 16], 4, b"pages"));
    let packet = raw.channel.receive(&mut raw.pair);
    assert_eq!((packet.descriptor.kind, packet.header), (PacketType(7), vec![1; 16]));
}

#[test]
fn a_pipe_needs_no_frames() {
    let mut raw = open(true);
    let program = Program::connect(&raw.path);
    raw.channel.send(&mut raw.pair, &Outgoing::in_band(0, &[1, 0, 0, 0, 3, 0, 0, 0, 7, 8, 9]));
    raw.pair.work();
    assert_eq!(program.hear(), [7, 8, 9]);
    program.say(&[4, 5]);
    let packet = raw.channel.receive(&mut raw.pair);
    assert_eq!(packet.payload[..10], [1, 0, 0, 0, 2, 0, 0, 0, 4, 5]);
}

#[test]
fn programs_come_and_go_and_the_guest_waits_for_the_next() {
    let mut raw = open(true);
    for turn in 0..3 {
        let program = Program::connect(&raw.path);
        program.say(&[turn]);
        assert_eq!(raw.channel.receive(&mut raw.pair).payload[8], turn);
        drop(program);
        raw.pair.work();
    }
    assert!(raw.pair.faults.is_empty());
}

#[test]
fn what_is_no_frame_ends_the_program_and_not_the_guest() {
    let mut raw = open(false);
    for wrong in [&[1; 15][..], &frame(6, 0, &[0; 4], 1, b""), &[0xff; 16]] {
        let program = Program::connect(&raw.path);
        raw.pair.work();
        program.say(wrong);
        raw.pair.work();
        assert!(program.hear().is_empty(), "it is hung up on");
    }
    let program = Program::connect(&raw.path);
    program.say(&frame(6, 0, &[], 1, b"fine"));
    raw.channel.receive(&mut raw.pair);
    assert!(raw.pair.faults.is_empty());
}

/// C8: it is told to set a bit in a page and makes no hypercall; what it has sent arrives all the same.
#[test]
fn a_monitored_guest_is_heard_without_a_signal() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("raw");
    let listener = Listener::bind(&path).unwrap();
    let mut pair = Pair::new(PairConfig::default());
    let device = RawDevice::new(CLASS, Guid::from_text_order(1), true, Some(listener));
    pair.add(device.monitored(true));
    let offer = *pair.connect(Version::V5_3).offer(CLASS);
    assert_eq!((offer.monitor_allocated, offer.flags), (1, 0x410));
    assert!(offer.monitor_id < 128, "FreeBSD panics at more");
    let mut channel = pair.open(&offer, 8, 0).unwrap();
    let program = Program::connect(&path);
    pair.work();
    for number in 0..3 {
        channel.send(&mut pair, &Outgoing::in_band(0, &[1, 0, 0, 0, 1, 0, 0, 0, number]));
        let heard = pair.wait("the guest's packet", |_| program.try_hear());
        assert_eq!(heard, [number]);
    }
    assert!(pair.faults.is_empty());
}

#[test]
fn many_messages_wait_for_a_slow_guest() {
    let mut raw = open(false);
    let program = Program::connect(&raw.path);
    for id in 0..100 {
        program.say(&frame(6, 0, &[], id, &[9; 1000]));
        raw.pair.work();
    }
    for id in 0..100 {
        assert_eq!(raw.channel.receive(&mut raw.pair).descriptor.transaction_id, id);
    }
}
