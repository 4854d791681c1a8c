// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use busway_memory::{Bytes, GuestAddress, GuestMemory, PAGE_SIZE, Region};
use tempfile::NamedTempFile;
use vmm_sys_util::poll::{EpollContext, EpollEvents};

use super::*;
use crate::DiskOptions;

const CAPACITY: u64 = 8 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// A place for images on a file system with, and on one without `FALLOC_FL_ZERO_RANGE`.
const FOLDERS: [&str; 2] = ["/tmp", "/dev/shm"];

fn memory() -> GuestMemory {
    let region = Region { start: GuestAddress(0), len: 4096 * PAGE_SIZE };
    GuestMemory::allocate(&[region]).unwrap()
}

fn slices(memory: &GuestMemory, pieces: &[(u64, usize)]) -> GuestSlices {
    let mut slices = GuestSlices::new(memory.clone());
    for &(start, len) in pieces {
        slices.push(GuestAddress(start), len).unwrap();
    }
    slices
}

fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// A disk on `file`, whatever that is.
fn disk_on(file: File) -> Disk {
    Disk::from_file("test", file, CAPACITY, &DiskOptions::default()).unwrap()
}

/// Waits as a worker does: looks again only when the descriptor says so.
fn wait(queue: &mut Queue) -> Completion {
    queue.push().unwrap();
    loop {
        if let Some(completion) = queue.reap().unwrap() {
            return completion;
        }
        let fd = queue.fds().next().expect("without a descriptor everything ends at once");
        assert!(is_readable(&fd, PATIENCE), "nothing ends: {queue:?}");
    }
}

fn is_readable(fd: &BorrowedFd<'_>, patience: Duration) -> bool {
    let context: EpollContext<u32> = EpollContext::new().unwrap();
    context.add(fd, 7).unwrap();
    let events = EpollEvents::new();
    context.wait_timeout(&events, patience).unwrap().iter_readable().count() != 0
}

fn run(queue: &mut Queue, operation: Operation, offset: u64, data: GuestSlices) -> Completion {
    let request = Request { token: offset ^ 0xdead, operation, offset, data };
    queue.submit(0, request).unwrap();
    let completion = wait(queue);
    assert_eq!(completion.token, offset ^ 0xdead);
    assert_eq!(queue.in_flight(), 0);
    completion
}

/// Runs `test` with each engine on an image in each folder, and on a RAM disk.
fn on_every_disk(test: impl Fn(&mut Queue, &dyn Fn(u64, usize) -> Vec<u8>)) {
    for folder in FOLDERS {
        for new in [Queue::new, Queue::synchronous] {
            let file = NamedTempFile::new_in(folder).unwrap();
            file.as_file().set_len(CAPACITY).unwrap();
            let disk = Disk::open_raw(file.path(), &DiskOptions::default()).unwrap();
            let mut queue = new(4, vec![disk]);
            test(&mut queue, &|offset, len| {
                let mut bytes = vec![0; len];
                file.as_file().read_exact_at(&mut bytes, offset).unwrap();
                bytes
            });
        }
    }
    let disk = Disk::ram(CAPACITY, &DiskOptions::default()).unwrap();
    let mut queue = Queue::new(4, vec![disk.clone()]);
    assert!(queue.fds().next().is_none());
    let memory = memory();
    test(&mut queue, &|offset, len| {
        let mut queue = Queue::new(1, vec![disk.clone()]);
        run(&mut queue, Operation::Read, offset, slices(&memory, &[(0, len)])).result.unwrap();
        let mut bytes = vec![0; len];
        memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        bytes
    });
}

#[test]
fn this_kernel_lets_the_tests_use_io_uring() {
    let file = tempfile::tempfile().unwrap();
    assert!(Queue::new(1, vec![disk_on(file)]).fds().next().is_some());
}

#[test]
fn what_is_written_is_in_the_image_and_is_read_again() {
    let memory = memory();
    on_every_disk(|queue, image| {
        let content = noise(12_800, 1);
        memory.write_slice(&content, GuestAddress(0x1_0f0f)).unwrap();
        // Pieces that start and end at odd places of pages.
        let pieces = [(0x1_0f0f, 1), (0x1_0f10, 5000), (0x1_2298, 7799)];
        for durable in [false, true] {
            let write = Operation::Write { durable };
            let done = run(queue, write, 512 * 7, slices(&memory, &pieces));
            assert_eq!(done.result, Ok(()));
            assert_eq!(done.data.len(), 12_800);
            assert!(image(512 * 7, 12_800) == content);
        }
        let back = [(0x3_0001, 12_000), (0x5_0fff, 800)];
        run(queue, Operation::Read, 512 * 7, slices(&memory, &back)).result.unwrap();
        let mut bytes = vec![0; 12_000];
        memory.read_slice(&mut bytes, GuestAddress(0x3_0001)).unwrap();
        assert!(bytes == content[..12_000]);
        let mut bytes = vec![0; 800];
        memory.read_slice(&mut bytes, GuestAddress(0x5_0fff)).unwrap();
        assert!(bytes == content[12_000..]);
        assert_eq!(run(queue, Operation::Flush, 0, slices(&memory, &[])).result, Ok(()));
    });
}

#[test]
fn more_vectors_than_a_system_call_takes() {
    let memory = memory();
    // 1536 bytes out of every other page.
    let pieces: Vec<_> = (0..1500).map(|i| (0x1000 + i * 0x2000 + 17, 1536)).collect();
    on_every_disk(|queue, image| {
        let content = noise(1500 * 1536, 2);
        for (piece, bytes) in pieces.iter().zip(content.chunks(1536)) {
            memory.write_slice(bytes, GuestAddress(piece.0)).unwrap();
        }
        let data = slices(&memory, &pieces);
        assert_eq!(data.vectors().len(), 1500);
        let written = run(queue, Operation::Write { durable: false }, 4096, data);
        assert_eq!(written.result, Ok(()));
        assert!(image(4096, content.len()) == content);

        for piece in &pieces {
            memory.write_slice(&[0; 1536], GuestAddress(piece.0)).unwrap();
        }
        run(queue, Operation::Read, 4096, written.data).result.unwrap();
        for (piece, bytes) in pieces.iter().zip(content.chunks(1536)) {
            let mut read = [0; 1536];
            memory.read_slice(&mut read, GuestAddress(piece.0)).unwrap();
            assert!(read == bytes);
        }
    });
}

#[test]
fn zeroes_and_holes_and_repeated_blocks() {
    let memory = memory();
    on_every_disk(|queue, image| {
        let ones = vec![0x11; 1 << 20];
        memory.write_slice(&ones, GuestAddress(0)).unwrap();
        let fill = |queue: &mut Queue| {
            let data = slices(&memory, &[(0, 1 << 20)]);
            run(queue, Operation::Write { durable: false }, 0, data).result.unwrap();
        };
        for operation in
            [Operation::Discard { len: 100 << 10 }, Operation::WriteZeroes { len: 100 << 10 }]
        {
            fill(queue);
            run(queue, operation, 1024, slices(&memory, &[])).result.unwrap();
            assert_eq!(image(0, 1024), [0x11; 1024]);
            assert!(image(1024, 100 << 10) == vec![0; 100 << 10]);
            assert_eq!(image(1024 + (100 << 10), 512), [0x11; 512]);
        }
        fill(queue);
        let block = noise(512, 3);
        memory.write_slice(&block, GuestAddress(0x1ff0)).unwrap();
        let data = slices(&memory, &[(0x1ff0, 512)]);
        let same = Operation::WriteSame { len: 300 << 10 };
        run(queue, same, 512, data).result.unwrap();
        assert_eq!(image(0, 512), [0x11; 512]);
        assert!(image(512, 300 << 10) == block.repeat(600));
        assert_eq!(image(512 + (300 << 10), 512), [0x11; 512]);

        memory.write_slice(&[0; 512], GuestAddress(0x1ff0)).unwrap();
        let data = slices(&memory, &[(0x1ff0, 512)]);
        run(queue, Operation::WriteSame { len: 4096 }, 8192, data).result.unwrap();
        assert_eq!(image(8192, 4096), [0; 4096]);
        assert_eq!(image(4096, 512), block);
    });
}

#[test]
fn discarded_blocks_are_given_back_to_the_file_system() {
    use std::os::unix::fs::MetadataExt;
    let memory = memory();
    for folder in FOLDERS {
        let file = NamedTempFile::new_in(folder).unwrap();
        file.as_file().set_len(CAPACITY).unwrap();
        let disk = Disk::open_raw(file.path(), &DiskOptions::default()).unwrap();
        assert!(disk.can_discard());
        let mut queue = Queue::new(1, vec![disk]);
        memory.write_slice(&noise(1 << 20, 4), GuestAddress(0)).unwrap();
        let data = slices(&memory, &[(0, 1 << 20)]);
        run(&mut queue, Operation::Write { durable: true }, 0, data).result.unwrap();
        assert!(file.as_file().metadata().unwrap().blocks() >= 2048);
        let discard = Operation::Discard { len: 1 << 20 };
        run(&mut queue, discard, 0, slices(&memory, &[])).result.unwrap();
        assert!(file.as_file().metadata().unwrap().blocks() < 64);
        assert_eq!(file.as_file().metadata().unwrap().len(), CAPACITY);
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_the_kernel() {
    let memory = memory();
    on_every_disk(|queue, image| {
        let before = image(0, 8192);
        let data = |len| slices(&memory, &[(0, len)]);
        let write = Operation::Write { durable: false };
        let refused = run(queue, write, CAPACITY - 512, data(1024));
        let beyond = |offset, len| IoError::BeyondEnd { offset, len, capacity: CAPACITY };
        assert_eq!(refused.result, Err(beyond(CAPACITY - 512, 1024)));
        assert_eq!(refused.data.len(), 1024);
        let last = u64::MAX - 511;
        assert_eq!(run(queue, Operation::Read, last, data(512)).result, Err(beyond(last, 512)));
        let discard = Operation::Discard { len: u64::MAX - 511 };
        let error = run(queue, discard, 512, data(0)).result.unwrap_err();
        assert_eq!(error, beyond(512, u64::MAX - 511));
        for (offset, len) in [(1, 512), (0, 513)] {
            let error = run(queue, write, offset, data(len)).result.unwrap_err();
            assert_eq!(error, IoError::Misaligned { offset, len: len as u64, block: 512 });
        }
        let same = Operation::WriteSame { len: 4096 };
        let error = run(queue, same, 0, data(1024)).result.unwrap_err();
        assert_eq!(error, IoError::Misaligned { offset: 0, len: 1024, block: 512 });
        queue
            .submit(9, Request { token: 1, operation: write, offset: 0, data: data(512) })
            .unwrap();
        assert_eq!(wait(queue).result, Err(IoError::NoDisk { disk: 9 }));
        assert!(image(0, 8192) == before);
    });
}

#[test]
fn a_read_only_disk_is_read_and_nothing_else() {
    let memory = memory();
    let options = DiskOptions { read_only: true, ..DiskOptions::default() };
    let file = NamedTempFile::new().unwrap();
    file.as_file().write_all(&noise(4096, 5)).unwrap();
    let disks = [Disk::open_raw(file.path(), &options), Disk::ram(4096, &options)];
    for disk in disks.map(Result::unwrap) {
        let mut queue = Queue::new(2, vec![disk]);
        for operation in [
            Operation::Write { durable: false },
            Operation::Discard { len: 512 },
            Operation::WriteZeroes { len: 512 },
            Operation::WriteSame { len: 512 },
        ] {
            let data = slices(&memory, &[(0, 512)]);
            assert_eq!(run(&mut queue, operation, 0, data).result, Err(IoError::ReadOnly));
        }
        let data = slices(&memory, &[(0, 512)]);
        assert_eq!(run(&mut queue, Operation::Read, 0, data).result, Ok(()));
        assert_eq!(run(&mut queue, Operation::Flush, 0, slices(&memory, &[])).result, Ok(()));
    }
}

#[test]
fn an_image_that_was_cut_short_is_an_error_where_it_ends() {
    let memory = memory();
    for new in [Queue::new, Queue::synchronous] {
        let file = NamedTempFile::new().unwrap();
        file.as_file().set_len(CAPACITY).unwrap();
        let disk = Disk::open_raw(file.path(), &DiskOptions::default()).unwrap();
        let mut queue = new(1, vec![disk]);
        file.as_file().set_len(6000).unwrap();
        let data = slices(&memory, &[(0, 3000), (0x2000, 5192)]);
        let done = run(&mut queue, Operation::Read, 0, data);
        assert_eq!(done.result, Err(IoError::Truncated { at: 6000 }));
        // Those that are still there are read.
        assert_eq!(
            run(&mut queue, Operation::Read, 4096, slices(&memory, &[(0, 512)])).result,
            Ok(())
        );
    }
}

/// `/dev/full` has no room, and nothing is mapped at the start of `/proc/self/mem`.
#[test]
fn the_errors_of_the_system_come_through() {
    let memory = memory();
    let open = |path: &str| OpenOptions::new().read(true).write(true).open(path).unwrap();
    for new in [Queue::new, Queue::synchronous] {
        let mut full = new(1, vec![disk_on(open("/dev/full"))]);
        let write = Operation::Write { durable: false };
        let done = run(&mut full, write, 0, slices(&memory, &[(0, 512)]));
        assert_eq!(done.result, Err(IoError::NoSpace { errno: libc::ENOSPC }));

        let mut bad = new(1, vec![disk_on(open("/proc/self/mem"))]);
        let done = run(&mut bad, Operation::Read, 0, slices(&memory, &[(0, 512)]));
        assert_eq!(done.result, Err(IoError::Failed { errno: libc::EIO }));
        // And the queue goes on.
        assert_eq!(run(&mut full, Operation::Read, 0, slices(&memory, &[(0, 512)])).result, Ok(()));
    }
}

#[test]
fn many_requests_at_once_on_several_disks() {
    let memory = memory();
    let files: Vec<_> = (0..3).map(|_| NamedTempFile::new().unwrap()).collect();
    let mut disks = Vec::new();
    for (index, file) in files.iter().enumerate() {
        file.as_file().write_all_at(&[index as u8 + 1; 1 << 20], 0).unwrap();
        disks.push(Disk::open_raw(file.path(), &DiskOptions::default()).unwrap());
    }
    disks.insert(1, Disk::ram(1 << 20, &DiskOptions::default()).unwrap());
    let mut queue = Queue::new(64, disks);
    for token in 0..64_u64 {
        let data = slices(&memory, &[(token << 12, 4096)]);
        let request = Request { token, operation: Operation::Read, offset: token << 12, data };
        queue.submit(token as usize % 4, request).unwrap();
    }
    assert!(!queue.has_room());
    let data = slices(&memory, &[(0, 512)]);
    let request = Request { token: 99, operation: Operation::Read, offset: 0, data };
    assert_eq!(queue.submit(0, request).unwrap_err().token, 99);

    let mut tokens: Vec<_> = (0..64).map(|_| wait(&mut queue)).map(|done| done.token).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, (0..64).collect::<Vec<_>>());
    assert!(queue.reap().unwrap().is_none() && queue.in_flight() == 0 && queue.has_room());
    for token in 0..64_u64 {
        let mut page = [9; 4096];
        memory.read_slice(&mut page, GuestAddress(token << 12)).unwrap();
        let expected = [1, 0, 2, 3][token as usize % 4];
        assert_eq!(page, [expected; 4096]);
    }
}

#[test]
fn the_descriptor_is_readable_while_something_has_ended() {
    let memory = memory();
    let file = tempfile::tempfile().unwrap();
    file.set_len(CAPACITY).unwrap();
    let mut queue = Queue::new(1, vec![disk_on(file)]);
    let readable = |queue: &Queue, patience| is_readable(&queue.fds().next().unwrap(), patience);
    assert!(!readable(&queue, Duration::ZERO));
    let data = slices(&memory, &[(0, 512)]);
    let request = Request { token: 1, operation: Operation::Flush, offset: 0, data };
    queue.submit(0, request).unwrap();
    assert!(!readable(&queue, Duration::from_millis(20)), "the kernel knows nothing yet");
    queue.push().unwrap();
    assert!(readable(&queue, PATIENCE));
    assert!(queue.reap().unwrap().is_some());
    assert!(!readable(&queue, Duration::ZERO));
}

/// A disk whose reads take for ever: the empty end of a pipe.
fn stuck() -> (Queue, File) {
    let (reader, writer) = io::pipe().unwrap();
    let disk = disk_on(File::from(OwnedFd::from(reader)));
    (Queue::new(8, vec![disk]), File::from(OwnedFd::from(writer)))
}

fn submit_reads(queue: &mut Queue, memory: &GuestMemory) {
    for token in 0..4 {
        let data = slices(memory, &[(token << 12, 512)]);
        queue.submit(0, Request { token, operation: Operation::Read, offset: 0, data }).unwrap();
    }
}

#[test]
fn requests_can_be_given_up() {
    let memory = memory();
    let (mut queue, mut writer) = stuck();
    submit_reads(&mut queue, &memory);
    queue.push().unwrap();
    assert!(queue.reap().unwrap().is_none());
    assert_eq!(queue.in_flight(), 4);
    queue.cancel_all().unwrap();
    queue.cancel_all().unwrap();
    for _ in 0..4 {
        assert_eq!(wait(&mut queue).result, Err(IoError::Cancelled));
    }
    assert_eq!(queue.in_flight(), 0);

    // The queue works as before, and can give up again.
    writer.write_all(&[7; 512]).unwrap();
    let done = run(&mut queue, Operation::Read, 0, slices(&memory, &[(0, 512)]));
    assert_eq!(done.result, Ok(()));
    submit_reads(&mut queue, &memory);
    queue.cancel_all().unwrap();
    assert_eq!(wait(&mut queue).result, Err(IoError::Cancelled));
}

#[test]
fn a_queue_that_is_dropped_leaves_nothing_to_the_kernel() {
    let memory = memory();
    for pushed in [false, true] {
        let (reader, writer) = io::pipe().unwrap();
        let second = File::from(OwnedFd::from(reader.try_clone().unwrap()));
        let mut queue = Queue::new(8, vec![disk_on(second)]);
        submit_reads(&mut queue, &memory);
        if pushed {
            queue.push().unwrap();
        }
        drop(queue);
        // What comes now is for the next reader, and goes to no memory of the guest's.
        File::from(OwnedFd::from(writer)).write_all(&[0xee; 100]).unwrap();
        let mut left = Vec::new();
        File::from(OwnedFd::from(reader)).read_to_end(&mut left).unwrap();
        assert_eq!(left, [0xee; 100]);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0)).unwrap(), 0);
    }
}

#[test]
fn a_queue_that_is_dropped_lets_go_of_its_images() {
    let memory = memory();
    memory.write_slice(&[1; 8 << 20], GuestAddress(0)).unwrap();
    let file = NamedTempFile::new_in(Path::new("/tmp")).unwrap();
    file.as_file().set_len(CAPACITY).unwrap();
    let disk = Disk::open_raw(file.path(), &DiskOptions::default()).unwrap();
    let mut queue = Queue::new(8, vec![disk]);
    for token in 0..8 {
        let data = slices(&memory, &[(token << 20, 1 << 20)]);
        let operation = Operation::Write { durable: true };
        queue.submit(0, Request { token, operation, offset: token << 20, data }).unwrap();
    }
    queue.push().unwrap();
    drop(queue);
    file.as_file().try_lock().unwrap();
    // Some writes are done and some were given up; none goes on.
    let ends = || {
        [1, 2, 3, 4, 5, 6, 7, 8_u64].map(|end| {
            let mut byte = [0];
            file.as_file().read_exact_at(&mut byte, (end << 20) - 1).unwrap();
            byte[0]
        })
    };
    let before = ends();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(before, ends());
}

#[test]
fn disks_come_to_a_place_and_go() {
    let memory = memory();
    let image = |byte: u8| {
        let file = NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&vec![byte; 8192], 0).unwrap();
        file
    };
    let (first, second) = (image(1), image(2));
    let open = |file: &NamedTempFile| Disk::open_raw(file.path(), &DiskOptions::default());
    let mut queue = Queue::with_places(4, 255);
    let byte = |queue: &mut Queue, place| {
        memory.write_slice(&[0; 512], GuestAddress(0)).unwrap();
        let data = slices(&memory, &[(0, 512)]);
        let request = Request { token: 1, operation: Operation::Read, offset: 0, data };
        queue.submit(place, request).unwrap();
        wait(queue).result.map(|()| memory.read_obj::<u8>(GuestAddress(511)).unwrap())
    };
    assert_eq!(byte(&mut queue, 254), Err(IoError::NoDisk { disk: 254 }));
    queue.plug(254, open(&first).unwrap()).unwrap();
    queue.plug(0, Disk::ram(8192, &DiskOptions::default()).unwrap()).unwrap();
    assert_eq!((byte(&mut queue, 254), byte(&mut queue, 0)), (Ok(1), Ok(0)));
    assert!(open(&first).is_err(), "it is locked");
    queue.unplug(254).unwrap();
    assert_eq!(byte(&mut queue, 254), Err(IoError::NoDisk { disk: 254 }));
    assert!(open(&first).is_ok());
    queue.plug(254, open(&second).unwrap()).unwrap();
    assert_eq!(byte(&mut queue, 254), Ok(2));
}
