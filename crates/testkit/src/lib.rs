// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest end of VMBus, in process.
//!
//! A [`Pair`] is a host's whole bus and a guest's whole driver stack in one thread, with guest
//! memory, SynIC pages and rings between them as in a machine, and neither KVM nor a kernel: what
//! the guest does, it does to memory and by calls that stand for its hypercalls. A test plays the
//! guest, step by step, and sees every message, interrupt and packet.
//!
//! [`tiny_guest`] is the opposite: a guest of our own on real KVM, through the program `busway`.
//!
//! Never part of the product; it may panic, and its messages say which step of a test failed.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "only tests call this, and they fail by panicking"
)]

mod guest_channel;
mod pages;
mod pair;
mod platform;
pub mod tiny_guest;

pub use guest_channel::{GuestChannel, GuestPacket};
pub use pages::Pages;
pub use pair::{Connected, Pair, PairConfig};
