// SPDX-License-Identifier: MIT OR Apache-2.0

//! Interrupts that end themselves (AutoEOI), which FreeBSD and others ask for of every SINT.
//!
//! An interrupt that comes through KVM's local APIC is in service until the guest ends it, and holds back
//! all of its priority meanwhile; a guest that asked for AutoEOI never does. So these go past the
//! APIC, to the processor itself, as an interrupt that it has accepted already. It must be one
//! that takes interrupts: a kick stops it between two instructions, and where it does not take any
//! just then, another kick follows, later each time.
//!
//! Guests are told not to ask for AutoEOI ([`Hints::NO_AUTO_EOI`](super::Hints::NO_AUTO_EOI)); Linux does not.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use busway_wire::synic::SINT_COUNT;
use vmm_sys_util::timerfd::TimerFd;

use super::super::Vcpu;
use crate::limited;
use crate::lock;
use crate::processors::Processors;

/// Between the first kick and the second.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
/// A guest that never takes its interrupt costs no more than a kick in this time.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// The sources of a machine that are so, and those that are raised.
pub(super) struct AutoEoi {
    vps: Box<[Vp]>,
    processors: Arc<Processors>,
    alarm: Mutex<Alarm>,
}

#[derive(Default)]
struct Vp {
    /// Of each SINT; 0 if its interrupts are not of this kind.
    vectors: [AtomicU8; SINT_COUNT],
    /// A bit for each SINT whose interrupt waits.
    raised: AtomicU16,
}

/// When to kick those whose interrupts wait.
struct Alarm {
    timer: TimerFd,
    pause: Duration,
}

impl AutoEoi {
    pub(super) fn new(processors: &Arc<Processors>) -> io::Result<Self> {
        let alarm = Alarm { timer: TimerFd::new()?, pause: FIRST_PAUSE };
        Ok(Self {
            vps: (0..processors.count()).map(|_| Vp::default()).collect(),
            processors: Arc::clone(processors),
            alarm: Mutex::new(alarm),
        })
    }

    /// Readable when [`kick`](Self::kick) is to be called.
    pub(super) fn alarm(&self) -> RawFd {
        lock(&self.alarm).timer.as_raw_fd()
    }

    /// From now on `sint` of `vp` is such a source, with that vector; or none.
    pub(super) fn set(&self, vp: u32, sint: u8, vector: Option<u8>) {
        let Some(vp) = self.vps.get(vp as usize) else {
            return;
        };
        if let Some(slot) = vp.vectors.get(usize::from(sint)) {
            slot.store(vector.unwrap_or(0), Ordering::SeqCst);
        }
        if vector.is_none() {
            vp.raised.fetch_and(!bit(sint), Ordering::SeqCst);
        }
    }

    /// Raises `sint` of `vp`; false if it is no such source.
    pub(super) fn raise(&self, vp: u32, sint: u8) -> bool {
        let Some(vp) = self.vps.get(vp as usize) else {
            return false;
        };
        if vp.vector(sint).is_none() {
            return false;
        }
        vp.raised.fetch_or(bit(sint), Ordering::SeqCst);
        let mut alarm = lock(&self.alarm);
        alarm.pause = FIRST_PAUSE;
        alarm.set(Some(Duration::from_nanos(1)));
        true
    }

    /// Stops the processors whose interrupts wait, so that each has a look at [`inject`](Self::inject).
    pub(super) fn kick(&self) {
        let mut alarm = lock(&self.alarm);
        let waiting = (0..).zip(&self.vps).filter(|(_, vp)| vp.raised.load(Ordering::SeqCst) != 0);
        let kicked = waiting.map(|(index, _)| self.processors.kick(index)).count();
        let pause = alarm.pause;
        alarm.set((kicked > 0).then_some(pause));
        alarm.pause = (pause * 2).min(LONGEST_PAUSE);
    }

    /// Gives `vcpu`, which has been stopped by a kick, the interrupt of highest priority that waits
    /// for it, if it takes one now.
    pub(super) fn inject(&self, vcpu: &Vcpu) -> io::Result<()> {
        if let Some(vp) = self.vps.get(vcpu.index() as usize)
            && let Some((vector, sint)) = vp.next()
            && vcpu.inject(vector)?
        {
            vp.raised.fetch_and(!bit(sint), Ordering::SeqCst);
        }
        Ok(())
    }
}

impl Vp {
    fn vector(&self, sint: u8) -> Option<u8> {
        let vector = self.vectors.get(usize::from(sint))?.load(Ordering::SeqCst);
        (vector != 0).then_some(vector)
    }

    fn next(&self) -> Option<(u8, u8)> {
        let raised = self.raised.load(Ordering::SeqCst);
        let sints = (0..SINT_COUNT as u8).filter(|&sint| raised & bit(sint) != 0);
        sints.filter_map(|sint| Some((self.vector(sint)?, sint))).max()
    }
}

impl Alarm {
    fn set(&mut self, after: Option<Duration>) {
        let set = match after {
            Some(after) => self.timer.reset(after, None),
            None => self.timer.clear(),
        };
        if let Err(error) = set {
            limited!(Warn, "the alarm for interrupts cannot be set: {error}");
        }
    }
}

fn bit(sint: u8) -> u16 {
    1_u16.checked_shl(sint.into()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_vector_goes_first_and_a_masked_source_is_forgotten() {
        let auto = AutoEoi::new(&Arc::new(Processors::new(2))).unwrap();
        assert!(!auto.raise(0, 2), "it is of the other kind");
        for (sint, vector) in [(2, 0x51), (4, 0x93), (5, 0x40)] {
            auto.set(0, sint, Some(vector));
            assert!(auto.raise(0, sint));
        }
        assert_eq!(auto.vps[0].next(), Some((0x93, 4)));
        auto.set(0, 4, None);
        assert_eq!(auto.vps[0].next(), Some((0x51, 2)));
        auto.set(0, 4, Some(0x93));
        assert_eq!(auto.vps[0].next(), Some((0x51, 2)));
        assert_eq!(auto.vps[1].next(), None);
        assert!(!auto.raise(7, 2) && !auto.raise(0, 200));
    }
}
