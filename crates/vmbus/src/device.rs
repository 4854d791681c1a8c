// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a device is to the bus.
//!
//! A device is split the way threads are. [`Device`] is one object on the bus's thread: it makes
//! the offer and holds what its channels share. [`ChannelHandler`] is one object for each open
//! channel, owned by one worker alone, so that no data path takes a lock.
//!
//! # Life cycle
//!
//! ```text
//!   bus thread                    the channel's worker
//!   ──────────                    ────────────────────
//!   Device::offer
//!       │  guest: OPEN
//!   Device::open ───────────────▶ ChannelHandler exists
//!       │                           │
//!       │                           ├─▶ on_packet ─▶ on_packet ─▶ … ─▶ on_batch ─┐
//!       │                           │        (as long as has_room)               │
//!       │                           ├─▶ on_ready(token) ─────────────────────────┤
//!       │                           ├─▶ release_gpadl ───────────────────────────┤
//!       │                           │◀───────────────────────────────────────────┘
//!       │  guest: CLOSE, UNLOAD,    │
//!       │  rescind, reset           ▼
//!       └────────────────────────▶ close ─▶ InFlight ─▶ on_ready, close ─▶ Drained ─▶ dropped
//!       │  guest: OPEN
//!   Device::open …
//! ```
//!
//! - `open` may be called again as soon as the last handler was dropped, and for a subchannel while
//!   other channels of the device are open.
//! - A handler that has asked for subchannels sees each of them opened as a channel of its device;
//!   they go when the channel that asked is closed.
//! - A device whose offer has the flag of a socket (TLNPI) is used once: it is taken from the guest
//!   when that closes its channel, lets go of its relid, or starts over.
//! - `on_batch` follows every run of `on_packet` and each `on_ready`, and is called with nothing
//!   taken too: when the guest has made room for what [`Io::send`] could not send, for example.
//! - After the first `close`, no `on_packet` comes and nothing that is sent reaches the guest. As
//!   long as it returns [`Closing::InFlight`], `on_ready` goes on and `close` is asked again after
//!   each.
//! - A method that returns a [`Fault`] is followed by `close` and nothing else.

use std::os::fd::BorrowedFd;

use busway_memory::GuestMemory;
use busway_ring::Packet;
use busway_wire::{Guid, Version};

use crate::channel::Progress;
use crate::fault::Fault;
use crate::gpadl::GpadlId;
use crate::io::Io;
use crate::offer::Offer;

/// A device on the bus. See the [life cycle](self).
pub trait Device: Send {
    /// What the guest is told of the device. Must be the same each time.
    fn offer(&self) -> Offer;

    /// The guest opens a channel. Called on the bus's thread; must not block.
    ///
    /// An error is the host's: there is nothing in an open that a device could object to.
    fn open(&mut self, opening: &Opening) -> Result<Box<dyn ChannelHandler>, Fault>;
}

/// Where the guest's own connections to the host go (hv_sock).
pub trait Connector: Send {
    /// The guest asks for a connection from its end to a service; the device that is offered to it
    /// as such, or nothing to refuse it. Called on the bus's thread; must not block, and must set a
    /// limit to how many there are.
    fn connect(&mut self, endpoint: Guid, service: Guid) -> Option<Box<dyn Device>>;
}

/// What a device knows when a channel of it is opened.
#[derive(Debug)]
pub struct Opening {
    /// The guest's memory.
    pub memory: GuestMemory,
    /// The version of the VMBus connection.
    pub version: Version,
    /// 0 for the primary channel, else which subchannel.
    pub subchannel: u16,
    /// The driver's own data.
    pub user_data: [u8; 120],
}

/// One open channel's end on the host. See the [life cycle](self).
pub trait ChannelHandler: Send {
    /// Takes one packet. What it answers may come later, from any method.
    fn on_packet(&mut self, packet: Packet<'_>, io: &mut Io<'_>) -> Result<(), Fault>;

    /// No packet follows for now: what was gathered should be started, what is done be answered.
    /// A handler that has more to do than should be done at once returns [`Progress::More`], and
    /// has its next turn when others have had theirs.
    fn on_batch(&mut self, _io: &mut Io<'_>) -> Result<Progress, Fault> {
        Ok(Progress::Idle)
    }

    /// The back end that [`wakeups`](Self::wakeups) named `token` has something.
    fn on_ready(&mut self, _token: u32, _io: &mut Io<'_>) -> Result<(), Fault> {
        Ok(())
    }

    /// Whether one more packet can be taken. While it cannot, packets stay in the ring, and the
    /// guest is held back when that is full.
    fn has_room(&self) -> bool {
        true
    }

    /// The descriptors by which back ends say that they have something. Asked once; they must live
    /// as long as the handler.
    fn wakeups(&self) -> Vec<Wakeup<'_>> {
        Vec::new()
    }

    /// The guest wants a list of pages back that it made for this channel. Nothing may touch them
    /// any more when this returns [`Closing::Drained`]; until then it is asked again after each
    /// `on_ready`.
    fn release_gpadl(&mut self, _id: GpadlId) -> Closing {
        Closing::Drained
    }

    /// Gives up all that is in flight, and says whether any of it can still touch the guest's
    /// memory.
    fn close(&mut self) -> Closing {
        Closing::Drained
    }
}

/// A descriptor of a back end.
#[derive(Clone, Copy, Debug)]
pub struct Wakeup<'a> {
    /// What [`ChannelHandler::on_ready`] is called with.
    pub token: u32,
    /// The descriptor.
    pub fd: BorrowedFd<'a>,
    /// When it is called.
    pub when: When,
}

/// When a descriptor wakes its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// As long as it is readable.
    Readable,
    /// Each time that it has become readable or writable. The handler goes on until the system says
    /// that it would block, or remembers that it has not.
    Changed,
}

/// How far a close has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// Something still works on the guest's memory; ask again after the next `on_ready`.
    InFlight,
    /// Nothing can touch the guest's memory any more.
    Drained,
}
