// SPDX-License-Identifier: MIT OR Apache-2.0

//! Devices that are taken from the guest and come back.
//!
//! Linux takes an offer whose type and instance it knows for a subchannel of what it knows, and throws it
//! away if its index is 0 (`vmbus_process_offer`). It has forgotten the last one when it releases that
//! one's relid (`hv_process_channel_removal`), so no offer follows a rescind before that.

use super::Server;
use super::channels::{Channel, Listing, State};
use crate::action::ChannelKey;

impl Server {
    /// Takes a primary channel from the guest until it is [brought back](Self::bring_back), and its
    /// subchannels for good. False if there is nothing to bring back: it is being taken from the guest
    /// already, or is a socket, which is used once and revoked.
    pub fn take_away(&mut self, key: ChannelKey) -> bool {
        match self.channels.get(&key) {
            Some(channel) if channel.is_socket() => {
                self.revoke(key);
                return false;
            }
            Some(channel) if channel.listing == Listing::Offered => {}
            _ => return false,
        }
        self.revoke_subchannels(key);
        self.withdraw_as(key, Listing::Away);
        true
    }

    /// Offers a channel again that was taken away: at once, or as soon as the guest has released the
    /// relid that it had, or has gone. False if the guest is waited for.
    pub fn bring_back(&mut self, key: ChannelKey) -> bool {
        let Some(channel) = self.channels.get_mut(&key) else {
            return true;
        };
        if channel.listing == Listing::Away {
            channel.listing = Listing::Returning;
        }
        self.return_if_free(key);
        self.channels.get(&key).is_none_or(|channel| channel.listing != Listing::Returning)
    }

    /// The guest has released the relid that a channel had before it was rescinded.
    pub(super) fn released(&mut self, key: ChannelKey) {
        if let Some(channel) = self.channels.get_mut(&key) {
            channel.is_unreleased = false;
            self.return_if_free(key);
        }
    }

    /// Offers a channel that is to return, if neither end has to do with what it was before.
    pub(super) fn return_if_free(&mut self, key: ChannelKey) {
        let is_free = |channel: &Channel| {
            let is_closed = matches!(channel.state, State::Closed) && channel.leaving.is_empty();
            is_closed && !channel.is_unreleased
        };
        if let Some(channel) = self.channels.get_mut(&key)
            && channel.listing == Listing::Returning
            && is_free(channel)
        {
            channel.listing = Listing::Offered;
            if self.offers_requested() {
                self.send_offer(key);
            }
        }
    }
}
