// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the channels of a controller share: its units, each other's bells, and resets that concern all.
//!
//! A command goes its whole way on its own channel, and looks at nothing here. Only a reset waits for
//! what other channels have under way: it takes the next number and rings their bells, each of them
//! says by that number that what it had then is over, and rings back.
//!
//! Each channel has the table of units as it was when it last heard its bell. A new table has the next
//! number too; a channel says by it that it uses the new table alone, and no unit any more that has gone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use busway_vmbus::Fault;
use rustix::event::EventfdFlags;

use crate::luns::{Luns, PLACES};

/// What wakes a channel.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(rustix::event::eventfd(0, flags)?))
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
    is_primary: bool,
    /// The last reset that waits for this channel.
    asked: AtomicU64,
    /// Whether it gives up what is under way.
    cancels: AtomicBool,
    /// The last reset before which nothing is under way here any more.
    settled: AtomicU64,
    /// The table of units that it uses.
    table: AtomicU64,
    /// The guest is to look for units.
    scan: AtomicBool,
    /// Requests that wait for the user are to be done again.
    resume: AtomicBool,
}

impl Port {
    pub(crate) fn new(is_primary: bool) -> Result<Self, Fault> {
        Ok(Self {
            bell: Bell::new().map_err(Fault::host)?,
            is_primary,
            asked: AtomicU64::new(0),
            cancels: AtomicBool::new(false),
            settled: AtomicU64::new(0),
            table: AtomicU64::new(0),
            scan: AtomicBool::new(false),
            resume: AtomicBool::new(false),
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

    /// Whether the guest is to look for units; asked once.
    pub(crate) fn take_scan(&self) -> bool {
        self.scan.swap(false, Ordering::AcqRel)
    }

    /// Whether requests that wait for the user are to be done again; asked once.
    pub(crate) fn take_resume(&self) -> bool {
        self.resume.swap(false, Ordering::AcqRel)
    }

    /// Nothing is under way any more that came before the reset.
    pub(crate) fn settle(&self, reset: u64) {
        self.settled.store(reset, Ordering::Release);
    }
}

/// The units of a controller, and how often they have changed.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) number: u64,
    pub(crate) luns: Arc<Luns>,
}

/// What the channels of a controller share.
#[derive(Debug)]
pub(crate) struct Shared {
    table: Mutex<Table>,
    /// Held by who changes the table; the number at which the next disk looks for a place.
    pub(crate) changes: Mutex<u8>,
    /// A channel uses another table, or has gone. Goes with `ports`.
    moved_on: Condvar,
    /// The guest has made use of the primary channel that is open now: it knows units.
    has_looked: AtomicBool,
    ports: Mutex<Vec<Weak<Port>>>,
    resets: AtomicU64,
    /// By the unit's number, how many of its requests wait for the user.
    waiting: Box<[AtomicU32]>,
}

impl Shared {
    pub(crate) fn new(luns: Luns) -> Self {
        Self {
            table: Mutex::new(Table { number: 1, luns: Arc::new(luns) }),
            changes: Mutex::new(0),
            moved_on: Condvar::new(),
            has_looked: AtomicBool::new(false),
            ports: Mutex::default(),
            resets: AtomicU64::new(0),
            waiting: std::iter::repeat_with(AtomicU32::default).take(PLACES).collect(),
        }
    }

    fn ports(&self) -> MutexGuard<'_, Vec<Weak<Port>>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The units as they are now.
    pub(crate) fn table(&self) -> Table {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the units, for one caller at a time, and waits until no channel uses the old ones any
    /// more; false if that takes longer than `patience`.
    pub(crate) fn change(&self, luns: Luns, patience: Duration) -> bool {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let number = table.number + 1;
        *table = Table { number, luns: Arc::new(luns) };
        drop(table);
        self.ring_all();
        self.wait_for(number, patience)
    }

    /// Waits until all channels use the units as they are now, and nothing else.
    pub(crate) fn wait_until_current(&self, patience: Duration) -> bool {
        self.wait_for(self.table().number, patience)
    }

    fn wait_for(&self, number: u64, patience: Duration) -> bool {
        let is_behind = |port: Arc<Port>| port.table.load(Ordering::Acquire) < number;
        let waited = self.moved_on.wait_timeout_while(self.ports(), patience, |ports| {
            ports.iter().filter_map(Weak::upgrade).any(is_behind)
        });
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// A channel uses the table `number`, and no unit that is not in it.
    pub(crate) fn uses_table(&self, port: &Port, number: u64) {
        port.table.store(number, Ordering::Release);
        // Whoever looks at the ports has not looked yet, or waits.
        drop(self.ports());
        self.moved_on.notify_all();
    }

    /// The guest looks for units, or uses them.
    pub(crate) fn guest_looks(&self) {
        self.has_looked.store(true, Ordering::Release);
    }

    /// Has the guest look for units, if it has looked before: if not, it will.
    pub(crate) fn scan(&self) {
        if self.has_looked.load(Ordering::Acquire) {
            self.for_each(|port| {
                if port.is_primary {
                    port.scan.store(true, Ordering::Release);
                    port.bell.ring();
                }
            });
        }
    }

    /// A channel is open.
    pub(crate) fn join(&self, port: &Arc<Port>) {
        if port.is_primary {
            self.has_looked.store(false, Ordering::Release);
        }
        let mut ports = self.ports();
        ports.retain(|port| port.strong_count() != 0);
        ports.push(Arc::downgrade(port));
    }

    fn for_each(&self, mut each: impl FnMut(&Arc<Port>)) {
        let ports = self.ports();
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

    /// One more request on the unit `place` waits for the user.
    pub(crate) fn waits(&self, place: usize) {
        if let Some(waiting) = self.waiting.get(place) {
            waiting.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One of them does not wait any more.
    pub(crate) fn goes_on(&self, place: usize) {
        if let Some(waiting) = self.waiting.get(place) {
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many requests on the unit `place` wait for the user.
    pub(crate) fn waiting(&self, place: usize) -> u32 {
        self.waiting.get(place).map_or(0, |waiting| waiting.load(Ordering::Relaxed))
    }

    /// Has all requests that wait for the user done again.
    pub(crate) fn resume(&self) {
        self.for_each(|port| {
            port.resume.store(true, Ordering::Release);
            port.bell.ring();
        });
    }

    /// Wakes all channels.
    pub(crate) fn ring_all(&self) {
        self.for_each(|port| port.bell.ring());
    }
}
