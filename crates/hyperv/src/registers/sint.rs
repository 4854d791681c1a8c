// SPDX-License-Identifier: MIT OR Apache-2.0

//! A synthetic interrupt source's register.

use super::GeneralProtection;

/// HV_X64_MSR_SINTn, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sint(u64);

/// Bit 16: nothing is delivered.
const MASKED: u64 = 1 << 16;
/// Bit 17: the interrupt ends as soon as it is delivered.
const AUTO_EOI: u64 = 1 << 17;
/// Bit 18: no interrupt is wanted; the guest looks by itself.
const POLLING: u64 = 1 << 18;
/// Vectors below are exceptions.
const FIRST_VECTOR: u8 = 16;

impl Sint {
    /// The register after a reset.
    pub const RESET: Self = Self(MASKED);

    /// The register with `value` in it. A vector below 16 is forbidden, but for a masked source:
    /// guests mask one by writing the mask alone.
    pub const fn new(value: u64) -> Result<Self, GeneralProtection> {
        let sint = Self(value);
        if sint.vector_bits() < FIRST_VECTOR && !sint.is_masked() {
            return Err(GeneralProtection);
        }
        Ok(sint)
    }

    /// All bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// A register that was [`bits`](Self::bits) before.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Nothing is delivered at all: messages stay with their sender.
    pub const fn is_masked(self) -> bool {
        self.0 & MASKED != 0
    }

    /// The vector to raise; none if the source is masked or polled.
    pub const fn vector(self) -> Option<u8> {
        let vector = self.vector_bits();
        if self.0 & (MASKED | POLLING) != 0 || vector < FIRST_VECTOR { None } else { Some(vector) }
    }

    /// The interrupt needs no end of interrupt, and will get none.
    pub const fn is_auto_eoi(self) -> bool {
        self.0 & AUTO_EOI != 0
    }

    const fn vector_bits(self) -> u8 {
        (self.0 & 0xff) as u8
    }
}
