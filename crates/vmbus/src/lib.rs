// SPDX-License-Identifier: MIT OR Apache-2.0

//! The host end of VMBus.
//!
//! ```text
//!              guest's messages                        guest's signals
//!                     │                                       │
//!   bus thread   ┌────▼────┐  actions   ┌──────────┐   ┌──────▼──────┐  a worker
//!                │ Server  │───────────▶│   Bus    │──▶│   Channel   │
//!                │ (pure)  │◀───────────│ devices  │   │ rings, Io   │
//!                └─────────┘ completions└──────────┘   └──────┬──────┘
//!                                                      ChannelHandler
//! ```
//!
//! - [`Server`] is the control plane: a state machine that neither waits nor knows a device.
//! - [`Device`] and [`ChannelHandler`] are what a device implements; [`device`] has the life cycle.
//! - [`Channel`] is an open channel, to be driven by a worker: [`Channel::run`] takes what the guest
//!   has sent, [`Channel::ready`] what a back end has done.
//! - [`Bus`] joins them; the machine around it implements [`Platform`] and [`Interrupts`].
//!
//! No threads, clocks or sockets here: the machine brings them, and a test brings none.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod action;
mod bus;
mod channel;
pub mod device;
mod fault;
mod gpadl;
mod io;
mod latency;
mod limit;
mod meddler;
mod milestone;
mod offer;
mod server;
mod tap;

pub use action::{Action, ChannelKey, Completion, InterruptTarget, MessageTarget, OpenRequest};
pub use bus::{Bus, Delivery, DeviceId, Platform};
pub use channel::{Channel, Command, Progress, RingSnapshots};
pub use device::{ChannelHandler, Closing, Connector, Device, Opening, Wakeup, When};
pub use fault::Fault;
pub use gpadl::{Gpadl, GpadlError, GpadlId, Range};
pub use io::{Interrupts, Io, Sent, append_external_pages, external_pages};
pub use latency::Latency;
pub use limit::{LogLimit, Seen};
pub use meddler::{
    Absence, ChannelMeddler, GuestFate, HeldPacket, HostFate, Meddler, MessageFate, Rewrite,
};
pub use milestone::{Milestone, Step, Witness};
pub use offer::Offer;
pub use server::{ControlError, Server, ServerConfig};
pub use tap::{Cause, Event, Passing, Place, Published, Side, Tap, Traffic};
