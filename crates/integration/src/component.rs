// SPDX-License-Identifier: MIT OR Apache-2.0

//! A component: a device on the bus, and a handle to it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use busway_vmbus::{ChannelHandler, Device, Fault, Offer, Opening};
use busway_wire::Guid;
use busway_wire::ic::{Agreed, MessageType, Status, Version};
use rustix::event::{EventfdFlags, eventfd};

use crate::Failure;
use crate::conversation::Conversation;

/// What is fixed about a component.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    /// Which driver is meant.
    pub class: Guid,
    /// The device; the same as on other hosts of the protocol.
    pub instance: Guid,
    /// What its messages are about.
    pub kind: MessageType,
    /// Versions of them that the host speaks.
    pub versions: &'static [Version],
}

/// A question on its way to the guest.
pub(crate) struct Question {
    /// Its body.
    pub body: Vec<u8>,
    /// How long the guest has to answer it; a component that asks by itself has its next turn then.
    pub patience: Duration,
}

/// What a component asks and what it makes of the answers. Called under a lock: must not block.
pub(crate) trait Service: Send + 'static {
    /// What is fixed about it.
    fn about(&self) -> &'static About;

    /// A guest has opened the channel and agreed on versions.
    fn opened(&mut self) {}

    /// The next question, if there is one now.
    fn next(&mut self, agreed: Agreed) -> Option<Question>;

    /// The guest's answer to the last question.
    fn answered(&mut self, status: Status, body: &[u8]);

    /// Whether what the guest has answered so far is of use. Asked when it says that it is well.
    fn has_worked(&self) -> bool {
        true
    }

    /// There will be no answer to the last question, or, with [`Failure::Gone`], to any.
    fn failed(&mut self, failure: Failure);

    /// The patience of the last question, which has been answered, is over.
    fn tick(&mut self) {}
}

/// How far a component and its guest have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No driver of the guest has opened the channel.
    Closed,
    /// The guest has been asked which versions it speaks. Some drivers answer only when their
    /// daemon runs.
    Negotiating,
    /// The guest speaks none of the host's versions.
    NoneSpoken,
    /// Both speak these versions.
    Agreed(Agreed),
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("no driver of its has opened the channel"),
            Self::Negotiating => f.write_str("its driver is there, its daemon is not"),
            Self::NoneSpoken => f.write_str("it speaks none of our versions"),
            Self::Agreed(agreed) => write!(f, "version {}", agreed.message),
        }
    }
}

pub(crate) struct State<S> {
    pub(crate) service: S,
    pub(crate) phase: Phase,
    /// Of what the host speaks.
    pub(crate) newest: Version,
}

pub(crate) struct Shared<S> {
    state: Mutex<State<S>>,
    /// Rung when there may be something to ask.
    pub(crate) bell: OwnedFd,
}

impl<S> Shared<S> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An integration component, as a device and as what handles ask through.
pub(crate) struct Component<S> {
    shared: Arc<Shared<S>>,
}

impl<S> Clone for Component<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S: Service> Component<S> {
    pub(crate) fn with(service: S) -> std::io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let newest = Version::new(u16::MAX, u16::MAX);
        let state = Mutex::new(State { service, phase: Phase::Closed, newest });
        Ok(Self { shared: Arc::new(Shared { state, bell }) })
    }

    /// Lets the guest choose none newer, of the framework and of the messages; the oldest of each is
    /// always there.
    pub(crate) fn with_newest_version(self, newest: Version) -> Self {
        self.shared.lock().newest = newest;
        self
    }

    /// How far it and its guest have come.
    pub(crate) fn phase(&self) -> Phase {
        self.shared.lock().phase
    }

    /// Looks at the service or changes it, and lets it ask what it then has to ask.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut S, Phase) -> T) -> T {
        let mut state = self.shared.lock();
        let phase = state.phase;
        let result = change(&mut state.service, phase);
        drop(state);
        // Fails only when the counter is full, and then it has been rung.
        let _ = rustix::io::write(&self.shared.bell, &1_u64.to_ne_bytes());
        result
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.shared.lock().service)
    }
}

impl<S: Service> Device for Component<S> {
    fn offer(&self) -> Offer {
        let about = self.look(Service::about);
        Offer::new(about.class, about.instance)
    }

    fn open(&mut self, _opening: &Opening) -> Result<Box<dyn ChannelHandler>, Fault> {
        let conversation = Conversation::new(Arc::clone(&self.shared));
        Ok(Box::new(conversation.map_err(Fault::host)?))
    }
}
