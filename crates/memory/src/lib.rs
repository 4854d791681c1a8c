// SPDX-License-Identifier: MIT OR Apache-2.0

//! Guest memory, as every other crate sees it.
//!
//! All of a guest's RAM is one memfd, mapped once for the VMM ([`GuestMemory`]). On top of that
//! stand the things that a VMBus host does with it: a packet's external pages become a list of
//! [`GuestSlices`] that goes to the kernel as it is, a buffer that a device shares with its guest
//! becomes a [`GuestBuffer`], and a ring's pages become one contiguous [`RingArea`] in which no
//! packet wraps.
//!
//! A guest page is memory that somebody else writes at any time. So nothing here hands out a
//! reference to it: bytes are copied in and out, single words are atomics, and I/O takes raw
//! vectors that keep the mapping alive. The `unsafe` code of guest memory is in this crate and
//! nowhere else.

mod buffer;
mod guest;
mod ring_area;
mod slices;

pub use buffer::GuestBuffer;
pub use guest::{AllocateError, GuestMemory, Region};
pub use ring_area::{Backing, MapRingError, RingArea};
pub use slices::{BeyondMemory, GuestPart, GuestSlices};
pub use vm_memory::{Bytes, GuestAddress};

/// The size of a guest page in bytes.
pub const PAGE_SIZE: usize = 4096;
