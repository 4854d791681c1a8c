// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images of every format, made here field by field from their specifications.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use busway_memory::{Bytes, GuestAddress, GuestMemory, GuestSlices, PAGE_SIZE, Region};
use tempfile::TempDir;

use super::*;
use crate::{Completion, Disk, IoError, Operation, Queue, Request};

const MIB: usize = 1 << 20;
const CAPACITY: usize = 8 * MIB;

/// What a disk of the tests holds: noise in its first and its sixth MiB, and zeroes.
fn contents() -> Vec<u8> {
    let mut bytes = vec![0; CAPACITY];
    let mut state = 1_u64;
    for at in (0..MIB).chain(5 * MIB..6 * MIB) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes[at] = (state >> 56) as u8;
    }
    bytes
}

/// A disk and a queue to it, and memory in between.
struct Bench {
    memory: GuestMemory,
    queue: Queue,
}

impl Bench {
    fn new(disk: Disk) -> Self {
        let region = Region { start: GuestAddress(0), len: 4096 * PAGE_SIZE };
        let memory = GuestMemory::allocate(&[region]).unwrap();
        Self { memory, queue: Queue::new(4, vec![disk]) }
    }

    fn submit(&mut self, token: u64, operation: Operation, offset: usize, len: usize) {
        let mut data = GuestSlices::new(self.memory.clone());
        // Not at the beginning of a page.
        if len != 0 {
            data.push(GuestAddress(token * (8 << 20) + 512), len).unwrap();
        }
        let request = Request { token, operation, offset: offset as u64, data };
        self.queue.submit(0, request).unwrap();
        self.queue.push().unwrap();
    }

    fn wait(&mut self) -> Completion {
        loop {
            if let Some(completion) = self.queue.reap().unwrap() {
                return completion;
            }
            let fds: Vec<_> = self.queue.fds().collect();
            let mut polled: Vec<_> = fds
                .iter()
                .map(|fd| rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN))
                .collect();
            let patience = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
            let ready = rustix::event::poll(&mut polled, Some(&patience)).unwrap();
            assert_ne!(ready, 0, "nothing ends");
        }
    }

    fn go(&mut self, operation: Operation, offset: usize, len: usize) -> Result<(), IoError> {
        self.submit(0, operation, offset, len);
        self.wait().result
    }

    fn read(&mut self, offset: usize, len: usize) -> Vec<u8> {
        self.go(Operation::Read, offset, len).unwrap();
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(512)).unwrap();
        bytes
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), IoError> {
        self.memory.write_slice(bytes, GuestAddress(512)).unwrap();
        self.go(Operation::Write { durable: false }, offset, bytes.len())
    }
}

fn put(file: &File, at: u64, fields: &[&[u8]]) {
    file.write_all_at(&fields.concat(), at).unwrap();
}

/// A qcow2 of version 2 in clusters of 64 KiB, its tables in the first eight of them.
fn qcow2(path: &Path) {
    let file = File::create(path).unwrap();
    let bytes = contents();
    let be32 = u32::to_be_bytes;
    let be64 = u64::to_be_bytes;
    let cluster = 64_usize << 10;
    put(&file, 0, &[b"QFI\xfb", &be32(2), &be64(0), &be32(0), &be32(16), &be64(CAPACITY as u64)]);
    // No encryption; one entry of the first table at cluster 3; references counted from cluster 1.
    put(&file, 32, &[&be32(0), &be32(1), &be64(3 << 16), &be64(1 << 16), &be32(1), &be32(0)]);
    put(&file, 1 << 16, &[&be64(2 << 16)]);
    put(&file, 3 << 16, &[&be64(1 << 63 | 4 << 16)]);
    let mut next = 8;
    for (index, chunk) in bytes.chunks(cluster).enumerate() {
        if chunk.iter().any(|byte| *byte != 0) {
            put(&file, (4 << 16) + index as u64 * 8, &[&be64(1 << 63 | next << 16)]);
            put(&file, next << 16, &[chunk]);
            next += 1;
        }
    }
    for used in (0..5).chain(8..next) {
        put(&file, (2 << 16) + used * 2, &[&1_u16.to_be_bytes()]);
    }
    file.set_len(next << 16).unwrap();
}

fn vhd_sum(bytes: &[u8]) -> [u8; 4] {
    (!bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>()).to_be_bytes()
}

fn vhd_footer(kind: u32, header_at: u64) -> [u8; 512] {
    let mut footer = [0; 512];
    footer[..8].copy_from_slice(b"conectix");
    footer[16..24].copy_from_slice(&header_at.to_be_bytes());
    footer[48..56].copy_from_slice(&(CAPACITY as u64).to_be_bytes());
    footer[60..64].copy_from_slice(&kind.to_be_bytes());
    let sum = vhd_sum(&footer);
    footer[64..68].copy_from_slice(&sum);
    footer
}

fn fixed_vhd(path: &Path) {
    let file = File::create(path).unwrap();
    put(&file, 0, &[&contents(), &vhd_footer(2, u64::MAX)]);
}

/// A dynamic VHD in blocks of 2 MiB: footer, header at 512, table at 1536, blocks from 4096 on.
fn dynamic_vhd(path: &Path) {
    let file = File::create(path).unwrap();
    let bytes = contents();
    let mut header = [0; 1024];
    header[..8].copy_from_slice(b"cxsparse");
    header[16..24].copy_from_slice(&1536_u64.to_be_bytes());
    header[28..32].copy_from_slice(&4_u32.to_be_bytes());
    header[32..36].copy_from_slice(&(2_u32 << 20).to_be_bytes());
    let sum = vhd_sum(&header);
    header[36..40].copy_from_slice(&sum);
    put(&file, 0, &[&vhd_footer(3, 512), &header, &[0xff; 16]]);
    let mut at = 4096;
    for block in [0, 2] {
        put(&file, 1536 + block * 4, &[&(at as u32 / 512).to_be_bytes()]);
        let data = &bytes[block as usize * 2 * MIB..][..2 * MIB];
        let mut bitmap = [0_u8; 512];
        for (sector, data) in data.chunks(512).enumerate() {
            if data.iter().any(|byte| *byte != 0) {
                bitmap[sector / 8] |= 0x80 >> (sector % 8);
                put(&file, at + 512 + sector as u64 * 512, &[data]);
            } else {
                // What no bit vouches for is not part of the disk.
                put(&file, at + 512 + sector as u64 * 512, &[&[0xee; 512]]);
            }
        }
        put(&file, at, &[&bitmap]);
        at += 512 + (2 << 20);
    }
    put(&file, at, &[&vhd_footer(3, 512)]);
}

/// CRC-32C, by the polynomial as it is written.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        for bit in 0..8 {
            let carry = (crc ^ u32::from(byte >> bit)) & 1;
            crc = (crc >> 1) ^ (carry * 0x1edc_6f41_u32.reverse_bits());
        }
    }
    !crc
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = crc(&bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// A GUID of [MS-VHDX] as it lies in a file.
fn guid(text: &str) -> [u8; 16] {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    let bytes: Vec<u8> =
        (0..16).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap()).collect();
    [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map(|at: usize| bytes[at])
}

/// A VHDX in blocks of 1 MiB: table at 3 MiB, metadata at 2 MiB, blocks from 4 MiB on. `log` is the
/// log's GUID.
fn vhdx(path: &Path, log: u8) {
    let file = File::create(path).unwrap();
    let bytes = contents();
    put(&file, 0, &[b"vhdxfile"]);
    for (at, sequence, log) in [(64 << 10, 7_u64, 1), (128 << 10, 8, log)] {
        let mut header = vec![0; 4096];
        header[..4].copy_from_slice(b"head");
        header[8..16].copy_from_slice(&sequence.to_le_bytes());
        header[48] = log;
        header[66] = 1;
        put(&file, at, &[&sealed(header)]);
    }
    let mut regions = vec![0; 64 << 10];
    regions[..4].copy_from_slice(b"regi");
    regions[8] = 2;
    let region = |text, at: u64| {
        [&guid(text)[..], &at.to_le_bytes(), &(1_u32 << 20).to_le_bytes(), &[1, 0, 0, 0]].concat()
    };
    regions[16..48].copy_from_slice(&region("2DC27766-F623-4200-9D64-115E9BFD4A08", 3 << 20));
    regions[48..80].copy_from_slice(&region("8B7CA206-4790-4B9A-B8FE-575F050F886E", 2 << 20));
    // The first is damaged: there are two for that reason.
    put(&file, 192 << 10, &[&regions]);
    put(&file, 256 << 10, &[&sealed(regions)]);
    put(&file, 2 << 20, &[b"metadata\0\0\x03\0"]);
    for (index, (text, item)) in (0..).zip([
        ("CAA16737-FA36-4D43-B3B6-33F0AA44E76B", (1_u64 << 20).to_le_bytes().to_vec()),
        ("2FA54224-CD1B-4876-B211-5DBED83BF4B8", (CAPACITY as u64).to_le_bytes().to_vec()),
        ("8141BF1D-A96F-4709-BA47-F233A8FAAB5F", 512_u32.to_le_bytes().to_vec()),
    ]) {
        let at = 0x1_0000_u32 + index * 16;
        let fields = [&guid(text)[..], &at.to_le_bytes(), &(item.len() as u32).to_le_bytes()];
        put(&file, (2 << 20) + 32 + u64::from(index) * 32, &fields);
        put(&file, (2 << 20) + u64::from(at), &[&item]);
    }
    let mut next = 4_u64;
    for (index, block) in bytes.chunks(MIB).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            put(&file, (3 << 20) + index as u64 * 8, &[&(next << 20 | 6).to_le_bytes()]);
            put(&file, next << 20, &[block]);
            next += 1;
        }
    }
}

fn folder() -> (TempDir, impl Fn(&str) -> PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_owned();
    (folder, move |name: &str| path.join(name))
}

fn read_only() -> DiskOptions {
    DiskOptions { read_only: true, ..DiskOptions::default() }
}

fn with(layer: Layer) -> DiskOptions {
    DiskOptions { layer: Some(layer), ..DiskOptions::default() }
}

#[test]
fn every_format_is_recognized_and_holds_what_was_put_there() {
    let (_folder, at) = folder();
    fs::write(at("raw"), contents()).unwrap();
    qcow2(&at("qcow2"));
    fixed_vhd(&at("fixed"));
    dynamic_vhd(&at("dynamic"));
    vhdx(&at("vhdx"), 0);
    for name in ["raw", "qcow2", "fixed", "dynamic", "vhdx"] {
        let disk = Disk::open(&at(name), &read_only()).unwrap();
        assert_eq!(disk.capacity(), CAPACITY as u64, "{name}");
        let mut bench = Bench::new(disk);
        assert!(bench.read(0, CAPACITY) == contents(), "{name}, all at once");
        // Across the borders of clusters and blocks, and of what is there and what is not.
        for (offset, len) in [(MIB - 512, 1024), (65_536 - 512, 66_560), (5 * MIB - 4096, 8192)] {
            let expected = &contents()[offset..offset + len];
            assert!(bench.read(offset, len) == expected, "{name}, {len} B at {offset}");
        }
        assert_eq!(bench.write(0, &[1; 512]), Err(IoError::ReadOnly));
    }
}

#[test]
fn a_qcow2_is_written_and_found_again() {
    let (_folder, at) = folder();
    qcow2(&at("disk"));
    let mut bench = Bench::new(Disk::open(&at("disk"), &DiskOptions::default()).unwrap());
    let mut expected = contents();
    for (offset, len, value) in [(512, 1024, 1), (3 * MIB - 512, 70_000 / 512 * 512, 2)] {
        expected[offset..offset + len].fill(value);
        bench.write(offset, &vec![value; len]).unwrap();
    }
    bench.go(Operation::Flush, 0, 0).unwrap();
    bench.go(Operation::Discard { len: 65_536 * 3 }, 65_536 * 2, 0).unwrap();
    expected[65_536 * 2..65_536 * 5].fill(0);
    bench.go(Operation::WriteZeroes { len: 1024 }, 1024 + 512, 0).unwrap();
    expected[1536..2560].fill(0);
    bench.memory.write_slice(&[7; 512], GuestAddress(512)).unwrap();
    bench.go(Operation::WriteSame { len: 2 << 20 }, 6 * MIB, 512).unwrap();
    expected[6 * MIB..].fill(7);
    assert!(bench.read(0, CAPACITY) == expected);
    drop(bench);
    let mut bench = Bench::new(Disk::open(&at("disk"), &read_only()).unwrap());
    assert!(bench.read(0, CAPACITY) == expected, "after it was closed");
}

#[test]
fn requests_of_an_image_with_threads_end_each_with_its_own_token() {
    let (_folder, at) = folder();
    qcow2(&at("disk"));
    let mut bench = Bench::new(Disk::open(&at("disk"), &DiskOptions::default()).unwrap());
    for _ in 0..50 {
        for token in 0..2 {
            bench.submit(token, Operation::Read, token as usize * 5 * MIB, MIB);
        }
        let mut tokens: Vec<_> = (0..2).map(|_| bench.wait()).map(|it| it.token).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 1]);
        let mut byte = [0; 1];
        bench.memory.read_slice(&mut byte, GuestAddress((8 << 20) + 512)).unwrap();
        assert_eq!(byte[0], contents()[5 * MIB]);
    }
    assert_eq!(bench.queue.in_flight(), 0);
    // Dropped with a request under way: it is waited for.
    bench.submit(0, Operation::Read, 0, MIB);
}

#[test]
fn what_is_temporary_is_gone_and_the_image_is_as_it_was() {
    let (_folder, at) = folder();
    fs::write(at("raw"), contents()).unwrap();
    qcow2(&at("qcow2"));
    dynamic_vhd(&at("dynamic"));
    fixed_vhd(&at("fixed"));
    vhdx(&at("vhdx"), 0);
    for name in ["raw", "qcow2", "fixed", "dynamic", "vhdx"] {
        let before = fs::read(at(name)).unwrap();
        let mut bench = Bench::new(Disk::open(&at(name), &with(Layer::Temporary)).unwrap());
        let mut expected = contents();
        expected[MIB - 512..MIB + 1024].fill(9);
        bench.write(MIB - 512, &[9; 1536]).unwrap();
        expected[CAPACITY - 512..].fill(8);
        bench.write(CAPACITY - 512, &[8; 512]).unwrap();
        bench.go(Operation::Discard { len: 1 << 20 }, 5 * MIB, 0).unwrap();
        expected[5 * MIB..6 * MIB].fill(0);
        assert!(bench.read(0, CAPACITY) == expected, "{name}");
        // Others may use the same image meanwhile.
        let mut other = Bench::new(Disk::open(&at(name), &with(Layer::Temporary)).unwrap());
        assert!(other.read(0, CAPACITY) == contents(), "{name}");
        assert!(fs::read(at(name)).unwrap() == before, "{name}");
    }
}

#[test]
fn an_overlay_is_made_and_kept_and_its_base_is_as_it_was() {
    let (_folder, at) = folder();
    fs::write(at("raw"), contents()).unwrap();
    qcow2(&at("qcow2"));
    for name in ["raw", "qcow2"] {
        let before = fs::read(at(name)).unwrap();
        let overlay = at(&format!("{name}.over"));
        let mut expected = contents();
        for turn in [3, 4] {
            let options = with(Layer::Overlay(overlay.clone()));
            let mut bench = Bench::new(Disk::open(&at(name), &options).unwrap());
            assert!(bench.read(0, CAPACITY) == expected, "{name}, turn {turn}");
            expected[MIB + turn * 512..][..512].fill(turn as u8);
            bench.write(MIB + turn * 512, &[turn as u8; 512]).unwrap();
            bench.go(Operation::Flush, 0, 0).unwrap();
            let again = Disk::open(&at(name), &options).unwrap_err();
            assert!(matches!(again, OpenError::InUse { .. }), "{again}");
        }
        assert!(fs::read(at(name)).unwrap() == before, "{name}");
        // By itself it finds what it lies over, by the name in its header, if the user trusts that.
        let error = Disk::open(&overlay, &read_only()).unwrap_err();
        let OpenError::Unreadable { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().contains("names another file"), "{source}");
        let trusted = DiskOptions { format: Some(Format::Qcow2), ..read_only() };
        let mut bench = Bench::new(Disk::open(&overlay, &trusted).unwrap());
        assert!(bench.read(0, CAPACITY) == expected, "{name}, by its overlay");
    }
}

/// Clusters that a qcow2 refers to and says to be free, by its own tables (QEMU `docs/interop/qcow2.rst`),
/// and those that the guest's data is in.
fn uncounted(path: &Path) -> (Vec<u64>, usize) {
    let bytes = fs::read(path).unwrap();
    let get = |at: u64| match bytes.get(at as usize..at as usize + 8) {
        Some(field) => u64::from_be_bytes(field.try_into().unwrap()),
        None => 0,
    };
    let bits = get(16) as u32;
    assert_eq!(get(96) >> 32, 4, "counts of 16 bits");
    let cluster_of = |entry: u64| entry & 0x00ff_ffff_ffff_fe00;
    let count = |cluster: u64| {
        let number = cluster >> bits;
        let block = get(get(48) + (number >> (bits - 1)) * 8);
        let at = block + number % (1 << (bits - 1)) * 2;
        if block == 0 { 0 } else { get(at) >> 48 }
    };
    let (first_entries, first) = (get(36) >> 32, get(40));
    let mut referred = vec![0, first, get(48)];
    let mut data = 0;
    for entry in 0..first_entries {
        let second = cluster_of(get(first + entry * 8));
        if second == 0 {
            continue;
        }
        referred.push(second);
        let clusters = (0..1 << (bits - 3)).map(|entry| cluster_of(get(second + entry * 8)));
        let clusters: Vec<_> = clusters.filter(|cluster| *cluster != 0).collect();
        data += clusters.len();
        referred.extend(clusters);
    }
    (referred.into_iter().filter(|cluster| count(*cluster) == 0).collect(), data)
}

#[test]
fn an_overlay_is_whole_whenever_busway_is_killed() {
    let (_folder, at) = folder();
    File::create(at("raw")).unwrap().set_len(2 << 30).unwrap();
    let overlay = at("over");
    let mut bench =
        Bench::new(Disk::open(&at("raw"), &with(Layer::Overlay(overlay.clone()))).unwrap());
    let none: Vec<u64> = Vec::new();
    assert_eq!(uncounted(&overlay), (none.clone(), 0));
    // The second has another table of its own than the first.
    for (turn, offset) in [MIB, 700 * MIB].into_iter().enumerate() {
        bench.write(offset, &[7; 3 << 16]).unwrap();
        assert_eq!(uncounted(&overlay), (none.clone(), 3 * turn), "turn {turn}, before the flush");
        bench.go(Operation::Flush, 0, 0).unwrap();
        assert_eq!(uncounted(&overlay), (none.clone(), 3 * turn + 3), "turn {turn}");
    }
}

#[test]
fn what_cannot_be_used_is_refused_with_a_remedy() {
    let (_folder, at) = folder();
    let refused =
        |name: &str, options: &DiskOptions| Disk::open(&at(name), options).unwrap_err().to_string();
    let plain = DiskOptions::default();
    fs::write(at("vdi"), [&[0; 0x40][..], &[0x7f, 0x10, 0xda, 0xbe], &[0; 444]].concat()).unwrap();
    assert!(refused("vdi", &plain).contains("format=raw"));
    assert_eq!(Disk::open_raw(&at("vdi"), &plain).unwrap().capacity(), 512);
    dynamic_vhd(&at("dynamic"));
    assert!(refused("dynamic", &plain).contains("temporary"));
    assert!(refused("dynamic", &with(Layer::Overlay(at("over")))).contains("overlay"));
    assert!(!at("over").exists());
    vhdx(&at("open"), 1);
    let error = Disk::open(&at("open"), &read_only()).unwrap_err();
    let OpenError::Unreadable { source, .. } = error else { panic!("{error}") };
    assert!(source.to_string().contains("log"));
    // Each field that matters is looked at: a flipped bit is found.
    fixed_vhd(&at("fixed"));
    File::options()
        .write(true)
        .open(at("fixed"))
        .unwrap()
        .write_all_at(&[0xff], CAPACITY as u64 + 55)
        .unwrap();
    assert!(matches!(Disk::open(&at("fixed"), &plain), Err(OpenError::Unreadable { .. })));
}

/// The footer of a fixed VHD is behind the disk's end, and stays what it is.
#[test]
fn a_fixed_vhd_is_written_like_a_raw_image() {
    let (_folder, at) = folder();
    fixed_vhd(&at("fixed"));
    let mut bench = Bench::new(Disk::open(&at("fixed"), &DiskOptions::default()).unwrap());
    bench.write(CAPACITY - 512, &[5; 512]).unwrap();
    assert!(bench.go(Operation::Read, CAPACITY, 512).is_err());
    drop(bench);
    let bytes = fs::read(at("fixed")).unwrap();
    assert_eq!(bytes[CAPACITY - 512..CAPACITY], [5; 512]);
    assert_eq!(bytes[CAPACITY..], vhd_footer(2, u64::MAX));
}
