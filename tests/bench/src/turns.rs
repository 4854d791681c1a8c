// SPDX-License-Identifier: MIT OR Apache-2.0

//! The work of the in-process lines a turn at a time, for callgrind to count its instructions: the same
//! on a busy machine as on a quiet one. What one turn takes is the difference between two runs, so that
//! what comes before the first does not count.

use std::hint::black_box;

use serde::Serialize;

use crate::{network_frames, ring_packet, storage_ram, virtio};

/// One kind of work.
#[derive(Serialize)]
struct Work {
    name: &'static str,
    params: &'static str,
    /// Packets, requests or frames in a turn.
    count: usize,
    #[serde(skip)]
    turn: fn() -> Box<dyn FnMut()>,
}

/// `memcpy` is the C library's, of which there is one for each kind of processor: where it takes another
/// number of instructions, so does all else.
const WORKS: [Work; 10] = [
    work("memcpy", "1500 B", 16, || Box::new(copies(1500))),
    work("ring/packet", "n=1 payload=64", 1, || Box::new(ring_packet::packets(1, 64))),
    work("ring/packet", "n=8 payload=64", 8, || Box::new(ring_packet::packets(8, 64))),
    work("ring/packet", "n=8 payload=1024", 8, || Box::new(ring_packet::packets(8, 1024))),
    work("storage/ram", "n=1", 1, || Box::new(storage_ram::reads(1))),
    work("storage/ram", "n=16", 16, || Box::new(storage_ram::reads(16))),
    work("virtio-queue", "n=16", 16, || Box::new(virtio::virtio_reads(16))),
    frames("loopback, there and back, 64 B", 64, || Box::new(network_frames::on_loopback(64, 1))),
    frames("loopback, there and back, 1500 B", 1514, || {
        Box::new(network_frames::on_loopback(1514, 1))
    }),
    frames("loopback, there and back, 65000 B LSO", 65_000, || {
        Box::new(network_frames::on_loopback(65_000, 1))
    }),
];

const fn work(
    name: &'static str,
    params: &'static str,
    count: usize,
    turn: fn() -> Box<dyn FnMut()>,
) -> Work {
    Work { name, params, count, turn }
}

const fn frames(params: &'static str, len: usize, turn: fn() -> Box<dyn FnMut()>) -> Work {
    work("network/frames", params, network_frames::batch(len), turn)
}

fn copies(len: usize) -> impl FnMut() {
    let (from, mut to) = (vec![1_u8; len], vec![0_u8; len]);
    move || {
        for _ in 0..16 {
            to.copy_from_slice(black_box(&from));
            black_box(&to);
        }
    }
}

/// `--turns`: lists them as JSON; or, with a number and times, does one of them.
pub fn main(mut words: impl Iterator<Item = String>) {
    let mut number = || words.next().map(|word| word.parse::<usize>().expect("a number"));
    let Some(index) = number() else {
        println!("{}", serde_json::to_string(&WORKS).expect("works are plain"));
        return;
    };
    let times = number().expect("--turns NUMBER TIMES");
    let mut turn = (WORKS.get(index).expect("a work with this number").turn)();
    (0..times).for_each(|_| turn());
}
