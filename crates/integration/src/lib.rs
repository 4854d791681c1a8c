// SPDX-License-Identifier: MIT OR Apache-2.0

//! The integration components: small services that a host has of its guest, or does for it.
//!
//! ```text
//!   who asks                 worker of the channel                    guest
//!   ────────                 ─────────────────────                    ─────
//!   Shutdown, Kvp, ... ──▶   Conversation: versions, one question  ─▶ hv_utils
//!            ◀── answer ──     at a time, patience              ◀──
//!   Heartbeat, TimeSync      ask by themselves, by a timer
//! ```
//!
//! A component is a handle, which makes a [`Device`](busway_vmbus::Device) for each life of the
//! machine: clones and devices are the same component, and who asks while no guest is there is told
//! so. Asking blocks its caller, never the guest's channel.
//!
//! The host begins: the first packet on a channel asks which versions are spoken. Then one question
//! is under way at a time; a guest that does not answer within the question's patience has failed
//! it, and what it says later is not listened to.
//!
//! Source: Linux `drivers/hv/hv_util.c`, `hv_kvp.c`, `hv_snapshot.c`, `hv_fcopy.c`.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod asks;
mod component;
mod conversation;
mod failure;
mod file_copy;
mod heartbeat;
mod kvp;
mod shutdown;
mod time_sync;
mod timer;
mod vss;

pub use component::Phase;
pub use failure::Failure;
pub use file_copy::{CopyError, FileCopy, Target};
pub use heartbeat::{Beats, Heartbeat};
pub use kvp::{Addresses, Kvp};
pub use shutdown::Shutdown;
pub use time_sync::{Clock, Reading, TimeSync};
pub use vss::{Frozen, Vss};
