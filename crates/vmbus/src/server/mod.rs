// SPDX-License-Identifier: MIT OR Apache-2.0

//! The control plane: a state machine without I/O.
//!
//! What the guest posts goes in ([`Server::guest_message`]), as does what the devices have finished
//! ([`Server::complete`]); what is to be done comes out ([`Server::next_action`]). It knows neither
//! threads nor devices, and it never waits: a request that needs a device is answered when the
//! device has completed it.
//!
//! # A channel
//!
//! ```text
//!            OPEN                Opened(true)
//!  Closed ─────────▶ Opening ────────────────▶ Open
//!    ▲                  │ Opened(false)         │ CLOSE, UNLOAD, rescind, reset,
//!    ├──────────────────┘                       │ teardown of its ring
//!    │                       Closed             ▼
//!    └───────────────────────────────────── Closing     an OPEN meanwhile is kept and follows
//! ```
//!
//! A guest's memory is in use from the action `Open` until the completion `Closed`. So everything
//! that tells a guest that its memory is its own again (GPADL_TORNDOWN, UNLOAD_RESPONSE, the answer
//! to a second INITIATE_CONTACT) waits for that completion.
//!
//! # A relid
//!
//! A relid is given with the offer. After a RESCIND it stays taken until the guest says
//! RELID_RELEASED, because the guest may still name it.

mod absence;
mod channels;
mod contact;
mod gpadls;
mod interrupt_page;
mod offers;
mod relids;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use busway_memory::GuestMemory;
use busway_wire::control::layout::{
    GpadlHeader, OpenChannelBody, TlConnectRequest, TlConnectResult, status,
};
use busway_wire::control::{GuestMessage, HostMessage, MessageError, MessageType};
use busway_wire::{Guid, Version};

use crate::action::{Action, ChannelKey, Completion, MessageTarget};
use crate::gpadl::GpadlError;
use channels::Channel;
use contact::{Connection, Ending};
use relids::Relids;

/// What a server is made for.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// VPs of the guest; messages and interrupts go to none beyond.
    pub vp_count: u32,
    /// The newest version that is accepted.
    pub newest_version: Version,
}

/// A message of the guest was not acted upon. The connection goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It is no message.
    #[error(transparent)]
    Malformed(#[from] MessageError),
    /// It needs a connection.
    #[error("{0} without a connection")]
    NotConnected(MessageType),
    /// It came while the host closes the channels of the connection before.
    #[error("{0} while the connection is being ended")]
    Ending(MessageType),
    /// A second REQUEST_OFFERS.
    #[error("the offers of this connection were requested before")]
    OffersAgain,
    /// It names a channel that does not exist.
    #[error("{kind} names relid {relid}, which is not offered")]
    NoChannel {
        /// The message.
        kind: MessageType,
        /// The relid in it.
        relid: u32,
    },
    /// It does not fit the channel's state.
    #[error("{kind} for relid {relid}, which is {state}")]
    ChannelState {
        /// The message.
        kind: MessageType,
        /// The channel.
        relid: u32,
        /// Its state.
        state: &'static str,
    },
    /// It names a VP that does not exist.
    #[error("{kind} for relid {relid} names VP {vp} of {vp_count}")]
    NoVp {
        /// The message.
        kind: MessageType,
        /// The channel.
        relid: u32,
        /// The VP in it.
        vp: u32,
        /// VPs of the guest.
        vp_count: u32,
    },
    /// It names a GPADL that does not exist.
    #[error("{kind} names GPADL {gpadl:#x}, which does not exist")]
    NoGpadl {
        /// The message.
        kind: MessageType,
        /// The list in it.
        gpadl: u32,
    },
    /// It makes a GPADL that exists.
    #[error("GPADL {gpadl:#x} exists already")]
    GpadlExists {
        /// The list.
        gpadl: u32,
    },
    /// It makes a GPADL that the host does not take.
    #[error("GPADL {gpadl:#x} is refused: {reason}")]
    BadGpadl {
        /// The list.
        gpadl: u32,
        /// Why.
        reason: GpadlError,
    },
    /// It opens a channel on a GPADL that holds no two rings.
    #[error(
        "relid {relid} cannot be opened on GPADL {gpadl:#x}: no two rings part at page {downstream} of {pages}"
    )]
    NoRings {
        /// The channel.
        relid: u32,
        /// The list.
        gpadl: u32,
        /// Where the second ring should start.
        downstream: u32,
        /// Pages of the list.
        pages: usize,
    },
    /// It asks for a connection that cannot be.
    #[error("version {version} on VP {vp}, SINT {sint}, VTL {vtl} is refused: {reason}")]
    Contact {
        /// The version.
        version: Version,
        /// The VP for messages.
        vp: u32,
        /// The SINT for messages.
        sint: u8,
        /// The VTL.
        vtl: u8,
        /// Why.
        reason: &'static str,
    },
    /// It is a message that busway does not serve.
    #[error("{0} is not served")]
    NotServed(MessageType),
}

/// The control plane of one guest's VMBus.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    memory: GuestMemory,
    connection: Connection,
    channels: BTreeMap<ChannelKey, Channel>,
    next_key: u32,
    relids: Relids,
    /// Channels in any state but `Closed`.
    busy_channels: usize,
    actions: VecDeque<Action>,
}

impl Server {
    /// A bus without offers or a connection. Every page that the guest names must be in `memory`.
    pub fn new(config: ServerConfig, memory: GuestMemory) -> Self {
        Self {
            config,
            memory,
            connection: Connection::Disconnected,
            channels: BTreeMap::new(),
            next_key: 1,
            relids: Relids::new(),
            busy_channels: 0,
            actions: VecDeque::new(),
        }
    }

    /// The version of the connection, if there is one.
    pub fn version(&self) -> Option<Version> {
        self.connection.contact().map(|contact| contact.version)
    }

    /// Whether no channel uses the guest's memory.
    pub const fn is_quiet(&self) -> bool {
        self.busy_channels == 0
    }

    /// A channel's type and instance, for the log.
    pub fn name(&self, key: ChannelKey) -> String {
        self.channels.get(&key).map_or_else(|| format!("{key:?}"), Channel::name)
    }

    /// The channel that a relid means.
    pub(crate) fn key_of(&self, relid: u32) -> Option<ChannelKey> {
        self.relids.get(relid)?.key
    }

    /// The class of the device that a relid means.
    pub(crate) fn class_of(&self, relid: u32) -> Option<Guid> {
        let key = self.key_of(relid)?;
        Some(self.channels.get(&key)?.offer.interface_type)
    }

    /// Tells the guest that a channel cannot be opened, whatever it asks for.
    pub(crate) fn refuse_open(&mut self, open: &OpenChannelBody) {
        self.answer_open(open.relid, open.open_id, status::UNSUCCESSFUL);
    }

    /// Tells the guest that a list of pages cannot be had, whatever it is.
    pub(crate) fn refuse_gpadl(&mut self, header: &GpadlHeader) {
        self.answer_created(header.relid, header.gpadl, status::INSUFFICIENT_RESOURCES);
    }

    /// The oldest action that has not been taken yet.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Takes a message as the guest posted it. The error says why nothing, or not all, was done;
    /// the guest has been answered where the protocol has an answer.
    pub fn guest_message(&mut self, bytes: &[u8]) -> Result<(), ControlError> {
        let message = GuestMessage::parse(bytes)?;
        match message {
            GuestMessage::InitiateContact(contact) => return self.initiate_contact(&contact),
            GuestMessage::Unload => {
                self.unload();
                return Ok(());
            }
            _ => {}
        }
        match self.connection {
            Connection::Connected(_) => {}
            Connection::Disconnected => return Err(ControlError::NotConnected(message.kind())),
            Connection::Ending(_) => return Err(ControlError::Ending(message.kind())),
        }
        match message {
            GuestMessage::RequestOffers => self.request_offers(),
            GuestMessage::GpadlHeader(header, ranges) => self.gpadl_header(&header, ranges),
            GuestMessage::GpadlBody(body, pfns) => self.gpadl_body(&body, pfns),
            GuestMessage::GpadlTeardown(teardown) => self.gpadl_teardown(&teardown),
            GuestMessage::OpenChannel(open) => self.open_channel(&open.body),
            GuestMessage::CloseChannel(close) => self.close_channel(close.relid),
            GuestMessage::ModifyChannel(modify) => self.modify_channel(&modify),
            GuestMessage::RelidReleased(released) => self.relid_released(released.relid),
            GuestMessage::TlConnectRequest(request, _) => {
                self.actions.push_back(Action::Connect(request));
                Ok(())
            }
            GuestMessage::OpenReservedChannel(_)
            | GuestMessage::CloseReservedChannel(_)
            | GuestMessage::ModifyConnection(_)
            | GuestMessage::Pause
            | GuestMessage::Resume
            | GuestMessage::InitiateContact(_)
            | GuestMessage::Unload => Err(ControlError::NotServed(message.kind())),
        }
    }

    /// Takes the result of an action.
    pub fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Opened(key, success) => self.opened(key, success),
            Completion::Closed(key) => self.closed(key),
            Completion::Retargeted(key) => self.retargeted(key),
            Completion::GpadlDropped(key, gpadl) => self.gpadl_dropped(key, gpadl),
        }
    }

    /// Ends everything without a word: the machine was reset. The offers remain; they are made
    /// anew on the next connection. Complete when [`is_quiet`](Self::is_quiet).
    pub fn reset(&mut self) {
        self.end_connection(Ending::default());
    }

    /// Sends `message` to the guest, if one is connected.
    fn post(&mut self, message: HostMessage) {
        if let Some(contact) = self.connection.contact() {
            let target = contact.target;
            self.post_to(target, message);
        }
    }

    fn post_to(&mut self, target: MessageTarget, message: HostMessage) {
        self.actions.push_back(Action::Post(target, message));
    }

    /// Nobody listens on the host. Linux takes the missing offer for an answer and ignores this
    /// message; Windows waits for it.
    pub fn refuse_connect(&mut self, request: &TlConnectRequest) {
        let &TlConnectRequest { guest_endpoint, host_service } = request;
        self.post(HostMessage::TlConnectResult(TlConnectResult {
            guest_endpoint,
            host_service,
            status: status::CONNECTION_REFUSED,
        }));
    }
}
