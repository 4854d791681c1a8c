// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a guest may send.

use std::fmt;

use super::layout::{
    CloseReservedChannel, GpadlBody, GpadlHeader, GpadlTeardown, InitiateContactBody,
    ModifyChannel, ModifyConnection, OpenChannelBody, OpenReservedChannel, OpenSignalBody, Relid,
    TlConnectRequest,
};
use super::{MessageBuf, MessageError, MessageType, body, split};
use crate::packet::GpaRangeHeader;
use crate::{FeatureFlags, Guid, Version};

/// A channel message from the guest, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestMessage<'a> {
    /// Start a connection.
    InitiateContact(InitiateContact),
    /// Send all offers.
    RequestOffers,
    /// The start of a list of pages, and the bytes of its ranges that fit here.
    GpadlHeader(GpadlHeader, &'a [u8]),
    /// More of that list: PFNs, eight bytes each.
    GpadlBody(GpadlBody, &'a [u8]),
    /// Forget a list.
    GpadlTeardown(GpadlTeardown),
    /// Open a channel.
    OpenChannel(OpenChannel),
    /// Close a channel.
    CloseChannel(Relid),
    /// Send a channel's interrupts to another VP.
    ModifyChannel(ModifyChannel),
    /// A rescinded channel's relid may be used again.
    RelidReleased(Relid),
    /// Connect a socket; the silo, where one is named.
    TlConnectRequest(TlConnectRequest, Option<Guid>),
    /// Open a channel that outlives connections.
    OpenReservedChannel(OpenReservedChannel),
    /// Close it.
    CloseReservedChannel(CloseReservedChannel),
    /// Other monitor pages.
    ModifyConnection(ModifyConnection),
    /// Send no messages for now.
    Pause,
    /// Send them again.
    Resume,
    /// End the connection.
    Unload,
}

/// INITIATE_CONTACT with the GUID that version 6.0 may add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitiateContact {
    /// The part that every version has.
    pub body: InitiateContactBody,
    /// Present where the message is long enough; counts only with
    /// [`FeatureFlags::CLIENT_ID`].
    pub client_id: Option<Guid>,
}

impl InitiateContact {
    /// The SINT for messages, from 5.0 on.
    pub const fn message_sint(&self) -> u8 {
        self.body.interrupt_page_or_target.to_le_bytes()[0]
    }

    /// The VTL that is asked for, from 5.1 on.
    pub const fn message_vtl(&self) -> u8 {
        self.body.interrupt_page_or_target.to_le_bytes()[1]
    }

    /// The features that are asked for, from 6.0 on.
    pub const fn feature_flags(&self) -> FeatureFlags {
        FeatureFlags::from_bits_retain((self.body.interrupt_page_or_target >> 32) as u32)
    }
}

/// OPEN_CHANNEL with the signal parameters that version 6.0 may add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenChannel {
    /// The part that every version has.
    pub body: OpenChannelBody,
    /// Present where the message is long enough; counts only with the feature flags that allow it.
    pub signal: Option<OpenSignal>,
}

/// How the guest of version 6.0 wants to be signalled.
pub type OpenSignal = OpenSignalBody;

impl<'a> GuestMessage<'a> {
    /// Parses a message as the guest posted it. Surplus bytes are ignored, as real hosts do.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MessageError> {
        let (kind, rest) = split(bytes)?;
        Ok(match kind {
            MessageType::INITIATE_CONTACT => {
                let (contact, rest) = body(kind, rest)?;
                let client_id = body::<Guid>(kind, rest).ok().map(|(guid, _)| guid);
                Self::InitiateContact(InitiateContact { body: contact, client_id })
            }
            MessageType::REQUEST_OFFERS => Self::RequestOffers,
            MessageType::GPADL_HEADER => {
                let (header, ranges) = body(kind, rest)?;
                Self::GpadlHeader(header, ranges)
            }
            MessageType::GPADL_BODY => {
                let (header, pfns) = body(kind, rest)?;
                Self::GpadlBody(header, pfns)
            }
            MessageType::GPADL_TEARDOWN => Self::GpadlTeardown(body(kind, rest)?.0),
            MessageType::OPEN_CHANNEL => {
                let (open, rest) = body(kind, rest)?;
                let signal = body::<OpenSignal>(kind, rest).ok().map(|(signal, _)| signal);
                Self::OpenChannel(OpenChannel { body: open, signal })
            }
            MessageType::CLOSE_CHANNEL => Self::CloseChannel(body(kind, rest)?.0),
            MessageType::MODIFY_CHANNEL => Self::ModifyChannel(body(kind, rest)?.0),
            MessageType::RELID_RELEASED => Self::RelidReleased(body(kind, rest)?.0),
            MessageType::TL_CONNECT_REQUEST => {
                let (request, rest) = body(kind, rest)?;
                let silo = body::<Guid>(kind, rest).ok().map(|(guid, _)| guid);
                Self::TlConnectRequest(request, silo)
            }
            MessageType::OPEN_RESERVED_CHANNEL => Self::OpenReservedChannel(body(kind, rest)?.0),
            MessageType::CLOSE_RESERVED_CHANNEL => Self::CloseReservedChannel(body(kind, rest)?.0),
            MessageType::MODIFY_CONNECTION => Self::ModifyConnection(body(kind, rest)?.0),
            MessageType::PAUSE => Self::Pause,
            MessageType::RESUME => Self::Resume,
            MessageType::UNLOAD => Self::Unload,
            other => return Err(MessageError::WrongDirection(other)),
        })
    }

    /// The number on the wire.
    pub const fn kind(&self) -> MessageType {
        match self {
            Self::InitiateContact(_) => MessageType::INITIATE_CONTACT,
            Self::RequestOffers => MessageType::REQUEST_OFFERS,
            Self::GpadlHeader(..) => MessageType::GPADL_HEADER,
            Self::GpadlBody(..) => MessageType::GPADL_BODY,
            Self::GpadlTeardown(_) => MessageType::GPADL_TEARDOWN,
            Self::OpenChannel(_) => MessageType::OPEN_CHANNEL,
            Self::CloseChannel(_) => MessageType::CLOSE_CHANNEL,
            Self::ModifyChannel(_) => MessageType::MODIFY_CHANNEL,
            Self::RelidReleased(_) => MessageType::RELID_RELEASED,
            Self::TlConnectRequest(..) => MessageType::TL_CONNECT_REQUEST,
            Self::OpenReservedChannel(_) => MessageType::OPEN_RESERVED_CHANNEL,
            Self::CloseReservedChannel(_) => MessageType::CLOSE_RESERVED_CHANNEL,
            Self::ModifyConnection(_) => MessageType::MODIFY_CONNECTION,
            Self::Pause => MessageType::PAUSE,
            Self::Resume => MessageType::RESUME,
            Self::Unload => MessageType::UNLOAD,
        }
    }

    /// The bytes that a guest would post.
    pub fn encode(&self) -> MessageBuf {
        let mut message = MessageBuf::with_header(self.kind());
        match self {
            Self::InitiateContact(contact) => {
                message.push_struct(&contact.body);
                if let Some(client) = &contact.client_id {
                    message.push_struct(client);
                }
            }
            Self::GpadlHeader(header, ranges) => {
                message.push_struct(header);
                message.push(ranges);
            }
            Self::GpadlBody(header, pfns) => {
                message.push_struct(header);
                message.push(pfns);
            }
            Self::GpadlTeardown(body) => message.push_struct(body),
            Self::OpenChannel(open) => {
                message.push_struct(&open.body);
                if let Some(signal) = &open.signal {
                    message.push_struct(signal);
                }
            }
            Self::CloseChannel(body) | Self::RelidReleased(body) => message.push_struct(body),
            Self::ModifyChannel(body) => message.push_struct(body),
            Self::TlConnectRequest(body, silo) => {
                message.push_struct(body);
                if let Some(silo) = silo {
                    message.push_struct(silo);
                }
            }
            Self::OpenReservedChannel(body) => message.push_struct(body),
            Self::CloseReservedChannel(body) => message.push_struct(body),
            Self::ModifyConnection(body) => message.push_struct(body),
            Self::RequestOffers | Self::Pause | Self::Resume | Self::Unload => {}
        }
        message
    }
}

impl fmt::Display for GuestMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind())?;
        match self {
            Self::InitiateContact(contact) => print_contact(f, contact),
            Self::GpadlHeader(header, ranges) => {
                write!(f, " relid={} gpadl={:#x}", header.relid, header.gpadl)?;
                write!(f, " ranges={}", header.range_count)?;
                let first = body::<GpaRangeHeader>(self.kind(), ranges);
                match first {
                    Ok((range, _)) => {
                        write!(f, " bytes={} offset={}", range.byte_count, range.byte_offset)
                    }
                    Err(_) => f.write_str(" (no range)"),
                }
            }
            Self::GpadlBody(header, pfns) => {
                write!(f, " gpadl={:#x} pfns={}", header.gpadl, pfns.len() / 8)
            }
            Self::GpadlTeardown(body) => write!(f, " relid={} gpadl={:#x}", body.relid, body.gpadl),
            Self::OpenChannel(open) => {
                let OpenChannelBody { relid, open_id, ring_gpadl, target_vp, .. } = open.body;
                write!(f, " relid={relid} openid={open_id:#x} gpadl={ring_gpadl:#x}")?;
                print_vp(f, target_vp)?;
                write!(f, " downstream-page={}", open.body.downstream_page_offset)
            }
            Self::CloseChannel(body) | Self::RelidReleased(body) => {
                write!(f, " relid={}", body.relid)
            }
            Self::ModifyChannel(body) => {
                write!(f, " relid={}", body.relid)?;
                print_vp(f, body.target_vp)
            }
            Self::TlConnectRequest(body, _) => {
                write!(f, " endpoint={} service={}", body.guest_endpoint, body.host_service)
            }
            Self::OpenReservedChannel(body) => {
                write!(f, " relid={} gpadl={:#x}", body.relid, body.ring_gpadl)?;
                print_vp(f, body.target_vp)?;
                write!(f, " sint={}", body.target_sint)
            }
            Self::CloseReservedChannel(body) => {
                write!(f, " relid={}", body.relid)?;
                print_vp(f, body.target_vp)
            }
            Self::ModifyConnection(body) => {
                let ModifyConnection { monitor_page_to_guest, monitor_page_to_host } = body;
                write!(f, " monitor={monitor_page_to_guest:#x},{monitor_page_to_host:#x}")
            }
            Self::RequestOffers | Self::Pause | Self::Resume | Self::Unload => Ok(()),
        }
    }
}

fn print_vp(f: &mut fmt::Formatter<'_>, vp: u32) -> fmt::Result {
    match vp {
        u32::MAX => f.write_str(" vp=none"),
        vp => write!(f, " vp={vp}"),
    }
}

fn print_contact(f: &mut fmt::Formatter<'_>, contact: &InitiateContact) -> fmt::Result {
    let body = &contact.body;
    write!(f, " version={} vp={}", body.version, body.target_vp)?;
    if body.version < Version::V5_0 {
        write!(f, " interrupt-page={:#x}", body.interrupt_page_or_target)?;
    } else {
        write!(f, " sint={}", contact.message_sint())?;
    }
    if body.version >= Version::V6_0 {
        write!(f, " features={:#x}", contact.feature_flags().bits())?;
    }
    write!(f, " monitor={:#x},{:#x}", body.monitor_page_to_guest, body.monitor_page_to_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_the_host_is_refused() {
        let offer = MessageBuf::with_header(MessageType::OFFER_CHANNEL);
        assert_eq!(
            GuestMessage::parse(offer.as_bytes()),
            Err(MessageError::WrongDirection(MessageType::OFFER_CHANNEL))
        );
    }

    #[test]
    fn short_messages_are_refused_with_their_numbers() {
        assert_eq!(GuestMessage::parse(&[5, 0, 0]), Err(MessageError::NoHeader { have: 3 }));
        let mut bytes = [0; 147];
        bytes[0] = 5;
        assert_eq!(
            GuestMessage::parse(&bytes),
            Err(MessageError::TooShort { kind: MessageType::OPEN_CHANNEL, have: 147, need: 148 })
        );
    }

    #[test]
    fn the_signal_of_an_open_is_optional() {
        let mut bytes = [0; 156];
        bytes[0] = 5;
        bytes[152] = 9;
        let parse = |bytes| match GuestMessage::parse(bytes) {
            Ok(GuestMessage::OpenChannel(open)) => open.signal.map(|signal| signal.event_flag),
            other => panic!("{other:?}"),
        };
        assert_eq!(parse(&bytes[..148]), None);
        assert_eq!(parse(&bytes[..155]), None);
        assert_eq!(parse(&bytes), Some(9));
    }
}
