// SPDX-License-Identifier: MIT OR Apache-2.0

//! Dynamic memory: a guest lends its host pages, and gets them back.
//!
//! What is wanted is one number, the pages that the host should hold ([`Balloon::set_target`]). From
//! it follow requests to the guest, one at a time; pages that it lends leave the host at once, and
//! are zero when they come back. A guest that lends fewer than it was asked for has none to spare:
//! it is asked again when the target changes.
//!
//! Source: Linux `drivers/hv/hv_balloon.c`.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod channel;
mod pages;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use busway_vmbus::{ChannelHandler, Device, Fault, Offer, Opening};
use busway_wire::{Guid, class};
use rustix::event::{EventfdFlags, eventfd};

use channel::BalloonChannel;

/// What is known of a guest's memory. All in pages of 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// A driver of the guest lends pages.
    pub ready: bool,
    /// Pages that the host should hold.
    pub target: u64,
    /// Pages that it holds.
    pub held: u64,
    /// Pages that the guest could spare, as it last said.
    pub available: u64,
    /// Pages that it has promised to its programs, as it last said.
    pub committed: u64,
}

struct Shared {
    state: Mutex<State>,
    /// Rung when the target has changed.
    bell: OwnedFd,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A balloon in the guest's memory.
#[derive(Clone)]
pub struct Balloon {
    shared: Arc<Shared>,
}

impl Balloon {
    /// One that no guest has seen, and that should be empty.
    pub fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { shared: Arc::new(Shared { state: Mutex::default(), bell }) })
    }

    /// It, for the bus.
    pub fn device(&self) -> impl Device + use<> {
        self.clone()
    }

    /// How it is now.
    pub fn state(&self) -> State {
        *self.shared.lock()
    }

    /// Sets how many pages the host should hold. A guest that comes later is asked for them too.
    pub fn set_target(&self, pages: u64) {
        self.shared.lock().target = pages;
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
        Ok(Box::new(BalloonChannel::new(Arc::clone(&self.shared), opening.memory.clone())))
    }
}
