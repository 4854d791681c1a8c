// SPDX-License-Identifier: MIT OR Apache-2.0

//! Hyper-V sockets: each connection of a guest's AF_VSOCK is a unix socket of the host.
//!
//! ```text
//!   guest's connect(2, PORT) ─▶ TL_CONNECT_REQUEST ─▶ Directory ─▶ a unix socket, DIR/vsock_PORT
//!                            ◀─ offer ◀─ Connection (a device of one channel)
//!   host's CONNECT PORT ─▶ Connection ─▶ offer ─▶ guest's listen(PORT), or nobody
//!
//!   open channel: Relay moves bytes until both sides have said that they are done
//! ```
//!
//! A connection's device goes with it: when both have ended, when one breaks, when the guest closes
//! the channel. The guest waits for the RESCIND that follows, however it came to that.
//!
//! Source: Linux `net/vmw_vsock/hyperv_transport.c`.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod connection;
mod directory;
mod relay;

pub use connection::{Connection, Opened};
pub use directory::Directory;
