// SPDX-License-Identifier: MIT OR Apache-2.0

//! storage/ram: guest and device in turn on one thread; rings of 16 KiB each way; READ(10) of 4 KiB
//! by one GPA-direct packet each; `n` are sent, then `n` completions read.

use std::hint::black_box;

use busway_block::{Disk, DiskOptions};
use busway_ring::PacketBuf;
use busway_vmbus::{Bus, Progress};

use crate::report::{Line, cpu_time};
use crate::storvsc::{Guest, Request};

/// Bytes: as many as a processor's own cache holds, so that the device counts and not the machine's memory.
pub const DISK: u64 = 1 << 20;
const RING_PAGES: usize = 4;

pub fn run(lines: &mut Vec<Line>) {
    let limit = copy_of_a_block();
    for n in [1, 4, 16] {
        let value = cpu_time(n, reads(n));
        lines.push(Line::nanoseconds("storage/ram", format!("n={n}"), value, Some(limit)));
    }
}

/// A turn: `n` reads and their completions.
pub fn reads(n: u64) -> impl FnMut() {
    reads_on(n, |_| {})
}

/// The same on a bus that has been prepared for it.
pub fn reads_on(n: u64, prepare: impl FnOnce(&mut Bus)) -> impl FnMut() {
    let disk = Disk::ram(DISK, &DiskOptions::default()).expect("a disk");
    let mut guest = Guest::on_bus(disk, RING_PAGES, 16_384, prepare);
    let mut requests: Vec<_> = (0..n).map(|_| Request::new(&mut guest, 4096, false)).collect();
    let Guest { mut pair, mut channel } = guest;
    let mut host = pair.take_channel(&channel);
    let mut buf = PacketBuf::for_ring(RING_PAGES as u32 * 4096);
    let mut at = 0;
    move || {
        for (id, request) in requests.iter_mut().enumerate() {
            request.push(&mut channel, id as u64, at % (DISK / 4096));
            at += 7;
        }
        if channel.outgoing.publish() {
            assert_eq!(host.run().expect("a turn"), Progress::Idle);
        }
        for _ in 0..n {
            let packet = channel.incoming.next(&mut buf).expect("the ring").expect("an answer");
            assert_eq!(packet.payload[14], 1, "SRB status");
        }
        black_box(channel.incoming.publish());
        pair.take_event(0, channel.relid());
    }
}

fn copy_of_a_block() -> f64 {
    let from = vec![1_u8; DISK as usize];
    let mut to = vec![0_u8; 4096];
    let mut at = 0;
    cpu_time(1, || {
        to.copy_from_slice(&from[at..at + 4096]);
        black_box(&to);
        at = (at + 7 * 4096) % (DISK as usize);
    })
}
