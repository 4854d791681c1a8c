// SPDX-License-Identifier: MIT OR Apache-2.0

//! Strictness: what a guest does that real hosts or the documents forbid, and a lenient host lets
//! pass.
//!
//! ```text
//!   tap ──▶ Checker ──▶ Finding ──▶ Tally
//!             ├─ Connection   channel messages: lengths, order, what is alive
//!             └─ Channel      packets: descriptors, ids, signals, and by class the payload
//! ```
//!
//! Pure: what passes goes in, findings come out; no input, output, thread or clock. The memory for
//! a connection and for each channel is bounded, whatever a guest sends.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod channel;
mod connection;
mod finding;
mod network;
mod pipe;
mod rule;
mod storage;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use busway_vmbus::{Event, Passing};

use channel::Channel;
use connection::Connection;

pub use finding::{At, Finding};
pub use rule::Rule;
pub use tally::Tally;

/// Checks one machine, from its start.
#[derive(Debug, Default)]
pub struct Checker {
    connection: Connection,
    /// By the host's number; as many as the host has open.
    channels: HashMap<u32, Channel>,
}

impl Checker {
    /// Takes what passes; adds what is wrong with it to `found`.
    pub fn see(&mut self, what: &Passing<'_>, found: &mut Vec<Finding>) {
        match what {
            Passing::GuestMessage(bytes) => self.connection.guest(bytes, found),
            Passing::HostMessage(_, bytes) => self.connection.host(bytes),
            Passing::Channel(place, Event::Closed) => {
                self.channels.remove(&place.key.number());
            }
            Passing::Channel(place, event) => {
                let channel = self.channels.entry(place.key.number()).or_default();
                channel.see(place, event, found);
            }
        }
    }
}

/// Adds a finding unless the field holds what it should.
fn demand(holds: bool, found: &mut Vec<Finding>, finding: impl FnOnce() -> Finding) {
    if !holds {
        found.push(finding());
    }
}
