// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a host may send.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::layout::{
    GpadlCreated, GpadlTorndown, ModifyChannelResponse, OfferChannel, OfferFlags, OpenResult,
    Relid, TlConnectResult, VersionResponseBody,
};
use super::{MessageBuf, MessageError, MessageType, body, split};
use crate::{FeatureFlags, class};

/// A channel message from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMessage {
    /// Whether a version is spoken.
    VersionResponse(VersionResponse),
    /// A channel is there.
    Offer(Box<OfferChannel>),
    /// All offers that were asked for have been sent.
    AllOffersDelivered,
    /// A channel is withdrawn.
    Rescind(Relid),
    /// A list of pages is complete, or refused.
    GpadlCreated(GpadlCreated),
    /// A list of pages is forgotten.
    GpadlTorndown(GpadlTorndown),
    /// How an open went.
    OpenResult(OpenResult),
    /// How a change of the target VP went.
    ModifyChannelResponse(ModifyChannelResponse),
    /// A reserved channel is closed.
    CloseReservedResponse(Relid),
    /// How a socket's connect went.
    TlConnectResult(TlConnectResult),
    /// Whether other monitor pages are accepted: the connection's state, 0 for success.
    ModifyConnectionResponse(u8),
    /// No messages will come until RESUME.
    PauseResponse,
    /// The connection is ended.
    UnloadResponse,
}

/// VERSION_RESPONSE; 16 bytes, or 20 where features were negotiated (6.0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionResponse {
    /// The part that every version has.
    pub body: VersionResponseBody,
    /// The features that both ends know, in the answer to 6.0 and later.
    pub features: Option<FeatureFlags>,
}

impl VersionResponse {
    /// "Not this one": all zero, 16 bytes, whatever was asked for.
    pub const UNSUPPORTED: Self = Self {
        body: VersionResponseBody {
            supported: 0,
            connection_state: 0,
            padding: 0,
            version_or_connection_id: 0,
        },
        features: None,
    };
}

/// MODIFY_CONNECTION_RESPONSE's body.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct ConnectionState(u8);

impl HostMessage {
    /// Parses a message as a guest reads it out of its slot.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let (kind, rest) = split(bytes)?;
        Ok(match kind {
            MessageType::VERSION_RESPONSE => {
                let (response, rest) = body(kind, rest)?;
                let features = body::<u32>(kind, rest).ok();
                let features = features.map(|(bits, _)| FeatureFlags::from_bits_retain(bits));
                Self::VersionResponse(VersionResponse { body: response, features })
            }
            MessageType::OFFER_CHANNEL => Self::Offer(Box::new(body(kind, rest)?.0)),
            MessageType::ALL_OFFERS_DELIVERED => Self::AllOffersDelivered,
            MessageType::RESCIND_CHANNEL_OFFER => Self::Rescind(body(kind, rest)?.0),
            MessageType::GPADL_CREATED => Self::GpadlCreated(body(kind, rest)?.0),
            MessageType::GPADL_TORNDOWN => Self::GpadlTorndown(body(kind, rest)?.0),
            MessageType::OPEN_CHANNEL_RESULT => Self::OpenResult(body(kind, rest)?.0),
            MessageType::MODIFY_CHANNEL_RESPONSE => {
                Self::ModifyChannelResponse(body(kind, rest)?.0)
            }
            MessageType::CLOSE_RESERVED_RESPONSE => {
                Self::CloseReservedResponse(body(kind, rest)?.0)
            }
            MessageType::TL_CONNECT_RESULT => Self::TlConnectResult(body(kind, rest)?.0),
            MessageType::MODIFY_CONNECTION_RESPONSE => {
                let (ConnectionState(state), _) = body(kind, rest)?;
                Self::ModifyConnectionResponse(state)
            }
            MessageType::PAUSE_RESPONSE => Self::PauseResponse,
            MessageType::UNLOAD_RESPONSE => Self::UnloadResponse,
            other => return Err(MessageError::WrongDirection(other)),
        })
    }

    /// The number on the wire.
    pub const fn kind(&self) -> MessageType {
        match self {
            Self::VersionResponse(_) => MessageType::VERSION_RESPONSE,
            Self::Offer(_) => MessageType::OFFER_CHANNEL,
            Self::AllOffersDelivered => MessageType::ALL_OFFERS_DELIVERED,
            Self::Rescind(_) => MessageType::RESCIND_CHANNEL_OFFER,
            Self::GpadlCreated(_) => MessageType::GPADL_CREATED,
            Self::GpadlTorndown(_) => MessageType::GPADL_TORNDOWN,
            Self::OpenResult(_) => MessageType::OPEN_CHANNEL_RESULT,
            Self::ModifyChannelResponse(_) => MessageType::MODIFY_CHANNEL_RESPONSE,
            Self::CloseReservedResponse(_) => MessageType::CLOSE_RESERVED_RESPONSE,
            Self::TlConnectResult(_) => MessageType::TL_CONNECT_RESULT,
            Self::ModifyConnectionResponse(_) => MessageType::MODIFY_CONNECTION_RESPONSE,
            Self::PauseResponse => MessageType::PAUSE_RESPONSE,
            Self::UnloadResponse => MessageType::UNLOAD_RESPONSE,
        }
    }

    /// The bytes that go into the guest's message slot.
    pub fn encode(&self) -> MessageBuf {
        let mut message = MessageBuf::with_header(self.kind());
        match self {
            Self::VersionResponse(response) => {
                message.push_struct(&response.body);
                if let Some(features) = response.features {
                    message.push_struct(&features.bits());
                }
            }
            Self::Offer(body) => message.push_struct(&**body),
            Self::Rescind(body) | Self::CloseReservedResponse(body) => message.push_struct(body),
            Self::GpadlCreated(body) => message.push_struct(body),
            Self::GpadlTorndown(body) => message.push_struct(body),
            Self::OpenResult(body) => message.push_struct(body),
            Self::ModifyChannelResponse(body) => message.push_struct(body),
            Self::TlConnectResult(body) => message.push_struct(body),
            Self::ModifyConnectionResponse(state) => message.push_struct(&ConnectionState(*state)),
            Self::AllOffersDelivered | Self::PauseResponse | Self::UnloadResponse => {}
        }
        message
    }
}

impl fmt::Display for HostMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind())?;
        match self {
            Self::VersionResponse(response) => print_version_response(f, response),
            Self::Offer(offer) => print_offer(f, offer),
            Self::Rescind(body) | Self::CloseReservedResponse(body) => {
                write!(f, " relid={}", body.relid)
            }
            Self::GpadlCreated(body) => {
                write!(f, " relid={} gpadl={:#x}", body.relid, body.gpadl)?;
                print_status(f, body.status)
            }
            Self::GpadlTorndown(body) => write!(f, " gpadl={:#x}", body.gpadl),
            Self::OpenResult(body) => {
                write!(f, " relid={} openid={:#x}", body.relid, body.open_id)?;
                print_status(f, body.status)
            }
            Self::ModifyChannelResponse(body) => {
                write!(f, " relid={}", body.relid)?;
                print_status(f, body.status)
            }
            Self::TlConnectResult(body) => {
                write!(f, " endpoint={} service={}", body.guest_endpoint, body.host_service)?;
                print_status(f, body.status)
            }
            Self::ModifyConnectionResponse(state) => write!(f, " state={state}"),
            Self::AllOffersDelivered | Self::PauseResponse | Self::UnloadResponse => Ok(()),
        }
    }
}

fn print_status(f: &mut fmt::Formatter<'_>, status: u32) -> fmt::Result {
    match status {
        0 => f.write_str(" ok"),
        status => write!(f, " status={status:#x}"),
    }
}

fn print_version_response(f: &mut fmt::Formatter<'_>, response: &VersionResponse) -> fmt::Result {
    let VersionResponseBody { supported, version_or_connection_id, .. } = response.body;
    if supported == 0 {
        return f.write_str(" unsupported");
    }
    write!(f, " supported version-or-connection={version_or_connection_id:#x}")?;
    match response.features {
        Some(features) => write!(f, " features={:#x}", features.bits()),
        None => Ok(()),
    }
}

fn print_offer(f: &mut fmt::Formatter<'_>, offer: &OfferChannel) -> fmt::Result {
    write!(f, " relid={}", offer.relid)?;
    match class::name(offer.interface_type) {
        Some(name) => write!(f, " type={name}")?,
        None => write!(f, " type={}", offer.interface_type)?,
    }
    write!(f, " instance={}", offer.instance)?;
    if offer.subchannel_index != 0 {
        write!(f, " subchannel={}", offer.subchannel_index)?;
    }
    write!(f, " connection={:#x}", offer.connection_id)?;
    if offer.monitor_allocated & 1 != 0 {
        write!(f, " monitor={}", offer.monitor_id)?;
    }
    let flags = OfferFlags::from_bits_retain(offer.flags);
    if flags.is_empty() { Ok(()) } else { write!(f, " flags={:#x}", flags.bits()) }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    /// The lengths that guests insist on (Linux `drivers/hv/channel_mgmt.c`,
    /// `channel_message_table`: a shorter message is dropped, and its waiter hangs).
    #[test]
    fn messages_have_the_length_that_guests_ask_for() {
        let response = VersionResponse::UNSUPPORTED;
        let features = VersionResponse { features: Some(FeatureFlags::empty()), ..response };
        let lengths = [
            (HostMessage::VersionResponse(response), 16),
            (HostMessage::VersionResponse(features), 20),
            (HostMessage::Offer(Box::new(OfferChannel::new_zeroed())), 196),
            (HostMessage::AllOffersDelivered, 8),
            (HostMessage::Rescind(Relid { relid: 1 }), 12),
            (HostMessage::GpadlCreated(GpadlCreated { relid: 1, gpadl: 2, status: 0 }), 20),
            (HostMessage::GpadlTorndown(GpadlTorndown { gpadl: 2 }), 12),
            (HostMessage::OpenResult(OpenResult { relid: 1, open_id: 1, status: 0 }), 20),
            (HostMessage::ModifyChannelResponse(ModifyChannelResponse { relid: 1, status: 0 }), 16),
            (HostMessage::UnloadResponse, 8),
        ];
        for (message, len) in lengths {
            let bytes = message.encode();
            assert_eq!(bytes.as_bytes().len(), len, "{message}");
            assert_eq!(HostMessage::parse(bytes.as_bytes()), Ok(message));
        }
    }

    #[test]
    fn a_message_of_the_guest_is_refused() {
        let unload = MessageBuf::with_header(MessageType::UNLOAD);
        assert_eq!(
            HostMessage::parse(unload.as_bytes()),
            Err(MessageError::WrongDirection(MessageType::UNLOAD))
        );
    }
}
