// SPDX-License-Identifier: MIT OR Apache-2.0

//! How far a guest has come, for who wants to know: a test that boots an image, for example.
//!
//! The bus and the devices report what they know anyway, at the moment when they know it; a
//! [`Witness`] makes of it what it wants. Without one, nothing is reported.

use std::sync::Arc;

use busway_wire::{Guid, Version};

/// Something that a guest has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// It asked for a connection of this version, and was refused for the reason given.
    Refused(Version, &'static str),
    /// It is connected.
    Connected(Version),
    /// It asked what devices there are, and was told.
    OffersRequested,
    /// It has come so far with a device.
    Device {
        /// Which driver is meant; see [`busway_wire::class`].
        class: Guid,
        /// Which device.
        instance: Guid,
        /// How far.
        step: Step,
    },
}

/// How far a guest has come with a device, in the order in which that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The device is on the bus.
    Offered,
    /// A driver opened a channel of it.
    Opened,
    /// Driver and device agreed on a version of their protocol.
    Version {
        /// The part before the dot.
        major: u16,
        /// The part after the dot.
        minor: u16,
    },
    /// Their handshake is over.
    Ready,
    /// The device was of use: a disk was read, a frame sent, a question answered.
    Worked,
    /// The channel was closed, or could not be opened, by the guest's fault; or nobody took the
    /// connection that the guest asked for.
    Failed(String),
}

/// Who is told. Called on the threads of the bus and of the channels; must not block.
pub trait Witness: Send + Sync {
    /// The guest has come to `milestone`, perhaps not for the first time.
    fn saw(&self, milestone: Milestone);
}

/// By whom one device's steps are reported.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) witness: Arc<dyn Witness>,
    pub(crate) class: Guid,
    pub(crate) instance: Guid,
}

impl Reporter {
    pub(crate) fn report(&self, step: Step) {
        let Self { class, instance, .. } = *self;
        self.witness.saw(Milestone::Device { class, instance, step });
    }
}
