// SPDX-License-Identifier: MIT OR Apache-2.0

//! Channel messages: their lengths, their order, and what is alive when they come.

use std::collections::HashMap;

use busway_wire::control::layout::{GpadlHeader, OpenChannelBody};
use busway_wire::control::{
    GuestMessage, Header, HostMessage, InitiateContact, MessageError, MessageType, OpenChannel,
};
use busway_wire::packet::GpaRangeHeader;
use busway_wire::{FeatureFlags, PAGE_SIZE, Version};
use zerocopy::FromBytes;

use crate::{At, Finding, Rule, demand};

/// GPADLs that are followed; a guest that makes more is not checked for those.
const MAX_GPADLS: usize = 8192;

/// What the guest and its host have agreed on, and what lives because of it.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    /// The version of the last INITIATE_CONTACT.
    asked: Option<Version>,
    /// The version that is spoken.
    version: Option<Version>,
    features: FeatureFlags,
    has_offers: bool,
    channels: HashMap<u32, State>,
    gpadls: HashMap<u32, Gpadl>,
    /// There were more than are followed: what is not known may be alive.
    overflowed: bool,
}

/// A channel that is offered.
#[derive(Debug, Default)]
struct State {
    /// The GPADL of its rings.
    open: Option<u32>,
    rescinded: bool,
}

#[derive(Debug)]
struct Gpadl {
    relid: u32,
    /// PFNs that are still to come.
    missing: usize,
    /// Its teardown was asked for.
    torn: bool,
}

impl Connection {
    /// A message of the guest's.
    pub(crate) fn guest(&mut self, bytes: &[u8], found: &mut Vec<Finding>) {
        let message = match GuestMessage::parse(bytes) {
            Ok(message) => message,
            Err(error) => return found.push(unreadable(&error)),
        };
        let rule = |rule, field, value, expected| Finding {
            rule,
            at: At::message(&message),
            field,
            value,
            expected,
        };
        if let Ok((Header { padding, .. }, _)) = Header::read_from_prefix(bytes) {
            demand(padding == 0, found, || {
                rule(Rule::ControlPadding, "padding", format!("{padding:#x}"), "0".to_owned())
            });
        }
        let len = self.layout_len(&message);
        demand(bytes.len() == len, found, || {
            let (have, need) = (format!("{} B", bytes.len()), format!("{len} B"));
            rule(Rule::ControlLength, "length", have, need)
        });
        let is_contact = matches!(message, GuestMessage::InitiateContact(_));
        if self.version.is_none() && !is_contact {
            let (have, need) = ("not connected".to_owned(), "a connection".to_owned());
            return found.push(rule(Rule::ControlUnconnected, "the guest", have, need));
        }
        if let Some((have, need)) = self.too_new(&message) {
            found.push(rule(Rule::ControlVersion, "the connection", have, need));
        }
        let mut report = |which, field, value: String, expected: &str| {
            found.push(rule(which, field, value, expected.to_owned()));
        };
        self.follow(&message, &mut report);
    }

    /// A message that the guest has got.
    pub(crate) fn host(&mut self, bytes: &[u8]) {
        match HostMessage::parse(bytes) {
            Ok(HostMessage::VersionResponse(response)) => {
                self.version = self.asked.filter(|_| response.body.supported != 0);
                self.features = response.features.unwrap_or_default();
            }
            Ok(HostMessage::Offer(offer)) => {
                self.channels.insert(offer.relid, State::default());
            }
            Ok(HostMessage::Rescind(body)) => {
                if let Some(state) = self.channels.get_mut(&body.relid) {
                    state.rescinded = true;
                }
            }
            Ok(HostMessage::OpenResult(result)) if result.status != 0 => {
                if let Some(state) = self.channels.get_mut(&result.relid) {
                    state.open = None;
                }
            }
            Ok(HostMessage::GpadlCreated(created)) if created.status != 0 => {
                self.gpadls.remove(&created.gpadl);
            }
            Ok(HostMessage::GpadlTorndown(torndown)) => {
                self.gpadls.remove(&torndown.gpadl);
            }
            _ => {}
        }
    }

    #[cfg(test)]
    pub(crate) fn gpadls(&self) -> usize {
        self.gpadls.len()
    }

    /// Bytes that the message should have; for what ends with PFNs, as many as it has.
    fn layout_len(&self, message: &GuestMessage<'_>) -> usize {
        match message {
            // Whole PFNs, so a message that ends within one is a byte count that is wrong.
            GuestMessage::GpadlHeader(_, rest) => 20 + rest.len() / 8 * 8,
            GuestMessage::GpadlBody(_, rest) => 16 + rest.len() / 8 * 8,
            GuestMessage::InitiateContact(contact) => {
                let allows = contact.body.version >= Version::V6_0;
                let has = contact.client_id.filter(|_| allows);
                40 + has.map_or(0, |id| size_of_val(&id))
            }
            GuestMessage::OpenChannel(open) => {
                let allows = self.version >= Some(Version::V6_0);
                let has = open.signal.filter(|_| allows);
                148 + has.map_or(0, |signal| size_of_val(&signal))
            }
            GuestMessage::TlConnectRequest(_, silo) => {
                let allows = self.version >= Some(Version::V5_2);
                let has = silo.filter(|_| allows);
                40 + has.map_or(0, |silo| size_of_val(&silo))
            }
            message => message.encode().as_bytes().len(),
        }
    }

    /// What the connection is and what it would have to be, if it does not have this message.
    fn too_new(&self, message: &GuestMessage<'_>) -> Option<(String, String)> {
        let version = self.version?;
        let since = match message.kind() {
            MessageType::MODIFY_CHANNEL => Version::V4_1,
            MessageType::TL_CONNECT_REQUEST
            | MessageType::OPEN_RESERVED_CHANNEL
            | MessageType::CLOSE_RESERVED_CHANNEL => Version::V4_0,
            MessageType::MODIFY_CONNECTION | MessageType::PAUSE | MessageType::RESUME => {
                Version::V6_0
            }
            _ => return None,
        };
        let feature = match message.kind() {
            MessageType::MODIFY_CONNECTION => FeatureFlags::MODIFY_CONNECTION,
            MessageType::PAUSE | MessageType::RESUME => FeatureFlags::PAUSE_RESUME,
            _ => FeatureFlags::empty(),
        };
        if version >= since && self.features.contains(feature) {
            return None;
        }
        let with = |features: FeatureFlags| match features.bits() {
            0 => String::new(),
            bits => format!(" with feature {bits:#x}"),
        };
        Some((
            format!("{version}{}", with(self.features)),
            format!("{since} or newer{}", with(feature)),
        ))
    }

    fn follow(
        &mut self,
        message: &GuestMessage<'_>,
        report: &mut impl FnMut(Rule, &'static str, String, &str),
    ) {
        match message {
            GuestMessage::InitiateContact(contact) => {
                *self = Self { asked: Some(contact.body.version), ..Self::default() };
                contact_reserved(contact, report);
            }
            GuestMessage::RequestOffers => {
                if std::mem::replace(&mut self.has_offers, true) {
                    report(Rule::OffersTwice, "the request", "the second".to_owned(), "one");
                }
            }
            GuestMessage::GpadlHeader(header, ranges) => self.gpadl(header, ranges, report),
            GuestMessage::GpadlBody(body, pfns) => match self.gpadls.get_mut(&body.gpadl) {
                Some(gpadl) if gpadl.missing != 0 && !gpadl.torn => {
                    gpadl.missing = gpadl.missing.saturating_sub(pfns.len() / 8);
                }
                None if self.overflowed => {}
                _ => report(Rule::GpadlBody, "gpadl", hex(body.gpadl), "an incomplete GPADL"),
            },
            GuestMessage::GpadlTeardown(body) => self.teardown(body.relid, body.gpadl, report),
            GuestMessage::OpenChannel(open) => self.open(open, report),
            GuestMessage::CloseChannel(body) => {
                if let Some(state) = self.channel(body.relid, report) {
                    let was_open = state.open.take().is_some() || state.rescinded;
                    if !was_open {
                        report(
                            Rule::UseAfterClose,
                            "relid",
                            body.relid.to_string(),
                            "an open channel",
                        );
                    }
                }
            }
            GuestMessage::ModifyChannel(body) => {
                if let Some(state) = self.channel(body.relid, report)
                    && state.open.is_none()
                    && !state.rescinded
                {
                    report(Rule::UseAfterClose, "relid", body.relid.to_string(), "an open channel");
                }
            }
            GuestMessage::RelidReleased(body) => {
                if let Some(state) = self.channel(body.relid, report) {
                    if state.open.is_some() && !state.rescinded {
                        let relid = body.relid.to_string();
                        report(Rule::ReleaseOpen, "relid", relid, "a rescinded or closed channel");
                    }
                    self.channels.remove(&body.relid);
                    self.gpadls.retain(|_, gpadl| gpadl.relid != body.relid);
                }
            }
            GuestMessage::Unload => *self = Self::default(),
            GuestMessage::TlConnectRequest(..)
            | GuestMessage::OpenReservedChannel(_)
            | GuestMessage::CloseReservedChannel(_)
            | GuestMessage::ModifyConnection(_)
            | GuestMessage::Pause
            | GuestMessage::Resume => {}
        }
    }

    /// The channel, unless there is none.
    fn channel(
        &mut self,
        relid: u32,
        report: &mut impl FnMut(Rule, &'static str, String, &str),
    ) -> Option<&mut State> {
        let state = self.channels.get_mut(&relid);
        if state.is_none() {
            report(Rule::ChannelUnknown, "relid", relid.to_string(), "a channel that is offered");
        }
        state
    }

    fn gpadl(
        &mut self,
        header: &GpadlHeader,
        ranges: &[u8],
        report: &mut impl FnMut(Rule, &'static str, String, &str),
    ) {
        let &GpadlHeader { relid, gpadl, range_buffer_len, range_count } = header;
        if self.channel(relid, report).is_none() {
            return;
        }
        if self.gpadls.contains_key(&gpadl) {
            report(Rule::GpadlReuse, "gpadl", hex(gpadl), "a number that is not in use");
        }
        let range = GpaRangeHeader::read_from_prefix(ranges);
        let (Ok((range, pfns)), 1..) = (range, range_count) else {
            return report(Rule::GpadlRange, "rangecount", range_count.to_string(), "a range");
        };
        if range.byte_offset as usize >= PAGE_SIZE {
            report(Rule::GpadlRange, "byte_offset", hex(range.byte_offset), "less than 0x1000");
        }
        let pages = range.page_count();
        // What several ranges need is known only when all of them are here.
        let missing = match range_count {
            1 => pages.saturating_sub(pfns.len() / 8),
            _ => usize::MAX,
        };
        let whole = size_of::<GpaRangeHeader>().saturating_add(pages.saturating_mul(8));
        // The field wraps for more than 8190 pages.
        if range_count == 1 && usize::from(range_buffer_len) != whole & 0xffff {
            let expected = (whole & 0xffff).to_string();
            report(Rule::GpadlLength, "range_buflen", range_buffer_len.to_string(), &expected);
        }
        if self.gpadls.len() < MAX_GPADLS {
            self.gpadls.insert(gpadl, Gpadl { relid, missing, torn: false });
        } else {
            self.overflowed = true;
        }
    }

    fn teardown(
        &mut self,
        relid: u32,
        id: u32,
        report: &mut impl FnMut(Rule, &'static str, String, &str),
    ) {
        let state = self.channels.get(&relid);
        if state.is_some_and(|state| state.open == Some(id) && !state.rescinded) {
            report(Rule::GpadlInUse, "gpadl", hex(id), "one that is not in use");
        }
        let rescinded = state.is_none_or(|state| state.rescinded);
        match self.gpadls.get_mut(&id) {
            Some(gpadl) if gpadl.relid == relid && !gpadl.torn => gpadl.torn = true,
            None if self.overflowed || rescinded => {}
            _ => report(Rule::GpadlUnknown, "gpadl", hex(id), "a living GPADL of the channel"),
        }
    }

    fn open(
        &mut self,
        open: &OpenChannel,
        report: &mut impl FnMut(Rule, &'static str, String, &str),
    ) {
        let OpenChannelBody { relid, ring_gpadl, .. } = open.body;
        let gpadl = self.gpadls.get(&ring_gpadl);
        let is_whole = gpadl.is_some_and(|gpadl| {
            let missing = gpadl.missing != 0 && gpadl.missing != usize::MAX;
            gpadl.relid == relid && !missing && !gpadl.torn
        });
        let overflowed = self.overflowed;
        let Some(state) = self.channel(relid, report) else {
            return;
        };
        let (was_open, rescinded) = (state.open.is_some(), state.rescinded);
        state.open = Some(ring_gpadl);
        if was_open {
            report(Rule::OpenTwice, "relid", relid.to_string(), "a closed channel");
        }
        if !is_whole && !overflowed && !rescinded {
            let expected = "a complete GPADL of the channel";
            report(Rule::OpenGpadl, "ringbuffer_gpadlhandle", hex(ring_gpadl), expected);
        }
    }
}

fn contact_reserved(
    contact: &InitiateContact,
    report: &mut impl FnMut(Rule, &'static str, String, &str),
) {
    let version = contact.body.version;
    if version < Version::V5_0 {
        return;
    }
    let target = contact.body.interrupt_page_or_target;
    let reserved = target >> 16 & 0xffff;
    if reserved != 0 {
        report(Rule::ContactReserved, "reserved", format!("{reserved:#x}"), "0");
    }
    let known = match version >= Version::V6_0 {
        true => 0xff,
        false => 0,
    };
    let unknown = contact.feature_flags().bits() & !known;
    if unknown != 0 {
        report(Rule::ContactReserved, "feature_flags", format!("{unknown:#x}"), "0");
    }
}

/// What is no message of a guest's.
fn unreadable(error: &MessageError) -> Finding {
    let finding = |rule, at: String, field, value, expected| {
        let at = At::message(at);
        Finding { rule, at, field, value, expected }
    };
    match *error {
        MessageError::NoHeader { have } => {
            let (have, need) = (format!("{have} B"), "8 B or more".to_owned());
            finding(Rule::ControlLength, "a message".to_owned(), "length", have, need)
        }
        MessageError::TooShort { kind, have, need } => {
            let (have, need) = (format!("{have} B"), format!("{need} B"));
            finding(Rule::ControlLength, kind.to_string(), "length", have, need)
        }
        MessageError::WrongDirection(kind) => {
            let (have, need) = (format!("{}", kind.0), "a type that guests send".to_owned());
            finding(Rule::ControlUnknown, kind.to_string(), "msgtype", have, need)
        }
    }
}

fn hex(value: u32) -> String {
    format!("{value:#x}")
}
