// SPDX-License-Identifier: MIT OR Apache-2.0

//! Dynamic memory: a guest lends its host pages, and gets them back.
//!
//! What is wanted is one number, the pages by which the guest should have less than it started with
//! ([`Balloon::set_target`]); if it is to have more, it is offered memory that it did not start with,
//! block by block, as long as there is room. From it follow requests to the guest, one at a time; pages
//! that it lends leave the host at once, and are zero when they come back. A guest that lends fewer than
//! it was asked for has none to spare: it is asked again when the target changes. So is one that takes no
//! new memory. Memory that it has taken is its own until the machine's next life; what is too much of it
//! is lent.
//!
//! Source: Linux `drivers/hv/hv_balloon.c`.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod channel;
mod pages;

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use busway_vmbus::{ChannelHandler, Device, Fault, Offer, Opening};
use busway_wire::balloon::Version;
use busway_wire::{Guid, class};
use rustix::event::{EventfdFlags, eventfd};

use channel::BalloonChannel;

/// What is known of a guest's memory. All in pages of 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// A driver of the guest lends pages.
    pub ready: bool,
    /// By how many pages the guest should have less than it started with; below zero, more.
    pub target: i64,
    /// Pages that it holds.
    pub held: u64,
    /// Pages that the guest has taken and did not start with.
    pub added: u64,
    /// Pages that the guest could spare, as it last said.
    pub available: u64,
    /// Pages that it has promised to its programs, as it last said.
    pub committed: u64,
    /// Why the target is not reached, if the guest is not asked any more.
    pub shortfall: Option<Shortfall>,
}

/// What a guest does not do for its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortfall {
    /// It has no more pages to lend.
    LendsNoMore,
    /// It takes no new memory, or none in blocks of the size that there is.
    TakesNoMore,
}

impl State {
    /// Pages that the host should hold.
    fn wanted(&self) -> u64 {
        let added = i64::try_from(self.added).unwrap_or(i64::MAX);
        u64::try_from(self.target.saturating_add(added)).unwrap_or(0)
    }
}

/// Pages that the guest did not start with and has not been given yet.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    next: u64,
    end: u64,
}

struct Shared {
    state: Mutex<State>,
    room: Mutex<Room>,
    /// The first page of the room when the machine starts.
    room_start: u64,
    /// Rung when the target has changed.
    bell: OwnedFd,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Taken after `state`, if both are.
    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A balloon in the guest's memory.
#[derive(Clone)]
pub struct Balloon {
    newest: Version,
    shared: Arc<Shared>,
}

impl Balloon {
    /// One that no guest has seen, and that should be empty. The pages of `room` are memory that the
    /// guest can be given, and knows nothing of.
    pub fn new(room: Range<u64>) -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let shared = Shared {
            state: Mutex::default(),
            room_start: room.start,
            room: Mutex::new(Room { next: room.start, end: room.end }),
            bell,
        };
        Ok(Self { newest: Version::V2_0, shared: Arc::new(shared) })
    }

    /// The same, on a host that speaks no newer version than this.
    #[must_use]
    pub fn with_newest_version(self, newest: Version) -> Self {
        Self { newest, ..self }
    }

    /// It, for the bus of a machine that starts: no guest has new memory yet.
    pub fn device(&self) -> impl Device + use<> {
        let mut state = self.shared.lock();
        (state.ready, state.added, state.shortfall) = (false, 0, None);
        drop(state);
        self.shared.room().next = self.shared.room_start;
        self.clone()
    }

    /// How it is now.
    pub fn state(&self) -> State {
        *self.shared.lock()
    }

    /// Sets by how many pages the guest should have less than it started with; below zero, more. A guest
    /// that comes later is asked for them too.
    pub fn set_target(&self, pages: i64) {
        let mut state = self.shared.lock();
        (state.target, state.shortfall) = (pages, None);
        drop(state);
        // Fails only when the counter is full, and then it has been rung.
        let _ = rustix::io::write(&self.shared.bell, &1_u64.to_ne_bytes());
    }
}

impl Device for Balloon {
    fn offer(&self) -> Offer {
        let instance = Guid::from_text_order(0x1eccfd72_4b41_45ef_b73a_4a6e44c12924);
        Offer::new(class::BALLOON, instance)
    }

    fn open(&mut self, opening: &Opening) -> Result<Box<dyn ChannelHandler>, Fault> {
        let (shared, memory) = (Arc::clone(&self.shared), opening.memory.clone());
        Ok(Box::new(BalloonChannel::new(shared, memory, self.newest)))
    }
}
