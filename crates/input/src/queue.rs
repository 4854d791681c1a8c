// SPDX-License-Identifier: MIT OR Apache-2.0

//! What waits for the guest.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// Events that wait: some seconds of a fast typist's. A guest that takes none must not fill the host.
const MAX_WAITING: usize = 1024;

/// An event was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No driver of the guest has opened the device.
    #[error("the guest has no driver for it")]
    NoDriver,
    /// The driver takes nothing.
    #[error("the guest does not take what is typed: {MAX_WAITING} events wait")]
    Full,
}

struct State<T> {
    ready: bool,
    waiting: VecDeque<T>,
}

/// Events from whoever makes them to the channel's worker.
pub(crate) struct Queue<T> {
    inner: Arc<(Mutex<State<T>>, OwnedFd)>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> Queue<T> {
    pub(crate) fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let state = Mutex::new(State { ready: false, waiting: VecDeque::new() });
        Ok(Self { inner: Arc::new((state, bell)) })
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.inner.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds all of `events`, or none.
    pub(crate) fn push(&self, events: impl ExactSizeIterator<Item = T>) -> Result<(), Refused> {
        let mut state = self.lock();
        if !state.ready {
            return Err(Refused::NoDriver);
        }
        if state.waiting.len() + events.len() > MAX_WAITING {
            return Err(Refused::Full);
        }
        state.waiting.extend(events);
        // Fails only when the counter is full, and then it has been rung.
        let _ = rustix::io::write(&self.inner.1, &1_u64.to_ne_bytes());
        Ok(())
    }

    /// Whether a driver takes events now; what waits is dropped if not.
    pub(crate) fn set_ready(&self, ready: bool) {
        let mut state = self.lock();
        state.ready = ready;
        state.waiting.clear();
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.lock().ready
    }

    /// Hands the events to `send` as long as it takes them.
    pub(crate) fn drain<E>(&self, mut send: impl FnMut(&T) -> Result<bool, E>) -> Result<(), E> {
        let mut state = self.lock();
        while let Some(event) = state.waiting.front() {
            if !send(event)? {
                return Ok(());
            }
            state.waiting.pop_front();
        }
        Ok(())
    }

    /// The bell has been heard.
    pub(crate) fn quiet(&self) {
        let _ = rustix::io::read(&self.inner.1, &mut [0; 8]);
    }

    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.inner.1.as_fd()
    }
}
