// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests and their answers.

use std::collections::HashMap;

use super::{About, Side};

/// Requests that are remembered at once. A capture may be of a guest that makes any number and
/// lets none be answered.
const MOST: usize = 1 << 16;

/// By what an answer names its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A packet that asked for a completion: its channel, who sent it, its id.
    Packet(u32, Side, u64),
    /// A request of an integration component: its channel, its id.
    Component(u32, u8),
    /// An RNDIS request: its channel, its id.
    Rndis(u32, u32),
    /// A channel message with one answer: what it asks for, and of what.
    Message(Ask, u32),
}

/// What a channel message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ask {
    Contact,
    Offers,
    Open,
    Modify,
    Gpadl,
    Teardown,
    Unload,
    Connection,
    Pause,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// Its record.
    pub(super) number: u64,
    time: u64,
    /// What it is, in short.
    pub(super) name: String,
    /// The operation of a storvsc request.
    pub(super) operation: u32,
}

/// The requests that are not answered yet.
#[derive(Default)]
pub(super) struct Pairs {
    asked: HashMap<Key, Asked>,
}

impl Pairs {
    /// A request.
    pub(super) fn ask(&mut self, key: Key, about: &About<'_>, name: &str, operation: u32) {
        if self.asked.len() >= MOST {
            // Whoever is not answered by now will hardly be.
            self.asked.clear();
        }
        let (number, time) = (about.record.number, about.time);
        self.asked.insert(key, Asked { number, time, name: name.to_owned(), operation });
    }

    /// The request that an answer names, without having it answered.
    pub(super) fn peek(&self, key: Key) -> Option<&Asked> {
        self.asked.get(&key)
    }

    /// An answer.
    pub(super) fn answer(&mut self, key: Key, about: &mut About<'_>) {
        if let Some(asked) = self.asked.remove(&key) {
            let latency = about.time.saturating_sub(asked.time);
            about.answers = Some((asked, latency));
        }
    }

    /// A channel is gone, and its requests with it.
    pub(super) fn forget(&mut self, channel: u32) {
        self.asked.retain(|key, _| match key {
            Key::Packet(of, ..) | Key::Component(of, _) | Key::Rndis(of, _) => *of != channel,
            Key::Message(..) => true,
        });
    }
}
