// SPDX-License-Identifier: MIT OR Apache-2.0

//! The Internet checksum (RFC 1071).

use busway_memory::{GuestBuffer, GuestPart};

/// A sum in the making: of words in memory order, which RFC 1071 allows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    total: u64,
    /// An odd number of bytes has been added.
    odd: bool,
}

/// Bytes copied out of guest memory at once: few, as their place is cleared before.
const CHUNK: usize = 512;

impl Sum {
    /// Adds bytes.
    #[inline]
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        if self.odd
            && let [first, rest @ ..] = bytes
        {
            self.total += u64::from(u16::from_le_bytes([0, *first]));
            self.odd = false;
            bytes = rest;
        }
        let (words, rest) = bytes.as_chunks::<4>();
        self.total += words.iter().map(|word| u64::from(u32::from_le_bytes(*word))).sum::<u64>();
        let (halves, rest) = rest.as_chunks::<2>();
        self.total += halves.iter().map(|half| u64::from(u16::from_le_bytes(*half))).sum::<u64>();
        if let [last] = rest {
            self.total += u64::from(*last);
            self.odd = true;
        }
    }

    /// Adds guest memory.
    pub(crate) fn add_guest(&mut self, mut part: GuestPart<'_>) {
        let mut chunk = [0; CHUNK];
        while !part.is_empty() {
            let count = part.read(&mut chunk);
            self.add(chunk.get(..count).unwrap_or_default());
            part = part.skip(count);
        }
    }

    /// Adds `len` bytes of a buffer.
    pub(crate) fn add_buffer(&mut self, buffer: &GuestBuffer, mut offset: usize, mut len: usize) {
        let mut chunk = [0; CHUNK];
        while len != 0 {
            let place = chunk.get_mut(..len.min(CHUNK)).unwrap_or_default();
            let count = buffer.read_at(offset, place);
            if count == 0 {
                return;
            }
            self.add(chunk.get(..count).unwrap_or_default());
            offset += count;
            len -= count;
        }
    }

    fn folded(self) -> u16 {
        let mut total = self.total;
        while total >> 16 != 0 {
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    /// The sum, in memory order: what a pseudo header's place holds.
    pub(crate) fn partial(self) -> [u8; 2] {
        self.folded().to_le_bytes()
    }

    /// The checksum, in memory order.
    pub(crate) fn finish(self) -> [u8; 2] {
        (!self.folded()).to_le_bytes()
    }

    /// The checksum of UDP, where 0 would mean that there is none. TCP does not mind.
    pub(crate) fn finish_transport(self) -> [u8; 2] {
        match self.finish() {
            [0, 0] => [0xff, 0xff],
            sum => sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071, section 3.
    #[test]
    fn the_sum_is_that_of_the_rfc() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        let mut sum = Sum::default();
        sum.add(&bytes);
        assert_eq!(sum.partial(), [0xdd, 0xf2]);
        assert_eq!(sum.finish(), [0x22, 0x0d]);
        for split in 0..=8 {
            let mut pieces = Sum::default();
            pieces.add(&bytes[..split]);
            pieces.add(&bytes[split..]);
            assert_eq!(pieces.partial(), [0xdd, 0xf2], "{split}");
        }
    }

    /// The header of RFC 791's first example, whose sum must come out as nothing.
    #[test]
    fn a_right_sum_leaves_nothing() {
        let mut header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,
            0xc7,
        ];
        let mut sum = Sum::default();
        sum.add(&header);
        header[10..12].copy_from_slice(&sum.finish());
        assert_eq!(header[10..12], [0xb8, 0x61]);
        let mut sum = Sum::default();
        sum.add(&header);
        assert_eq!((sum.finish(), sum.finish_transport()), ([0, 0], [0xff, 0xff]));
    }
}
