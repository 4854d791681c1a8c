// SPDX-License-Identifier: MIT OR Apache-2.0

//! The signalling rules under every interleaving that two threads can have.
//!
//! The rings here are a few words long and live in loom's atomics. A signal that is lost leaves its
//! waiter asleep, and loom reports a deadlock; a packet that is read before it was written has the
//! wrong bytes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use busway_ring::{Full, Outgoing, PacketBuf, Reader, RingMem, Word, Writer};
use loom::sync::Arc;
use loom::sync::Notify;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// A ring of `N` words of data in loom's memory.
struct Mem<const N: usize> {
    control: [AtomicU32; 5],
    data: [AtomicU64; N],
}

impl<const N: usize> Mem<N> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            control: std::array::from_fn(|_| AtomicU32::new(0)),
            data: std::array::from_fn(|_| AtomicU64::new(0)),
        })
    }
}

/// One end's handle.
struct Handle<const N: usize>(Arc<Mem<N>>);

impl<const N: usize> RingMem for Handle<N> {
    fn data_len(&self) -> u32 {
        N as u32 * 8
    }

    fn load(&self, word: Word) -> u32 {
        self.0.control[word as usize].load(Ordering::Acquire)
    }

    fn store(&self, word: Word, value: u32) {
        self.0.control[word as usize].store(value, Ordering::Release);
    }

    fn store_then_barrier(&self, word: Word, value: u32) {
        self.store(word, value);
        fence(Ordering::SeqCst);
    }

    fn read(&self, offset: u32, out: &mut [u8]) {
        for (index, chunk) in out.chunks_mut(8).enumerate() {
            let word = &self.0.data[(offset as usize / 8 + index) % N];
            chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes()[..chunk.len()]);
        }
    }

    fn write(&self, offset: u32, data: &[u8]) {
        for (index, chunk) in data.chunks(8).enumerate() {
            let word = &self.0.data[(offset as usize / 8 + index) % N];
            word.store(u64::from_le_bytes(chunk.try_into().unwrap()), Ordering::Relaxed);
        }
    }
}

fn ends<const N: usize>() -> (Writer<Handle<N>>, Reader<Handle<N>>) {
    let mem = Mem::new();
    (Writer::new(Handle(mem.clone())).unwrap(), Reader::new(Handle(mem)).unwrap())
}

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Takes one packet and compares its bytes; true if there was one.
fn take_one<const N: usize>(reader: &mut Reader<Handle<N>>, expected: u64) -> bool {
    let mut buf = PacketBuf::for_ring(N as u32 * 8);
    match reader.next(&mut buf).unwrap() {
        Some(packet) => {
            assert_eq!(packet.descriptor.transaction_id, expected);
            assert_eq!(packet.payload, expected.to_le_bytes());
            true
        }
        None => false,
    }
}

/// The reader sleeps whenever the ring is empty; every packet must reach it.
#[test]
fn no_packet_is_left_with_a_sleeping_reader() {
    const PACKETS: u64 = 2;
    check(|| {
        let (mut writer, mut reader) = ends::<16>();
        let doorbell = Arc::new(Notify::new());
        let bell = doorbell.clone();
        let sender = loom::thread::spawn(move || {
            for id in 1..=PACKETS {
                writer.push(&Outgoing::in_band(id, &id.to_le_bytes())).unwrap();
                if writer.publish() {
                    bell.notify();
                }
            }
        });
        let mut next = 1;
        while next <= PACKETS {
            doorbell.wait();
            reader.mask();
            loop {
                while take_one(&mut reader, next) {
                    next += 1;
                }
                let _ = reader.publish();
                if reader.rearm() {
                    break;
                }
            }
        }
        sender.join().unwrap();
    });
}

/// The ring has room for one packet only; the writer sleeps until there is room for the next.
#[test]
fn no_writer_sleeps_on_room_that_is_there() {
    const PACKETS: u64 = 3;
    check(|| {
        let (mut writer, mut reader) = ends::<6>();
        let room = Arc::new(Notify::new());
        let bell = room.clone();
        let sender = loom::thread::spawn(move || {
            for id in 1..=PACKETS {
                let payload = id.to_le_bytes();
                let packet = Outgoing::in_band(id, &payload);
                while let Err(full) = writer.push(&packet) {
                    assert!(matches!(full, Full::NoRoom { .. }), "{full}");
                    if writer.wait_for_room(packet.ring_len() as u32).unwrap() {
                        room.wait();
                    }
                    writer.stop_waiting();
                }
                let _ = writer.publish();
            }
        });
        let mut next = 1;
        while next <= PACKETS {
            if take_one(&mut reader, next) {
                next += 1;
                if reader.publish() {
                    bell.notify();
                }
            } else {
                loom::thread::yield_now();
            }
        }
        sender.join().unwrap();
    });
}
