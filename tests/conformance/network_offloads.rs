// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the card does to frames for its guest: of both IPs, of TCP and UDP, and where the network at the
//! other end does none of it.

use std::io::Read;
use std::os::unix::net::UnixStream;

use busway_frames::Network;
use busway_wire::nvsp::{Status, Version};
use busway_wire::rndis::{Offload, Oid};
use zerocopy::FromBytes;

use crate::netvsc::{CHECKSUM, LARGE_SEND, Netvsc, PACKET_ID, message};
use crate::network::{MAC, coalesce, large_send, setup_on, started, sum, tcp_frame};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Bits of a note on checksums: which IP, and what is to be computed.
const IPV4: u32 = 1;
const IPV6: u32 = 2;
const NOTE_TCP: u32 = 4;
const NOTE_UDP: u32 = 8;
const NOTE_IP_HEADER: u32 = 0x10;

/// A packet of either IP in a frame to the card. The checksum of what it carries is the pseudo header's sum,
/// for a whole packet with its length and for one that is to be cut without; there is none of IPv4's header.
fn packet(ipv6: bool, protocol: u8, payload: usize, for_cutting: bool) -> Vec<u8> {
    let header_len = if protocol == TCP { 20 } else { 8 };
    let len = if for_cutting { 0 } else { header_len + payload as u16 };
    let mut frame = [&MAC[..], &[2, 0, 0, 0, 0, 9]].concat();
    if ipv6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend((0..32).map(|i| 0xf0 ^ i));
    } else {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(if for_cutting { 0 } else { 20 + len }.to_be_bytes());
        frame.extend([0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    }
    let at = frame.len();
    frame.extend([0x30, 0x39, 0, 80]);
    if protocol == TCP {
        frame.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0]);
    } else {
        frame.extend(len.to_be_bytes());
        frame.extend([0, 0]);
    }
    let place = at + if protocol == TCP { 16 } else { 6 };
    let partial = sum(&pseudo(&frame, len));
    frame[place..place + 2].copy_from_slice(&partial.to_be_bytes());
    frame.extend((0..payload).map(|i| (i * 7 % 253) as u8));
    frame
}

/// The header that TCP and UDP put before themselves for their sum (RFC 9293, RFC 8200).
fn pseudo(frame: &[u8], len: u16) -> Vec<u8> {
    let (addresses, protocol) =
        if frame[12] == 8 { (26..34, frame[23]) } else { (22..54, frame[20]) };
    [&frame[addresses], &[0, protocol], &len.to_be_bytes()].concat()
}

/// Where TCP or UDP starts.
fn transport_at(frame: &[u8]) -> usize {
    if frame[12] == 8 { 34 } else { 54 }
}

fn is_right(frame: &[u8]) -> bool {
    let at = transport_at(frame);
    let len = (frame.len() - at) as u16;
    sum(&[pseudo(frame, len), frame[at..].to_vec()].concat()) == 0xffff
}

#[test]
fn checksums_are_computed_of_each_kind() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    for (ipv6, protocol) in [(false, TCP), (false, UDP), (true, TCP), (true, UDP)] {
        let version = if ipv6 { IPV6 } else { IPV4 };
        let (bit, right) = if protocol == TCP { (NOTE_TCP, 0x08) } else { (NOTE_UDP, 0x10) };
        for payload in [0, 1, 33, 1200] {
            let sent = packet(ipv6, protocol, payload, false);
            assert!(!is_right(&sent));
            let at = transport_at(&sent) as u32;
            driver.send_frame(pair, &[(CHECKSUM, version | bit | at << 16)], &sent);
            let frames = driver.frames(pair);
            assert!(is_right(&frames[0].bytes), "{ipv6} {protocol} {payload}");
            assert_eq!(frames[0].note(CHECKSUM), Some(right));
        }
    }
}

/// FreeBSD says of UDP where it starts no more than Linux does of the IP header: with nothing.
#[test]
fn a_place_that_is_not_said_is_found() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    for ipv6 in [false, true] {
        let version = if ipv6 { IPV6 } else { IPV4 };
        let sent = packet(ipv6, UDP, 100, false);
        driver.send_frame(pair, &[(CHECKSUM, version | NOTE_UDP)], &sent);
        assert!(is_right(&driver.frames(pair)[0].bytes));
    }
}

#[test]
fn the_header_of_ipv4_has_a_sum_of_its_own() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    for (bits, all) in [(NOTE_IP_HEADER, false), (NOTE_IP_HEADER | NOTE_TCP | 34 << 16, true)] {
        driver.send_frame(pair, &[(CHECKSUM, IPV4 | bits)], &packet(false, TCP, 100, false));
        let frames = driver.frames(pair);
        assert_eq!(sum(&frames[0].bytes[14..34]), 0xffff);
        assert_eq!(is_right(&frames[0].bytes), all);
    }
}

/// What comes back is whole again: the guest coalesces. Its lengths are those of the whole.
#[test]
fn tcp_on_ipv6_is_cut_too() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    coalesce(pair, &mut driver);
    for payload in [3000, 60_000] {
        let sent = packet(true, TCP, payload, true);
        let note = (LARGE_SEND, 1428 | 54 << 20 | 1 << 30 | 1 << 31);
        assert_eq!(driver.send_pages(pair, &[&message(&[note], &sent)], None), Status::SUCCESS);
        let frames = driver.frames(pair);
        let bytes = &frames[0].bytes;
        assert_eq!((frames.len(), bytes.len()), (1, sent.len()));
        let len = 20 + payload as u16;
        assert_eq!(bytes[18..20], len.to_be_bytes());
        assert_eq!(bytes[70..72], sum(&pseudo(bytes, len)).to_be_bytes());
        assert_eq!((&bytes[54..70], &bytes[72..]), (&sent[54..70], &sent[72..]));
        assert!(frames[0].note(CHECKSUM) == Some(8) && frames[0].note(PACKET_ID).is_some());
    }
}

/// A socket's frames have nothing before them that could say what is missing. The guest is offered
/// nothing, and what it asks for all the same is done where one can.
#[test]
fn a_network_without_offloads_gets_whole_frames() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut setup = setup_on(Network::connected(ours).unwrap(), 1);
    let pair = &mut setup.pair;
    let mut driver = Netvsc::start(pair, &setup.offer, Version::V6_1);
    let offered = driver.query(pair, Oid::TCP_OFFLOAD_HARDWARE_CAPABILITIES, 156).unwrap();
    assert!(offered[4..].iter().all(|byte| *byte == 0), "{offered:?}");
    for protocol in [TCP, UDP] {
        let bit = if protocol == TCP { NOTE_TCP } else { NOTE_UDP };
        let sent = packet(false, protocol, 700, false);
        driver.send_frame(pair, &[(CHECKSUM, IPV4 | bit | 34 << 16)], &sent);
        let mut len = [0; 4];
        theirs.read_exact(&mut len).unwrap();
        let mut came = vec![0; u32::from_be_bytes(len) as usize];
        theirs.read_exact(&mut came).unwrap();
        assert_eq!((came.len(), is_right(&came)), (sent.len(), true));
    }
    let large = message(&[large_send(1448)], &tcp_frame(3000, 1000, true));
    let status = driver.send_pages(pair, &[&large], None);
    assert_eq!(status, Status::INVALID_RNDIS_PACKET);
}

/// Coalesced frames need a guest of version 6.1 that says it can.
#[test]
fn coalescing_is_offered_to_those_who_know_it() {
    for (version, capabilities, offered) in
        [(Version::V6_1, 0x8c, 1), (Version::V6_1, 0x0c, 0), (Version::V6, 0x8c, 0)]
    {
        let mut setup = setup_on(Network::loopback(), 1);
        let pair = &mut setup.pair;
        let mut driver = Netvsc::open(pair, &setup.offer, 16);
        assert_eq!(driver.init(pair, version).status, Status::SUCCESS);
        driver.configure(pair, 1514, capabilities);
        driver.share(pair);
        driver.initialize(pair);
        let value = driver.query(pair, Oid::TCP_OFFLOAD_HARDWARE_CAPABILITIES, 156).unwrap();
        let (offload, _) = Offload::read_from_prefix(&value).unwrap();
        assert_eq!((offload.rsc.ip4, offload.rsc.ip6), (offered, offered), "{version}");
    }
}
