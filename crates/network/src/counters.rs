// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a card has done for its guest, as the guest may ask.

use std::sync::atomic::{AtomicU64, Ordering};

use busway_wire::rndis::Oid;

/// A number that one thread adds to and any may read: adding costs a store.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One channel's frames; on cache lines of its own, since each channel has its own thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    pub(crate) sent: Counter,
    /// Which the network did not take, or which made no sense.
    pub(crate) not_sent: Counter,
    pub(crate) received: Counter,
    /// Longer than the guest takes.
    pub(crate) too_long: Counter,
    /// Lost on the way to another channel, which did not fetch them.
    pub(crate) no_room: Counter,
}

impl Counters {
    /// Begins anew. Nobody adds meanwhile.
    pub(crate) fn reset(&self) {
        let Self { sent, not_sent, received, too_long, no_room } = self;
        for counter in [sent, not_sent, received, too_long, no_room] {
            counter.0.store(0, Ordering::Relaxed);
        }
    }
}

/// What `oid` asks for, over all channels; `None` if it is no number of frames.
pub(crate) fn total(oid: Oid, channels: &[Counters]) -> Option<u64> {
    let sum = |of: fn(&Counters) -> &Counter| {
        channels.iter().fold(0_u64, |sum, counters| sum.wrapping_add(of(counters).get()))
    };
    Some(match oid {
        Oid::GEN_XMIT_OK => sum(|counters| &counters.sent),
        Oid::GEN_XMIT_ERROR => sum(|counters| &counters.not_sent),
        Oid::GEN_RCV_OK => sum(|counters| &counters.received),
        Oid::GEN_RCV_ERROR => sum(|counters| &counters.too_long),
        Oid::GEN_RCV_NO_BUFFER => sum(|counters| &counters.no_room),
        // There is no cable to share.
        Oid::ETHERNET_RCV_ERROR_ALIGNMENT
        | Oid::ETHERNET_XMIT_ONE_COLLISION
        | Oid::ETHERNET_XMIT_MORE_COLLISIONS => 0,
        _ => return None,
    })
}
