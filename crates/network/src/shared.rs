// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the channels of a card share: its settings, and each other's letter boxes.
//!
//! A channel looks at a number to see whether the settings have changed, and takes a new copy only
//! then; so no frame costs a lock. Whoever changes them rings every channel's bell, and a channel
//! that has taken the new ones rings the first's: when all have, nothing uses a buffer any more
//! that the guest wants back.

use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use busway_vmbus::{Fault, GpadlId};
use rustix::event::EventfdFlags;

use crate::buffers::ReceiveBuffer;
use crate::counters::Counters;
use crate::mail::Parcel;
use crate::outbox::Piece;
use crate::settings::Settings;

/// Pieces that may wait in a letter box; more are lost, as when a card's queue overflows.
const MOST_WAITING: usize = 2048;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What wakes a channel.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> Result<Self, Fault> {
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
    inbox: Mutex<Parcel>,
    /// Whether there is anything in it, to be asked without its lock.
    has_mail: AtomicBool,
    pub(crate) bell: Bell,
}

impl Port {
    pub(crate) fn new() -> Result<Self, Fault> {
        let (inbox, has_mail) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self { inbox, has_mail, bell: Bell::new()? })
    }

    /// Leaves frames here, of which nothing is left in `pieces`; false if they do not fit.
    pub(crate) fn post(&self, buffer: &Arc<ReceiveBuffer>, pieces: &mut Vec<Piece>) -> bool {
        if !lock(&self.inbox).add(buffer, pieces, MOST_WAITING) {
            return false;
        }
        // A channel that has not looked since the last ring will find these too.
        if !self.has_mail.swap(true, Ordering::AcqRel) {
            self.bell.ring();
        }
        true
    }

    /// Takes what was left here, in exchange for an empty parcel.
    pub(crate) fn take_mail(&self, empty: &mut Parcel) {
        if self.has_mail.swap(false, Ordering::AcqRel) {
            std::mem::swap(&mut *lock(&self.inbox), empty);
        }
    }
}

/// What becomes of the link, as the guest is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkNews {
    Up,
    Down,
    NetworkChange,
}

/// News that may wait for a guest that does not listen; the oldest are forgotten first.
const MOST_NEWS: usize = 16;

#[derive(Debug)]
struct State {
    settings: Arc<Settings>,
    /// Buffers that a channel may still use.
    buffers: Vec<(GpadlId, Weak<dyn Any + Send + Sync>)>,
    news: Vec<LinkNews>,
}

impl State {
    fn forget_unused(&mut self) {
        self.buffers.retain(|(_, buffer)| buffer.strong_count() != 0);
    }
}

/// What the channels of a card share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changes: AtomicU64,
    /// Each channel's, by its index.
    pub(crate) counters: Box<[Counters]>,
}

impl Shared {
    pub(crate) fn new(settings: Settings, channels: u16) -> Self {
        let settings = Arc::new(settings);
        let state = State { settings, buffers: Vec::new(), news: Vec::new() };
        let counters = (0..channels).map(|_| Counters::default()).collect();
        Self { state: Mutex::new(state), changes: AtomicU64::new(0), counters }
    }

    /// How often the settings have changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The settings, and how often they had changed.
    pub(crate) fn settings(&self) -> (u64, Arc<Settings>) {
        let state = lock(&self.state);
        (self.changes(), Arc::clone(&state.settings))
    }

    /// Changes them, and tells all channels.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Settings)) {
        let mut state = lock(&self.state);
        // No copy of the settings, which hold buffers, may outlive the lock: whoever waits for the
        // last one would not be told.
        change(Arc::make_mut(&mut state.settings));
        self.changes.fetch_add(1, Ordering::Release);
        ring(&state.settings.ports);
    }

    /// Remembers a buffer, to know when nobody uses it any more.
    pub(crate) fn watch(&self, gpadl: GpadlId, buffer: Weak<dyn Any + Send + Sync>) {
        let mut state = lock(&self.state);
        // A guest may share and revoke the same list without end.
        state.forget_unused();
        state.buffers.push((gpadl, buffer));
    }

    /// Whether a channel may still use the buffer in `gpadl`, or any buffer.
    pub(crate) fn uses(&self, gpadl: Option<GpadlId>) -> bool {
        let mut state = lock(&self.state);
        state.forget_unused();
        state.buffers.iter().any(|(used, _)| gpadl.is_none_or(|gpadl| gpadl == *used))
    }

    /// Wakes the first channel.
    pub(crate) fn ring_first(&self) {
        ring(lock(&self.state).settings.ports.get(..1).unwrap_or_default());
    }

    /// Wakes all channels.
    pub(crate) fn ring_all(&self) {
        ring(&lock(&self.state).settings.ports);
    }

    pub(crate) fn take_news(&self) -> Vec<LinkNews> {
        std::mem::take(&mut lock(&self.state).news)
    }

    fn tell(&self, news: LinkNews) {
        let mut state = lock(&self.state);
        if state.news.len() >= MOST_NEWS {
            state.news.remove(0);
        }
        state.news.push(news);
    }
}

fn ring(ports: &[Option<Arc<Port>>]) {
    ports.iter().flatten().for_each(|port| port.bell.ring());
}

/// The plug of a card's cable: who has it may pull it, from any thread.
#[derive(Clone, Debug)]
pub struct LinkControl {
    pub(crate) shared: Arc<Shared>,
}

impl LinkControl {
    /// Puts the link up or down. While it is down no frame passes, in either direction.
    pub fn set_up(&self, up: bool) {
        if self.is_up() == up {
            return;
        }
        self.shared.tell(if up { LinkNews::Up } else { LinkNews::Down });
        self.shared.change(|settings| settings.link_up = up);
    }

    /// Whether the link is up.
    pub fn is_up(&self) -> bool {
        lock(&self.shared.state).settings.link_up
    }

    /// Tells the guest that the cable leads elsewhere now: it should ask for its addresses anew.
    pub fn network_changed(&self) {
        self.shared.tell(LinkNews::NetworkChange);
        self.shared.ring_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Mac;

    #[test]
    fn buffers_that_nobody_uses_are_not_remembered() {
        let shared = Shared::new(Settings::new(Mac([2, 0, 0, 0, 0, 7])), 1);
        let in_use: Arc<()> = Arc::new(());
        let weak: Weak<()> = Arc::downgrade(&in_use);
        shared.watch(GpadlId(1), weak);
        for _ in 0..1000 {
            let revoked: Weak<()> = Arc::downgrade(&Arc::new(()));
            shared.watch(GpadlId(2), revoked);
        }
        assert!(lock(&shared.state).buffers.len() <= 2);
        assert!(shared.uses(Some(GpadlId(1))));
        assert!(!shared.uses(Some(GpadlId(2))));
    }
}
