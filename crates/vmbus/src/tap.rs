// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tap: one point that each channel message and each packet passes.
//!
//! Whoever wants a record of a bus implements [`Tap`]. Without one, a packet costs a branch more and
//! nothing else.

use std::sync::Arc;

use busway_ring::{Outgoing, Packet};
use busway_wire::Guid;
use busway_wire::packet::{Descriptor, PacketType};

use crate::action::{ChannelKey, InterruptTarget, MessageTarget};
use crate::latency::{Latency, Stopwatch};

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The guest.
    Guest,
    /// The host.
    Host,
}

/// Who sees what passes. Called on the threads of the bus and of the channels; must not block.
pub trait Tap: Send + Sync {
    /// This passes now.
    fn passes(&self, what: &Passing<'_>);

    /// Whether packets and turns are wanted, beside what is [published](Event::Published) of them.
    fn wants_packets(&self) -> bool {
        true
    }

    /// Nanoseconds from some moment on; `None` while nobody wants to know how long requests take.
    /// Asked at each turn of a channel, and while it is known for each request and each answer.
    fn now(&self) -> Option<u64> {
        None
    }

    /// Whether data that lies outside of packets is wanted where there may be much of it: the
    /// contents of disks, frames.
    fn wants_data(&self) -> bool;
}

/// Something on its way.
#[derive(Clone, Copy, Debug)]
pub enum Passing<'a> {
    /// A channel message of the guest's, before it is looked at.
    GuestMessage(&'a [u8]),
    /// A channel message that the guest has in its slot.
    HostMessage(MessageTarget, &'a [u8]),
    /// Something on a channel.
    Channel(&'a Place, Event<'a>),
}

/// An open channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The host's name for it.
    pub key: ChannelKey,
    /// Which driver is meant; see [`busway_wire::class`].
    pub class: Guid,
    /// Which device.
    pub instance: Guid,
    /// 0 for the primary channel.
    pub subchannel: u16,
    /// The connection by which the guest signals it.
    pub connection_id: u32,
}

/// What happens on a channel.
#[derive(Clone, Copy)]
pub enum Event<'a> {
    /// It is open, with so many bytes of data in the guest's ring and in the host's.
    Opened {
        /// Where the guest wants to be interrupted.
        target: InterruptTarget,
        /// Bytes that the guest can have in its ring.
        incoming_len: u32,
        /// Bytes that the host can have in its own.
        outgoing_len: u32,
    },
    /// Its worker has a turn.
    Turn(Cause),
    /// A packet was taken out of the guest's ring, or put into the host's.
    Packet {
        /// Whose it is.
        side: Side,
        /// Where it starts in the ring.
        at: u32,
        /// What it begins with.
        descriptor: &'a Descriptor,
        /// What stands between that and the payload.
        header: &'a [u8],
        /// The payload; the guest's with padding.
        payload: &'a [u8],
    },
    /// Data that a packet refers to.
    Outside {
        /// Whose it is.
        side: Side,
        /// The packet's.
        transaction_id: u64,
        /// Bytes.
        len: usize,
        /// Copies the first of them; how many.
        read: &'a dyn Fn(&mut [u8]) -> usize,
    },
    /// Requests were answered, and took so long; comes before [`Published`](Self::Published).
    Timed(&'a Latency),
    /// The rings were shown to the guest.
    Published(Published),
    /// Nothing passes here any more.
    Closed,
}

impl std::fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Opened { target, .. } => write!(f, "Opened({target:?})"),
            Self::Turn(cause) => write!(f, "Turn({cause:?})"),
            Self::Packet { side, at, descriptor, .. } => {
                write!(f, "Packet({side:?} {at:#x} {descriptor})")
            }
            Self::Outside { side, transaction_id, len, .. } => {
                write!(f, "Outside({side:?} {transaction_id:#x} {len} B)")
            }
            Self::Timed(latency) => latency.fmt(f),
            Self::Published(published) => published.fmt(f),
            Self::Closed => f.write_str("Closed"),
        }
    }
}

/// Why a channel's worker has a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The channel was opened.
    Start,
    /// The guest signalled.
    Signal,
    /// There was more to do than one turn should last.
    More,
    /// The back end with this token has something.
    BackEnd(u32),
}

/// Where the rings stand, and whether the guest is to be interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where the host goes on in the guest's ring.
    pub incoming_read: u32,
    /// Where the guest does.
    pub incoming_write: u32,
    /// Bytes for which the guest waits in its ring, or 0.
    pub incoming_pending: u32,
    /// Where the guest goes on in the host's ring.
    pub outgoing_read: u32,
    /// Where the host does.
    pub outgoing_write: u32,
    /// Not 0 while the guest wants no interrupts for packets.
    pub outgoing_mask: u32,
    /// The host's ring was empty and the guest wants to know of packets.
    pub reader_waits: bool,
    /// The guest's ring has the room that the guest waits for.
    pub writer_waits: bool,
    /// What was taken out of the guest's ring since this was said last.
    pub taken: Traffic,
    /// What was put into the host's ring since this was said last.
    pub put: Traffic,
}

/// Packets, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes of them, without trailers, and without the data that they refer to.
    pub bytes: u64,
}

impl Traffic {
    const fn add(&mut self, descriptor: &Descriptor) {
        self.packets += 1;
        self.bytes += descriptor.total_len() as u64;
    }
}

/// A channel's tap.
pub(crate) struct Tapped {
    tap: Arc<dyn Tap>,
    place: Place,
    /// Where the rings stood when that was last said.
    said: (u32, u32),
    wants_packets: bool,
    taken: Traffic,
    put: Traffic,
    stopwatch: Stopwatch,
}

impl Tapped {
    pub(crate) fn new(tap: Arc<dyn Tap>, place: Place) -> Self {
        let (wants_packets, said) = (tap.wants_packets(), (u32::MAX, u32::MAX));
        let (taken, put) = (Traffic::default(), Traffic::default());
        let stopwatch = Stopwatch::new();
        Self { tap, place, said, wants_packets, taken, put, stopwatch }
    }

    fn passes(&self, event: Event<'_>) {
        self.tap.passes(&Passing::Channel(&self.place, event));
    }

    pub(crate) fn opened(&self, target: InterruptTarget, incoming_len: u32, outgoing_len: u32) {
        self.passes(Event::Opened { target, incoming_len, outgoing_len });
    }

    pub(crate) fn turn(&mut self, cause: Cause) {
        self.stopwatch.run(self.tap.now().is_some());
        if self.wants_packets {
            self.passes(Event::Turn(cause));
        }
    }

    pub(crate) fn read(&mut self, at: u32, packet: &Packet<'_>) {
        let Packet { descriptor, header, payload } = packet;
        self.taken.add(descriptor);
        if self.stopwatch.runs()
            && descriptor.wants_completion()
            && let Some(now) = self.tap.now()
        {
            self.stopwatch.asked(descriptor.transaction_id, now);
        }
        if !self.wants_packets {
            return;
        }
        self.passes(Event::Packet { side: Side::Guest, at, descriptor, header, payload });
    }

    pub(crate) fn wrote(&mut self, at: u32, packet: &Outgoing<'_>) {
        let Outgoing { header, payload, .. } = *packet;
        let descriptor = packet.descriptor();
        if let Some(descriptor) = &descriptor {
            self.put.add(descriptor);
        }
        if self.stopwatch.runs()
            && packet.kind == PacketType::COMPLETION
            && let Some(now) = self.tap.now()
        {
            self.stopwatch.answered(packet.transaction_id, now);
        }
        if let Some(descriptor) = descriptor.as_ref().filter(|_| self.wants_packets) {
            self.passes(Event::Packet { side: Side::Host, at, descriptor, header, payload });
        }
    }

    pub(crate) fn wants_data(&self) -> bool {
        self.tap.wants_data()
    }

    pub(crate) fn show(
        &self,
        side: Side,
        transaction_id: u64,
        len: usize,
        read: &dyn Fn(&mut [u8]) -> usize,
    ) {
        if self.wants_packets {
            self.passes(Event::Outside { side, transaction_id, len, read });
        }
    }

    /// Says where the rings stand, if either has moved.
    pub(crate) fn published(&mut self, mut published: Published) {
        let now = (published.incoming_read, published.outgoing_write);
        if std::mem::replace(&mut self.said, now) != now {
            published.taken = std::mem::take(&mut self.taken);
            published.put = std::mem::take(&mut self.put);
            if let Some(latency) = self.stopwatch.take() {
                self.passes(Event::Timed(&latency));
            }
            self.passes(Event::Published(published));
        }
    }

    pub(crate) fn closed(&self) {
        self.passes(Event::Closed);
    }
}
