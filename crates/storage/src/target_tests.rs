// SPDX-License-Identifier: MIT OR Apache-2.0

//! Commands, byte by byte, on disks that are not read: what the target answers and what it asks.

use busway_block::DiskOptions;
use busway_memory::{Bytes, GuestAddress, GuestMemory, PAGE_SIZE, Region};
use busway_wire::scsi::Status;
use busway_wire::storvsc::SrbCode;

use super::*;

const BLOCKS: u64 = 2048;

struct Bench {
    memory: GuestMemory,
    luns: Luns,
    more: Vec<Extent>,
}

fn options() -> DiskOptions {
    DiskOptions { serial: Some("busway-1".into()), ..DiskOptions::default() }
}

fn bench_with(options: &DiskOptions) -> Bench {
    let region = Region { start: GuestAddress(0), len: 64 * PAGE_SIZE };
    let memory = GuestMemory::allocate(&[region]).unwrap();
    memory.write_slice(&[0xee; 64 * PAGE_SIZE], GuestAddress(0)).unwrap();
    let luns = Luns::new([(2, Disk::ram(BLOCKS * 512, options).unwrap())]).unwrap();
    Bench { memory, luns, more: Vec::new() }
}

fn bench() -> Bench {
    bench_with(&options())
}

fn read_only() -> Bench {
    bench_with(&DiskOptions { read_only: true, ..options() })
}

impl Bench {
    fn step(&mut self, address: Address, cdb: &[u8], direction: Direction, room: usize) -> Step {
        let mut data = GuestSlices::new(self.memory.clone());
        data.push(GuestAddress(0x1ff0), room).unwrap();
        let step =
            execute(&self.luns, &Request { address, cdb, direction }, &mut data, &mut self.more);
        if let Step::Io(io) = step {
            let blocks_moved = match io.operation {
                Operation::Read | Operation::Write { .. } => io.moved as usize,
                Operation::WriteSame { .. } => 512,
                _ => 0,
            };
            assert_eq!(data.len(), blocks_moved, "the rest of the guest's memory is left out");
        }
        step
    }

    /// A command to the unit that is there, which wants data.
    fn ask(&mut self, cdb: &[u8], room: usize) -> Step {
        let address = Address { path: 0, target: 0, lun: 2 };
        self.step(address, cdb, Direction::READ, room)
    }

    /// A command that brings data.
    fn tell(&mut self, cdb: &[u8], data: &[u8]) -> Step {
        self.memory.write_slice(data, GuestAddress(0x1ff0)).unwrap();
        let address = Address { path: 0, target: 0, lun: 2 };
        self.step(address, cdb, Direction::WRITE, data.len())
    }

    fn bytes(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(0x1ff0)).unwrap();
        bytes
    }

    /// The data of a command that must succeed, and nothing behind it is written.
    fn data(&mut self, cdb: &[u8], room: usize) -> Vec<u8> {
        self.memory.write_slice(&[0xee; 0x2000], GuestAddress(0x1ff0)).unwrap();
        let Step::Done(reply) = self.ask(cdb, room) else { panic!("wants its disk") };
        assert_eq!((reply.code, reply.status, reply.sense), (SrbCode::SUCCESS, Status::GOOD, None));
        let moved = reply.moved as usize;
        assert!(moved <= room);
        assert_eq!(self.bytes(moved + 8)[moved..], [0xee; 8]);
        self.bytes(moved)
    }
}

fn sense(step: Step) -> (u8, u8, u8) {
    let Step::Done(reply) = step else { panic!("{step:?}") };
    assert_eq!((reply.code, reply.status), (SrbCode::ERROR, Status::CHECK_CONDITION));
    assert_eq!(reply.moved, 0);
    let sense = reply.sense.unwrap();
    (sense.key.0, sense.additional.code, sense.additional.qualifier)
}

fn io(operation: Operation, lba: u64, moved: u32) -> Step {
    Step::Io(Io { disk: 2, operation, offset: lba * 512, moved })
}

fn good(moved: u32) -> Step {
    Step::Done(Reply::good(moved))
}

fn cdb_10(opcode: u8, flags: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let mut cdb = [0; 10];
    (cdb[0], cdb[1]) = (opcode, flags);
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

fn cdb_16(opcode: u8, flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (opcode, flags);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

fn inquiry(page: Option<u8>, room: u8) -> [u8; 6] {
    [0x12, page.is_some().into(), page.unwrap_or(0), 0, room, 0]
}

const OUT_OF_RANGE: (u8, u8, u8) = (5, 0x21, 0);
const INVALID_FIELD: (u8, u8, u8) = (5, 0x24, 0);
const INVALID_OPCODE: (u8, u8, u8) = (5, 0x20, 0);
const WRITE_PROTECTED: (u8, u8, u8) = (7, 0x27, 0);

#[test]
fn reads_and_writes_of_every_length_of_command() {
    let mut bench = bench();
    let write = |durable| Operation::Write { durable };
    assert_eq!(bench.ask(&[0x08, 0, 0, 5, 2, 0], 1024), io(Operation::Read, 5, 1024));
    assert_eq!(bench.ask(&cdb_10(0x28, 0, 6, 8), 4096), io(Operation::Read, 6, 4096));
    assert_eq!(bench.ask(&cdb_16(0x88, 0, 7, 8), 4096), io(Operation::Read, 7, 4096));
    let read_12 = [0xa8, 0, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0];
    assert_eq!(bench.ask(&read_12, 4096), io(Operation::Read, 9, 4096));
    assert_eq!(bench.tell(&[0x0a, 0, 0, 5, 1, 0], &[1; 512]), io(write(false), 5, 512));
    assert_eq!(bench.tell(&cdb_10(0x2a, 0, 6, 1), &[1; 512]), io(write(false), 6, 512));
    assert_eq!(bench.tell(&cdb_10(0x2a, 8, 6, 1), &[1; 512]), io(write(true), 6, 512));
    assert_eq!(bench.tell(&cdb_16(0x8a, 8, 7, 1), &[1; 512]), io(write(true), 7, 512));
    let write_12 = [0xaa, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0];
    assert_eq!(bench.tell(&write_12, &[1; 512]), io(write(false), 9, 512));
    // 256 blocks for 0 in the short form, and none in the others.
    assert_eq!(bench.ask(&[0x08, 0, 0, 0, 0, 0], 256 * 512), io(Operation::Read, 0, 256 * 512));
    assert_eq!(bench.ask(&cdb_10(0x28, 0, 6, 0), 4096), good(0));
}

#[test]
fn the_end_of_the_disk_is_the_end() {
    let mut bench = bench();
    let last = BLOCKS - 1;
    assert_eq!(bench.ask(&cdb_16(0x88, 0, last, 1), 512), io(Operation::Read, last, 512));
    for (lba, blocks) in [(last, 2), (BLOCKS, 1), (u64::MAX, 1), (u64::MAX, u32::MAX), (1 << 55, 8)]
    {
        for opcode in [0x88, 0x8a, 0x8f, 0x93, 0x91] {
            let step = bench.step(
                Address { path: 0, target: 0, lun: 2 },
                &cdb_16(opcode, 0, lba, blocks),
                Direction::NONE,
                4096,
            );
            assert_eq!(sense(step), OUT_OF_RANGE, "{opcode:#x} {lba} {blocks}");
        }
    }
}

#[test]
fn a_transfer_longer_than_its_memory_is_refused_and_a_shorter_one_is_short() {
    let mut bench = bench();
    assert_eq!(sense(bench.ask(&cdb_10(0x28, 0, 0, 9), 4096)), INVALID_FIELD);
    assert_eq!(sense(bench.tell(&cdb_10(0x2a, 0, 0, 2), &[0; 1023])), INVALID_FIELD);
    assert_eq!(bench.ask(&cdb_10(0x28, 0, 0, 2), 4096), io(Operation::Read, 0, 1024));
    assert_eq!(sense(bench.ask(&cdb_10(0x28, 0x20, 0, 1), 512)), INVALID_FIELD, "protection");
}

#[test]
fn data_that_goes_the_other_way_is_refused() {
    let mut bench = bench();
    let address = Address { path: 0, target: 0, lun: 2 };
    let invalid = Step::Done(Reply::invalid());
    let read = cdb_10(0x28, 0, 0, 1);
    assert_eq!(bench.step(address, &read, Direction::WRITE, 512), invalid);
    let write = cdb_10(0x2a, 0, 0, 1);
    assert_eq!(bench.step(address, &write, Direction::READ, 512), invalid);
    // A guest that does not say takes what the command means.
    assert_eq!(bench.step(address, &read, Direction::NONE, 512), io(Operation::Read, 0, 512));
    assert_eq!(bench.step(address, &[0x12, 0], Direction::READ, 36), invalid, "a cut command");
    assert_eq!(bench.step(address, &[], Direction::READ, 36), invalid);
}

#[test]
fn a_read_only_disk_says_so_and_refuses() {
    let mut bench = read_only();
    for cdb in [
        cdb_10(0x2a, 0, 0, 1).as_slice(),
        &[0x0a, 0, 0, 0, 1, 0],
        &cdb_16(0x8a, 0, 0, 1),
        &cdb_16(0x93, 0, 0, 1),
        &cdb_10(0x42, 0, 0, 24),
    ] {
        assert_eq!(sense(bench.tell(cdb, &[0; 512])), WRITE_PROTECTED);
    }
    assert_eq!(bench.ask(&cdb_10(0x28, 0, 0, 1), 512), io(Operation::Read, 0, 512));
    let mode = bench.data(&[0x1a, 0, 0x08, 0, 0xff, 0], 255);
    assert_eq!((mode[2], mode[6]), (0x90, 0), "protected, and no cache to flush");
}

#[test]
fn flushes() {
    let mut bench = bench();
    assert_eq!(bench.ask(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0), io(Operation::Flush, 0, 0));
    assert_eq!(bench.ask(&cdb_16(0x91, 2, 0, 0), 0), io(Operation::Flush, 0, 0));
    // A stop keeps what was written; a start has nothing to do.
    assert_eq!(bench.ask(&[0x1b, 0, 0, 0, 0, 0], 0), io(Operation::Flush, 0, 0));
    assert_eq!(bench.ask(&[0x1b, 0, 0, 0, 1, 0], 0), good(0));
    assert_eq!(sense(bench.ask(&[0x1b, 0, 0, 0, 2, 0], 0)), INVALID_FIELD, "nothing to eject");
}

#[test]
fn commands_that_need_no_disk() {
    let mut bench = bench();
    assert_eq!(bench.ask(&[0; 6], 0), good(0));
    assert_eq!(bench.ask(&[0x1e, 0, 0, 0, 1, 0], 0), good(0));
    assert_eq!(bench.ask(&cdb_10(0x2f, 0, 0, 8), 0), good(0));
    assert_eq!(sense(bench.ask(&cdb_10(0x2f, 2, 0, 1), 512)), INVALID_FIELD, "no comparing");
    let fixed = bench.data(&[0x03, 0, 0, 0, 252, 0], 252);
    assert_eq!((fixed.len(), fixed[0], fixed[2], fixed[7]), (18, 0x70, 0, 10));
    let descriptor = bench.data(&[0x03, 1, 0, 0, 252, 0], 252);
    assert_eq!(descriptor, [0x72, 0, 0, 0, 0, 0, 0, 0]);
}

/// LOG SENSE, PERSISTENT RESERVE IN and OUT, RESERVE, MODE SELECT, REPORT SUPPORTED OPERATION
/// CODES, ATA PASS-THROUGH, READ TOC and what nobody knows.
#[test]
fn what_is_not_there_is_an_invalid_opcode() {
    let mut bench = bench();
    for opcode in
        [0x4d, 0x5e, 0x5f, 0x16, 0x17, 0x15, 0x55, 0xa3, 0x85, 0xa1, 0x43, 0x46, 0x7f, 0xff]
    {
        let mut cdb = [0; 16];
        cdb[0] = opcode;
        assert_eq!(sense(bench.ask(&cdb, 512)), INVALID_OPCODE, "{opcode:#x}");
    }
    assert_eq!(sense(bench.ask(&cdb_16(0x9e, 0x12, 0, 32), 512)), INVALID_FIELD);
}

#[test]
fn standard_inquiry_is_as_long_as_is_asked_for() {
    let mut bench = bench();
    let data = bench.data(&inquiry(None, 36), 36);
    assert_eq!(data[..8], [0, 0, 5, 2, 31, 0, 0, 2]);
    assert_eq!(&data[8..], b"Msft    Virtual Disk    1.0 ");
    assert_eq!(bench.data(&inquiry(None, 5), 36), data[..5]);
    assert_eq!(bench.data(&inquiry(None, 255), 255), data);
    assert_eq!(bench.data(&inquiry(None, 255), 10), data[..10]);
    assert_eq!(sense(bench.ask(&[0x12, 0, 0x80, 0, 36, 0], 36)), INVALID_FIELD);
}

#[test]
fn vital_product_data() {
    let mut bench = bench();
    let pages = bench.data(&inquiry(Some(0), 255), 255);
    assert_eq!(pages, [0, 0, 0, 6, 0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
    for page in &pages[4..] {
        let data = bench.data(&inquiry(Some(*page), 255), 255);
        assert_eq!((data[0], data[1]), (0, *page));
        let length = usize::from(u16::from_be_bytes([data[2], data[3]]));
        assert_eq!(length + 4, data.len(), "page {page:#x}");
    }
    assert_eq!(&bench.data(&inquiry(Some(0x80), 255), 255)[4..], b"busway-1");
    let ids = bench.data(&inquiry(Some(0x83), 255), 255);
    let unique = bench.luns.disks().next().unwrap().identity().unique;
    assert_eq!(ids[16..32], unique);
    assert_eq!(ids[32..40], [1, 3, 0, 16, 0x60, 0x02, 0x24, 0x80]);
    assert_eq!(sense(bench.ask(&inquiry(Some(0xc0), 255), 255)), INVALID_FIELD);
}

/// SPC-4, "NAA designator format": binary, NAA, and so many bytes.
#[test]
fn a_world_wide_name_that_was_given_is_the_one_told() {
    for (given, designator) in [
        ("5000c50015ea71ac", &[1, 3, 0, 8, 0x50, 0x00, 0xc5, 0x00, 0x15, 0xea, 0x71, 0xac][..]),
        (
            "60022480000102030405060708090a0b",
            &[1, 3, 0, 16, 0x60, 0x02, 0x24, 0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
        ),
    ] {
        let wwn = Some(given.parse().unwrap());
        let mut bench = bench_with(&DiskOptions { wwn, ..options() });
        let ids = bench.data(&inquiry(Some(0x83), 255), 255);
        assert_eq!(usize::from(ids[3]) + 4, ids.len());
        assert_eq!(ids[32..], *designator, "{given}");
    }
}

/// The offsets of `sd_read_block_limits`, `sd_read_block_characteristics` and
/// `sd_read_block_provisioning` (Linux `drivers/scsi/sd.c`).
#[test]
fn what_a_disk_driver_reads_out_of_vital_product_data() {
    let mut bench = bench();
    let limits = bench.data(&inquiry(Some(0xb0), 255), 255);
    let be32 = |at: usize| u32::from_be_bytes(limits[at..at + 4].try_into().unwrap());
    assert_eq!(limits.len(), 64);
    assert_eq!(be32(8), 2048, "blocks of one transfer: 1 MiB");
    assert_eq!((be32(20), be32(24)), (u32::MAX, 256), "blocks and descriptors of one UNMAP");
    assert_eq!((be32(28), be32(32)), (8, 1 << 31), "in units of 4096 B");
    assert_eq!((be32(36), be32(40)), (0, 1 << 21), "blocks of one WRITE SAME: 1 GiB");
    let characteristics = bench.data(&inquiry(Some(0xb1), 255), 255);
    assert_eq!((characteristics.len(), &characteristics[4..6]), (64, [0, 1].as_slice()));
    let provisioning = bench.data(&inquiry(Some(0xb2), 255), 255);
    assert_eq!(provisioning, [0, 0xb2, 0, 4, 0, 0xe4, 2, 0]);

    let mut protected = read_only();
    let limits = protected.data(&inquiry(Some(0xb0), 255), 255);
    assert_eq!(limits[20..28], [0; 8]);
    assert_eq!(protected.data(&inquiry(Some(0xb2), 255), 255)[5..7], [0, 0]);
}

#[test]
fn capacities() {
    let mut bench = bench();
    let short = bench.data(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8);
    assert_eq!(short, [0, 0, 7, 0xff, 0, 0, 2, 0]);
    let long = bench.data(&cdb_16(0x9e, 0x10, 0, 32), 32);
    assert_eq!(long[..12], [0, 0, 0, 0, 0, 0, 7, 0xff, 0, 0, 2, 0]);
    assert_eq!((long[13], long[14], long[15]), (3, 0xc0, 0));
    assert_eq!(bench.data(&cdb_16(0x9e, 0x10, 0, 12), 32), long[..12]);
    let long = read_only().data(&cdb_16(0x9e, 0x10, 0, 32), 32);
    assert_eq!(long[14], 0);

    let options = DiskOptions { logical_block: 4096, ..options() };
    let mut bench = bench_with(&options);
    assert_eq!(bench.data(&cdb_10(0x25, 0, 0, 0), 8), [0, 0, 0, 255, 0, 0, 16, 0]);
    assert_eq!(bench.data(&cdb_16(0x9e, 0x10, 0, 32), 32)[13], 0);
    let read = bench.ask(&cdb_10(0x28, 0, 255, 1), 4096);
    assert_eq!(
        read,
        Step::Io(Io { disk: 2, operation: Operation::Read, offset: 255 << 12, moved: 4096 })
    );
}

#[test]
fn a_large_disk_says_so_in_the_short_form() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len((1 << 41) + 512).unwrap();
    let disk = Disk::open_raw(file.path(), &options()).unwrap();
    let mut bench = Bench { luns: Luns::new([(2, disk)]).unwrap(), ..bench() };
    assert_eq!(bench.data(&cdb_10(0x25, 0, 0, 0), 8), [0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]);
    let long = bench.data(&cdb_16(0x9e, 0x10, 0, 32), 32);
    assert_eq!(long[..8], [0, 0, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn mode_pages() {
    let mut bench = bench();
    let caching = bench.data(&[0x1a, 0x08, 0x08, 0, 255, 0], 255);
    assert_eq!(caching[..4], [23, 0, 0x10, 0]);
    assert_eq!(caching[4..7], [0x08, 0x12, 0x04]);
    assert_eq!(caching.len(), 24);
    // Linux asks for the header alone first.
    assert_eq!(bench.data(&[0x1a, 0, 0x08, 0, 4, 0], 4), caching[..4]);
    let long = bench.data(&[0x5a, 0, 0x08, 0, 0, 0, 0, 0, 255, 0], 255);
    assert_eq!(long[..8], [0, 26, 0, 0x10, 0, 0, 0, 0]);
    assert_eq!(long[8..], caching[4..]);
    let all = bench.data(&[0x1a, 0, 0x3f, 0, 255, 0], 255);
    assert_eq!((all[0], all.len()), (35, 36));
    assert_eq!(all[4..24], caching[4..]);
    assert_eq!(all[24..28], [0x0a, 0x0a, 0, 0x10]);
    let changeable = bench.data(&[0x1a, 0, 0x48, 0, 255, 0], 255);
    assert_eq!(changeable[6], 0);
    assert_eq!(sense(bench.ask(&[0x1a, 0, 0xc8, 0, 255, 0], 255)), (5, 0x39, 0));
    assert_eq!(sense(bench.ask(&[0x1a, 0, 0x1c, 0, 255, 0], 255)), INVALID_FIELD);
    assert_eq!(sense(bench.ask(&[0x1a, 0, 0x08, 1, 255, 0], 255)), INVALID_FIELD);
}

fn unmap_list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let bytes = ranges.len() as u16 * 16;
    let mut list = (6 + bytes).to_be_bytes().to_vec();
    list.extend(bytes.to_be_bytes());
    list.extend([0; 4]);
    for (lba, blocks) in ranges {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

fn unmap_cdb(length: usize) -> [u8; 10] {
    cdb_10(0x42, 0, 0, length as u16)
}

#[test]
fn unmap_gives_its_blocks_up_one_range_after_another() {
    let mut bench = bench();
    let list = unmap_list(&[(8, 16), (100, 0), (200, 1), (2047, 1)]);
    let step = bench.tell(&unmap_cdb(list.len()), &list);
    assert_eq!(step, io(Operation::Discard { len: 16 * 512 }, 8, list.len() as u32));
    let extent = |lba: u64| Extent { offset: lba * 512, len: 512 };
    assert_eq!(bench.more, [extent(2047), extent(200)]);
    assert_eq!(bench.tell(&unmap_cdb(0), &[]), good(0));
    assert!(bench.more.is_empty());
    let empty = unmap_list(&[]);
    assert_eq!(bench.tell(&unmap_cdb(8), &empty), good(8));
    let nothing = unmap_list(&[(0, 0)]);
    assert_eq!(bench.tell(&unmap_cdb(24), &nothing), good(24));
}

#[test]
fn an_unmap_with_one_bad_range_does_nothing() {
    let mut bench = bench();
    for bad in [(2048, 1), (2047, 2), (u64::MAX, 1), (u64::MAX, u32::MAX)] {
        let list = unmap_list(&[(8, 16), bad]);
        assert_eq!(sense(bench.tell(&unmap_cdb(list.len()), &list)), OUT_OF_RANGE);
    }
}

#[test]
fn unmap_lists_that_lie_are_cut_or_refused() {
    let mut bench = bench();
    let list = unmap_list(&[(8, 16), (32, 1)]);
    // Shorter than a header; longer than what the guest sent.
    assert_eq!(sense(bench.tell(&unmap_cdb(7), &list)), (5, 0x1a, 0));
    assert_eq!(sense(bench.tell(&unmap_cdb(41), &list)), (5, 0x1a, 0));
    assert_eq!(sense(bench.tell(&unmap_cdb(0xffff), &[])), (5, 0x1a, 0));
    // The end of a list may be cut off; what is whole counts.
    let first = io(Operation::Discard { len: 16 * 512 }, 8, 30);
    assert_eq!(bench.tell(&unmap_cdb(30), &list), first);
    assert!(bench.more.is_empty());
    // And so does the list's own length, if it is the shortest.
    let mut short = list.clone();
    short[1] = 6 + 16;
    let first = io(Operation::Discard { len: 16 * 512 }, 8, 40);
    assert_eq!(bench.tell(&unmap_cdb(short.len()), &short), first);
    assert!(bench.more.is_empty());
    let mut lying = list;
    lying[..4].copy_from_slice(&[0xff; 4]);
    assert!(matches!(bench.tell(&unmap_cdb(lying.len()), &lying), Step::Io(_)));
    assert_eq!(bench.more.len(), 1);

    let most = unmap_list(&[(1, 1); 256]);
    assert!(matches!(bench.tell(&unmap_cdb(most.len()), &most), Step::Io(_)));
    assert_eq!(bench.more.len(), 255);
    let too_many = unmap_list(&[(1, 1); 257]);
    assert_eq!(sense(bench.tell(&unmap_cdb(too_many.len()), &too_many)), (5, 0x26, 0));
    let anchor = cdb_10(0x42, 1, 0, 24);
    assert_eq!(sense(bench.tell(&anchor, &unmap_list(&[(1, 1)]))), INVALID_FIELD);
}

#[test]
fn write_same_repeats_or_zeroes_or_discards() {
    let mut bench = bench();
    let zeroes = [0; 512];
    let pattern = [7; 512];
    let len = 16 * 512;
    let same = Operation::WriteSame { len };
    let discard = Operation::Discard { len };
    assert_eq!(bench.tell(&cdb_16(0x93, 0, 8, 16), &pattern), io(same, 8, 512));
    assert_eq!(bench.tell(&cdb_16(0x93, 0, 8, 16), &zeroes), io(same, 8, 512));
    assert_eq!(bench.tell(&cdb_16(0x93, 8, 8, 16), &zeroes), io(discard, 8, 512));
    // A block that is not zero cannot be given up and read the same.
    assert_eq!(bench.tell(&cdb_16(0x93, 8, 8, 16), &pattern), io(same, 8, 512));
    assert_eq!(bench.tell(&cdb_10(0x41, 8, 8, 16), &zeroes), io(discard, 8, 512));
    let no_data = io(Operation::WriteZeroes { len }, 8, 0);
    assert_eq!(bench.tell(&cdb_16(0x93, 1, 8, 16), &[]), no_data);
    assert_eq!(bench.tell(&cdb_16(0x93, 9, 8, 16), &[]), io(discard, 8, 0));

    assert_eq!(sense(bench.tell(&cdb_16(0x93, 0, 8, 0), &zeroes)), INVALID_FIELD, "none, not all");
    assert_eq!(sense(bench.tell(&cdb_16(0x93, 0, 8, 16), &[0; 511])), INVALID_FIELD);
    assert_eq!(sense(bench.tell(&cdb_16(0x93, 0x18, 8, 16), &zeroes)), INVALID_FIELD, "anchor");
}

#[test]
fn a_disk_without_holes_has_no_unmap() {
    let (_reader, writer) = std::io::pipe().unwrap();
    let file = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
    let disk = Disk::from_file("pipe", file, BLOCKS * 512, &options()).unwrap();
    let mut bench = Bench { luns: Luns::new([(2, disk)]).unwrap(), ..bench() };
    let list = unmap_list(&[(8, 16)]);
    assert_eq!(sense(bench.tell(&unmap_cdb(list.len()), &list)), INVALID_OPCODE);
    assert_eq!(sense(bench.tell(&cdb_16(0x93, 8, 8, 16), &[0; 512])), INVALID_FIELD);
    let same = Operation::WriteSame { len: 16 * 512 };
    assert_eq!(bench.tell(&cdb_16(0x93, 0, 8, 16), &[0; 512]), io(same, 8, 512));
    assert_eq!(bench.data(&cdb_16(0x9e, 0x10, 0, 32), 32)[14], 0);
    assert_eq!(bench.data(&inquiry(Some(0xb2), 255), 255)[5..7], [0, 0]);
}

#[test]
fn report_luns_works_at_every_address() {
    let mut bench = bench();
    let cdb = [0xa0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
    let mut at = |path, target, lun| {
        let address = Address { path, target, lun };
        let step = bench.step(address, &cdb, Direction::READ, 512);
        (step, bench.bytes(16))
    };
    // The unit is number 2; 0 is empty, and answers all the same.
    let list = [0, 0, 0, 8, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0];
    assert_eq!(at(0, 0, 0), (good(16), list.to_vec()));
    assert_eq!(at(0, 0, 2), (good(16), list.to_vec()));
    let (step, bytes) = at(3, 1, 0);
    assert_eq!((step, &bytes[..8]), (good(8), [0; 8].as_slice()));

    let well_known = [0xa0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0];
    assert_eq!(bench.ask(&well_known, 512), good(8));
    let unknown = [0xa0, 0, 3, 0, 0, 0, 0, 0, 2, 0, 0, 0];
    assert_eq!(sense(bench.ask(&unknown, 512)), INVALID_FIELD);
}

#[test]
fn a_list_of_255_units_is_whole_or_cut_but_tells_its_length() {
    let mut bench = bench();
    let disk = bench.luns.disks().next().unwrap().clone();
    bench.luns = Luns::new((0..255).map(|lun| (lun, disk.clone()))).unwrap();
    let cdb = [0xa0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0];
    let list = bench.data(&cdb, 4096);
    assert_eq!(list.len(), 8 + 255 * 8);
    assert_eq!(list[..4], (255_u32 * 8).to_be_bytes());
    assert_eq!(list[8 + 254 * 8..][..2], [0, 254]);
    assert_eq!(bench.data(&cdb, 16), list[..16]);
}

/// Linux makes a success of whatever answers INQUIRY, and forgets a unit that says 0x20.
#[test]
fn an_absent_unit_answers_inquiry_with_data_and_nothing_else() {
    let mut bench = bench();
    for (path, target, lun) in [(0, 0, 0), (0, 0, 255), (0, 1, 2), (7, 0, 2)] {
        let address = Address { path, target, lun };
        let mut ask = |cdb: &[u8], room| {
            let step = bench.step(address, cdb, Direction::READ, room);
            (step, bench.bytes(4))
        };
        let (step, bytes) = ask(&inquiry(None, 36), 36);
        assert_eq!((step, bytes[0]), (good(36), 0x7f));
        let (step, bytes) = ask(&inquiry(Some(0x83), 255), 255);
        assert_eq!((step, bytes), (good(4), vec![0x7f, 0x83, 0, 0]));
        let no_unit = Step::Done(Reply::no_unit());
        for cdb in [[0; 10], cdb_10(0x28, 0, 0, 1), cdb_10(0x25, 0, 0, 0), cdb_10(0x1a, 0, 0, 0)] {
            assert_eq!(ask(&cdb, 512).0, no_unit);
        }
    }
}

/// A drive at the place where the other tests have their disk.
fn drive() -> Bench {
    let mut bench = bench();
    let options =
        DiskOptions { read_only: true, logical_block: 2048, physical_block: 2048, ..options() };
    bench.luns = Luns::new([]).unwrap();
    bench.luns.add_drive(2, Disk::ram(100 * 2048, &options).unwrap()).unwrap();
    bench
}

/// The sense data of a command that must fail.
fn sense_of(step: Step) -> (u8, u8, u8) {
    let Step::Done(Reply { sense: Some(sense), .. }) = step else { panic!("{step:?}") };
    (sense.key.0, sense.additional.code, sense.additional.qualifier)
}

const READY: [u8; 6] = [0; 6];
const EJECT: [u8; 6] = [0x1b, 0, 0, 0, 2, 0];
const LOAD: [u8; 6] = [0x1b, 0, 0, 0, 3, 0];
const EVENT: [u8; 10] = [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0];

#[test]
fn a_drive_says_what_it_is_and_what_disc_it_has() {
    let mut bench = drive();
    let inquiry = bench.data(&[0x12, 0, 0, 0, 36, 0], 36);
    assert_eq!((inquiry[0], inquiry[1]), (5, 0x80));
    assert_eq!(bench.data(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8), [0, 0, 0, 99, 0, 0, 8, 0]);
    // One track of data from block 0, and the end behind the last block.
    let toc = bench.data(&[0x43, 0, 0, 0, 0, 0, 0, 0, 20, 0], 20);
    assert_eq!(toc[..4], [0, 18, 1, 1]);
    assert_eq!(toc[4..12], [0, 0x14, 1, 0, 0, 0, 0, 0]);
    assert_eq!(toc[12..], [0, 0x14, 0xaa, 0, 0, 0, 0, 100]);
    let msf = bench.data(&[0x43, 2, 0, 0, 0, 0, 0, 0, 20, 0], 20);
    assert_eq!(msf[16..], [0, 0, 3, 25]);
    let configuration = bench.data(&[0x46, 0, 0, 0, 0, 0, 0, 0, 8, 0], 8);
    assert_eq!(configuration, [0, 0, 0, 4, 0, 0, 0, 0x10]);
    // As Linux reads it: a tray (bits 7:5 of byte 6), it ejects (bit 3), it reads DVDs.
    let mode = bench.data(&[0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 128, 0], 128);
    assert_eq!((mode.len(), mode[8], mode[10], mode[11]), (28, 0x2a, 8, 0));
    assert_eq!((mode[14] >> 5, mode[14] & 8), (1, 8));
    let step = bench.ask(&[0x28, 0, 0, 0, 0, 98, 0, 0, 2, 0], 4096);
    let Step::Io(io) = step else { panic!("{step:?}") };
    assert_eq!((io.operation, io.offset, io.moved), (Operation::Read, 98 * 2048, 4096));
    assert_eq!(sense_of(bench.ask(&[0x28, 0, 0, 0, 0, 99, 0, 0, 2, 0], 4096)), (5, 0x21, 0));
    assert_eq!(sense_of(bench.tell(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[0; 2048])), (5, 0x20, 0));
}

#[test]
fn a_disc_that_went_and_came_is_told_once_by_each_way() {
    let mut bench = drive();
    let done = |step| assert_eq!(step, Step::Done(Reply::good(0)));
    done(bench.ask(&READY, 0));
    assert_eq!(bench.data(&EVENT, 8), [0, 6, 4, 0x10, 0, 2, 0, 0]);
    done(bench.ask(&EJECT, 0));
    for cdb in [&READY[..], &[0x25; 10][..], &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]] {
        assert_eq!(sense_of(bench.ask(cdb, 2048)), (2, 0x3a, 0));
    }
    assert_eq!(bench.data(&EVENT, 8), [0, 6, 4, 0x10, 3, 1, 0, 0]);
    assert_eq!(bench.data(&EVENT, 8), [0, 6, 4, 0x10, 0, 1, 0, 0]);
    // It is still a drive.
    assert_eq!(bench.data(&[0x12, 0, 0, 0, 36, 0], 36)[0], 5);
    done(bench.ask(&LOAD, 0));
    assert_eq!(bench.data(&EVENT, 8), [0, 6, 4, 0x10, 2, 2, 0, 0]);
    assert_eq!(sense_of(bench.ask(&READY, 0)), (6, 0x28, 0));
    done(bench.ask(&READY, 0));
    // Loading what is loaded changes nothing.
    done(bench.ask(&LOAD, 0));
    done(bench.ask(&READY, 0));
}

#[test]
fn a_locked_disc_stays_in() {
    let mut bench = drive();
    bench.ask(&[0x1e, 0, 0, 0, 1, 0], 0);
    assert_eq!(sense_of(bench.ask(&EJECT, 0)), (5, 0x53, 2));
    assert_eq!(bench.ask(&READY, 0), Step::Done(Reply::good(0)));
    bench.ask(&[0x1e, 0, 0, 0, 0, 0], 0);
    assert_eq!(bench.ask(&EJECT, 0), Step::Done(Reply::good(0)));
}

#[test]
fn a_disk_knows_no_commands_of_drives() {
    let mut bench = bench();
    for cdb in [[0x43, 0, 0, 0, 0, 0, 0, 0, 20, 0], [0x46, 0, 0, 0, 0, 0, 0, 0, 8, 0], EVENT] {
        assert_eq!(sense_of(bench.ask(&cdb, 20)), (5, 0x20, 0));
    }
}
