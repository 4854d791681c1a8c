// SPDX-License-Identifier: MIT OR Apache-2.0

//! Misbehaviour of a VMBus host, by a script: which packet, message or interrupt suffers what.
//!
//! ```text
//!   TOML ──▶ Script ──▶ ChannelPlay     for each open channel: its packets and interrupts
//!                  └──▶ MessagePlay     for the bus: its messages
//! ```
//!
//! A play is asked about each thing that passes, in order, and answers with the action of the first
//! rule that fires. All that it knows comes with the question, the time included, so that the same
//! script, seed and traffic make the same faults; every channel has random numbers of its own, lest
//! the order in which channels have their turns count. What an action means for a bus is the
//! caller's work, except for what it makes of a packet ([`Action::edit`]).
//!
//! No I/O, thread or clock here.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod action;
mod later;
mod operation;
mod play;
mod rule;
mod script;
#[cfg(test)]
mod tests;

pub use action::{Action, Flip, Span, Write};
pub use later::Later;
pub use play::{ChannelPlay, Fired, MessagePlay, OnChannel, Passing};
pub use rule::{End, Often, PacketKind, Prefix, Rule, Subject};
pub use script::{Script, ScriptError};
