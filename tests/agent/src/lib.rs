// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the program inside the guest and the test outside agree on: the bytes of each block.

use std::io::{self, Read, Write};

/// `length` bytes that follow from `seed` alone and do not repeat: 64-bit xorshift, little-endian, from a
/// state that splitmix64 makes of the seed, so that neighbouring seeds have nothing in common.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = scramble(seed) | 1;
    let mut bytes = vec![0; length.next_multiple_of(8)];
    for word in bytes.as_chunks_mut::<8>().0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state.to_le_bytes();
    }
    bytes.truncate(length);
    bytes
}

/// Bytes that a stream of noise is made of at once.
const CHUNK: u64 = 64 << 10;

/// Writes `length` bytes: `noise(seed)`, `noise(seed + 1)` and so on, each 64 KiB long.
pub fn send_noise(to: &mut impl Write, seed: u64, length: u64) -> io::Result<()> {
    let chunks = (0..length).step_by(CHUNK as usize);
    for (number, start) in (0..).zip(chunks) {
        to.write_all(&noise(seed.wrapping_add(number), CHUNK.min(length - start) as usize))?;
    }
    Ok(())
}

/// Reads to the end, and says whether that were the `length` bytes of [`send_noise`].
pub fn check_noise(from: &mut impl Read, seed: u64, length: u64) -> Result<(), String> {
    let chunks = (0..length).step_by(CHUNK as usize);
    for (number, start) in (0..).zip(chunks) {
        let wanted = noise(seed.wrapping_add(number), CHUNK.min(length - start) as usize);
        let mut found = vec![0; wanted.len()];
        from.read_exact(&mut found).map_err(|error| format!("byte {start}: {error}"))?;
        if found != wanted {
            let mut pairs = found.iter().zip(&wanted);
            let at = pairs.position(|(found, wanted)| found != wanted).unwrap_or_default();
            return Err(format!("byte {} is wrong", start + at as u64));
        }
    }
    Ok(())
}

/// One step of splitmix64.
pub fn scramble(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Blocks of noise on a disk: block `i` is `noise(seed + i, block)` and begins at `start + i * stride`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// Seed of block 0.
    pub seed: u64,
    /// Length of each, in bytes.
    pub block: usize,
    /// How many.
    pub count: u64,
    /// Where block 0 begins, in bytes.
    pub start: u64,
    /// From one beginning to the next, in bytes.
    pub stride: u64,
}

impl Blocks {
    /// Where block `number` begins.
    pub fn offset(&self, number: u64) -> u64 {
        self.start + number * self.stride
    }

    /// What block `number` holds.
    pub fn contents(&self, number: u64) -> Vec<u8> {
        noise(self.seed.wrapping_add(number), self.block)
    }
}

/// What is seen of a picture: a number that follows from the colours of all pixels (64-bit FNV-1a), and how
/// many are not black.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// The number.
    pub hash: u64,
    /// Pixels that are not black.
    pub lit: u64,
}

impl Fingerprint {
    /// Of pixels as blue, green, red, line by line.
    pub fn of(pixels: impl Iterator<Item = [u8; 3]>) -> Self {
        let start = Self { hash: 0xcbf2_9ce4_8422_2325, lit: 0 };
        pixels.fold(start, |Self { hash, lit }, pixel| Self {
            hash: pixel.iter().fold(hash, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
            }),
            lit: lit + u64::from(pixel != [0; 3]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash of "foobar" is the one of the algorithm's own test vectors.
    #[test]
    fn a_fingerprint_is_fnv_1a() {
        let print = Fingerprint::of([*b"foo", *b"bar"].into_iter());
        assert_eq!(print, Fingerprint { hash: 0x8594_4171_f739_67e8, lit: 2 });
        assert_eq!(Fingerprint::of([[0; 3], [0, 1, 0]].into_iter()).lit, 1);
    }

    #[test]
    fn noise_is_reproducible_and_does_not_repeat() {
        let bytes = noise(1, 64 << 10);
        assert_eq!(bytes, noise(1, 64 << 10));
        assert_eq!(noise(1, 13), bytes[..13]);
        let mut blocks: Vec<_> = bytes.chunks(512).collect();
        let neighbour = noise(2, 64 << 10);
        blocks.extend(neighbour.chunks(512));
        blocks.sort_unstable();
        blocks.dedup();
        assert_eq!(blocks.len(), 256);
    }

    #[test]
    fn a_stream_of_noise_is_recognized() {
        let mut bytes = Vec::new();
        send_noise(&mut bytes, 4, 150_000).unwrap();
        assert_eq!(bytes.len(), 150_000);
        assert_eq!(check_noise(&mut bytes.as_slice(), 4, 150_000), Ok(()));
        assert!(check_noise(&mut bytes.as_slice(), 5, 150_000).is_err());
        assert!(check_noise(&mut &bytes[..149_999], 4, 150_000).is_err());
        bytes[140_000] ^= 1;
        let wrong = check_noise(&mut bytes.as_slice(), 4, 150_000);
        assert_eq!(wrong, Err("byte 140000 is wrong".to_owned()));
    }

    #[test]
    fn blocks_lie_a_stride_apart() {
        let blocks = Blocks { seed: 7, block: 512, count: 3, start: 4096, stride: 1024 };
        assert_eq!(blocks.offset(2), 6144);
        assert_eq!(blocks.contents(2), noise(9, 512));
    }
}
