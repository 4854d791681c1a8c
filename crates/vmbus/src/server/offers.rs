// SPDX-License-Identifier: MIT OR Apache-2.0

//! Offers: what the guest is told to exist, and to exist no more.

use busway_wire::control::layout::{OfferChannel, OfferFlags, Relid};
use busway_wire::control::{HostMessage, MessageType};
use busway_wire::synic::VMBUS_SINT;

use super::channels::{Channel, Listing, State};
use super::{ControlError, Server};
use crate::action::{Action, ChannelKey};
use crate::offer::Offer;

/// Bits in a monitor page. Nobody reads them here (a device that has the guest use one looks into its
/// ring by itself), so that two channels may have the same.
const MONITORS: u16 = 128;

/// What `monitorid` says when there is none.
const NO_MONITOR: u8 = 0xff;

impl Server {
    /// Adds a channel; a connected guest is told at once. `subchannel` names the primary channel
    /// and this one's index under it, from 1 on.
    pub fn offer(&mut self, offer: Offer, subchannel: Option<(ChannelKey, u16)>) -> ChannelKey {
        let key = ChannelKey(self.next_key);
        self.next_key += 1;
        if let Some(primary) = subchannel.and_then(|(key, _)| self.channels.get_mut(&key)) {
            primary.subchannels.push(key);
        }
        self.channels.insert(key, Channel::new(offer, subchannel));
        if self.offers_requested() {
            self.send_offer(key);
        }
        key
    }

    /// Adds `count` subchannels of an open primary channel behind those that it has; what was added,
    /// and the index of each. A channel that is not open any more gets none.
    pub fn offer_subchannels(
        &mut self,
        primary: ChannelKey,
        offer: &Offer,
        count: u16,
    ) -> Vec<(ChannelKey, u16)> {
        let first = match self.channels.get(&primary) {
            Some(Channel { state: State::Open { .. }, listing, subchannels, .. })
                if *listing == Listing::Offered =>
            {
                subchannels.len() + 1
            }
            _ => return Vec::new(),
        };
        let indices = (first..).map_while(|index| u16::try_from(index).ok());
        let add = |index| (self.offer(offer.clone(), Some((primary, index))), index);
        indices.take(count.into()).map(add).collect()
    }

    /// Whether the guest has a channel open, or is about to.
    pub fn is_open(&self, key: ChannelKey) -> bool {
        self.channels.get(&key).is_some_and(|channel| !matches!(channel.state, State::Closed))
    }

    /// Removes a channel, and its subchannels before it. [`Action::Gone`] follows when nothing of
    /// it is in use any more.
    pub fn revoke(&mut self, key: ChannelKey) {
        self.revoke_subchannels(key);
        self.withdraw_as(key, Listing::Revoked);
    }

    /// Takes a channel from the guest until its next connection: the guest broke its protocol.
    pub fn withdraw(&mut self, key: ChannelKey) {
        match self.channels.get(&key) {
            Some(channel) if channel.is_socket() => return self.revoke(key),
            Some(channel) if channel.listing == Listing::Offered => {}
            // It goes already, for good or for a time.
            _ => return,
        }
        self.revoke_subchannels(key);
        self.withdraw_as(key, Listing::Withdrawn);
    }

    pub(super) fn revoke_subchannels(&mut self, key: ChannelKey) {
        let Some(channel) = self.channels.get_mut(&key) else {
            return;
        };
        let mut children = std::mem::take(&mut channel.subchannels);
        children.retain(|child| self.channels.contains_key(child));
        if let Some(channel) = self.channels.get_mut(&key) {
            channel.leaving.extend(&children);
        }
        for child in children {
            self.revoke(child);
        }
    }

    pub(super) fn withdraw_as(&mut self, key: ChannelKey, listing: Listing) {
        let Some(channel) = self.channels.get_mut(&key) else {
            return;
        };
        channel.listing = listing;
        self.close(key);
        self.forget_if_done(key);
    }

    /// Ends what a withdrawn channel leaves behind, once it is closed: its hold on the relid, and
    /// the channel itself if it was revoked.
    ///
    /// RESCIND comes no sooner: Linux takes it to mean that the host uses the channel's memory no
    /// more, and frees rings and buffers without a GPADL_TEARDOWN (`vmbus_teardown_gpadl`). A
    /// primary channel's buffers are used by its subchannels too.
    pub(super) fn forget_if_done(&mut self, key: ChannelKey) {
        let Some(channel) = self.channels.get_mut(&key) else {
            return;
        };
        let in_use = !matches!(channel.state, State::Closed) || !channel.leaving.is_empty();
        if channel.listing == Listing::Offered || in_use {
            return;
        }
        let (revoked, primary) = (channel.listing == Listing::Revoked, channel.primary);
        if let Some(relid) = channel.relid.take()
            && let Some(slot) = self.relids.get_mut(relid.into())
        {
            slot.key = None;
            slot.rescinded = Some(key);
            channel.is_unreleased = true;
            self.post(HostMessage::Rescind(Relid { relid: relid.into() }));
        }
        if revoked {
            self.channels.remove(&key);
            self.actions.push_back(Action::Gone(key));
            if let Some(primary) = primary {
                self.child_has_gone(primary, key);
            }
        } else {
            self.return_if_free(key);
        }
    }

    fn child_has_gone(&mut self, primary: ChannelKey, child: ChannelKey) {
        if let Some(channel) = self.channels.get_mut(&primary) {
            channel.leaving.retain(|key| *key != child);
            self.forget_if_done(primary);
        }
    }

    pub(super) fn offers_requested(&self) -> bool {
        self.connection.contact().is_some_and(|contact| contact.offers_requested)
    }

    /// Sends every offer, sorted so that relids come out the same each time, and then, with no
    /// other kind of message in between, the end of them: some guests wait for exactly that.
    pub(super) fn request_offers(&mut self) -> Result<(), ControlError> {
        if let Some(contact) = self.contact_mut() {
            if contact.offers_requested {
                return Err(ControlError::OffersAgain);
            }
            contact.offers_requested = true;
        }
        let mut keys: Vec<_> = self.channels.iter().map(|(key, c)| (c.order(), *key)).collect();
        keys.sort();
        for (_, key) in keys {
            self.send_offer(key);
        }
        self.post(HostMessage::AllOffersDelivered);
        Ok(())
    }

    pub(super) fn send_offer(&mut self, key: ChannelKey) {
        let Some(channel) = self.channels.get_mut(&key) else {
            return;
        };
        if channel.listing != Listing::Offered {
            return;
        }
        let Some(relid) = self.relids.allocate(key) else {
            log::warn!("vmbus: no relid is left for {}", channel.name());
            return;
        };
        channel.relid = Some(relid);
        let message = offer_message(channel, relid);
        self.post(HostMessage::Offer(Box::new(message)));
    }

    /// The guest has let go of a relid: after a RESCIND, or because no driver of it wants the
    /// offer.
    pub(super) fn relid_released(&mut self, relid: u32) -> Result<(), ControlError> {
        let kind = MessageType::RELID_RELEASED;
        let slot = self.relids.get_mut(relid).ok_or(ControlError::NoChannel { kind, relid })?;
        let Some(key) = slot.key else {
            let rescinded = slot.rescinded;
            self.free_relid(relid);
            if let Some(key) = rescinded {
                self.released(key);
            }
            return Ok(());
        };
        let Some(channel) = self.channels.get_mut(&key) else {
            return Err(ControlError::NoChannel { kind, relid });
        };
        if !matches!(channel.state, State::Closed) {
            let state = channel.state.name();
            return Err(ControlError::ChannelState { kind, relid, state });
        }
        channel.relid = None;
        let is_socket = channel.is_socket();
        self.free_relid(relid);
        if is_socket {
            self.revoke(key);
        }
        Ok(())
    }

    fn free_relid(&mut self, relid: u32) {
        if let Ok(relid) = u16::try_from(relid) {
            self.relids.free(relid);
        }
    }

    /// Forgets all that the last guest was told and has said. Every channel is closed.
    pub(super) fn forget_guest_state(&mut self) {
        self.relids.clear();
        for channel in self.channels.values_mut() {
            channel.relid = None;
            channel.is_unreleased = false;
            if matches!(channel.listing, Listing::Withdrawn | Listing::Returning) {
                channel.listing = Listing::Offered;
            }
        }
        // The next guest asks its devices for subchannels anew, and makes its own connections.
        let keys: Vec<_> = self.channels.keys().copied().collect();
        for key in keys {
            self.revoke_subchannels(key);
            if self.channels.get(&key).is_some_and(Channel::is_socket) {
                self.revoke(key);
            }
        }
    }
}

/// The connection by which the guest signals a channel: relid, SINT and VTL 0, as real hosts
/// compose it.
pub(super) const fn connection_id(relid: u16) -> u32 {
    relid as u32 | (VMBUS_SINT as u32) << 12
}

fn offer_message(channel: &Channel, relid: u16) -> OfferChannel {
    let offer = &channel.offer;
    let is_monitored = offer.flags.contains(OfferFlags::REQUEST_MONITORED_NOTIFICATION);
    OfferChannel {
        interface_type: offer.interface_type,
        instance: offer.instance,
        reserved: [0; 16],
        flags: offer.flags.bits(),
        mmio_megabytes: offer.mmio_megabytes,
        user_defined: offer.user_defined,
        subchannel_index: channel.subchannel_index,
        mmio_megabytes_optional: 0,
        relid: relid.into(),
        monitor_id: if is_monitored { (relid % MONITORS) as u8 } else { NO_MONITOR },
        monitor_allocated: is_monitored.into(),
        is_dedicated_interrupt: 1,
        connection_id: connection_id(relid),
    }
}
