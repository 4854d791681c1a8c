// SPDX-License-Identifier: MIT OR Apache-2.0

//! The synthetic network card: what the guest's netvsc talks to.
//!
//! ```text
//!   packet ─▶ channel ─▶ handshake      versions, buffers, subchannels (NVSP)
//!                ├─▶ control            questions and settings (RNDIS)
//!                ├─▶ send ───────────▶ busway_frames::Queue
//!                │                          │
//!   packet ◀─ outbox ◀─ receive ◀───────────┘
//! ```
//!
//! Each channel of the card has a worker of its own, and a queue of the network. What they share is
//! [`shared`]: settings that change seldom, and a letter box for frames that came in by one channel
//! and belong to another. A frame is read into the guest's receive buffer and never copied again; it
//! is sent from the guest's pages as they are.
//!
//! What a guest gets wrong about one message is the status of its completion; what cannot be
//! parsed closes the channel.
//!
//! Sources: Linux `drivers/net/hyperv/netvsc.c`, `rndis_filter.c`; MS-RNDIS.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod buffers;
mod card;
mod channel;
mod checksum;
mod control;
mod counters;
mod ethernet;
mod handshake;
mod mail;
mod outbox;
mod receive;
mod send;
mod settings;
mod shared;
mod steering;

pub use card::{CardOptions, NetworkCard};
pub use settings::Mac;
pub use shared::LinkControl;

/// The largest MTU that a card can have.
pub const MAX_MTU: u16 = 9000;
