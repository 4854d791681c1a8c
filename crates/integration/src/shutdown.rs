// SPDX-License-Identifier: MIT OR Apache-2.0

//! Shutdown: the guest is asked to switch itself off, start over or hibernate.

use std::io;
use std::time::Duration;

use busway_vmbus::Device;
use busway_wire::ic::shutdown::{Action, REASON_PLANNED, Shutdown as Message, VERSIONS};
use busway_wire::ic::{MessageType, Version};
use busway_wire::{Guid, class};
use zerocopy::{FromZeros, IntoBytes};

use crate::asks::Asks;
use crate::component::{About, Component};
use crate::{Failure, Phase};

const ABOUT: About = About {
    class: class::SHUTDOWN,
    instance: Guid::from_text_order(0xb6650ff7_33bc_4840_8048_e0676786f393),
    kind: MessageType::SHUTDOWN,
    versions: &VERSIONS,
};

/// A guest answers before it acts.
const PATIENCE: Duration = Duration::from_secs(10);

/// What guests that ask their programs are to allow them.
const PROGRAMS_HAVE_SECONDS: u32 = 60;

/// The shutdown component.
#[derive(Clone)]
pub struct Shutdown {
    component: Component<Asks>,
}

impl Shutdown {
    /// One that no guest has seen.
    pub fn new() -> io::Result<Self> {
        Ok(Self { component: Component::new(&ABOUT)? })
    }

    /// The same, on a host that speaks no newer version than this of framework and messages; the
    /// oldest of each is always spoken.
    #[must_use]
    pub fn with_newest_version(self, newest: Version) -> Self {
        Self { component: self.component.with_newest_version(newest) }
    }

    /// It, for the bus.
    pub fn device(&self) -> impl Device + use<> {
        self.component.clone()
    }

    /// How far it and its guest have come.
    pub fn phase(&self) -> Phase {
        self.component.phase()
    }

    /// Asks the guest to do `action`, and returns when it has promised to. A guest that cannot
    /// hibernate refuses that.
    pub fn ask(&self, action: Action) -> Result<(), Failure> {
        let mut message = Message::new_zeroed();
        message.reason = REASON_PLANNED;
        message.timeout = PROGRAMS_HAVE_SECONDS;
        message.action = action;
        self.component.ask(message.as_bytes(), PATIENCE)?.done()?;
        Ok(())
    }
}
