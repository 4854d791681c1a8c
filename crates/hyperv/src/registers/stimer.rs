// SPDX-License-Identifier: MIT OR Apache-2.0

//! A synthetic timer.
//!
//! ```text
//!          enabled, count ≠ 0           time has come             delivered
//!  stopped ──────────────────▶ armed ──────────────▶ expired ─────────────────▶ stopped
//!     ▲                          ▲                    │   │ ▲                      (one-shot)
//!     └── count 0, disabled ─────┘                    │   └─┘ slot busy: when it is free again
//!                                └────────────────────┘
//!                                  periodic, delivered or not
//! ```
//!
//! A periodic timer does not wait for a busy slot: that tick is lost, and the next will come.
//!
//! Source: TLFS, "Timers and Time Services", "Synthetic Timers".

/// HV_X64_MSR_STIMERn_CONFIG bit 0.
const ENABLE: u64 = 1;
/// Bit 1: the count is a period, and the timer goes on.
const PERIODIC: u64 = 1 << 1;
/// Bit 3: writing a count that is not 0 enables the timer.
const AUTO_ENABLE: u64 = 1 << 3;
/// Bit 12: bits 11:4 are a vector to raise; without it, bits 19:16 are the SINT for a message.
const DIRECT: u64 = 1 << 12;

/// The shortest period that is kept, in 100 ns: 0.1 ms. A guest that asks for a tick each 100 ns
/// gets this instead, or the host's timer thread would have no other work.
const SHORTEST_PERIOD: u64 = 1000;

/// A timer that has expired, and how its VP is to hear of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Which of the VP's timers.
    pub timer: u8,
    /// When it was due, in reference time.
    pub due: u64,
    /// How.
    pub notice: Notice,
}

/// How a VP hears of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Raise this vector.
    Vector(u8),
    /// Put a message into this SINT's slot and raise the SINT.
    Message(u8),
}

/// Whether a VP could be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// It was.
    Yes,
    /// Not now: its slot is busy, its page is missing, its SINT is masked.
    Later,
}

/// A timer's two registers, and what follows from them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timer {
    config: u64,
    count: u64,
    /// When it expires, in reference time.
    due: Option<u64>,
    /// Its time came and its VP could not be told.
    waiting: bool,
}

impl Timer {
    pub(super) const fn config(&self) -> u64 {
        self.config
    }

    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Direct mode is asked for.
    pub(super) const fn is_direct(config: u64) -> bool {
        config & DIRECT != 0
    }

    pub(super) fn set_config(&mut self, config: u64, now: u64) {
        self.config = config;
        self.schedule(now);
    }

    pub(super) fn set_count(&mut self, count: u64, now: u64) {
        self.count = count;
        if count == 0 {
            self.config &= !ENABLE;
        } else if self.config & AUTO_ENABLE != 0 {
            self.config |= ENABLE;
        }
        self.schedule(now);
    }

    fn schedule(&mut self, now: u64) {
        // No message can come from SINT 0: such a timer is disabled at once.
        if !Self::is_direct(self.config) && self.sint() == 0 {
            self.config &= !ENABLE;
        }
        self.waiting = false;
        self.due = match self.config & ENABLE {
            0 => None,
            _ if self.count == 0 => None,
            _ if self.is_periodic() => Some(now.saturating_add(self.period())),
            _ => Some(self.count),
        };
    }

    /// Delivers what is due, and returns when there is more to do.
    ///
    /// A one-shot that waits for its slot is tried each time, and does not count as due.
    pub(super) fn run(
        &mut self,
        timer: u8,
        now: u64,
        deliver: &mut dyn FnMut(Expiry) -> Delivered,
    ) -> Option<u64> {
        let due = self.due?;
        if due > now {
            return Some(due);
        }
        let delivered = deliver(Expiry { timer, due, notice: self.notice() });
        if self.is_periodic() {
            self.due = Some(next_tick(due, self.period(), now));
            return self.due;
        }
        self.waiting = delivered == Delivered::Later;
        if !self.waiting {
            self.config &= !ENABLE;
            self.due = None;
        }
        None
    }

    /// It has expired and its VP does not know.
    pub(super) const fn is_waiting(&self) -> bool {
        self.waiting
    }

    const fn is_periodic(&self) -> bool {
        self.config & PERIODIC != 0
    }

    fn period(&self) -> u64 {
        self.count.max(SHORTEST_PERIOD)
    }

    const fn sint(&self) -> u8 {
        (self.config >> 16 & 0xf) as u8
    }

    const fn notice(&self) -> Notice {
        if Self::is_direct(self.config) {
            Notice::Vector((self.config >> 4 & 0xff) as u8)
        } else {
            Notice::Message(self.sint())
        }
    }
}

/// The first multiple of `period` behind `due` that is not yet over.
fn next_tick(due: u64, period: u64, now: u64) -> u64 {
    let missed = now.saturating_sub(due) / period;
    due.saturating_add(period.saturating_mul(missed.saturating_add(1)))
}
