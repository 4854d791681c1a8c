// SPDX-License-Identifier: MIT OR Apache-2.0

//! storage/file: the whole device with a worker thread for each queue, on a file; a guest that keeps
//! `depth` requests in flight on each, with a thread for each, which sleeps when none is done. Beside it,
//! io_uring on the same file, with as many threads.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use busway::bus::{Port, Worker};
use busway_block::{Disk, DiskOptions};
use busway_ring::{AdaptivePoll, PacketBuf};
use io_uring::{IoUring, opcode, types::Fixed};
use tempfile::{NamedTempFile, TempDir};
use vmm_sys_util::eventfd::EventFd;

use crate::report::{Line, median};
use crate::storvsc::{Guest, Request};

const FILE: u64 = 256 << 20;
const RING_PAGES: usize = 32;

/// Queues, and the depth of each.
const LOADS: [(u64, usize); 8] =
    [(1, 1), (1, 4), (1, 16), (1, 32), (1, 128), (4, 1), (4, 8), (4, 32)];

/// What is read or written, and how.
#[derive(Clone, Copy)]
struct Load {
    len: u32,
    write: bool,
    random: bool,
    /// Of each queue.
    depth: usize,
    queues: u64,
}

impl Load {
    /// The piece of the file that the request with number `n` is for.
    fn place(&self, n: u64) -> u64 {
        let pieces = FILE / u64::from(self.len);
        // A full-period step: every piece once, in no order that a disk or a cache could guess.
        if self.random { n.wrapping_mul(2_654_435_761) % pieces } else { n % pieces }
    }

    /// Requests of a queue in one measurement: about 100 ms of all queues.
    fn count(&self) -> u64 {
        (if self.len > 4096 { 4_000 } else { 40_000 }) / self.queues
    }
}

/// When a queue had its first request, and its last answer.
type Span = (Instant, Instant);

/// Nanoseconds a request, with all queues at work at once: each prepares itself and waits for the others.
fn on_all_queues(load: Load, queue: impl Fn(u64, &Barrier) -> Span + Sync) -> f64 {
    let ready = Barrier::new(load.queues as usize);
    let spans: Vec<Span> = thread::scope(|scope| {
        let (queue, ready) = (&queue, &ready);
        let start = |number| scope.spawn(move || queue(number, ready));
        let threads: Vec<_> = (0..load.queues).map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("a queue")).collect()
    });
    let first = spans.iter().map(|(started, _)| *started).min();
    let last = spans.iter().map(|(_, ended)| *ended).max();
    let elapsed = last.zip(first).map(|(last, first)| last - first).expect("a queue");
    elapsed.as_secs_f64() * 1e9 / (load.count() * load.queues) as f64
}

pub fn run(lines: &mut Vec<Line>) {
    for (place, folder) in [("tmpfs", Path::new("/dev/shm")), ("disk", Path::new("target"))] {
        let Ok(folder) = TempDir::new_in(folder) else {
            eprintln!("bench: storage/file on {place} is left out: no folder in {folder:?}");
            continue;
        };
        match image(folder.path()) {
            Ok(file) => run_on(&file, place, lines),
            Err(error) => eprintln!("bench: storage/file on {place} is left out: {error}"),
        }
    }
}

fn image(folder: &Path) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(folder)?;
    let piece: Vec<u8> = (0..1_u32 << 20).map(|i| (i / 7) as u8).collect();
    for _ in 0..FILE >> 20 {
        file.write_all(&piece)?;
    }
    file.as_file().sync_all()?;
    Ok(file)
}

fn run_on(file: &NamedTempFile, place: &str, lines: &mut Vec<Line>) {
    for (what, len, random) in
        [("random 4 KiB", 4096, true), ("sequential 128 KiB", 1 << 17, false)]
    {
        for write in [false, true] {
            for (queues, depth) in LOADS {
                let load = Load { len, write, random, depth, queues };
                let disk = Disk::open_raw(file.path(), &DiskOptions::default()).expect("a disk");
                let value = median(|| {
                    on_all_queues(load, |number, ready| {
                        through_the_device(disk.clone(), load, number, ready)
                    })
                });
                drop(disk);
                let limit = median(|| {
                    on_all_queues(load, |number, ready| {
                        raw(file.path(), load, number, ready).expect("io_uring")
                    })
                });
                let direction = if write { "write" } else { "read" };
                let params = format!("{what} {direction} depth={depth} queues={queues} {place}");
                lines.push(Line::nanoseconds("storage/file", params, value, Some(limit)));
            }
        }
    }
}

/// One queue, through rings, worker and device.
fn through_the_device(disk: Disk, load: Load, number: u64, ready: &Barrier) -> Span {
    let mut guest = Guest::new(disk, RING_PAGES, 65_536);
    let depth = load.depth.min(load.count() as usize);
    let mut requests: Vec<_> =
        (0..depth).map(|_| Request::new(&mut guest, load.len, load.write)).collect();
    let bell = EventFd::new(0).expect("an eventfd");
    let kick = EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK).expect("an eventfd");
    let port = Arc::new(Port::new().expect("a port"));
    guest.pair.set_bell(bell.try_clone().expect("an eventfd"));
    let host = guest.pair.take_channel(&guest.channel);
    let worker_kick = kick.try_clone().expect("an eventfd");
    let worker = Worker::start(host, worker_kick, Arc::clone(&port)).expect("a worker");

    let Guest { mut pair, mut channel } = guest;
    let mut buf = PacketBuf::for_ring(RING_PAGES as u32 * 4096);
    let mut poll = AdaptivePoll::default();
    let (mut sent, mut done) = (0, 0);
    // The handshake's interrupts were never looked at.
    pair.take_event(0, channel.relid());
    ready.wait();
    let started = Instant::now();
    for (id, request) in requests.iter_mut().enumerate() {
        request.push(&mut channel, id as u64, load.place(sent * load.queues + number));
        sent += 1;
    }
    if channel.outgoing.publish() {
        kick.write(1).expect("a bell");
    }
    channel.incoming.mask();
    while done < load.count() {
        let mut taken = 0;
        while let Some(packet) = channel.incoming.next(&mut buf).expect("the ring") {
            assert_eq!(packet.payload[14], 1, "SRB status");
            let id = packet.descriptor.transaction_id;
            taken += 1;
            if sent < load.count() {
                requests[id as usize].push(
                    &mut channel,
                    id,
                    load.place(sent * load.queues + number),
                );
                sent += 1;
            }
        }
        done += taken;
        if channel.incoming.publish() | channel.outgoing.publish() {
            kick.write(1).expect("a bell");
        }
        let incoming = &channel.incoming;
        if taken == 0 && !poll.look(|| incoming.has_packet()) && channel.incoming.rearm() {
            let asleep = Instant::now();
            bell.read().expect("a bell");
            poll.slept(asleep.elapsed());
            pair.take_event(0, channel.relid());
            channel.incoming.mask();
        }
    }
    let ended = Instant::now();
    worker.command(busway_vmbus::Command::Close);
    port.wait();
    (started, ended)
}

/// One queue, by io_uring alone.
#[expect(unsafe_code, reason = "an entry leads the kernel to memory")]
fn raw(path: &Path, load: Load, number: u64, ready: &Barrier) -> io::Result<Span> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut ring = IoUring::new(256)?;
    ring.submitter().register_files(&[file.as_fd().as_raw_fd()])?;
    let mut buffers: Vec<Vec<u8>> =
        (0..load.depth).map(|_| vec![0x5a; load.len as usize]).collect();
    let (mut sent, mut done) = (0, 0);
    ready.wait();
    let started = Instant::now();
    let mut free: Vec<usize> = (0..load.depth).collect();
    while done < load.count() {
        while let Some(slot) = free.pop().filter(|_| sent < load.count()) {
            let place = load.place(sent * load.queues + number);
            let (at, len) = (place * u64::from(load.len), load.len);
            let base = buffers[slot].as_mut_ptr();
            let entry = if load.write {
                opcode::Write::new(Fixed(0), base, len).offset(at).build()
            } else {
                opcode::Read::new(Fixed(0), base, len).offset(at).build()
            };
            // SAFETY: the buffer lives until the end of the function, which waits for all requests.
            unsafe { ring.submission().push(&entry.user_data(slot as u64)) }
                .map_err(io::Error::other)?;
            sent += 1;
        }
        ring.submit_and_wait(1)?;
        for entry in ring.completion() {
            assert_eq!(entry.result(), load.len as i32);
            free.push(entry.user_data() as usize);
            done += 1;
        }
    }
    Ok((started, Instant::now()))
}
