// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a driver asks its network card, and what it tells it.

use busway_testkit::Pair;
use busway_wire::nvsp::{RndisChannel, Status, Version};
use busway_wire::rndis::{Oid, Status as RndisStatus};

use crate::netvsc::{Netvsc, message, words};
use crate::network::{MAC, frame, setup, started};

#[test]
fn questions_have_answers_of_the_right_length() {
    let (mut setup, mut driver) = started(4);
    let pair = &mut setup.pair;
    let mut ask = |oid, len| driver.query(pair, oid, len);
    assert_eq!(ask(Oid::ETHERNET_PERMANENT_ADDRESS, 0), Ok(MAC.to_vec()));
    assert_eq!(ask(Oid::GEN_MAXIMUM_FRAME_SIZE, 0), Ok(words(&[1500])));
    assert_eq!(ask(Oid::GEN_MEDIA_CONNECT_STATUS, 0), Ok(words(&[0])));
    assert_eq!(ask(Oid::GEN_LINK_SPEED, 0), Ok(words(&[100_000_000])));
    assert_eq!(ask(Oid::GEN_CURRENT_PACKET_FILTER, 0), Ok(words(&[0x0d])));
    for (asked, len) in [(156, 156), (144, 144), (112, 112)] {
        let value = ask(Oid::TCP_OFFLOAD_HARDWARE_CAPABILITIES, asked).unwrap();
        assert_eq!((value.len(), value[0]), (len, 0xa7));
        // What `rndis_netdev_set_hwcaps` of Linux asks for: TCP with options, UDP, segmentation.
        assert_eq!(value[8] & 0x54, 0x54);
        assert_eq!(value[80] & 2, 2);
    }
    let scale = ask(Oid::GEN_RECEIVE_SCALE_CAPABILITIES, 18).unwrap();
    assert_eq!((scale.len(), scale[12]), (18, 4));
    assert_eq!(ask(Oid(0x0001_01ff), 0), Err(0xc000_00bb));
    let buffers = [256 * 4096, 16 * 4096].map(|len| Ok(words(&[len])));
    assert_eq!(ask(Oid::GEN_RECEIVE_BUFFER_SPACE, 0), buffers[0]);
    assert_eq!(ask(Oid::GEN_TRANSMIT_BUFFER_SPACE, 0), buffers[1]);
    // As long as NDIS says; the others of its list are numbers of 32 bits.
    let others = [
        (0x0001_0101, 37 * 4),
        (0x0001_010d, "busway".len() + 1),
        (0x0001_0110, 2),
        (0x0001_0203, 18),
        (0x0002_0216, 2 * "loopback".len()),
        (0x0101_0101, 6),
        (0x0101_0102, 6),
        (0x0101_0103, 0),
        (0xfc01_020b, 156),
        (0xfc01_020d, 156),
    ];
    let supported = ask(Oid::GEN_SUPPORTED_LIST, 0).unwrap();
    let numbers = supported.chunks(4).map(|oid| u32::from_le_bytes(oid.try_into().unwrap()));
    let numbers: Vec<_> = numbers.collect();
    assert!(numbers.is_sorted() && others.iter().all(|(oid, _)| numbers.contains(oid)));
    for oid in numbers {
        let len = others.iter().find(|other| other.0 == oid).map_or(4, |other| other.1);
        let asked = if oid >> 16 == 0xfc01 { 156 } else { 0 };
        assert_eq!(ask(Oid(oid), asked).map(|value| value.len()), Ok(len), "{oid:#x}");
    }
}

#[test]
fn the_card_counts_its_frames() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    (0..5).for_each(|_| driver.send_frame(pair, &[], &frame(60)));
    assert_eq!(driver.frames(pair).len(), 5);
    // Not wanted, too long to come in, and none at all.
    driver.send_frame(pair, &[], &[&[2, 0, 0, 0, 0, 8], &frame(60)[6..]].concat());
    let long = message(&[], &frame(4000));
    assert_eq!(driver.send_pages(pair, &[&long], None), Status::SUCCESS);
    assert!(driver.frames(pair).is_empty());
    let none = message(&[], &frame(60)[..13]);
    assert_ne!(driver.send_section(pair, RndisChannel::DATA, 0, &none), Status::SUCCESS);
    let counts = [
        (Oid::GEN_XMIT_OK, 7),
        (Oid::GEN_XMIT_ERROR, 1),
        (Oid::GEN_RCV_OK, 5),
        (Oid::GEN_RCV_ERROR, 1),
        (Oid::GEN_RCV_NO_BUFFER, 0),
        (Oid::ETHERNET_XMIT_ONE_COLLISION, 0),
    ];
    for (oid, count) in counts {
        assert_eq!(driver.query(pair, oid, 0), Ok(words(&[count])), "{oid}");
        assert_eq!(driver.query(pair, oid, 8), Ok(words(&[count, 0])), "{oid}");
    }
}

/// Without a list, the bit stands for all groups: there are guests that set it and never name any.
#[test]
fn groups_that_are_named_are_told_from_others() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    let group = |last| [1, 0, 0x5e, 0, 0, last];
    let come = |pair: &mut Pair, driver: &mut Netvsc| {
        for last in [1, 2, 3] {
            driver.send_frame(pair, &[], &[&group(last)[..], &frame(60)[6..]].concat());
        }
        let frames = driver.frames(pair);
        frames.iter().map(|frame| frame.bytes[5]).collect::<Vec<_>>()
    };
    let list = Oid::ETHERNET_MULTICAST_LIST;
    driver.set_filter(pair, 0x0b);
    assert_eq!(come(pair, &mut driver), [1, 2, 3]);
    let named = [group(1), group(3)].concat();
    assert_eq!(driver.set(pair, list, &named), RndisStatus::SUCCESS);
    assert_eq!(come(pair, &mut driver), [1, 3]);
    assert_eq!(driver.query(pair, list, 0), Ok(named));
    // A list alone brings nothing, and all groups are more than the named ones.
    driver.set_filter(pair, 0x09);
    assert_eq!(come(pair, &mut driver), []);
    driver.set_filter(pair, 0x0f);
    assert_eq!(come(pair, &mut driver), [1, 2, 3]);
    driver.set_filter(pair, 0x0b);
    assert_eq!(driver.set(pair, list, &[]), RndisStatus::SUCCESS);
    assert_eq!(come(pair, &mut driver), []);
    assert_eq!(driver.query(pair, Oid::ETHERNET_MAXIMUM_LIST_SIZE, 0), Ok(words(&[32])));
    assert_eq!(driver.set(pair, list, &[1; 33 * 6]), RndisStatus(0xc001_0009));
    assert_eq!(driver.set(pair, list, &[1; 7]), RndisStatus::INVALID_LENGTH);
    assert_eq!(come(pair, &mut driver), [], "what is refused changes nothing");
}

/// What `rndis_filter_set_device_mac` of Linux sends: a parameter's name and its value, in UTF-16.
fn parameter(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let (name, value) = (text(name), text(value));
    let lens = [name.len() as u32, value.len() as u32];
    [words(&[20, lens[0], 2, 20 + lens[0], lens[1]]), name, value].concat()
}

#[test]
fn an_address_is_changed_by_a_parameter_of_that_name() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    let mut set = |name, value| {
        let status = driver.set(pair, Oid::GEN_RNDIS_CONFIG_PARAMETER, &parameter(name, value));
        (status, driver.query(pair, Oid::ETHERNET_CURRENT_ADDRESS, 0).unwrap())
    };
    let other = vec![2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee];
    assert_eq!(set("NetworkAddress", "02aabbccddee"), (RndisStatus::SUCCESS, other.clone()));
    assert_eq!(set("NetworkAddress", "01aabbccddee"), (RndisStatus::INVALID_DATA, other.clone()));
    assert_eq!(set("NetworkAddress", "02aabbccdde"), (RndisStatus::INVALID_DATA, other.clone()));
    assert_eq!(set("Color", "02aabbccdd00"), (RndisStatus::NOT_SUPPORTED, other.clone()));
    driver.send_frame(pair, &[], &[&other[..], &frame(60)[6..]].concat());
    assert_eq!(driver.frames(pair).len(), 1);
    assert_eq!(driver.query(pair, Oid::ETHERNET_PERMANENT_ADDRESS, 0), Ok(MAC.to_vec()));
}

#[test]
fn what_cannot_be_set_is_refused() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    let encapsulation = words(&[0x001c_0180, 1, 14, 0, 0, 0, 0]);
    let mut set = |oid, value: &[u8]| driver.set(pair, oid, value);
    assert_eq!(set(Oid::OFFLOAD_ENCAPSULATION, &encapsulation), RndisStatus::SUCCESS);
    assert_eq!(set(Oid::GEN_CURRENT_LOOKAHEAD, &words(&[128])), RndisStatus::SUCCESS);
    assert_eq!(set(Oid::ETHERNET_PERMANENT_ADDRESS, &MAC), RndisStatus::NOT_SUPPORTED);
    assert_eq!(set(Oid(0x0001_01ff), &[0; 4]), RndisStatus::NOT_SUPPORTED);
    assert_eq!(set(Oid::GEN_CURRENT_PACKET_FILTER, &[1; 3]), RndisStatus::INVALID_LENGTH);
    assert_eq!(set(Oid::TCP_OFFLOAD_PARAMETERS, &[0; 4]), RndisStatus::INVALID_LENGTH);
}

/// FreeBSD's names have more than 16 bits, and it compares all of them. HALT has no answer, and ends
/// frames and filter.
#[test]
fn other_requests_have_their_answers() {
    let (mut setup, mut driver) = started(1);
    let pair = &mut setup.pair;
    let keepalive = driver.control(pair, &words(&[8, 12, 0xfedc_ba98]));
    assert_eq!(keepalive, words(&[0x8000_0008, 16, 0xfedc_ba98, 0]));
    assert_eq!(driver.control(pair, &words(&[6, 12, 0]))[..12], words(&[0x8000_0006, 16, 0]));
    let halt = words(&[3, 12, 5]);
    assert_eq!(driver.send_section(pair, RndisChannel::CONTROL, 1, &halt), Status::SUCCESS);
    assert!(driver.take_packet(pair).is_none());
    driver.send_frame(pair, &[], &frame(60));
    assert!(driver.frames(pair).is_empty());
    driver.initialize(pair);
    assert_eq!(driver.query(pair, Oid::GEN_CURRENT_PACKET_FILTER, 0), Ok(words(&[0])));
    driver.set_filter(pair, 0x0d);
    driver.send_frame(pair, &[], &frame(60));
    assert_eq!(driver.frames(pair).len(), 1);
    assert_eq!(driver.query(pair, Oid::GEN_XMIT_OK, 0), Ok(words(&[1])), "none after HALT");
}

/// Spreading came with NVSP 5.
#[test]
fn older_versions_do_not_spread() {
    for (version, spreads) in [(Version::V5, true), (Version::V4, false)] {
        let mut setup = setup(4);
        let mut driver = Netvsc::start(&mut setup.pair, &setup.offer, version);
        let answer = driver.query(&mut setup.pair, Oid::GEN_RECEIVE_SCALE_CAPABILITIES, 18);
        assert_eq!(answer.is_ok(), spreads, "{version}");
    }
}
