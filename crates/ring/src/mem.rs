// SPDX-License-Identifier: MIT OR Apache-2.0

//! The memory under a ring, as operations.

use std::sync::atomic::Ordering;

use busway_memory::RingArea;
use busway_wire::ring;

/// A word of the control page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Where the writer will write next; the writer's.
    WriteIndex,
    /// Where the reader will read next; the reader's.
    ReadIndex,
    /// Non-zero while the reader wants no signals; the reader's.
    InterruptMask,
    /// Bytes that the writer waits for, or 0; the writer's.
    PendingSendSize,
    /// What the writer does beyond the minimum; the writer's.
    FeatureBits,
}

impl Word {
    /// Byte offset in the control page.
    pub const fn offset(self) -> usize {
        match self {
            Self::WriteIndex => ring::WRITE_INDEX,
            Self::ReadIndex => ring::READ_INDEX,
            Self::InterruptMask => ring::INTERRUPT_MASK,
            Self::PendingSendSize => ring::PENDING_SEND_SIZE,
            Self::FeatureBits => ring::FEATURE_BITS,
        }
    }
}

/// One direction of a ring: a control page and a data area that is addressed modulo its length.
pub trait RingMem {
    /// Bytes of the data area: a multiple of 8, at most 2^31.
    fn data_len(&self) -> u32;

    /// Reads a control word; what its writer did before storing it is visible afterwards (acquire).
    fn load(&self, word: Word) -> u32;

    /// Writes a control word; what was done before is visible to whoever reads it (release).
    fn store(&self, word: Word, value: u32);

    /// Writes a control word and orders every access before it against every access after it: the
    /// store, and then a full barrier.
    fn store_then_barrier(&self, word: Word, value: u32);

    /// Copies data out, from `offset` on; may run over the end and go on at the start.
    ///
    /// `offset` is below, and the length at most, [`data_len`](Self::data_len).
    fn read(&self, offset: u32, out: &mut [u8]);

    /// Copies data in, from `offset` on, under the same terms.
    fn write(&self, offset: u32, data: &[u8]);
}

impl RingMem for RingArea {
    #[inline]
    fn data_len(&self) -> u32 {
        RingArea::data_len(self)
    }

    #[inline]
    fn load(&self, word: Word) -> u32 {
        self.control_word(word.offset()).load(Ordering::SeqCst)
    }

    #[inline]
    fn store(&self, word: Word, value: u32) {
        self.control_word(word.offset()).store(value, Ordering::Release);
    }

    /// An exchange is a full barrier on x86, and cheaper than a store and a fence. In the language's
    /// own terms the loads around it are sequentially consistent too.
    #[inline]
    fn store_then_barrier(&self, word: Word, value: u32) {
        self.control_word(word.offset()).swap(value, Ordering::SeqCst);
    }

    #[inline]
    fn read(&self, offset: u32, out: &mut [u8]) {
        RingArea::read(self, offset, out);
    }

    #[inline]
    fn write(&self, offset: u32, data: &[u8]) {
        RingArea::write(self, offset, data);
    }
}
