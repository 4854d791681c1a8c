// SPDX-License-Identifier: MIT OR Apache-2.0

//! The card as the bus sees it.

use std::sync::Arc;

use busway_frames::Network;
use busway_vmbus::{ChannelHandler, Device, Fault, Offer, Opening};
use busway_wire::control::layout::OfferFlags;
use busway_wire::nvsp::Version;
use busway_wire::{Guid, class};

use crate::MAX_MTU;
use crate::channel::NetworkChannel;
use crate::control::Nature;
use crate::counters::Counters;
use crate::settings::{Mac, Settings};
use crate::shared::{LinkControl, Port, Shared};

/// Channels of a card at most: Linux uses no more.
const MAX_CHANNELS: u16 = 64;

/// What a card is to be.
#[derive(Clone, Debug)]
pub struct CardOptions {
    /// By what guests know it again.
    pub instance: Guid,
    /// Its address.
    pub mac: Mac,
    /// The largest MTU that a guest may choose, up to [`MAX_MTU`].
    pub mtu: u16,
    /// How many channels a guest may use, 1 to 64.
    pub queues: u16,
}

/// A synthetic network card. A clone is the same card: for the next machine, when the one before it
/// has let go of it.
#[derive(Clone, Debug)]
pub struct NetworkCard {
    instance: Guid,
    nature: Arc<Nature>,
    network: Network,
    shared: Arc<Shared>,
}

impl NetworkCard {
    /// A card on `network`.
    pub fn new(options: &CardOptions, network: Network) -> Self {
        let &CardOptions { instance, mac, mtu, queues } = options;
        let most = if network.has_queues() { MAX_CHANNELS } else { 1 };
        let nature = Nature {
            mac,
            mtu: mtu.clamp(68, MAX_MTU),
            channels: queues.clamp(1, most),
            newest_version: Version::V6_1,
            offloads: network.offloads(),
            name: network.name().to_owned(),
        };
        let shared = Arc::new(Shared::new(Settings::new(mac), nature.channels));
        Self { instance, nature: Arc::new(nature), network, shared }
    }

    /// The same, speaking versions of NVSP up to `newest`, as an older host does.
    #[must_use]
    pub fn with_newest_version(mut self, newest: Version) -> Self {
        Arc::make_mut(&mut self.nature).newest_version = newest;
        self
    }

    /// Its cable's plug.
    pub fn link(&self) -> LinkControl {
        LinkControl { shared: Arc::clone(&self.shared) }
    }
}

impl Device for NetworkCard {
    fn offer(&self) -> Offer {
        let flags = OfferFlags::ENUMERATE_DEVICE_INTERFACE;
        Offer { flags, ..Offer::new(class::NETWORK, self.instance) }
    }

    fn open(&mut self, opening: &Opening) -> Result<Box<dyn ChannelHandler>, Fault> {
        let index = opening.subchannel;
        let queue = self.network.queue(index).map_err(Fault::host)?;
        let port = Arc::new(Port::new()?);
        let (nature, shared) = (Arc::clone(&self.nature), Arc::clone(&self.shared));
        let own = Arc::clone(&port);
        if index == 0 {
            // No other channel is open.
            shared.counters.iter().for_each(Counters::reset);
        }
        shared.change(|settings| {
            if index == 0 {
                let link_up = settings.link_up;
                *settings = Settings { link_up, ..Settings::new(nature.mac) };
            }
            let at = usize::from(index);
            if settings.ports.len() <= at {
                settings.ports.resize(at + 1, None);
            }
            if let Some(place) = settings.ports.get_mut(at) {
                *place = Some(own);
            }
        });
        let memory = opening.memory.clone();
        Ok(Box::new(NetworkChannel::new(index, nature, shared, port, queue, memory)))
    }
}
