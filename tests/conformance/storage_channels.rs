// SPDX-License-Identifier: MIT OR Apache-2.0

//! A storage controller on several channels, as `hv_storvsc` uses them: one for each processor.

use std::fs::File;
use std::io::Write;
use std::mem;
use std::os::fd::OwnedFd;

use busway_block::{Disk, DiskOptions};
use busway_storage::Luns;
use busway_testkit::GuestChannel;

use crate::storage_plug::during;
use crate::storvsc::{
    Answer, BEGIN_INITIALIZATION, END_INITIALIZATION, INIT, QUERY_PROPERTIES,
    QUERY_PROTOCOL_VERSION, RESET, RESET_BUS, Srb, Storvsc, cdb_10,
};

const CREATE_SUB_CHANNELS: u32 = 13;
const MIB: u64 = 1 << 20;

fn ram() -> Disk {
    Disk::ram(MIB, &DiskOptions::default()).unwrap()
}

/// A guest that has opened a controller of `channels` channels, all of them, and its subchannels.
fn opened(luns: Luns, channels: u16) -> (Storvsc, Vec<GuestChannel>) {
    let mut storvsc = Storvsc::with_channels(luns, 8, 8, channels);
    for (operation, body) in
        [(BEGIN_INITIALIZATION, 0), (QUERY_PROTOCOL_VERSION, 0x0602), (QUERY_PROPERTIES, 0)]
    {
        let answer = storvsc.operate(INIT, operation, body);
        if operation == QUERY_PROPERTIES {
            assert_eq!(answer[16..18], (channels - 1).to_le_bytes());
            assert_eq!(answer[20] & 1, 1, "several channels");
        }
    }
    storvsc.operate(INIT, END_INITIALIZATION, 0);
    let answer = storvsc.operate(INIT, CREATE_SUB_CHANNELS, channels - 1);
    assert_eq!(answer[8..12], [0; 4]);
    let offers: Vec<_> = (1..channels).map(|_| storvsc.pair.expect_offer()).collect();
    let indices: Vec<_> = offers.iter().map(|offer| offer.subchannel_index).collect();
    assert_eq!(indices, (1..channels).collect::<Vec<_>>());
    let others = offers.iter().map(|offer| storvsc.pair.open(offer, 8, 0).unwrap()).collect();
    (storvsc, others)
}

/// The same, turned to another channel for as long as `turn` takes.
fn on<T>(
    storvsc: &mut Storvsc,
    channel: &mut GuestChannel,
    turn: impl FnOnce(&mut Storvsc) -> T,
) -> T {
    mem::swap(&mut storvsc.channel, channel);
    let result = turn(storvsc);
    mem::swap(&mut storvsc.channel, channel);
    result
}

#[test]
fn each_channel_answers_its_own_commands() {
    let (mut storvsc, mut others) = opened(Luns::new([(0, ram())]).unwrap(), 4);
    let out = storvsc.buffer(0, 512);
    for (index, other) in (0_u32..).zip(&mut others) {
        storvsc.fill(&out, &[index as u8 + 1; 512]);
        let write = cdb_10(0x2a, 0, index, 1);
        let answer = on(&mut storvsc, other, |storvsc| storvsc.write(0, &write, &out));
        assert_eq!(answer, Answer::good(1, 512));
        assert_eq!(storvsc.channel.try_receive(&mut storvsc.pair), None);
    }
    let back = storvsc.buffer(0, 3 * 512);
    storvsc.read(0, &cdb_10(0x28, 0, 0, 3), &back);
    let expected = [[1; 512], [2; 512], [3; 512]].concat();
    assert!(storvsc.contents(&back) == expected, "one disk behind all channels");
}

#[test]
fn a_guest_gets_no_more_channels_than_there_are() {
    let (mut storvsc, others) = opened(Luns::new([(0, ram())]).unwrap(), 3);
    let answer = storvsc.operate(INIT, CREATE_SUB_CHANNELS, 1);
    assert_eq!(answer[8..12], 0xc000_000d_u32.to_le_bytes());
    // The primary goes, and the others with it.
    let Storvsc { mut pair, channel, .. } = storvsc;
    pair.close_only(channel);
    for other in others {
        assert_eq!(pair.expect_rescind(), other.relid());
    }
    pair.work();
    assert_eq!((pair.open_channels(), pair.host_fault()), (0, None));
}

#[test]
fn a_reset_frees_what_is_stuck_on_all_channels() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let file = File::from(OwnedFd::from(reader));
    let disk = Disk::from_file("pipe", file, MIB, &DiskOptions::default()).unwrap();
    let (mut storvsc, mut others) = opened(Luns::new([(0, disk), (1, ram())]).unwrap(), 3);
    let buffer = storvsc.buffer(0, 512);
    let read = Srb::new(0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 1, 512);
    for other in &mut others {
        on(&mut storvsc, other, |storvsc| {
            storvsc.send(5, &read, Some(&buffer));
            storvsc.pair.work();
            assert_eq!(storvsc.channel.try_receive(&mut storvsc.pair), None);
        });
    }
    storvsc.send_operation(RESET, RESET_BUS, 0);
    assert_eq!(storvsc.answer().id, RESET);
    for other in &mut others {
        // No waiting: these were answered before the reset was.
        let packet = other.try_receive(&mut storvsc.pair).expect("an answer before the reset's");
        assert_eq!((packet.descriptor.transaction_id, packet.payload[14]), (5, 0x82));
        assert_eq!(on(&mut storvsc, other, |it| it.command(1, &[0; 6])), Answer::good(1, 0));
    }
}

/// A channel that goes while a reset waits for it does not hold the reset up.
#[test]
fn a_reset_does_not_wait_for_a_channel_that_is_gone() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let file = File::from(OwnedFd::from(reader));
    let disk = Disk::from_file("pipe", file, MIB, &DiskOptions::default()).unwrap();
    let (mut storvsc, mut others) = opened(Luns::new([(0, disk)]).unwrap(), 2);
    let buffer = storvsc.buffer(0, 512);
    let read = Srb::new(0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 1, 512);
    on(&mut storvsc, &mut others[0], |storvsc| {
        storvsc.send(5, &read, Some(&buffer));
        storvsc.pair.work();
    });
    let mut reset = Srb::new(0, &[], 2, 0).packet();
    reset[..4].copy_from_slice(&4_u32.to_le_bytes());
    storvsc.channel.request(&mut storvsc.pair, RESET, &reset);
    storvsc.pair.work();
    assert_eq!(storvsc.channel.try_receive(&mut storvsc.pair), None, "one is under way elsewhere");
    storvsc.pair.close_only(others.remove(0));
    assert_eq!(storvsc.answer().id, RESET);
    writer.write_all(&[0; 512]).unwrap();
}

/// A guest that hears of a disk on one channel may use it on another at once.
#[test]
fn all_channels_know_a_disk_before_the_guest_does() {
    let (mut storvsc, mut others) = opened(Luns::new([(0, ram())]).unwrap(), 3);
    let units = storvsc.units.clone();
    assert_eq!(on(&mut storvsc, &mut others[1], |it| it.command(0, &[0; 6])), Answer::good(1, 0));
    assert_eq!(during(&mut storvsc, || units.add(ram())).unwrap(), 1);
    for other in &mut others {
        // No word of the host's here, and an answer.
        assert_eq!(on(&mut storvsc, other, |it| it.command(1, &[0; 6])), Answer::good(1, 0));
    }
    let word = storvsc.channel.try_receive(&mut storvsc.pair).expect("it is told on the first");
    assert_eq!(word.payload[..4], [11, 0, 0, 0]);
    during(&mut storvsc, || units.remove(1)).unwrap();
    for other in &mut others {
        assert_eq!(on(&mut storvsc, other, |it| it.command(1, &[0; 6])).srb_status, 0x20);
    }
}
