// SPDX-License-Identifier: MIT OR Apache-2.0

//! Numbers that look random and are not, with those more often at which things go wrong.

/// A sequence of numbers (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    /// The sequence of a case.
    pub(crate) fn new(seed: u64, case: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ case << 1);
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `count` times.
    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A word: small, a power of two and its neighbours, the address of a page, or anything.
    pub(crate) fn word(&mut self) -> u64 {
        match self.below(6) {
            0 => self.below(64),
            1 => (1_u64 << self.below(64)).wrapping_add(self.below(3)).wrapping_sub(1),
            2 => self.below(0x1000) << 12 | self.below(2),
            3 => u64::MAX - self.below(0x2000),
            4 => self.next() & 0xffff_ffff,
            _ => self.next(),
        }
    }

    pub(crate) fn word_32(&mut self) -> u32 {
        self.word() as u32
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Overwrites some bytes.
    pub(crate) fn damage(&mut self, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() as u64) as usize;
            bytes[at] = match self.below(3) {
                0 => 0,
                1 => 0xff,
                _ => self.next() as u8,
            };
        }
    }
}
