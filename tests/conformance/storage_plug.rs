// SPDX-License-Identifier: MIT OR Apache-2.0

//! Units that come, go, grow and change their discs under a guest, as `hv_storvsc` sees it.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::thread;

use busway_block::{Disk, DiskOptions};
use busway_storage::{Luns, PlugError, Units};
use busway_wire::packet::PacketType;
use tempfile::NamedTempFile;

use crate::storvsc::{Answer, Srb, Storvsc, cdb_10};

const MIB: u64 = 1 << 20;
const TEST_UNIT_READY: [u8; 6] = [0; 6];

fn image(len: u64) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(len).unwrap();
    file
}

fn open(file: &NamedTempFile) -> Disk {
    Disk::open_raw(file.path(), &DiskOptions::default()).unwrap()
}

fn disc(file: &NamedTempFile) -> Disk {
    let options = DiskOptions {
        read_only: true,
        logical_block: 2048,
        physical_block: 2048,
        ..DiskOptions::default()
    };
    Disk::open_raw(file.path(), &options).unwrap()
}

fn ready(luns: Luns) -> (Storvsc, Units) {
    let storvsc = Storvsc::ready(luns, 8);
    let units = storvsc.units.clone();
    (storvsc, units)
}

/// Lets the host work while another of its threads changes units.
pub fn during<T: Send>(storvsc: &mut Storvsc, change: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let change = scope.spawn(change);
        while !change.is_finished() {
            storvsc.pair.work();
            thread::yield_now();
        }
        storvsc.pair.work();
        change.join().unwrap()
    })
}

/// The host's word that there is something to be looked for: once, and asking for no answer.
fn must_be_told_to_scan(storvsc: &mut Storvsc) {
    let packet = storvsc.channel.try_receive(&mut storvsc.pair).expect("a word of the host");
    assert_eq!(packet.descriptor.kind, PacketType::DATA_IN_BAND);
    assert_eq!((packet.descriptor.transaction_id, packet.descriptor.flags), (0, 0));
    assert_eq!((packet.payload.len(), &packet.payload[..4]), (64, &[11, 0, 0, 0][..]));
    assert_eq!(storvsc.channel.try_receive(&mut storvsc.pair), None);
}

fn capacity(storvsc: &mut Storvsc, lun: u8) -> u32 {
    let buffer = storvsc.buffer(0, 8);
    let answer = storvsc.read(lun, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &buffer);
    assert_eq!(answer, Answer::good(1, 8));
    u32::from_be_bytes(storvsc.contents(&buffer)[..4].try_into().unwrap()) + 1
}

fn listed(storvsc: &mut Storvsc) -> Vec<u8> {
    let buffer = storvsc.buffer(0, 4096);
    let answer = storvsc.read(0, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0], &buffer);
    let bytes = storvsc.contents(&buffer);
    bytes[8..answer.moved as usize].chunks(8).map(|entry| entry[1]).collect()
}

fn sense(answer: Answer) -> (u8, u8, u8) {
    answer.sense.unwrap()
}

#[test]
fn a_disk_that_has_grown_says_so_once_and_is_longer() {
    let file = image(MIB);
    let (mut storvsc, units) = ready(Luns::new([(3, open(&file))]).unwrap());
    assert_eq!(storvsc.command(3, &TEST_UNIT_READY), Answer::good(1, 0));
    assert_eq!(during(&mut storvsc, || units.resize(3, Some(4 * MIB))).unwrap(), 4 * MIB);
    must_be_told_to_scan(&mut storvsc);
    // INQUIRY is answered all the same (SPC-4, section 5.14).
    let inquiry = storvsc.buffer(0, 36);
    assert_eq!(storvsc.read(3, &[0x12, 0, 0, 0, 36, 0], &inquiry), Answer::good(1, 36));
    assert_eq!(sense(storvsc.command(3, &TEST_UNIT_READY)), (6, 0x2a, 9));
    assert_eq!(storvsc.command(3, &TEST_UNIT_READY), Answer::good(1, 0));
    assert_eq!(capacity(&mut storvsc, 3), 8192);
    let buffer = storvsc.buffer(0, 512);
    storvsc.fill(&buffer, &[7; 512]);
    assert_eq!(storvsc.write(3, &cdb_10(0x2a, 0, 8191, 1), &buffer), Answer::good(1, 512));
    assert_eq!(std::fs::read(file.path()).unwrap()[4 * MIB as usize - 512..], [7; 512]);
    // The same again is no news.
    assert_eq!(during(&mut storvsc, || units.resize(3, None)).unwrap(), 4 * MIB);
    assert_eq!(storvsc.channel.try_receive(&mut storvsc.pair), None);
    assert!(matches!(units.resize(3, Some(MIB)), Err(PlugError::Resize(_))));
    assert!(matches!(units.resize(4, None), Err(PlugError::NoUnit { lun: 4 })));
}

#[test]
fn sense_that_waits_is_had_by_request_sense_too() {
    let file = image(MIB);
    let (mut storvsc, units) = ready(Luns::new([(0, open(&file))]).unwrap());
    units.resize(0, Some(2 * MIB)).unwrap();
    let buffer = storvsc.buffer(0, 18);
    assert_eq!(storvsc.read(0, &[3, 0, 0, 0, 18, 0], &buffer), Answer::good(1, 18));
    let bytes = storvsc.contents(&buffer);
    assert_eq!((bytes[2], bytes[12], bytes[13]), (6, 0x2a, 9));
    assert_eq!(storvsc.command(0, &TEST_UNIT_READY), Answer::good(1, 0));
}

#[test]
fn a_disk_comes_is_used_and_goes_and_its_image_is_free() {
    let (first, second) = (image(MIB), image(2 * MIB));
    let (mut storvsc, units) = ready(Luns::new([(0, open(&first))]).unwrap());
    assert_eq!(listed(&mut storvsc), [0]);
    let disk = open(&second);
    assert_eq!(during(&mut storvsc, || units.add(disk)).unwrap(), 1);
    must_be_told_to_scan(&mut storvsc);
    assert_eq!(listed(&mut storvsc), [0, 1]);
    let buffer = storvsc.buffer(0, 512);
    storvsc.fill(&buffer, &[9; 512]);
    assert_eq!(storvsc.write(1, &cdb_10(0x2a, 0, 4095, 1), &buffer), Answer::good(1, 512));
    assert_eq!(std::fs::read(second.path()).unwrap()[2 * MIB as usize - 512..], [9; 512]);
    assert!(Disk::open_raw(second.path(), &DiskOptions::default()).is_err(), "it is locked");
    during(&mut storvsc, || units.remove(1)).unwrap();
    must_be_told_to_scan(&mut storvsc);
    let gone = storvsc.write(1, &cdb_10(0x2a, 0, 0, 1), &buffer);
    assert_eq!((gone.srb_status, gone.sense), (0x20, None));
    assert_eq!(listed(&mut storvsc), [0]);
    // What took its place once gets another.
    let disk = open(&second);
    assert_eq!(during(&mut storvsc, || units.add(disk)).unwrap(), 2);
    must_be_told_to_scan(&mut storvsc);
    assert_eq!(storvsc.read(2, &cdb_10(0x28, 0, 4095, 1), &buffer), Answer::good(1, 512));
    assert_eq!(storvsc.contents(&buffer), [9; 512]);
}

#[test]
fn a_disk_goes_when_what_is_under_way_has_ended() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let file = File::from(OwnedFd::from(reader));
    let disk = Disk::from_file("pipe", file, MIB, &DiskOptions::default()).unwrap();
    let (mut storvsc, units) = ready(Luns::new([(5, disk)]).unwrap());
    let buffer = storvsc.buffer(0, 512);
    storvsc.send(7, &Srb::new(5, &cdb_10(0x28, 0, 0, 1), 1, 512), Some(&buffer));
    storvsc.pair.work();
    thread::scope(|scope| {
        let removal = scope.spawn(|| units.remove(5));
        // It is gone for new commands, and there for the one that was there before.
        loop {
            storvsc.send(8, &Srb::new(5, &TEST_UNIT_READY, 2, 0), None);
            let answer = storvsc.answer();
            assert_eq!(answer.id, 8);
            if answer.srb_status == 0x20 {
                break;
            }
        }
        assert!(!removal.is_finished());
        writer.write_all(&[3; 512]).unwrap();
        assert_eq!(storvsc.answer(), Answer::good(7, 512));
        assert_eq!(storvsc.contents(&buffer), [3; 512]);
        while !removal.is_finished() {
            storvsc.pair.work();
        }
        // A pipe cannot be made durable, and says so.
        assert!(matches!(removal.join().unwrap(), Err(PlugError::Flush { lun: 5, .. })));
    });
}

#[test]
fn a_guest_that_has_not_looked_yet_is_not_told_to() {
    let file = image(MIB);
    let (mut storvsc, units) = ready(Luns::new([]).unwrap());
    let disk = open(&file);
    assert_eq!(during(&mut storvsc, || units.add(disk)).unwrap(), 0);
    assert_eq!(storvsc.channel.try_receive(&mut storvsc.pair), None);
    assert_eq!(listed(&mut storvsc), [0]);
}

#[test]
fn a_controller_has_255_units_and_no_more() {
    let ram = || Disk::ram(MIB, &DiskOptions::default()).unwrap();
    let (mut storvsc, units) = ready(Luns::new((0..254).map(|lun| (lun, ram()))).unwrap());
    assert_eq!(during(&mut storvsc, || units.add(ram())).unwrap(), 254);
    assert!(matches!(units.add(ram()), Err(PlugError::Full)));
    during(&mut storvsc, || units.remove(17)).unwrap();
    assert_eq!(during(&mut storvsc, || units.add(ram())).unwrap(), 17);
}

#[test]
fn a_disc_is_taken_and_another_put_in() {
    let (first, second) = (image(MIB), image(3 * MIB));
    let mut luns = Luns::new([]).unwrap();
    luns.add_drive(2, disc(&first)).unwrap();
    let (mut storvsc, units) = ready(luns);
    let serial = units.list()[0].serial.clone();
    assert_eq!(storvsc.command(2, &TEST_UNIT_READY), Answer::good(1, 0));
    assert!(matches!(units.insert(2, disc(&second)), Err(PlugError::HasDisc { lun: 2 })));
    during(&mut storvsc, || units.eject(2, false)).unwrap();
    must_be_told_to_scan(&mut storvsc);
    assert_eq!(sense(storvsc.command(2, &TEST_UNIT_READY)), (2, 0x3a, 0));
    assert!(matches!(units.eject(2, false), Err(PlugError::NoDisc { lun: 2 })));
    Disk::open_raw(first.path(), &DiskOptions::default()).expect("its image is nobody's");
    // The guest closes the tray of a drive that has no disc.
    assert_eq!(storvsc.command(2, &[0x1b, 0, 0, 0, 3, 0]), Answer::good(1, 0));
    assert_eq!(sense(storvsc.command(2, &TEST_UNIT_READY)), (2, 0x3a, 0));
    let other = disc(&second);
    during(&mut storvsc, || units.insert(2, other)).unwrap();
    must_be_told_to_scan(&mut storvsc);
    assert_eq!(sense(storvsc.command(2, &TEST_UNIT_READY)), (6, 0x28, 0));
    assert_eq!(capacity(&mut storvsc, 2), 1536);
    assert_eq!(units.list()[0].serial, serial, "it is the same drive");
    // A tray that the guest has opened takes another disc at once.
    assert_eq!(storvsc.command(2, &[0x1b, 0, 0, 0, 2, 0]), Answer::good(1, 0));
    let third = disc(&first);
    during(&mut storvsc, || units.insert(2, third)).unwrap();
    assert_eq!(units.list()[0].medium.as_ref().unwrap().capacity(), MIB);
}

#[test]
fn a_disc_that_is_locked_in_is_asked_for_and_can_be_torn_out() {
    let file = image(MIB);
    let mut luns = Luns::new([]).unwrap();
    luns.add_drive(0, disc(&file)).unwrap();
    let (mut storvsc, units) = ready(luns);
    assert_eq!(storvsc.command(0, &[0x1e, 0, 0, 0, 1, 0]), Answer::good(1, 0));
    assert!(matches!(units.eject(0, false), Err(PlugError::Locked { lun: 0 })));
    let event = storvsc.buffer(0, 8);
    let ask = [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0];
    for expected in [1, 0] {
        assert_eq!(storvsc.read(0, &ask, &event), Answer::good(1, 8));
        assert_eq!(storvsc.contents(&event)[4], expected);
    }
    assert_eq!(storvsc.command(0, &TEST_UNIT_READY), Answer::good(1, 0));
    during(&mut storvsc, || units.eject(0, true)).unwrap();
    must_be_told_to_scan(&mut storvsc);
    assert_eq!(sense(storvsc.command(0, &TEST_UNIT_READY)), (2, 0x3a, 0));
}
