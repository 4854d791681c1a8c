// SPDX-License-Identifier: MIT OR Apache-2.0

//! Channel messages: the control plane of VMBus, carried by HvPostMessage and the SynIC.
//!
//! [`GuestMessage`] holds what a guest may send and [`HostMessage`] what a host may send, so that a
//! message in the wrong direction is a parse error and needs no arm in any `match`. The structures
//! that both are made of are in [`layout`].
//!
//! Source: Linux `include/linux/hyperv.h` (`enum vmbus_channel_message_type` and the structures
//! named `vmbus_channel_*`); numbers 18 to 20 and 23 to 29 from the published protocol
//! documentation of OpenVMM.

mod guest;
mod host;
pub mod layout;

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use guest::{GuestMessage, InitiateContact, OpenChannel, OpenSignal};
pub use host::{HostMessage, VersionResponse};

use crate::open_enum::open_enum;
use crate::synic::MESSAGE_PAYLOAD_LEN;

open_enum! {
    /// The type of a channel message (`enum vmbus_channel_message_type`).
    pub enum MessageType: u32 {
        /// Host: a channel is there.
        OFFER_CHANNEL = 1,
        /// Host: a channel is withdrawn.
        RESCIND_CHANNEL_OFFER = 2,
        /// Guest: send all offers.
        REQUEST_OFFERS = 3,
        /// Host: the offers that were asked for are complete.
        ALL_OFFERS_DELIVERED = 4,
        /// Guest: open a channel on a ring.
        OPEN_CHANNEL = 5,
        /// Host: how that went.
        OPEN_CHANNEL_RESULT = 6,
        /// Guest: close a channel.
        CLOSE_CHANNEL = 7,
        /// Guest: the start of a list of pages.
        GPADL_HEADER = 8,
        /// Guest: more of that list.
        GPADL_BODY = 9,
        /// Host: the list is complete.
        GPADL_CREATED = 10,
        /// Guest: forget the list.
        GPADL_TEARDOWN = 11,
        /// Host: it is forgotten.
        GPADL_TORNDOWN = 12,
        /// Guest: the relid of a rescinded channel may be used again.
        RELID_RELEASED = 13,
        /// Guest: start a connection of this version.
        INITIATE_CONTACT = 14,
        /// Host: whether that version is spoken.
        VERSION_RESPONSE = 15,
        /// Guest: end the connection.
        UNLOAD = 16,
        /// Host: it is ended.
        UNLOAD_RESPONSE = 17,
        /// Guest: open a channel that outlives connections.
        OPEN_RESERVED_CHANNEL = 18,
        /// Guest: close it.
        CLOSE_RESERVED_CHANNEL = 19,
        /// Host: it is closed.
        CLOSE_RESERVED_RESPONSE = 20,
        /// Guest: connect a socket.
        TL_CONNECT_REQUEST = 21,
        /// Guest: send a channel's interrupts to another VP.
        MODIFY_CHANNEL = 22,
        /// Host: how a socket's connect went.
        TL_CONNECT_RESULT = 23,
        /// Host: how MODIFY_CHANNEL went.
        MODIFY_CHANNEL_RESPONSE = 24,
        /// Guest: other monitor pages.
        MODIFY_CONNECTION = 25,
        /// Host: how that went.
        MODIFY_CONNECTION_RESPONSE = 26,
        /// Guest: send no messages for now.
        PAUSE = 27,
        /// Host: none will come.
        PAUSE_RESPONSE = 28,
        /// Guest: send messages again.
        RESUME = 29,
    }
}

impl MessageType {
    /// Whether the first word behind the header is the relid of an offered channel.
    pub const fn starts_with_relid(self) -> bool {
        matches!(
            self,
            Self::RESCIND_CHANNEL_OFFER
                | Self::OPEN_CHANNEL
                | Self::OPEN_CHANNEL_RESULT
                | Self::CLOSE_CHANNEL
                | Self::GPADL_HEADER
                | Self::GPADL_CREATED
                | Self::GPADL_TEARDOWN
                | Self::RELID_RELEASED
                | Self::MODIFY_CHANNEL
                | Self::MODIFY_CHANNEL_RESPONSE
        )
    }

    /// Whether the host sends it.
    pub const fn is_hosts(self) -> bool {
        matches!(
            self,
            Self::OFFER_CHANNEL
                | Self::RESCIND_CHANNEL_OFFER
                | Self::ALL_OFFERS_DELIVERED
                | Self::OPEN_CHANNEL_RESULT
                | Self::GPADL_CREATED
                | Self::GPADL_TORNDOWN
                | Self::VERSION_RESPONSE
                | Self::UNLOAD_RESPONSE
                | Self::CLOSE_RESERVED_RESPONSE
                | Self::PAUSE_RESPONSE
                | Self::TL_CONNECT_RESULT
                | Self::MODIFY_CHANNEL_RESPONSE
                | Self::MODIFY_CONNECTION_RESPONSE
        )
    }
}

/// The first eight bytes of every channel message.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// Which message.
    pub kind: MessageType,
    /// Zero.
    pub padding: u32,
}

const _: () = assert!(size_of::<Header>() == 8);

/// The bytes of one channel message, at most 240.
#[derive(Clone, Copy)]
pub struct MessageBuf {
    len: u8,
    bytes: [u8; MESSAGE_PAYLOAD_LEN],
}

impl MessageBuf {
    /// An empty message, to be filled.
    pub const EMPTY: Self = Self { len: 0, bytes: [0; MESSAGE_PAYLOAD_LEN] };

    /// The first 240 bytes of `bytes`; a channel message is never longer.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut message = Self::EMPTY;
        message.push(bytes);
        message
    }

    /// The message.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Appends what fits of `bytes`.
    fn push(&mut self, bytes: &[u8]) {
        let room = self.bytes.get_mut(usize::from(self.len)..).unwrap_or_default();
        let count = room.len().min(bytes.len());
        for (to, from) in room.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.len = self.len.saturating_add(u8::try_from(count).unwrap_or(u8::MAX));
    }

    /// Appends a structure of the wire.
    pub(crate) fn push_struct(&mut self, value: &(impl IntoBytes + Immutable)) {
        self.push(value.as_bytes());
    }

    /// A message of type `kind` without a body yet.
    pub(crate) fn with_header(kind: MessageType) -> Self {
        let mut message = Self::EMPTY;
        message.push_struct(&Header { kind, padding: 0 });
        message
    }
}

impl PartialEq for MessageBuf {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for MessageBuf {}

impl fmt::Debug for MessageBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Ok(message) = HostMessage::parse(self.as_bytes()) {
            return message.fmt(f);
        }
        match GuestMessage::parse(self.as_bytes()) {
            Ok(message) => message.fmt(f),
            Err(error) => error.fmt(f),
        }
    }
}

/// Bytes that are no channel message of their direction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not even a header.
    #[error("{have} B are too few for the 8 B header of a channel message")]
    NoHeader {
        /// Bytes present.
        have: usize,
    },
    /// A body that ends early.
    #[error("{kind} of {have} B ends before its {need} B")]
    TooShort {
        /// Which message.
        kind: MessageType,
        /// Bytes present, the header counted.
        have: usize,
        /// Bytes needed, the header counted.
        need: usize,
    },
    /// A type that nobody knows, or that only the other side sends.
    #[error("{0} is no message that this side may send")]
    WrongDirection(MessageType),
}

/// Splits the header off; what follows is the body.
fn split(bytes: &[u8]) -> Result<(MessageType, &[u8]), MessageError> {
    let (header, body) = Header::read_from_prefix(bytes)
        .map_err(|_| MessageError::NoHeader { have: bytes.len() })?;
    Ok((header.kind, body))
}

/// Copies a structure out of the front of a body; the rest of the body follows it.
fn body<T: FromBytes>(kind: MessageType, body: &[u8]) -> Result<(T, &[u8]), MessageError> {
    T::read_from_prefix(body).map_err(|_| MessageError::TooShort {
        kind,
        have: body.len().saturating_add(size_of::<Header>()),
        need: size_of::<T>().saturating_add(size_of::<Header>()),
    })
}
