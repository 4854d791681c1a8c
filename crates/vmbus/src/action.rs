// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the control plane asks to be done, and what it is told in return.

use std::sync::Arc;

use busway_wire::Version;
use busway_wire::control::HostMessage;
use busway_wire::control::layout::TlConnectRequest;

use crate::gpadl::{Gpadl, GpadlId};

/// The host's own name for a channel, from the offer on; a relid may change, this does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelKey(pub(crate) u32);

impl ChannelKey {
    /// Its number; none is used twice.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl std::fmt::Display for ChannelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Where messages to the guest go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageTarget {
    /// The VP whose message page is used.
    pub vp: u32,
    /// The SINT whose slot is used.
    pub sint: u8,
}

/// How the guest learns that a channel has something for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptTarget {
    /// Not at all: it polls.
    Polled,
    /// An event flag of a VP (protocol 2.4 and later).
    EventFlag {
        /// The VP.
        vp: u32,
        /// The SINT.
        sint: u8,
        /// The flag: the channel's relid.
        flag: u16,
    },
    /// A bit in the first half of the interrupt page, and event flag 0 of VP 0 (before 2.4).
    InterruptPage {
        /// The page's guest physical address.
        page: u64,
        /// The bit: the channel's relid.
        bit: u16,
    },
}

/// A channel is to be opened.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// The list that holds both rings.
    pub ring: Arc<Gpadl>,
    /// The page of that list where the guest's receive ring starts.
    pub downstream_page: u32,
    /// How the guest is told.
    pub interrupt: InterruptTarget,
    /// The connection by which the guest signals the channel.
    pub connection_id: u32,
    /// The driver's own data.
    pub user_data: [u8; 120],
    /// Every complete list that the guest has made for this channel.
    pub gpadls: Vec<(GpadlId, Arc<Gpadl>)>,
    /// The version of the connection.
    pub version: Version,
}

/// What the control plane wants done. Actions are to be carried out in order.
#[derive(Debug)]
pub enum Action {
    /// Offer the guest the connection that it asks for, or [refuse it](crate::Server::refuse_connect).
    Connect(TlConnectRequest),
    /// Deliver a message to the guest, after all that were asked for before.
    Post(MessageTarget, HostMessage),
    /// Forget the messages that have not been delivered: the guest that they were for is gone.
    DropMessages,
    /// Open a channel; answer with [`Completion::Opened`].
    Open(ChannelKey, Box<OpenRequest>),
    /// Close a channel: touch its rings and lists no more; answer with [`Completion::Closed`].
    Close(ChannelKey),
    /// Interrupt the guest elsewhere; answer with [`Completion::Retargeted`], after which nothing
    /// may go to the old place.
    Retarget(ChannelKey, InterruptTarget),
    /// An open channel has one more list.
    AddGpadl(ChannelKey, GpadlId, Arc<Gpadl>),
    /// An open channel must let go of a list; answer with [`Completion::GpadlDropped`].
    DropGpadl(ChannelKey, GpadlId),
    /// A channel that was revoked is closed, and its key has no meaning any more.
    Gone(ChannelKey),
}

/// What has been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// An open succeeded, or not.
    Opened(ChannelKey, bool),
    /// A close is complete: nothing of the guest's memory is in flight.
    Closed(ChannelKey),
    /// Interrupts go to the new place only.
    Retargeted(ChannelKey),
    /// A list is not used any more.
    GpadlDropped(ChannelKey, GpadlId),
}
