// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a driver asks its network card, and what it tells it.

use busway_testkit::Pair;
use busway_wire::nvsp::{RndisChannel, Status};
use busway_wire::rndis::{Oid, Status as RndisStatus};

use crate::netvsc::{Netvsc, message, words};
use crate::network::{MAC, frame, started};

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
