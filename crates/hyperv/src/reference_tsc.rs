// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reference time from the TSC, and the page by which a guest computes it alone.
//!
//! The page says how: time = (TSC × scale) / 2^64 + offset, in 100 ns. Host and guest use the same
//! three numbers, so that a guest cannot see time stand still or go back between the page and the
//! MSR.
//!
//! Source: TLFS, "Reference Time Stamp Counter (TSC) Page" (`HV_REFERENCE_TSC_PAGE`).

use busway_memory::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// Reference time's unit: 100 ns.
const UNITS_PER_SECOND: u64 = 10_000_000;

/// How reference time follows from a guest's TSC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReferenceTsc {
    scale: u64,
    offset: u64,
    sequence: u32,
}

/// The page's sequence number when it does not count.
const INVALID: u32 = 0;
/// And when it first does.
const VALID: u32 = 1;
const SCALE_OFFSET: u64 = 8;
const OFFSET_OFFSET: u64 = 16;

impl ReferenceTsc {
    /// Time by a TSC of `frequency` Hz that begins at 0 when the TSC is `start`. There is none by a
    /// TSC that is slower than the time's unit.
    pub fn new(frequency: u64, start: u64) -> Option<Self> {
        let scale = (u128::from(UNITS_PER_SECOND) << 64).checked_div(frequency.into())?;
        let mut clock = Self { scale: u64::try_from(scale).ok()?, offset: 0, sequence: VALID };
        clock.offset = 0_u64.wrapping_sub(clock.at(start));
        Some(clock)
    }

    /// The reference time when the TSC is `tsc`.
    pub const fn at(&self, tsc: u64) -> u64 {
        let scaled = (tsc as u128 * self.scale as u128) >> 64;
        (scaled as u64).wrapping_add(self.offset)
    }

    /// The same, so many units later at any time.
    #[must_use]
    pub const fn behind(self, units: u64) -> Self {
        Self { offset: self.offset.wrapping_sub(units), ..self }
    }

    /// The same with another sequence number than `before` has, by which a guest that is in the middle of
    /// its computation sees that it has to begin again.
    #[must_use]
    pub(crate) const fn after(self, before: Self) -> Self {
        let sequence = match before.sequence.wrapping_add(1) {
            // Hosts of old meant that the page does not count by this one too.
            INVALID | u32::MAX => VALID,
            sequence => sequence,
        };
        Self { sequence, ..self }
    }

    /// Fills a reference TSC page. With no clock it says so, and the guest reads the MSR.
    pub(crate) fn write(
        clock: Option<&Self>,
        memory: &GuestMemory,
        page: GuestAddress,
    ) -> Result<(), GuestMemoryError> {
        let field = |offset| GuestAddress(page.0.saturating_add(offset));
        // Other VPs may be reading: what they compute meanwhile does not count.
        memory.write_obj(u64::from(INVALID), page)?;
        let Some(clock) = clock else {
            return Ok(());
        };
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        memory.write_obj(clock.scale, field(SCALE_OFFSET))?;
        memory.write_obj(clock.offset, field(OFFSET_OFFSET))?;
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        memory.write_obj(clock.sequence, page)
    }
}

#[cfg(test)]
mod tests {
    use busway_memory::Region;

    use super::*;

    #[test]
    fn time_starts_at_zero_and_counts_100_ns() {
        let clock = ReferenceTsc::new(2_500_000_000, 5_000_000_000).unwrap();
        assert_eq!(clock.at(5_000_000_000), 0);
        // A second, but for the scale's rounding.
        assert!((9_999_999..=10_000_000).contains(&clock.at(7_500_000_000)));
        // A hundred years on, the product still fits.
        let century = 2_500_000_000 * 86_400 * 36_525;
        assert!(clock.at(5_000_000_000 + century).abs_diff(864_000_000_000 * 36_525) < 1000);
    }

    #[test]
    fn a_tsc_that_cannot_be_scaled_is_none() {
        assert_eq!(ReferenceTsc::new(0, 0), None);
        assert_eq!(ReferenceTsc::new(9_999_999, 0), None);
    }

    /// `struct ms_hyperv_tsc_page` and `hv_read_tsc_page` of Linux `include/clocksource/hyperv_timer.h`.
    #[test]
    fn the_page_says_what_the_host_computes() {
        let region = Region { start: GuestAddress(0), len: 0x3000 };
        let memory = GuestMemory::allocate(&[region]).unwrap();
        let clock = ReferenceTsc::new(2_100_000_000, 123_456_789).unwrap();
        ReferenceTsc::write(Some(&clock), &memory, GuestAddress(0x1000)).unwrap();
        assert_ne!(memory.read_obj::<u32>(GuestAddress(0x1000)).unwrap(), 0);
        let scale: u64 = memory.read_obj(GuestAddress(0x1008)).unwrap();
        let offset: i64 = memory.read_obj(GuestAddress(0x1010)).unwrap();
        let tsc = 987_654_321_012_u64;
        let time = ((u128::from(tsc) * u128::from(scale)) >> 64) as i64 + offset;
        assert_eq!(time as u64, clock.at(tsc));
        assert!(clock.at(tsc) > 0);
    }

    #[test]
    fn a_clock_that_stood_still_is_another_one() {
        let clock = ReferenceTsc::new(2_100_000_000, 0).unwrap();
        let later = clock.behind(500).after(clock);
        assert_eq!(later.at(4_200_000_000), clock.at(4_200_000_000) - 500);
        assert_eq!((clock.sequence, later.sequence), (1, 2));
        let last = ReferenceTsc { sequence: u32::MAX - 1, ..clock };
        assert_eq!(clock.after(last).sequence, 1);
    }

    #[test]
    fn a_page_without_a_clock_is_invalid() {
        let region = Region { start: GuestAddress(0), len: 0x3000 };
        let memory = GuestMemory::allocate(&[region]).unwrap();
        memory.write_obj(7_u32, GuestAddress(0x1000)).unwrap();
        ReferenceTsc::write(None, &memory, GuestAddress(0x1000)).unwrap();
        assert_eq!(memory.read_obj::<u32>(GuestAddress(0x1000)).unwrap(), 0);
        ReferenceTsc::write(None, &memory, GuestAddress(0x3000)).unwrap_err();
    }
}
