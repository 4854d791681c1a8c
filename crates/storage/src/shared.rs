// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the channels of a controller share: each other's bells, and resets that concern all.
//!
//! A command goes its whole way on its own channel, and looks at nothing here. Only a reset waits for
//! what other channels have under way: it takes the next number and rings their bells, each of them
//! says by that number that what it had then is over, and rings back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use busway_vmbus::Fault;
use rustix::event::EventfdFlags;

/// What wakes a channel.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    fn new() -> Result<Self, Fault> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        rustix::event::eventfd(0, flags).map(Self).map_err(Fault::host)
    }

    pub(crate) fn ring(&self) {
        // Fails only when the counter is full, and then it has rung.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    pub(crate) fn heard(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An open channel as the others see it.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) bell: Bell,
    /// The last reset that waits for this channel.
    asked: AtomicU64,
    /// Whether it gives up what is under way.
    cancels: AtomicBool,
    /// The last reset before which nothing is under way here any more.
    settled: AtomicU64,
}

impl Port {
    pub(crate) fn new() -> Result<Self, Fault> {
        Ok(Self {
            bell: Bell::new()?,
            asked: AtomicU64::new(0),
            cancels: AtomicBool::new(false),
            settled: AtomicU64::new(0),
        })
    }

    /// The reset that waits, if there is one.
    pub(crate) fn asked(&self) -> Option<u64> {
        let asked = self.asked.load(Ordering::Acquire);
        (asked > self.settled.load(Ordering::Relaxed)).then_some(asked)
    }

    /// Whether what is under way is to be given up; asked once.
    pub(crate) fn take_cancel(&self) -> bool {
        self.cancels.swap(false, Ordering::AcqRel)
    }

    /// Nothing is under way any more that came before the reset.
    pub(crate) fn settle(&self, reset: u64) {
        self.settled.store(reset, Ordering::Release);
    }
}

/// What the channels of a controller share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    ports: Mutex<Vec<Weak<Port>>>,
    resets: AtomicU64,
}

impl Shared {
    /// A channel is open.
    pub(crate) fn join(&self, port: &Arc<Port>) {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.retain(|port| port.strong_count() != 0);
        ports.push(Arc::downgrade(port));
    }

    fn for_each(&self, mut each: impl FnMut(&Arc<Port>)) {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.iter().filter_map(Weak::upgrade).for_each(|port| each(&port));
    }

    /// Has all channels but `own` settle, and returns the reset's number.
    pub(crate) fn reset(&self, own: &Arc<Port>, cancels: bool) -> u64 {
        let number = self.resets.fetch_add(1, Ordering::AcqRel) + 1;
        self.for_each(|port| {
            if !Arc::ptr_eq(port, own) {
                if cancels {
                    port.cancels.store(true, Ordering::Release);
                }
                port.asked.fetch_max(number, Ordering::AcqRel);
                port.bell.ring();
            }
        });
        number
    }

    /// Whether all channels but `own` have settled before the reset `number`. A channel that was not
    /// open then has nothing to settle.
    pub(crate) fn is_settled(&self, own: &Arc<Port>, number: u64) -> bool {
        let mut settled = true;
        self.for_each(|port| {
            let asked = port.asked.load(Ordering::Acquire) >= number;
            let waits = asked && port.settled.load(Ordering::Acquire) < number;
            settled &= Arc::ptr_eq(port, own) || !waits;
        });
        settled
    }

    /// Wakes all channels.
    pub(crate) fn ring_all(&self) {
        self.for_each(|port| port.bell.ring());
    }
}
