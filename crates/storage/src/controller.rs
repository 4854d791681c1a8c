// SPDX-License-Identifier: MIT OR Apache-2.0

//! The controller as the bus sees it.

use std::sync::Arc;

use busway_block::Queue;
use busway_vmbus::{ChannelHandler, Device, Fault, Offer, Opening};
use busway_wire::control::layout::OfferFlags;
use busway_wire::storvsc::Version;
use busway_wire::{Guid, class};

use crate::channel::StorageChannel;
use crate::handshake::Handshake;
use crate::luns::{Luns, PLACES};
use crate::shared::{Port, Shared};
use crate::stops::Stops;
use crate::units::Units;

/// Commands that a channel works on at once. Linux sends some 300 (a ring of 128 KiB holds no more
/// of its longest packets); what is beyond waits in the ring.
const QUEUE_DEPTH: usize = 256;

/// Channels of a controller at most: each costs memory and a thread of the host, and a guest of
/// more processors gains nothing any more.
const MAX_CHANNELS: u16 = 64;

/// A synthetic SCSI controller and its units. Clones share the units: one goes into each life of a machine.
#[derive(Clone, Debug)]
pub struct StorageController {
    class: Guid,
    instance: Guid,
    depth: usize,
    channels: u16,
    newest_version: Version,
    stops: Option<Arc<Stops>>,
    shared: Arc<Shared>,
}

impl StorageController {
    /// A controller with the units `luns`. Guests know it again by `instance`.
    pub fn new(instance: Guid, luns: Luns) -> Self {
        Self {
            class: class::SCSI,
            instance,
            depth: QUEUE_DEPTH,
            channels: 1,
            newest_version: Version::V6_2,
            stops: None,
            shared: Arc::new(Shared::new(luns)),
        }
    }

    /// The same as a channel of first-generation machines for one IDE disk, which is the unit 0 of `luns`.
    /// It has no subchannels. Bytes 4 and 5 of `instance` are the target at which
    /// Linux looks for the disk (`drivers/scsi/storvsc_drv.c`, `storvsc_probe`), and has to be 0.
    pub fn ide(instance: Guid, luns: Luns) -> Self {
        Self { class: class::IDE, ..Self::new(instance, luns) }
    }

    /// Its units, for who changes them while the guest runs.
    pub fn units(&self) -> Units {
        Units::new(Arc::clone(&self.shared))
    }

    /// The same with up to `channels` channels, 1 to 64; each has a queue and a worker of its own,
    /// and a guest uses no more than it has processors.
    #[must_use]
    pub fn with_channels(mut self, channels: u16) -> Self {
        self.channels = channels.clamp(1, MAX_CHANNELS);
        self
    }

    /// The same, speaking versions up to `newest`, as an older host does.
    #[must_use]
    pub const fn with_newest_version(mut self, newest: Version) -> Self {
        self.newest_version = newest;
        self
    }

    /// The same, saying by `stops` when the machine is to stand still. Without that, requests that would
    /// stop it wait by themselves.
    #[must_use]
    pub fn with_stops(mut self, stops: Arc<Stops>) -> Self {
        self.stops = Some(stops);
        self
    }

    /// The same, working on at most `depth` commands of a channel at once.
    #[must_use]
    pub const fn with_depth(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }
}

impl Device for StorageController {
    fn offer(&self) -> Offer {
        let flags = OfferFlags::ENUMERATE_DEVICE_INTERFACE;
        Offer { flags, ..Offer::new(self.class, self.instance) }
    }

    fn open(&mut self, opening: &Opening) -> Result<Box<dyn ChannelHandler>, Fault> {
        let queue = Queue::with_places(self.depth, PLACES);
        let handshake = match opening.subchannel {
            0 => Handshake::new(self.channels - 1, self.newest_version),
            _ => Handshake::over(),
        };
        let port = Arc::new(Port::new(opening.subchannel == 0)?);
        self.shared.join(&port);
        let shared = (Arc::clone(&self.shared), port);
        let memory = &opening.memory;
        let channel = StorageChannel::new(queue, self.depth, memory, handshake, shared)?;
        Ok(Box::new(channel.with_stops(self.stops.clone())))
    }
}
