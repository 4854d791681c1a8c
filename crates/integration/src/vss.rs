// SPDX-License-Identifier: MIT OR Apache-2.0

//! Snapshots: the guest writes down what it has, and nothing more until it is let go on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use busway_vmbus::Device;
use busway_wire::ic::vss::{HotBackup, Operation, VERSIONS, Vss as Message};
use busway_wire::ic::{self, MessageType, Version};
use busway_wire::{Guid, class};
use zerocopy::IntoBytes;

use crate::asks::Asks;
use crate::component::{About, Component};
use crate::{Failure, Phase};

const ABOUT: About = About {
    class: class::VSS,
    instance: Guid::from_text_order(0x2450ee40_33bf_4fbd_892e_9fb06e9214cf),
    kind: MessageType::VSS,
    versions: &VERSIONS,
};

/// Linux gives its daemon 30 s and then answers in its place.
const PATIENCE: Duration = Duration::from_secs(40);

/// For a freeze, Linux gives its daemon a quarter of an hour: all that is dirty has to be written.
const FREEZE_PATIENCE: Duration = Duration::from_secs(15 * 60 + 10);

/// The snapshot component.
#[derive(Clone)]
pub struct Vss {
    component: Component<Asks>,
    /// One at a time: to Linux's daemon, a second freeze is an error after which it thaws.
    frozen: Arc<AtomicBool>,
}

/// A guest whose file systems stand still. Dropping it lets them go on.
#[must_use = "a guest that is dropped goes on at once"]
pub struct Frozen {
    vss: Option<Vss>,
}

impl Vss {
    /// One that no guest has seen.
    pub fn new() -> io::Result<Self> {
        Ok(Self { component: Component::new(&ABOUT)?, frozen: Arc::default() })
    }

    /// The same, on a host that speaks no newer version than this of framework and messages; the
    /// oldest of each is always spoken.
    #[must_use]
    pub fn with_newest_version(self, newest: Version) -> Self {
        Self { component: self.component.with_newest_version(newest), ..self }
    }

    /// It, for the bus.
    pub fn device(&self) -> impl Device + use<> {
        self.component.clone()
    }

    /// How far it and its guest have come.
    pub fn phase(&self) -> Phase {
        self.component.phase()
    }

    /// What the guest says of being copied while it runs.
    pub fn check(&self) -> Result<HotBackup, Failure> {
        let answer = self.ask(Operation::CHECK_HOT_BACKUP, PATIENCE)?;
        Ok(HotBackup::from_bits_retain(answer.flags))
    }

    /// Freezes the guest's file systems.
    ///
    /// A freeze that may have happened is followed by a thaw, whatever the guest says of it.
    pub fn freeze(&self) -> Result<Frozen, Failure> {
        if self.frozen.swap(true, Ordering::SeqCst) {
            return Err(Failure::FrozenAlready);
        }
        let frozen = Frozen { vss: Some(self.clone()) };
        match self.ask(Operation::FREEZE, FREEZE_PATIENCE) {
            Ok(_) => Ok(frozen),
            Err(failure @ (Failure::NotReady(_) | Failure::Gone)) => {
                frozen.forget();
                Err(failure)
            }
            Err(failure) => {
                drop(frozen);
                Err(failure)
            }
        }
    }

    fn thaw(&self) -> Result<(), Failure> {
        let thawed = self.ask(Operation::THAW, PATIENCE);
        self.frozen.store(false, Ordering::SeqCst);
        thawed.map(|_| ())
    }

    fn ask(&self, operation: Operation, patience: Duration) -> Result<Message, Failure> {
        let message = Message::request(operation);
        let body = self.component.ask(message.as_bytes(), patience)?.done()?;
        ic::body(&body).map_err(Failure::Short)
    }
}

impl Frozen {
    /// Lets the guest go on.
    pub fn thaw(mut self) -> Result<(), Failure> {
        self.vss.take().map_or(Ok(()), |vss| vss.thaw())
    }

    /// Nothing was frozen.
    fn forget(mut self) {
        if let Some(vss) = self.vss.take() {
            vss.frozen.store(false, Ordering::SeqCst);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Some(vss) = self.vss.take()
            && let Err(failure) = vss.thaw()
        {
            log::warn!("the guest's file systems may still be frozen: {failure}");
        }
    }
}
