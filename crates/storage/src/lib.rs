// SPDX-License-Identifier: MIT OR Apache-2.0

//! The synthetic SCSI controller: what the guest's storvsc talks to, and the disks behind it.
//!
//! ```text
//!   packet ─▶ channel ─▶ handshake                    versions and properties
//!                │
//!                ├─▶ target: command, data ─▶ Reply   at once
//!                │                        └─▶ Io ──▶ busway_block::Queue
//!                │                                        │
//!   completion ◀─┴─────────────── Reply ◀─────────────────┘
//! ```
//!
//! [`target`] is the SCSI part and knows no packet; `handshake` and `channel` are storvsc's and
//! know no command. A guest's SCSI error is sense data; what a guest gets wrong about its own packet
//! is an SRB status; what cannot be parsed closes the channel.
//!
//! Sources: Linux `drivers/scsi/storvsc_drv.c` for the packets, T10's SPC-4 and SBC-3 for the
//! commands.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod channel;
mod controller;
mod dvd;
mod handshake;
mod held;
mod inquiry;
mod luns;
mod mode;
mod reply;
mod shared;
mod stops;
pub mod target;
mod units;
mod unmap;

pub use controller::StorageController;
pub use luns::{Address, LunError, Luns};
pub use reply::Reply;
pub use stops::Stops;
pub use units::{PlugError, UnitState, Units};

/// Most bytes that one command moves, as guests are told.
pub const MAX_TRANSFER_BYTES: u32 = 1 << 20;
