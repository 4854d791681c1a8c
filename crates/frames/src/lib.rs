// SPDX-License-Identifier: MIT OR Apache-2.0

//! Networks: where a card's frames go and come from.
//!
//! ```text
//!   Network, shared                   Queue, one for each channel
//!   a TAP, a socket, nothing   ◀────  send(header, guest slices), receive(into guest slices)
//! ```
//!
//! A TAP's frames go between the guest's pages and the kernel, with nothing copied in between; a
//! [`FrameHeader`] before each says which checksums are missing and how it may be cut. A socket
//! knows frames of the network alone, and they are copied through a buffer: one system call moves
//! many.
//!
//! No packet of a ring, no RNDIS and no thread here. The system calls on raw memory, and with them
//! all `unsafe` code, are in one place, `kernel`.

mod error;
mod header;
mod kernel;
mod loopback;
mod network;
mod passt;
mod queue;
mod stream;
mod tap;

pub use error::OpenError;
pub use header::{FrameHeader, GsoType, HeaderFlags};
pub use network::{Network, Offloads};
pub use queue::{Lost, Queue};

/// Bytes of the longest frame: an IP packet of 65535 bytes, an Ethernet header and a VLAN tag.
pub const MAX_FRAME: usize = 65535 + 14 + 4;

/// Bytes of the longest beginning that a frame may have apart from its rest: the headers that a card
/// changes, and a VLAN tag.
pub const MAX_HEAD: usize = 256 + 4;
