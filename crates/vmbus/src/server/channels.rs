// SPDX-License-Identifier: MIT OR Apache-2.0

//! Open, close and modify: a channel from the guest's OPEN_CHANNEL to the device's last access.

use std::sync::Arc;

use busway_wire::control::layout::{
    ModifyChannel, ModifyChannelResponse, OfferFlags, OpenChannelBody, OpenResult, status,
};
use busway_wire::control::{HostMessage, MessageType};
use busway_wire::synic::VMBUS_SINT;
use busway_wire::{Guid, Version, class};

use super::contact::Contact;
use super::offers::connection_id;
use super::relids::GpadlEntry;
use super::{ControlError, Server};
use crate::action::{Action, ChannelKey, InterruptTarget, OpenRequest};
use crate::gpadl::{Gpadl, GpadlId};
use crate::offer::Offer;

/// A target VP that means: no interrupts, the guest polls.
const NO_VP: u32 = u32::MAX;

/// Whether the guest may know of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    /// It is, or will be, offered.
    Offered,
    /// It is not offered again before the next connection.
    Withdrawn,
    /// It is not offered again before somebody says so.
    Away,
    /// It is offered again when the guest has let go of what it had of it.
    Returning,
    /// It is removed as soon as it is closed.
    Revoked,
}

#[derive(Debug)]
pub(super) enum State {
    Closed,
    Opening {
        open_id: u32,
        ring: GpadlId,
        /// The guest, or the host, changed its mind meanwhile.
        then_close: bool,
    },
    Open {
        ring: GpadlId,
    },
    Closing {
        /// The guest wants it open again, and does not wait for the close, which has no answer.
        reopen: Option<Box<OpenChannelBody>>,
    },
}

impl State {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Opening { .. } => "opening",
            Self::Open { .. } => "open",
            Self::Closing { .. } => "closing",
        }
    }
}

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) offer: Offer,
    /// 0 for a primary channel.
    pub(super) subchannel_index: u16,
    pub(super) primary: Option<ChannelKey>,
    pub(super) subchannels: Vec<ChannelKey>,
    /// Subchannels that were revoked and may still be in use.
    pub(super) leaving: Vec<ChannelKey>,
    pub(super) relid: Option<u16>,
    /// The guest has not released the last relid, which was rescinded.
    pub(super) is_unreleased: bool,
    pub(super) state: State,
    pub(super) listing: Listing,
}

impl Channel {
    pub(super) fn new(offer: Offer, subchannel: Option<(ChannelKey, u16)>) -> Self {
        let (primary, subchannel_index) = subchannel.unzip();
        Self {
            offer,
            subchannel_index: subchannel_index.unwrap_or_default(),
            primary,
            subchannels: Vec::new(),
            leaving: Vec::new(),
            relid: None,
            is_unreleased: false,
            state: State::Closed,
            listing: Listing::Offered,
        }
    }

    /// Whether it is a socket: used once.
    pub(super) const fn is_socket(&self) -> bool {
        self.offer.flags.contains(OfferFlags::TLNPI_PROVIDER_OFFER)
    }

    /// What offers are sorted by.
    pub(super) fn order(&self) -> (Guid, Guid, u16) {
        (self.offer.interface_type, self.offer.instance, self.subchannel_index)
    }

    /// For the log.
    pub(super) fn name(&self) -> String {
        let class = self.offer.interface_type;
        let class = class::name(class).map_or_else(|| class.to_string(), str::to_owned);
        match self.subchannel_index {
            0 => format!("{class} {}", self.offer.instance),
            index => format!("{class} {} subchannel {index}", self.offer.instance),
        }
    }
}

impl Server {
    pub(super) fn open_channel(&mut self, open: &OpenChannelBody) -> Result<(), ControlError> {
        let kind = MessageType::OPEN_CHANNEL;
        let relid = open.relid;
        let result = self.channel_of(kind, relid).and_then(|key| self.open_or_wait(key, open));
        if result.is_err() {
            self.answer_open(relid, open.open_id, status::INVALID_PARAMETER);
        }
        result
    }

    fn open_or_wait(
        &mut self,
        key: ChannelKey,
        open: &OpenChannelBody,
    ) -> Result<(), ControlError> {
        let (kind, relid) = (MessageType::OPEN_CHANNEL, open.relid);
        let not_now = |state| Err(ControlError::ChannelState { kind, relid, state });
        let Some(channel) = self.channels.get_mut(&key) else {
            return not_now("gone");
        };
        match &mut channel.state {
            _ if channel.listing != Listing::Offered => not_now("rescinded"),
            State::Closed => self.start_open(key, open),
            State::Closing { reopen } => {
                *reopen = Some(Box::new(*open));
                Ok(())
            }
            state => not_now(state.name()),
        }
    }

    fn start_open(&mut self, key: ChannelKey, open: &OpenChannelBody) -> Result<(), ControlError> {
        let kind = MessageType::OPEN_CHANNEL;
        let contact = self.contact(kind)?;
        let relid = open.relid;
        let slot = self.relids.get(relid).ok_or(ControlError::NoChannel { kind, relid })?;
        let (gpadl, ring_id) = (open.ring_gpadl, GpadlId(open.ring_gpadl));
        let gpadls: Vec<(GpadlId, Arc<Gpadl>)> = slot
            .gpadls
            .iter()
            .filter_map(|(id, entry)| match entry {
                GpadlEntry::Ready(gpadl) => Some((*id, Arc::clone(gpadl))),
                GpadlEntry::Building(_) | GpadlEntry::TearingDown(_) => None,
            })
            .collect();
        let ring = gpadls.iter().find(|(id, _)| *id == ring_id).map(|(_, ring)| Arc::clone(ring));
        let ring = ring.ok_or(ControlError::NoGpadl { kind, gpadl })?;
        let downstream = open.downstream_page_offset;
        if ring.rings(downstream).is_none() {
            let pages = ring.page_count();
            return Err(ControlError::NoRings { relid, gpadl, downstream, pages });
        }
        let relid = u16::try_from(relid).map_err(|_| ControlError::NoChannel { kind, relid })?;
        let interrupt = self.interrupt_target(kind, &contact, relid, open.target_vp)?;
        let request = OpenRequest {
            ring,
            downstream_page: downstream,
            interrupt,
            connection_id: connection_id(relid),
            user_data: open.user_data,
            gpadls,
            version: contact.version,
        };
        self.actions.push_back(Action::Open(key, Box::new(request)));
        let (open_id, then_close) = (open.open_id, false);
        self.set_state(key, State::Opening { open_id, ring: ring_id, then_close });
        Ok(())
    }

    fn interrupt_target(
        &self,
        kind: MessageType,
        contact: &Contact,
        relid: u16,
        vp: u32,
    ) -> Result<InterruptTarget, ControlError> {
        if contact.version < Version::V2_4 {
            return Ok(InterruptTarget::InterruptPage { page: contact.interrupt_page, bit: relid });
        }
        let vp_count = self.config.vp_count;
        match vp {
            NO_VP => Ok(InterruptTarget::Polled),
            vp if vp < vp_count => {
                Ok(InterruptTarget::EventFlag { vp, sint: VMBUS_SINT, flag: relid })
            }
            vp => Err(ControlError::NoVp { kind, relid: relid.into(), vp, vp_count }),
        }
    }

    pub(super) fn opened(&mut self, key: ChannelKey, success: bool) {
        let Some(channel) = self.channels.get(&key) else {
            return;
        };
        let State::Opening { open_id, ring, then_close } = channel.state else {
            return;
        };
        let relid = channel.relid;
        let state = if success { State::Open { ring } } else { State::Closed };
        self.set_state(key, state);
        if let Some(relid) = relid
            && !then_close
        {
            let status = if success { status::SUCCESS } else { status::UNSUCCESSFUL };
            self.answer_open(relid.into(), open_id, status);
        }
        if !success {
            self.settle(key);
        } else if then_close {
            self.close(key);
        }
    }

    pub(super) fn answer_open(&mut self, relid: u32, open_id: u32, status: u32) {
        self.post(HostMessage::OpenResult(OpenResult { relid, open_id, status }));
    }

    /// CLOSE has no answer; the guest goes on with the teardown of its ring, which has one.
    pub(super) fn close_channel(&mut self, relid: u32) -> Result<(), ControlError> {
        let kind = MessageType::CLOSE_CHANNEL;
        if self.relids.get(relid).is_some_and(|slot| slot.key.is_none()) {
            // Linux closes a socket's channel when it has been rescinded, and so may any guest
            // that was about to.
            return Ok(());
        }
        let key = self.channel_of(kind, relid)?;
        let Some(channel) = self.channels.get(&key) else {
            return Err(ControlError::NoChannel { kind, relid });
        };
        if matches!(channel.state, State::Closed) {
            let state = channel.state.name();
            return Err(ControlError::ChannelState { kind, relid, state });
        }
        if channel.is_socket() {
            // The guest waits for the RESCIND that follows its close.
            self.revoke(key);
            return Ok(());
        }
        // Guests free the subchannels of a channel that they close when these are rescinded.
        self.revoke_subchannels(key);
        self.close(key);
        Ok(())
    }

    /// Gets a channel closed, whatever its state is.
    pub(super) fn close(&mut self, key: ChannelKey) {
        let Some(channel) = self.channels.get_mut(&key) else {
            return;
        };
        match &mut channel.state {
            State::Closed => {}
            State::Opening { then_close, .. } => *then_close = true,
            State::Closing { reopen } => *reopen = None,
            State::Open { .. } => {
                self.set_state(key, State::Closing { reopen: None });
                self.actions.push_back(Action::Close(key));
            }
        }
    }

    pub(super) fn close_all_channels(&mut self) {
        let busy = |channel: &Channel| !matches!(channel.state, State::Closed);
        let keys: Vec<_> =
            self.channels.iter().filter(|(_, c)| busy(c)).map(|(key, _)| *key).collect();
        for key in keys {
            self.close(key);
        }
    }

    pub(super) fn closed(&mut self, key: ChannelKey) {
        let Some(channel) = self.channels.get_mut(&key) else {
            return;
        };
        let State::Closing { reopen } = &mut channel.state else {
            return;
        };
        let reopen = reopen.take();
        self.set_state(key, State::Closed);
        self.settle(key);
        if let Some(open) = reopen
            && let Err(error) = self.open_channel(&open)
        {
            log::warn!("vmbus: {error}");
        }
    }

    /// Answers all that waited for a channel to be closed.
    fn settle(&mut self, key: ChannelKey) {
        if let Some(relid) = self.channels.get(&key).and_then(|channel| channel.relid) {
            self.answer_teardowns(relid);
        }
        self.forget_if_done(key);
        self.finish_ending();
    }

    pub(super) fn modify_channel(&mut self, modify: &ModifyChannel) -> Result<(), ControlError> {
        let result = self.retarget(modify);
        if result.is_err() {
            self.answer_modify(modify.relid, status::INVALID_PARAMETER);
        }
        result
    }

    fn retarget(&mut self, modify: &ModifyChannel) -> Result<(), ControlError> {
        let kind = MessageType::MODIFY_CHANNEL;
        let &ModifyChannel { relid, target_vp: vp } = modify;
        let key = self.channel_of(kind, relid)?;
        let contact = self.contact(kind)?;
        let state = self.channels.get(&key).map_or("gone", |channel| channel.state.name());
        let is_open =
            self.channels.get(&key).is_some_and(|c| matches!(c.state, State::Open { .. }));
        let wire_relid = u16::try_from(relid).ok().filter(|_| is_open);
        let wire_relid = wire_relid.ok_or(ControlError::ChannelState { kind, relid, state })?;
        let vp_count = self.config.vp_count;
        match self.interrupt_target(kind, &contact, wire_relid, vp)? {
            // A channel cannot be made a polled one.
            InterruptTarget::Polled => Err(ControlError::NoVp { kind, relid, vp, vp_count }),
            target => {
                self.actions.push_back(Action::Retarget(key, target));
                Ok(())
            }
        }
    }

    pub(super) fn retargeted(&mut self, key: ChannelKey) {
        if let Some(relid) = self.channels.get(&key).and_then(|channel| channel.relid) {
            self.answer_modify(relid.into(), status::SUCCESS);
        }
    }

    /// The answer exists from 5.3 on; older guests do not know the message.
    fn answer_modify(&mut self, relid: u32, status: u32) {
        if self.version() >= Some(Version::V5_3) {
            let response = ModifyChannelResponse { relid, status };
            self.post(HostMessage::ModifyChannelResponse(response));
        }
    }

    fn channel_of(&self, kind: MessageType, relid: u32) -> Result<ChannelKey, ControlError> {
        let slot = self.relids.get(relid);
        slot.and_then(|slot| slot.key).ok_or(ControlError::NoChannel { kind, relid })
    }

    fn set_state(&mut self, key: ChannelKey, state: State) {
        if let Some(channel) = self.channels.get_mut(&key) {
            let was_closed = matches!(channel.state, State::Closed);
            let is_closed = matches!(state, State::Closed);
            channel.state = state;
            match (was_closed, is_closed) {
                (true, false) => self.busy_channels += 1,
                (false, true) => self.busy_channels -= 1,
                _ => {}
            }
        }
    }
}
