// SPDX-License-Identifier: MIT OR Apache-2.0

//! ring/two-threads: two ends in two threads, woken by eventfds, or found by polling.
//!
//! One way, the figure is the time that a packet takes out of a stream; echo, the time from a batch
//! of `depth` packets to the last of their echoes.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use busway_memory::RingArea;
use busway_ring::{AdaptivePoll, Full, Outgoing, PacketBuf, Reader, Writer};
use vmm_sys_util::eventfd::EventFd;

use crate::report::{Line, median};
use crate::rings::ring;

const PAGES: u64 = 16;

pub fn run(lines: &mut Vec<Line>) {
    let bare = median(|| bare_ping_pong(20_000));
    let queue = median(|| queue_ping_pong(200_000));
    for polling in [false, true] {
        let limit = if polling { queue } else { bare };
        let how = if polling { "polling" } else { "eventfd" };
        for payload in [64, 1024] {
            for depth in [1, 16] {
                let rounds = 10_000;
                let echo = median(|| echo(payload, depth, rounds, polling));
                let params = format!("echo payload={payload} depth={depth} {how}");
                lines.push(Line::nanoseconds("ring/two-threads", params, echo, Some(limit)));
            }
            let one_way = median(|| one_way(payload, 300_000, polling));
            let params = format!("one-way payload={payload} {how}");
            lines.push(Line::nanoseconds("ring/two-threads", params, one_way, None));
        }
    }
}

/// A reader with its doorbell, and how it waits.
struct Receiver {
    reader: Reader<RingArea>,
    bell: Arc<EventFd>,
    /// Rung when the writer waits for room.
    room: Arc<EventFd>,
    poll: AdaptivePoll,
    polling: bool,
    buf: PacketBuf,
}

struct Sender {
    writer: Writer<RingArea>,
    bell: Arc<EventFd>,
    room: Arc<EventFd>,
}

fn direction(polling: bool) -> (Sender, Receiver) {
    let (writer, reader) = ring(PAGES);
    let event = || Arc::new(EventFd::new(0).expect("an eventfd"));
    let (bell, room) = (event(), event());
    let buf = PacketBuf::for_ring(PAGES as u32 * 4096);
    let poll = AdaptivePoll::default();
    let receiver = Receiver { reader, bell: bell.clone(), room: room.clone(), poll, polling, buf };
    (Sender { writer, bell, room }, receiver)
}

impl Sender {
    fn push(&mut self, id: u64, data: &[u8]) {
        let packet = Outgoing::in_band(id, data);
        while let Err(full) = self.writer.push(&packet) {
            assert!(matches!(full, Full::NoRoom { .. }), "{full}");
            self.publish();
            if self.writer.wait_for_room(packet.ring_len() as u32).expect("indices") {
                self.room.read().expect("a ring");
            }
            self.writer.stop_waiting();
        }
    }

    fn publish(&mut self) {
        if self.writer.publish() {
            self.bell.write(1).expect("a bell");
        }
    }
}

impl Receiver {
    /// Takes `count` packets.
    fn take(&mut self, count: u64) {
        let mut taken = 0;
        self.reader.mask();
        while taken < count {
            while taken < count && self.reader.next(&mut self.buf).expect("a packet").is_some() {
                taken += 1;
            }
            if self.reader.publish() {
                self.room.write(1).expect("a bell");
            }
            if taken == count {
                return;
            }
            let reader = &self.reader;
            if self.polling && self.poll.look(|| reader.has_packet()) {
                continue;
            }
            if self.reader.rearm() {
                let asleep = Instant::now();
                self.bell.read().expect("a bell");
                self.poll.slept(asleep.elapsed());
            }
            self.reader.mask();
        }
    }
}

/// Nanoseconds for `depth` packets there and back.
fn echo(payload: usize, depth: u64, rounds: u64, polling: bool) -> f64 {
    let (mut there, mut there_end) = direction(polling);
    let (mut back, mut back_end) = direction(polling);
    let data = vec![1; payload];
    let echoed = data.clone();
    let other = thread::spawn(move || {
        for _ in 0..rounds {
            there_end.take(depth);
            (0..depth).for_each(|id| back.push(id, &echoed));
            back.publish();
        }
    });
    let started = Instant::now();
    for _ in 0..rounds {
        (0..depth).for_each(|id| there.push(id, &data));
        there.publish();
        back_end.take(depth);
    }
    let elapsed = started.elapsed();
    other.join().expect("the other end");
    elapsed.as_secs_f64() * 1e9 / rounds as f64
}

/// Nanoseconds a packet, in a stream one way.
fn one_way(payload: usize, packets: u64, polling: bool) -> f64 {
    let (mut there, mut there_end) = direction(polling);
    let data = vec![1; payload];
    let other = thread::spawn(move || there_end.take(packets));
    let started = Instant::now();
    for id in 0..packets {
        there.push(id, &data);
        there.publish();
    }
    other.join().expect("the other end");
    started.elapsed().as_secs_f64() * 1e9 / packets as f64
}

/// Nanoseconds for an eventfd there and back, with nothing else done.
fn bare_ping_pong(rounds: u32) -> f64 {
    let event = || Arc::new(EventFd::new(0).expect("an eventfd"));
    let (there, back) = (event(), event());
    let (there_end, back_end) = (there.clone(), back.clone());
    let other = thread::spawn(move || {
        for _ in 0..rounds {
            there_end.read().expect("an eventfd");
            back_end.write(1).expect("an eventfd");
        }
    });
    let started = Instant::now();
    for _ in 0..rounds {
        there.write(1).expect("an eventfd");
        back.read().expect("an eventfd");
    }
    let elapsed = started.elapsed();
    other.join().expect("the other end");
    elapsed.as_secs_f64() * 1e9 / f64::from(rounds)
}

/// Nanoseconds for a word there and back through memory, polled: the least that two threads can
/// have.
fn queue_ping_pong(rounds: u64) -> f64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    let words = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let ends = words.clone();
    let other = thread::spawn(move || {
        for round in 1..=rounds {
            while ends[0].load(Ordering::Acquire) != round {
                std::hint::spin_loop();
            }
            ends[1].store(round, Ordering::Release);
        }
    });
    let started = Instant::now();
    for round in 1..=rounds {
        words[0].store(round, Ordering::Release);
        while words[1].load(Ordering::Acquire) != round {
            std::hint::spin_loop();
        }
    }
    let elapsed = started.elapsed();
    other.join().expect("the other end");
    elapsed.as_secs_f64() * 1e9 / rounds as f64
}
