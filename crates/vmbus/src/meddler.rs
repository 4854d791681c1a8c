// SPDX-License-Identifier: MIT OR Apache-2.0

//! Faults on purpose: one point at which what passes can be changed, next to the [tap](crate::Tap).
//!
//! Whoever wants a bus that misbehaves implements [`Meddler`]. The tap sees what the meddler has made
//! of what the host sends, and what the guest has sent. Without a meddler, a packet of the host's and
//! each batch of the guest's cost a branch more, and nothing else.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use busway_ring::{Outgoing, Packet};
use busway_wire::Guid;
use busway_wire::control::MessageType;
use busway_wire::packet::PacketType;

use crate::fault::Fault;
use crate::tap::{Place, Side};

/// The token of a meddler's own wake-up, which no handler has.
pub(crate) const TOKEN: u32 = i32::MAX as u32;

/// Who meddles with a bus. Called on the bus's thread; must not block.
pub trait Meddler: Send + Sync {
    /// A channel message is about to be taken or sent; `class` is that of the device that it names.
    fn message(
        &self,
        side: Side,
        kind: MessageType,
        class: Option<Guid>,
        message: &[u8],
    ) -> MessageFate;

    /// The name of a message that was [put off](MessageFate::PutOff) and is to be sent now, or one that
    /// [`remind`](Self::remind) gave; asked by [`Bus::overdue`](crate::Bus::overdue) until there is none.
    fn overdue(&self) -> Option<u64>;

    /// A name that [`overdue`](Self::overdue) is to have when so much time has passed: a device is away
    /// until then. Without one it is away no longer than it must be.
    fn remind(&self, after: Duration) -> Option<u64>;

    /// A channel is being opened. Who meddles with it, if anybody does; an error is the host's.
    fn channel(&self, place: &Place) -> Result<Option<Box<dyn ChannelMeddler>>, Fault>;
}

/// What becomes of a channel message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageFate {
    /// What it would have anyway.
    Passes,
    /// It is as if it had not been sent.
    Lost,
    /// It is as if it had been sent twice.
    Twice,
    /// OPEN_CHANNEL and GPADL_HEADER: the guest is told that it failed. Others pass.
    Refused,
    /// The host's: these bytes are sent instead, the first 240 of them. The guest's pass.
    Becomes(Vec<u8>),
    /// The host's: it is kept under this name, and others overtake it. The guest's pass.
    PutOff(u64),
}

/// Who meddles with one open channel, on its worker; must not block.
pub trait ChannelMeddler: Send {
    /// The host is about to send a packet.
    fn sends(&mut self, packet: &Outgoing<'_>) -> HostFate;

    /// A packet of the guest's has been taken out of the ring.
    fn takes(&mut self, packet: &Packet<'_>) -> GuestFate;

    /// The rings have been published, and by their rules an interrupt is due, or not. Whether one is
    /// raised.
    fn interrupts(&mut self, is_due: bool) -> bool;

    /// A packet that was kept and is to be sent now. Asked at each turn until there is none.
    fn late(&mut self) -> Option<HeldPacket>;

    /// Whether the guest's packets stay where they are for now.
    fn holds(&self) -> bool;

    /// What is wanted of it has changed, as [`Bus::meddle`](crate::Bus::meddle) was told.
    fn renew(&mut self);

    /// It is dropped next, and nothing is to remain of it: the packets that it has kept, in the order
    /// in which they are due, and whether an interrupt is.
    fn let_go(&mut self) -> (Vec<HeldPacket>, bool);

    /// Becomes readable when the channel should have a turn for the meddler's sake: a timer, for
    /// example.
    fn wakeup(&self) -> BorrowedFd<'_>;
}

/// How long a device stays away that is taken from the guest. The longest of two is what counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Absence {
    /// At least so long; it is offered again when the guest has let go of it, too.
    For(Duration),
    /// For good: it is dropped.
    Lasting,
}

/// What becomes of a packet of the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostFate {
    /// It is sent.
    Passes,
    /// These are sent instead, if any.
    Becomes(Vec<HeldPacket>),
    /// It is sent, and what it refers to changes.
    Rewrites(Rewrite),
    /// It is sent, and the device is taken from the guest.
    Rescinds(Absence),
}

/// Bytes that change in what a packet of transfer pages refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Bytes from the start of its first range.
    pub at: usize,
    /// What stands there; the range does not grow.
    pub bytes: Vec<u8>,
}

/// What becomes of a packet of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestFate {
    /// The device gets it.
    Passes,
    /// The device does not.
    Lost,
    /// The device gets it, and is taken from the guest.
    Rescinds(Absence),
}

/// A packet for the guest that is not in the ring yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPacket {
    /// What it is.
    pub kind: PacketType,
    /// [`COMPLETION_REQUESTED`](busway_wire::packet::COMPLETION_REQUESTED) or 0.
    pub flags: u16,
    /// The request's name.
    pub transaction_id: u64,
    /// What goes between descriptor and payload; a multiple of 8 bytes.
    pub header: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
}

impl HeldPacket {
    /// A copy of `packet`.
    pub fn of(packet: &Outgoing<'_>) -> Self {
        let Outgoing { kind, flags, transaction_id, header, payload } = *packet;
        Self { kind, flags, transaction_id, header: header.to_vec(), payload: payload.to_vec() }
    }

    /// The packet.
    pub fn outgoing(&self) -> Outgoing<'_> {
        let &Self { kind, flags, transaction_id, ref header, ref payload } = self;
        Outgoing { kind, flags, transaction_id, header, payload }
    }
}
