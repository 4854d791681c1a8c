// SPDX-License-Identifier: MIT OR Apache-2.0

//! The storage controller: what `hv_storvsc` and hostile guests see of it, packet by packet.

use std::fs::File;
use std::io::{PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use busway_block::{Disk, DiskOptions};
use busway_ring::Outgoing;
use busway_storage::Luns;
use busway_wire::packet::{COMPLETION_REQUESTED, PacketType};
use proptest::prelude::*;
use tempfile::NamedTempFile;

use crate::storvsc::{
    Answer, BEGIN_INITIALIZATION, Buffer, END_INITIALIZATION, INIT, QUERY_PROPERTIES,
    QUERY_PROTOCOL_VERSION, RESET, RESET_BUS, RESET_LUN, Srb, Storvsc, cdb_10,
};

const MIB: u64 = 1 << 20;

fn ram(len: u64) -> Disk {
    Disk::ram(len, &DiskOptions::default()).unwrap()
}

fn one(disk: Disk) -> Luns {
    Luns::new([(0, disk)]).unwrap()
}

fn image(len: u64) -> (NamedTempFile, Disk) {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(len).unwrap();
    let disk = Disk::open_raw(file.path(), &DiskOptions::default()).unwrap();
    (file, disk)
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn every_driver_gets_through_its_handshake() {
    // Version, and the bytes of a packet: 5.10 and FreeBSD begin with 48.
    for (version, packet_len) in
        [(0x0200, 48), (0x0402, 48), (0x0501, 64), (0x0600, 64), (0x0602, 64), (0x0602, 48)]
    {
        let mut storvsc = Storvsc::opened(one(ram(MIB)), 4, 32);
        storvsc.packet_len = packet_len;
        storvsc.handshake(version);
        let buffer = storvsc.buffer(0, 36);
        let answer = storvsc.read(0, &[0x12, 0, 0, 0, 36, 0], &buffer);
        assert_eq!(answer, Answer::good(1, 36));
        assert_eq!(&storvsc.contents(&buffer)[8..24], b"Msft    Virtual ");
    }
}

#[test]
fn what_comes_out_of_turn_is_answered_with_an_error_and_harms_nothing() {
    let mut storvsc = Storvsc::opened(one(ram(MIB)), 4, 32);
    let status = |bytes: &[u8]| u32::from_le_bytes(bytes[8..12].try_into().unwrap());
    for operation in [END_INITIALIZATION, QUERY_PROPERTIES, RESET_BUS, 99] {
        assert_ne!(status(&storvsc.operate(INIT, operation, 0)), 0);
    }
    let early = storvsc.command(0, &[0; 6]);
    assert_eq!((early.status, early.srb_status), (0xc000_0184, 0));
    assert_eq!(status(&storvsc.operate(INIT, BEGIN_INITIALIZATION, 0)), 0);
    assert_ne!(status(&storvsc.operate(INIT, QUERY_PROTOCOL_VERSION, 0x0700)), 0);
    assert_eq!(status(&storvsc.operate(INIT, QUERY_PROTOCOL_VERSION, 0x0602)), 0);
    let properties = storvsc.operate(INIT, QUERY_PROPERTIES, 0);
    assert_eq!(properties[24..28], (1_u32 << 20).to_le_bytes());
    storvsc.operate(INIT, END_INITIALIZATION, 0);
    assert_eq!(storvsc.command(0, &[0; 6]), Answer::good(1, 0));
}

#[test]
fn a_bus_scan_of_linux_finds_the_units_and_no_phantoms() {
    let luns = Luns::new([(1, ram(MIB)), (9, ram(2 * MIB))]).unwrap();
    let mut storvsc = Storvsc::ready(luns, 4);
    let inquiry = storvsc.buffer(0x800, 36);
    let list = storvsc.buffer(0, 4096);
    let report = [0xa0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0];
    let mut found = Vec::new();
    for path in 0..8 {
        for target in 0..2 {
            let at = |lun, cdb, len| Srb { path, target, ..Srb::new(lun, cdb, 1, len) };
            storvsc.send(1, &at(0, &[0x12, 0, 0, 0, 36, 0], 36), Some(&inquiry));
            assert_eq!(storvsc.answer(), Answer::good(1, 36));
            assert_eq!(storvsc.contents(&inquiry)[0], 0x7f, "number 0 is empty everywhere");
            storvsc.send(2, &at(0, &report, 4096), Some(&list));
            let answer = storvsc.answer();
            let bytes = storvsc.contents(&list);
            let length = u32::from_be_bytes(bytes[..4].try_into().unwrap());
            assert_eq!(answer, Answer::good(2, 8 + length));
            let units = bytes[8..8 + length as usize].chunks(8).map(|entry| entry[1]);
            found.extend(units.map(|lun| (path, target, lun)));
        }
    }
    assert_eq!(found, [(0, 0, 1), (0, 0, 9)]);
    let gone = storvsc.command(0, &[0; 6]);
    assert_eq!((gone.srb_status, gone.moved, gone.sense), (0x20, 0, None));
    assert_eq!(storvsc.command(9, &[0; 6]), Answer::good(1, 0));
}

#[test]
fn data_goes_through_any_pages_at_any_offset() {
    let (file, disk) = image(4 * MIB);
    let luns = Luns::new([(0, disk), (1, ram(4 * MIB))]).unwrap();
    let mut storvsc = Storvsc::ready(luns, 4);
    for lun in [0, 1] {
        // 33 pages and more, up to what one command may move.
        for (offset, blocks) in [(0, 8), (512, 8), (0xe00, 256), (1, 264), (0xfff, 2048)] {
            let len = blocks * 512;
            let data = noise(len, offset as u64 + blocks as u64);
            let out = storvsc.buffer(offset, len);
            storvsc.fill(&out, &data);
            let write = cdb_10(0x2a, 0, 640, blocks as u16);
            assert_eq!(storvsc.write(lun, &write, &out), Answer::good(1, len as u32));
            if lun == 0 {
                let mut bytes = vec![0; len];
                file.as_file().read_exact_at(&mut bytes, 640 * 512).unwrap();
                assert!(bytes == data, "in the image");
            }
            let back = storvsc.buffer(4096 - 512 - (offset & 1), len);
            let read = cdb_10(0x28, 0, 640, blocks as u16);
            assert_eq!(storvsc.read(lun, &read, &back), Answer::good(1, len as u32));
            assert!(storvsc.contents(&back) == data, "back in memory");
        }
    }
}

/// The general form of external pages: several ranges, of one and of more pages each.
#[test]
fn data_goes_through_several_ranges() {
    let mut storvsc = Storvsc::ready(one(ram(MIB)), 4);
    let data = noise(4096, 9);
    let first = storvsc.buffer(0xf00, 0x100);
    let second = storvsc.buffer(0x123, 0xd00);
    let third = storvsc.buffer(0, 0x200);
    storvsc.fill(&first, &data[..0x100]);
    storvsc.fill(&second, &data[0x100..0xe00]);
    storvsc.fill(&third, &data[0xe00..]);
    let mut header = 0xdead_beef_u32.to_le_bytes().to_vec();
    header.extend(3_u32.to_le_bytes());
    for Buffer { pfns, offset, len } in [first, second, third] {
        header.extend((len as u32).to_le_bytes());
        header.extend((offset as u32).to_le_bytes());
        header.extend(pfns.iter().flat_map(|pfn| pfn.to_le_bytes()));
    }
    let write = cdb_10(0x2a, 0, 16, 8);
    let packet = Srb::new(0, &write, 0, 4096).packet();
    storvsc.send_raw(&Outgoing {
        kind: PacketType::DATA_USING_GPA_DIRECT,
        flags: COMPLETION_REQUESTED,
        transaction_id: 5,
        header: &header,
        payload: &packet,
    });
    assert_eq!(storvsc.answer(), Answer::good(5, 4096));
    let back = storvsc.buffer(0, 4096);
    storvsc.read(0, &cdb_10(0x28, 0, 16, 8), &back);
    assert!(storvsc.contents(&back) == data);
}

#[test]
fn a_read_shorter_than_its_memory_says_how_short() {
    let mut storvsc = Storvsc::ready(one(ram(MIB)), 4);
    let buffer = storvsc.buffer(0, 4096);
    storvsc.fill(&buffer, &[0xee; 4096]);
    assert_eq!(storvsc.read(0, &cdb_10(0x28, 0, 0, 2), &buffer), Answer::good(1, 1024));
    let bytes = storvsc.contents(&buffer);
    assert!(bytes[..1024].iter().all(|byte| *byte == 0));
    assert!(bytes[1024..].iter().all(|byte| *byte == 0xee));
}

#[test]
fn errors_of_a_command_are_sense_data() {
    let mut storvsc = Storvsc::ready(one(ram(MIB)), 4);
    let buffer = storvsc.buffer(0, 4096);
    let sense = |answer: Answer| {
        assert_eq!((answer.srb_status, answer.scsi_status, answer.moved), (0x84, 2, 0));
        answer.sense.unwrap()
    };
    let beyond = storvsc.read(0, &cdb_10(0x28, 0, 2041, 8), &buffer);
    assert_eq!(sense(beyond), (5, 0x21, 0));
    let unknown = storvsc.command(0, &[0xe7; 16]);
    assert_eq!(sense(unknown), (5, 0x20, 0));
    let inquiry = storvsc.read(0, &[0x12, 1, 0xcc, 0, 36, 0], &buffer);
    assert_eq!(sense(inquiry), (5, 0x24, 0));
}

#[test]
fn errors_of_the_host_are_sense_data_and_the_channel_goes_on() {
    let (file, disk) = image(4 * MIB);
    let mut storvsc = Storvsc::ready(one(disk), 4);
    file.as_file().set_len(MIB).unwrap();
    let buffer = storvsc.buffer(0, 4096);
    let answer = storvsc.read(0, &cdb_10(0x28, 0, 4096, 8), &buffer);
    assert_eq!((answer.srb_status, answer.scsi_status), (0x84, 2));
    assert_eq!(answer.sense, Some((3, 0x11, 0)));
    assert_eq!(storvsc.read(0, &cdb_10(0x28, 0, 0, 8), &buffer), Answer::good(1, 4096));
    // The cause is gone, and so is the error.
    file.as_file().set_len(4 * MIB).unwrap();
    assert_eq!(storvsc.read(0, &cdb_10(0x28, 0, 4096, 8), &buffer), Answer::good(1, 4096));
}

#[test]
fn a_list_of_unmaps_is_answered_once_when_all_of_it_is_done() {
    let (file, disk) = image(4 * MIB);
    file.as_file().write_all_at(&[0x55; 4 << 20], 0).unwrap();
    let mut storvsc = Storvsc::ready(one(disk), 4);
    let mut list = vec![0, 6 + 48, 0, 48, 0, 0, 0, 0];
    for (lba, blocks) in [(0_u64, 8_u32), (64, 16), (8000, 8)] {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    let buffer = storvsc.buffer(0xfff, list.len());
    storvsc.fill(&buffer, &list);
    let unmap = cdb_10(0x42, 0, 0, list.len() as u16);
    assert_eq!(storvsc.write(0, &unmap, &buffer), Answer::good(1, list.len() as u32));
    assert_eq!(storvsc.channel.try_receive(&mut storvsc.pair), None);
    let mut bytes = vec![0; 4 << 20];
    file.as_file().read_exact_at(&mut bytes, 0).unwrap();
    for (block, bytes) in bytes.chunks(512).enumerate() {
        let expected = if matches!(block, 0..8 | 64..80 | 8000..8008) { 0 } else { 0x55 };
        assert!(bytes.iter().all(|byte| *byte == expected), "block {block}");
    }
}

#[test]
fn one_block_is_written_to_many() {
    let (file, disk) = image(4 * MIB);
    let mut storvsc = Storvsc::ready(one(disk), 4);
    let block = noise(512, 11);
    let buffer = storvsc.buffer(0xf80, 512);
    storvsc.fill(&buffer, &block);
    // More than one system call can write.
    let same = cdb_10(0x41, 0, 16, 1000);
    assert_eq!(storvsc.write(0, &same, &buffer), Answer::good(1, 512));
    let mut bytes = vec![0; 1002 * 512];
    file.as_file().read_exact_at(&mut bytes, 15 * 512).unwrap();
    assert!(bytes[512..1001 * 512] == block.repeat(1000));
    assert!(bytes[..512].iter().chain(&bytes[1001 * 512..]).all(|byte| *byte == 0));
}

#[test]
fn flushes_and_durable_writes_are_answered() {
    let (_file, disk) = image(MIB);
    let mut storvsc = Storvsc::ready(one(disk), 4);
    let buffer = storvsc.buffer(0, 512);
    assert_eq!(storvsc.write(0, &cdb_10(0x2a, 8, 0, 1), &buffer), Answer::good(1, 512));
    assert_eq!(storvsc.command(0, &cdb_10(0x35, 0, 0, 0)), Answer::good(1, 0));
}

#[test]
fn more_commands_than_there_is_room_for_are_all_answered_once() {
    let (_file, disk) = image(MIB);
    for disk in [disk, ram(MIB)] {
        let mut storvsc = Storvsc::ready(one(disk), 4);
        let buffers: Vec<_> = (0..100).map(|_| storvsc.buffer(0, 4096)).collect();
        for (id, buffer) in buffers.iter().enumerate() {
            let cdb = cdb_10(0x28, 0, id as u32 * 8, 8);
            storvsc.send(id as u64 + 1, &Srb::new(0, &cdb, 1, 4096), Some(buffer));
        }
        let mut ids: Vec<_> = (0..100)
            .map(|_| storvsc.answer())
            .inspect(|answer| assert_eq!(*answer, Answer::good(answer.id, 4096)))
            .map(|answer| answer.id)
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=100).collect::<Vec<_>>());
        assert_eq!(storvsc.channel.try_receive(&mut storvsc.pair), None);
    }
}

#[test]
fn a_request_that_wants_no_answer_is_done_all_the_same() {
    let mut storvsc = Storvsc::ready(one(ram(MIB)), 4);
    let buffer = storvsc.buffer(0, 512);
    storvsc.fill(&buffer, &[3; 512]);
    let mut header = (1_u64 << 32).to_le_bytes().to_vec();
    header.extend(512_u32.to_le_bytes());
    header.extend(0_u32.to_le_bytes());
    header.extend(buffer.pfns[0].to_le_bytes());
    let write = cdb_10(0x2a, 0, 0, 1);
    storvsc.send_raw(&Outgoing {
        kind: PacketType::DATA_USING_GPA_DIRECT,
        flags: 0,
        transaction_id: 77,
        header: &header,
        payload: &Srb::new(0, &write, 0, 512).packet(),
    });
    let back = storvsc.buffer(0, 512);
    assert_eq!(storvsc.read(0, &cdb_10(0x28, 0, 0, 1), &back), Answer::good(1, 512));
    assert_eq!(storvsc.contents(&back), [3; 512]);
}

#[test]
fn a_reset_is_answered_after_what_was_under_way() {
    let (_file, disk) = image(64 * MIB);
    let mut storvsc = Storvsc::ready(one(disk), 64);
    let buffer = storvsc.buffer(0, 1 << 20);
    for operation in [RESET_BUS, RESET_LUN] {
        for id in 1..=32 {
            let cdb = cdb_10(0x2a, 8, id as u32 * 2048, 2048);
            storvsc.send(id, &Srb::new(0, &cdb, 0, 1 << 20), Some(&buffer));
        }
        storvsc.send_operation(RESET, operation, 0);
        let mut open: Vec<u64> = (1..=32).collect();
        loop {
            let answer = storvsc.answer();
            if answer.id == RESET {
                assert_eq!(answer.status, 0);
                break;
            }
            let place = open.iter().position(|id| *id == answer.id).unwrap();
            open.swap_remove(place);
            // Done, or given up in a way that makes the guest send it again.
            let done = answer == Answer::good(answer.id, 1 << 20);
            let given_up = answer.srb_status == 0x82 && answer.sense == Some((0xb, 0, 0));
            assert!(done || given_up && operation == RESET_BUS, "{answer:?}");
        }
        assert!(open.is_empty(), "{open:?} are not answered before the reset");
        assert_eq!(storvsc.command(0, &[0; 6]), Answer::good(1, 0));
    }
}

/// A disk whose reads take as long as nobody writes into the pipe that it is.
fn stuck() -> (Disk, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let file = File::from(OwnedFd::from(reader));
    (Disk::from_file("pipe", file, MIB, &DiskOptions::default()).unwrap(), writer)
}

#[test]
fn a_reset_frees_what_is_stuck_on_the_whole_bus_and_waits_for_it_on_one_unit() {
    let (disk, mut writer) = stuck();
    let luns = Luns::new([(0, disk), (1, ram(MIB))]).unwrap();
    let mut storvsc = Storvsc::ready(luns, 8);
    let buffer = storvsc.buffer(0, 512);
    let read = Srb::new(0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 1, 512);
    for id in 1..=2 {
        storvsc.send(id, &read, Some(&buffer));
    }
    storvsc.pair.work();
    assert_eq!(storvsc.channel.try_receive(&mut storvsc.pair), None);
    storvsc.send_operation(RESET, RESET_BUS, 0);
    for _ in 1..=2 {
        let answer = storvsc.answer();
        assert_eq!((answer.srb_status, answer.sense), (0x82, Some((0xb, 0, 0))));
    }
    assert_eq!(storvsc.answer().id, RESET);

    // Another unit's reset waits for nothing, this one's for what is under way here.
    storvsc.send(3, &read, Some(&buffer));
    storvsc.pair.work();
    let mut reset = Srb::new(1, &[], 2, 0).packet();
    reset[..4].copy_from_slice(&RESET_LUN.to_le_bytes());
    storvsc.channel.request(&mut storvsc.pair, RESET, &reset);
    assert_eq!(storvsc.answer().id, RESET);
    storvsc.send_operation(RESET, RESET_LUN, 0);
    storvsc.pair.work();
    assert_eq!(storvsc.channel.try_receive(&mut storvsc.pair), None);
    writer.write_all(&[9; 512]).unwrap();
    assert_eq!(storvsc.answer(), Answer::good(3, 512));
    assert_eq!(storvsc.answer().id, RESET);
    assert_eq!(storvsc.contents(&buffer), [9; 512]);
}

#[test]
fn a_close_frees_what_is_stuck() {
    let (disk, _writer) = stuck();
    let mut storvsc = Storvsc::ready(one(disk), 8);
    let buffer = storvsc.buffer(0, 512);
    storvsc.send(1, &Srb::new(0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 1, 512), Some(&buffer));
    storvsc.pair.work();
    let Storvsc { mut pair, channel, .. } = storvsc;
    pair.close(channel);
    assert_eq!((pair.open_channels(), pair.host_fault()), (0, None));
}

#[test]
fn a_channel_that_faults_lets_go_of_its_disk() {
    let (disk, _writer) = stuck();
    let mut storvsc = Storvsc::ready(one(disk), 8);
    let buffer = storvsc.buffer(0, 512);
    storvsc.send(1, &Srb::new(0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 1, 512), Some(&buffer));
    storvsc.send_raw(&Outgoing::in_band(2, b"nonsense"));
    storvsc.pair.wait("the close", |pair| (pair.open_channels() == 0).then_some(()));
    assert_eq!(storvsc.pair.faults.len(), 1);
}

#[test]
fn a_reset_of_an_idle_adapter_is_answered_at_once() {
    let mut storvsc = Storvsc::ready(one(ram(MIB)), 1);
    for operation in [4, 5, 6] {
        assert_eq!(storvsc.operate(RESET, operation, 0)[8..12], [0; 4]);
    }
    assert_eq!(storvsc.command(0, &[0; 6]), Answer::good(1, 0));
}

#[test]
fn a_close_waits_for_the_disk_and_the_next_open_begins_anew() {
    let (_file, disk) = image(64 * MIB);
    let mut storvsc = Storvsc::ready(one(disk), 64);
    for _ in 0..3 {
        let buffer = storvsc.buffer(0, 1 << 20);
        for id in 1..=32 {
            let cdb = cdb_10(0x2a, 8, id as u32 * 2048, 2048);
            storvsc.send(id, &Srb::new(0, &cdb, 0, 1 << 20), Some(&buffer));
        }
        storvsc.pair.work();
        let Storvsc { mut pair, offer, channel, units, packet_len } = storvsc;
        pair.close(channel);
        assert_eq!(pair.open_channels(), 0);
        let channel = pair.open(&offer, 32, 0).unwrap();
        storvsc = Storvsc { pair, offer, channel, units, packet_len };
        storvsc.handshake(0x0602);
        assert_eq!(storvsc.command(0, &[0; 6]), Answer::good(1, 0));
    }
    assert_eq!(storvsc.pair.host_fault(), None);
}

/// What a guest gets wrong about its own request is an SRB status, and nothing is moved.
#[test]
fn requests_that_contradict_themselves_are_refused() {
    let mut storvsc = Storvsc::ready(one(ram(MIB)), 4);
    let buffer = storvsc.buffer(0, 512);
    let read = cdb_10(0x28, 0, 0, 1);
    let good = Srb::new(0, &read, 1, 512);
    let eight = cdb_10(0x28, 0, 0, 8);
    let pages = storvsc.buffer(0, 4096);
    storvsc.send(1, &Srb::new(0, &eight, 1, 512), Some(&pages));
    assert_eq!(storvsc.answer().sense, Some((5, 0x24, 0)), "more than is to be moved");
    let too_long = Srb { data_transfer_length: 513, ..good };
    for bad in [
        too_long,
        Srb { data_transfer_length: u32::MAX, ..good },
        Srb { cdb_len: 17, ..good },
        Srb { cdb_len: 255, ..good },
        Srb { cdb_len: 0, ..good },
        Srb { cdb_len: 9, ..good },
        Srb { direction: 0, ..good },
    ] {
        storvsc.send(1, &bad, Some(&buffer));
        let answer = storvsc.answer();
        assert_eq!((answer.srb_status, answer.moved), (0x86, 0), "{bad:?}");
        assert_eq!(answer.sense, Some((5, 0x24, 0)));
    }
    // No pages at all.
    storvsc.send(1, &good, None);
    assert_eq!(storvsc.answer().srb_status, 0x86);
    storvsc.send(1, &Srb { data_transfer_length: 0, ..good }, None);
    assert_eq!(storvsc.answer().sense, Some((5, 0x24, 0)), "a read without room");
    // A length that means nothing does no harm.
    storvsc.send(1, &Srb { data_transfer_length: 99, ..Srb::new(0, &[0; 6], 2, 0) }, None);
    assert_eq!(storvsc.answer(), Answer::good(1, 0));
    storvsc.send(1, &good, Some(&buffer));
    assert_eq!(storvsc.answer(), Answer::good(1, 512));
}

/// What cannot be parsed closes the channel, with the reason.
#[test]
fn packets_that_cannot_be_parsed_close_the_channel() {
    let read = cdb_10(0x28, 0, 0, 1);
    let srb = Srb::new(0, &read, 1, 512).packet();
    let range = |count: u32, len: u32, offset: u32, pfns: &[u64]| {
        let mut header = 0_u32.to_le_bytes().to_vec();
        header.extend(count.to_le_bytes());
        header.extend(len.to_le_bytes());
        header.extend(offset.to_le_bytes());
        header.extend(pfns.iter().flat_map(|pfn| pfn.to_le_bytes()));
        header
    };
    let direct = PacketType::DATA_USING_GPA_DIRECT;
    let in_band = PacketType::DATA_IN_BAND;
    let cases = [
        (in_band, vec![], &srb[..40], "40 B holds no storvsc packet"),
        (direct, vec![], &srb[..], "0 B into the 8 B header"),
        (direct, range(1, 512, 0, &[]), &srb[..], "need 1 PFNs"),
        (direct, range(2, 512, 0, &[100]), &srb[..], "range 1 of 2"),
        (direct, range(1, 512, 4096, &[100]), &srb[..], "beyond the first page"),
        (direct, range(1, 512, 0, &[u64::MAX]), &srb[..], "not all RAM"),
        (direct, range(1, 512, 0, &[1 << 40]), &srb[..], "not all RAM"),
        (direct, range(1, 512, 0, &[5; 4096]), &srb[..], "32784 B of page lists"),
        (PacketType::DATA_USING_GPADL, vec![], &srb[..], "DATA_USING_GPADL"),
    ];
    for (kind, header, payload, reason) in cases {
        let mut storvsc = Storvsc::ready(one(ram(MIB)), 4);
        let packet = Outgoing { kind, header: &header, ..Outgoing::in_band(1, payload) };
        storvsc.send_raw(&packet);
        storvsc.pair.work();
        let faults: Vec<_> = storvsc.pair.faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults.len(), 1, "{reason}");
        assert!(faults[0].contains(reason), "{faults:?} says nothing of '{reason}'");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever a guest puts into a command, it is answered once or the channel is closed.
    #[test]
    fn any_command_is_answered_once(
        cdb in prop::collection::vec(any::<u8>(), 0..=20),
        opcode in prop::sample::select(vec![
            0x00, 0x03, 0x08, 0x0a, 0x12, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x2a, 0x2f, 0x35, 0x41,
            0x42, 0x5a, 0x88, 0x8a, 0x8f, 0x91, 0x93, 0x9e, 0xa0, 0xa8, 0xaa, 0xaf_u8,
        ]),
        small in any::<bool>(),
        cdb_len in any::<u8>(),
        direction in 0..4_u8,
        length in prop::sample::select(vec![0, 1, 18, 512, 4096, 8192, 8193, u32::MAX]),
        lun in 0..3_u8,
        data in prop::collection::vec(any::<u8>(), 8192),
    ) {
        let luns = Luns::new([(0, ram(MIB)), (1, ram(MIB))]).unwrap();
        let mut storvsc = Storvsc::ready(luns, 2);
        let mut cdb = cdb;
        if let Some(first) = cdb.first_mut() {
            *first = opcode;
        }
        if small {
            // Addresses and counts that a small disk has.
            for byte in cdb.iter_mut().skip(2).step_by(2) {
                *byte = 0;
            }
        }
        let buffer = storvsc.buffer(3, 8192);
        storvsc.fill(&buffer, &data);
        let cdb_len = if small { cdb.len() as u8 } else { cdb_len };
        let srb = Srb { cdb_len, data_transfer_length: length, ..Srb::new(lun, &cdb, direction, 0) };
        storvsc.send(1, &srb, Some(&buffer));
        let answer = storvsc.answer();
        prop_assert_eq!(answer.id, 1);
        prop_assert!(answer.moved <= 8192);
        prop_assert_eq!(storvsc.channel.try_receive(&mut storvsc.pair), None);
        prop_assert!(storvsc.pair.faults.is_empty());
    }

    /// Whatever a guest puts into a packet, the host survives it.
    #[test]
    fn any_packet_is_survived(
        header in prop::collection::vec(any::<u64>(), 0..8),
        payload in prop::collection::vec(any::<u8>(), 0..80),
        operation in 0..16_u8,
        kind in 0..16_u16,
    ) {
        let mut storvsc = Storvsc::ready(one(ram(MIB)), 2);
        let header: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut payload = payload;
        if payload.len() >= 4 {
            payload[..4].copy_from_slice(&[operation, 0, 0, 0]);
        }
        let kind = PacketType(kind);
        let packet = Outgoing { kind, header: &header, ..Outgoing::in_band(1, &payload) };
        storvsc.send_raw(&packet);
        storvsc.pair.work();
        prop_assert_eq!(storvsc.pair.host_fault(), None);
    }
}
