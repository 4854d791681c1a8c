// SPDX-License-Identifier: MIT OR Apache-2.0

//! How long a reader looks again before it sleeps.

use std::time::Duration;

/// Looks that are made even when looking has never paid. A pause takes some 40 ns on newer processors,
/// two barriers' worth: one is enough to learn by.
const FEWEST: u32 = 1;

/// Looks that are made when it always pays: ten to twenty microseconds.
const MOST: u32 = 512;

/// A sleep that was shorter than this should have been spent looking: it is about what the sleep
/// and the wake-up themselves cost.
const SHORT: Duration = Duration::from_micros(50);

/// Looks for the next packet for a while before the reader re-arms the other side's signal.
///
/// A signal costs the guest a VM exit and the host a wake-up; a packet that is found by looking
/// costs neither. The time spent on it doubles after each sleep that turned out short and halves
/// after each long one, so a busy ring is polled and an idle one is not.
#[derive(Clone, Copy, Debug)]
pub struct AdaptivePoll {
    looks: u32,
}

impl Default for AdaptivePoll {
    fn default() -> Self {
        Self { looks: FEWEST }
    }
}

impl AdaptivePoll {
    /// Looks until `found` says yes or it has been long enough; what `found` said last.
    #[inline]
    pub fn look(&self, mut found: impl FnMut() -> bool) -> bool {
        for _ in 0..self.looks {
            if found() {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// The reader slept this long before the other side's signal woke it.
    pub fn slept(&mut self, duration: Duration) {
        let looks = if duration <= SHORT { self.looks * 2 } else { self.looks / 2 };
        self.looks = looks.clamp(FEWEST, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often `poll` looks when there is nothing.
    fn patience(poll: AdaptivePoll) -> u32 {
        let mut looks = 0;
        poll.look(|| {
            looks += 1;
            false
        });
        looks
    }

    #[test]
    fn short_sleeps_make_it_patient_and_long_ones_impatient() {
        let mut poll = AdaptivePoll::default();
        assert_eq!(patience(poll), FEWEST);
        (0..20).for_each(|_| poll.slept(SHORT));
        assert_eq!(patience(poll), MOST);
        (0..20).for_each(|_| poll.slept(SHORT * 2));
        assert_eq!(patience(poll), FEWEST);
    }

    #[test]
    fn it_stops_looking_when_it_has_found() {
        let mut poll = AdaptivePoll::default();
        (0..20).for_each(|_| poll.slept(SHORT));
        let mut looks = 0;
        let found = poll.look(|| {
            looks += 1;
            looks == 2
        });
        assert_eq!((found, looks), (true, 2));
    }
}
