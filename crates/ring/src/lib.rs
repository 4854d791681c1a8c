// SPDX-License-Identifier: MIT OR Apache-2.0

//! The ring buffer between a VMBus host and its guest, from either end.
//!
//! A channel has two rings, one for each direction. A ring has one writer and one reader; each owns
//! half of the words in the control page and may believe nothing that stands in the other half.
//! [`Writer`] and [`Reader`] serve the host and, in tests, the guest: the protocol is symmetric.
//!
//! # Signals
//!
//! A signal costs a VM exit or an interrupt, so both ends avoid it:
//!
//! - A writer signals when it made an empty ring non-empty and the reader's `interrupt_mask` is 0
//!   ([`Writer::publish`]).
//! - A reader masks while it drains, and looks once more after it has unmasked
//!   ([`Reader::rearm`]).
//! - A writer that found no room says in `pending_send_sz` how much it needs
//!   ([`Writer::wait_for_room`]); the reader that frees so much signals, once
//!   ([`Reader::publish`]).
//!
//! Each of these is a store to one's own word, a full barrier, and a load of the other's word; with
//! any of the barriers missing, both sides can decide that the other is awake. `tests/loom.rs`
//! checks that none is.
//!
//! Source: Linux `drivers/hv/ring_buffer.c`, `include/linux/hyperv.h`.
//!
//! The memory under a ring is reached through [`RingMem`], by operations and not by references, so
//! that the same code runs on guest memory and on loom's model of it. No threads, clocks or
//! descriptors here, and no `unsafe`.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::cast_possible_truncation))]

mod mem;
mod packet;
mod poll;
mod reader;
mod snapshot;
mod writer;

pub use mem::{RingMem, Word};
pub use packet::{Outgoing, Packet, PacketBuf};
pub use poll::AdaptivePoll;
pub use reader::Reader;
pub use snapshot::Snapshot;
pub use writer::{Full, Writer};

/// [`DESCRIPTOR_LEN`](busway_wire::packet::DESCRIPTOR_LEN) as ring offsets count.
const DESCRIPTOR: u32 = 16;
/// [`TRAILER_LEN`](busway_wire::packet::TRAILER_LEN) as ring offsets count.
const TRAILER: u32 = 8;

/// What the other end wrote makes no sense; the ring cannot be used any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// An index that points nowhere.
    #[error("{word:?} is {index:#x}, in a ring of {len:#x} B")]
    Index {
        /// Which index.
        word: Word,
        /// Its value.
        index: u32,
        /// Bytes of the data area.
        len: u32,
    },
    /// A packet that claims more, or less, than can stand there.
    #[error("a packet of {total} B at {at:#x}, where {available} B are between the indices")]
    PacketLength {
        /// Where it starts in the data area.
        at: u32,
        /// Its length by its descriptor, the trailer counted.
        total: usize,
        /// Bytes between the read and the write index.
        available: u32,
    },
    /// A payload that starts in its own descriptor or behind its end.
    #[error("the payload of a packet of {total} B at {at:#x} starts at {offset}")]
    DataOffset {
        /// Where the packet starts in the data area.
        at: u32,
        /// Where the payload starts in the packet.
        offset: usize,
        /// The packet's length by its descriptor, without the trailer.
        total: usize,
    },
}

/// Reads an index of the other end and checks it.
#[inline]
fn checked_index<M: RingMem>(mem: &M, word: Word) -> Result<u32, RingError> {
    let index = mem.load(word);
    let len = mem.data_len();
    if index < len && index.is_multiple_of(8) {
        Ok(index)
    } else {
        Err(RingError::Index { word, index, len })
    }
}

/// Bytes that stand between the indices, in a data area of `len` bytes.
#[inline]
const fn used(write: u32, read: u32, len: u32) -> u32 {
    if write >= read { write - read } else { len - (read - write) }
}

/// `index` moved on by `count`, which is at most `len`.
#[inline]
const fn advance(index: u32, count: u32, len: u32) -> u32 {
    let next = index + count;
    if next >= len { next - len } else { next }
}
