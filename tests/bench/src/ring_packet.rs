// SPDX-License-Identifier: MIT OR Apache-2.0

//! ring/packet: one thread writes n packets, publishes once, reads n and publishes once.

use std::hint::black_box;

use busway_ring::{Outgoing, PacketBuf};
use busway_wire::packet::COMPLETION_REQUESTED;

use crate::report::{Line, cpu_time};
use crate::rings::ring;

const RING: usize = 64 << 10;

pub fn run(lines: &mut Vec<Line>) {
    for n in [1, 8, 32] {
        for payload in [16, 64, 256, 1024, 4096, 16_384] {
            if n * (payload + 24) < RING {
                lines.push(packet(n, payload));
            }
        }
    }
}

fn packet(n: usize, payload: usize) -> Line {
    let value = cpu_time(n as u64, packets(n, payload));
    let limit = copies(n, payload);
    Line::nanoseconds("ring/packet", format!("n={n} payload={payload}"), value, Some(limit))
}

/// A turn: `n` packets in and out.
pub fn packets(n: usize, payload: usize) -> impl FnMut() {
    let (mut writer, mut reader) = ring(RING as u64 / 4096);
    let mut buf = PacketBuf::for_ring(RING as u32);
    let data = vec![0x5a; payload];
    move || {
        for id in 0..n as u64 {
            let packet =
                Outgoing { flags: COMPLETION_REQUESTED, ..Outgoing::in_band(id, black_box(&data)) };
            writer.push(&packet).expect("room");
        }
        black_box(writer.publish());
        while let Some(packet) = reader.next(&mut buf).expect("a packet") {
            black_box(packet.payload);
        }
        black_box(reader.publish());
    }
}

/// The same bytes copied into a buffer of the ring's size and out again.
fn copies(n: usize, payload: usize) -> f64 {
    let data = vec![0x5a_u8; payload];
    let mut ring = vec![0_u8; RING + payload];
    let mut out = vec![0_u8; payload];
    let mut at = 0;
    cpu_time(n as u64, || {
        let start = at;
        for _ in 0..n {
            ring[at..at + payload].copy_from_slice(black_box(&data));
            at = (at + payload) % RING;
        }
        at = start;
        for _ in 0..n {
            out.copy_from_slice(black_box(&ring[at..at + payload]));
            black_box(&out);
            at = (at + payload) % RING;
        }
    })
}
