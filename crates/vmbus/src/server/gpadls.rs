// SPDX-License-Identifier: MIT OR Apache-2.0

//! GPADLs: made by a header and bodies, answered once, taken back when nothing uses them.

use std::sync::Arc;

use busway_wire::control::layout::{
    GpadlBody, GpadlCreated, GpadlHeader, GpadlTeardown, GpadlTorndown, status,
};
use busway_wire::control::{HostMessage, MessageType};

use super::channels::State;
use super::relids::GpadlEntry;
use super::{ControlError, Server};
use crate::action::{Action, ChannelKey};
use crate::gpadl::{GpadlBuilder, GpadlError, GpadlId};

/// Pages that all lists of a guest may have together: eight bytes of the host's memory each.
///
/// The largest that drivers make have 8190 (a NIC's 31 MiB receive buffer: 7936), so this is room
/// for sixty NICs and all else. A guest that announces lists for ever ends here.
const MAX_PAGES: usize = 1 << 20;

/// Lists that a guest may have: a hundred bytes or two of the host's memory each.
const MAX_GPADLS: usize = 1 << 14;

impl Server {
    pub(super) fn gpadl_header(
        &mut self,
        header: &GpadlHeader,
        ranges: &[u8],
    ) -> Result<(), ControlError> {
        let &GpadlHeader { relid, gpadl, range_count, .. } = header;
        let kind = MessageType::GPADL_HEADER;
        let known = u16::try_from(relid).ok().filter(|_| self.relids.get(relid).is_some());
        let Some(relid) = known else {
            self.answer_created(relid, gpadl, status::INVALID_PARAMETER);
            return Err(ControlError::NoChannel { kind, relid });
        };
        if self.relids.owner(GpadlId(gpadl)).is_some() {
            self.answer_created(relid.into(), gpadl, status::INVALID_PARAMETER);
            return Err(ControlError::GpadlExists { gpadl });
        }
        if self.relids.gpadl_count() >= MAX_GPADLS {
            self.answer_created(relid.into(), gpadl, status::INSUFFICIENT_RESOURCES);
            let pages = self.relids.page_count();
            let reason = GpadlError::TooManyPages { pages, limit: MAX_PAGES };
            return Err(ControlError::BadGpadl { gpadl, reason });
        }
        self.grow_gpadl(relid, GpadlId(gpadl), GpadlBuilder::new(range_count), ranges)
    }

    pub(super) fn gpadl_body(&mut self, body: &GpadlBody, pfns: &[u8]) -> Result<(), ControlError> {
        let id = GpadlId(body.gpadl);
        let none = ControlError::NoGpadl { kind: MessageType::GPADL_BODY, gpadl: body.gpadl };
        let relid = self.relids.owner(id).ok_or(none.clone())?;
        match self.relids.take_gpadl(relid, id) {
            Some(GpadlEntry::Building(builder)) => self.grow_gpadl(relid, id, builder, pfns),
            Some(complete) => {
                self.relids.put_gpadl(relid, id, complete);
                Err(none)
            }
            None => Err(none),
        }
    }

    /// Adds what a message brought; the guest is answered when the list is complete or refused.
    fn grow_gpadl(
        &mut self,
        relid: u16,
        id: GpadlId,
        mut builder: GpadlBuilder,
        words: &[u8],
    ) -> Result<(), ControlError> {
        let mut result = builder.push(words, &self.memory);
        let pages = self.relids.page_count() + builder.page_count();
        if result.is_ok() && pages > MAX_PAGES {
            result = Err(GpadlError::TooManyPages { pages, limit: MAX_PAGES });
        }
        if let Err(reason) = result {
            self.answer_created(relid.into(), id.0, status::INVALID_PARAMETER);
            return Err(ControlError::BadGpadl { gpadl: id.0, reason });
        }
        let Some(gpadl) = builder.finish() else {
            self.relids.put_gpadl(relid, id, GpadlEntry::Building(builder));
            return Ok(());
        };
        if gpadl.ranges().is_empty() {
            self.answer_created(relid.into(), id.0, status::INVALID_PARAMETER);
            return Err(ControlError::BadGpadl { gpadl: id.0, reason: GpadlError::Empty });
        }
        let gpadl = Arc::new(gpadl);
        self.relids.put_gpadl(relid, id, GpadlEntry::Ready(Arc::clone(&gpadl)));
        if let Some((key, State::Open { .. } | State::Opening { .. })) = self.state_of(relid) {
            self.actions.push_back(Action::AddGpadl(key, id, gpadl));
        }
        self.answer_created(relid.into(), id.0, status::SUCCESS);
        Ok(())
    }

    pub(super) fn answer_created(&mut self, relid: u32, gpadl: u32, status: u32) {
        self.post(HostMessage::GpadlCreated(GpadlCreated { relid, gpadl, status }));
    }

    /// Every teardown is answered, even of what does not exist: the guest waits for it without a
    /// time-out.
    pub(super) fn gpadl_teardown(&mut self, teardown: &GpadlTeardown) -> Result<(), ControlError> {
        let &GpadlTeardown { relid, gpadl } = teardown;
        let id = GpadlId(gpadl);
        let kind = MessageType::GPADL_TEARDOWN;
        let relid = match self.relids.owner(id) {
            Some(owner) if u32::from(owner) == relid => owner,
            _ => {
                self.answer_torndown(id);
                return Err(ControlError::NoGpadl { kind, gpadl });
            }
        };
        match self.relids.take_gpadl(relid, id) {
            Some(GpadlEntry::Ready(pages)) => {
                let used_by = self.user_of(relid, id);
                if used_by == User::Nobody {
                    self.answer_torndown(id);
                    return Ok(());
                }
                self.relids.put_gpadl(relid, id, GpadlEntry::TearingDown(pages));
                match used_by {
                    User::Ring(key) => self.close(key),
                    User::Device(key) => self.actions.push_back(Action::DropGpadl(key, id)),
                    User::Closing | User::Nobody => {}
                }
                Ok(())
            }
            Some(GpadlEntry::Building(_)) | None => {
                self.answer_torndown(id);
                Ok(())
            }
            Some(again) => {
                self.relids.put_gpadl(relid, id, again);
                Err(ControlError::NoGpadl { kind, gpadl })
            }
        }
    }

    fn user_of(&self, relid: u16, id: GpadlId) -> User {
        match self.state_of(relid) {
            Some((key, State::Open { ring } | State::Opening { ring, .. })) if *ring == id => {
                User::Ring(key)
            }
            Some((key, State::Open { .. } | State::Opening { .. })) => User::Device(key),
            Some((_, State::Closing { .. })) => User::Closing,
            Some((_, State::Closed)) | None => User::Nobody,
        }
    }

    fn state_of(&self, relid: u16) -> Option<(ChannelKey, &State)> {
        let key = self.relids.get(relid.into())?.key?;
        Some((key, &self.channels.get(&key)?.state))
    }

    pub(super) fn gpadl_dropped(&mut self, key: ChannelKey, id: GpadlId) {
        let relid = self.channels.get(&key).and_then(|channel| channel.relid);
        if let Some(relid) = relid {
            self.answer_teardown(relid, id);
        }
    }

    /// Answers every teardown that waited for the channel to be closed.
    pub(super) fn answer_teardowns(&mut self, relid: u16) {
        let Some(slot) = self.relids.get(relid.into()) else {
            return;
        };
        let waiting = |entry: &GpadlEntry| matches!(entry, GpadlEntry::TearingDown(_));
        let ids: Vec<_> =
            slot.gpadls.iter().filter(|(_, entry)| waiting(entry)).map(|(id, _)| *id).collect();
        for id in ids {
            self.answer_teardown(relid, id);
        }
    }

    fn answer_teardown(&mut self, relid: u16, id: GpadlId) {
        match self.relids.take_gpadl(relid, id) {
            Some(GpadlEntry::TearingDown(_)) => self.answer_torndown(id),
            Some(other) => self.relids.put_gpadl(relid, id, other),
            None => {}
        }
    }

    fn answer_torndown(&mut self, id: GpadlId) {
        self.post(HostMessage::GpadlTorndown(GpadlTorndown { gpadl: id.0 }));
    }
}

/// Who uses a list.
#[derive(PartialEq, Eq)]
enum User {
    Nobody,
    /// A channel's rings are in it: the guest should have closed the channel first.
    Ring(ChannelKey),
    /// An open channel's device may use it.
    Device(ChannelKey),
    /// A channel that is being closed may use it.
    Closing,
}
