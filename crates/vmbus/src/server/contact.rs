// SPDX-License-Identifier: MIT OR Apache-2.0

//! The connection: INITIATE_CONTACT, UNLOAD, and what happens between two connections.

use busway_wire::control::layout::VersionResponseBody;
use busway_wire::control::{HostMessage, InitiateContact, MessageType, VersionResponse};
use busway_wire::hypercall::connection;
use busway_wire::synic::VMBUS_SINT;
use busway_wire::{FeatureFlags, PAGE_SIZE, Version};

use super::{ControlError, Server};
use crate::action::{Action, MessageTarget};

/// What guest and host have agreed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contact {
    pub(super) version: Version,
    pub(super) target: MessageTarget,
    /// The guest physical address of the page that replaces event flags before 2.4.
    pub(super) interrupt_page: u64,
    pub(super) offers_requested: bool,
}

#[derive(Debug)]
pub(super) enum Connection {
    Disconnected,
    Connected(Contact),
    /// Channels of the last connection are being closed.
    Ending(Ending),
}

impl Connection {
    pub(super) const fn contact(&self) -> Option<&Contact> {
        match self {
            Self::Connected(contact) => Some(contact),
            Self::Disconnected | Self::Ending(_) => None,
        }
    }
}

/// What follows when the channels are closed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ending {
    /// UNLOAD_RESPONSE goes there.
    unload_response: Option<MessageTarget>,
    /// This is answered.
    contact: Option<InitiateContact>,
}

impl Server {
    /// A guest that is connected and contacts again has been replaced by another: firmware by its
    /// operating system, or a kernel by the one that it started without a word (kexec).
    pub(super) fn initiate_contact(
        &mut self,
        contact: &InitiateContact,
    ) -> Result<(), ControlError> {
        let unload_response = match self.connection {
            Connection::Disconnected => return self.accept(contact),
            Connection::Connected(_) => None,
            Connection::Ending(ending) => ending.unload_response,
        };
        self.end_connection(Ending { unload_response, contact: Some(*contact) });
        Ok(())
    }

    /// The answer goes to where the last contact asked for messages, which for a crash kernel is
    /// not VP 0.
    pub(super) fn unload(&mut self) {
        let target = match self.connection {
            Connection::Connected(contact) => contact.target,
            Connection::Ending(Ending { unload_response: Some(target), .. }) => target,
            Connection::Ending(_) | Connection::Disconnected => {
                MessageTarget { vp: 0, sint: VMBUS_SINT }
            }
        };
        self.end_connection(Ending { unload_response: Some(target), contact: None });
    }

    /// Closes all channels; then follows what `ending` says.
    pub(super) fn end_connection(&mut self, ending: Ending) {
        self.actions.push_back(Action::DropMessages);
        self.connection = Connection::Ending(ending);
        self.close_all_channels();
        self.finish_ending();
    }

    /// Goes on with what should follow the end of a connection, once all channels are closed.
    pub(super) fn finish_ending(&mut self) {
        let Connection::Ending(ending) = self.connection else {
            return;
        };
        if self.busy_channels != 0 {
            return;
        }
        self.forget_guest_state();
        self.connection = Connection::Disconnected;
        if let Some(target) = ending.unload_response {
            self.post_to(target, HostMessage::UnloadResponse);
        }
        if let Some(contact) = ending.contact
            && let Err(error) = self.accept(&contact)
        {
            log::warn!("vmbus: {error}");
        }
    }

    fn accept(&mut self, contact: &InitiateContact) -> Result<(), ControlError> {
        let version = contact.body.version;
        let target = MessageTarget {
            // Older guests take messages on VP 0 whatever stands there.
            vp: if version >= Version::V3_0 { contact.body.target_vp } else { 0 },
            sint: if version >= Version::V5_0 { contact.message_sint() } else { VMBUS_SINT },
        };
        if let Err(reason) = self.check_contact(contact, target) {
            let vp = if target.vp < self.config.vp_count { target.vp } else { 0 };
            let target = MessageTarget { vp, sint: VMBUS_SINT };
            let response = VersionResponse::UNSUPPORTED;
            self.post_to(target, HostMessage::VersionResponse(response));
            return Err(reason);
        }
        self.connection = Connection::Connected(Contact {
            version,
            target,
            interrupt_page: match version {
                version if version < Version::V5_0 => contact.body.interrupt_page_or_target,
                _ => 0,
            },
            offers_requested: false,
        });
        self.post(HostMessage::VersionResponse(accepted(version)));
        Ok(())
    }

    fn check_contact(
        &self,
        contact: &InitiateContact,
        target: MessageTarget,
    ) -> Result<(), ControlError> {
        let version = contact.body.version;
        let vtl = if version >= Version::V5_1 { contact.message_vtl() } else { 0 };
        let (to_guest, to_host) =
            (contact.body.monitor_page_to_guest, contact.body.monitor_page_to_host);
        let reason = if !version.is_known() || version > self.config.newest_version {
            "the version is not spoken"
        } else if target.vp >= self.config.vp_count {
            "there is no such VP"
        } else if target.sint != VMBUS_SINT {
            "messages go to SINT 2 only"
        } else if vtl != 0 {
            "there is no other VTL"
        } else if (to_guest == 0) != (to_host == 0) {
            "one monitor page without the other"
        } else if [to_guest, to_host].iter().any(|page| *page != 0 && !self.is_page(*page)) {
            "a monitor page is no page of RAM"
        } else if version < Version::V2_4 && !self.is_page(contact.body.interrupt_page_or_target) {
            "the interrupt page is no page of RAM"
        } else {
            return Ok(());
        };
        Err(ControlError::Contact { version, vp: target.vp, sint: target.sint, vtl, reason })
    }

    fn is_page(&self, address: u64) -> bool {
        let page_size = PAGE_SIZE as u64;
        address.is_multiple_of(page_size) && self.memory.page_offset(address / page_size).is_some()
    }

    /// The contact, or the error that `kind` came without one.
    pub(super) fn contact(&self, kind: MessageType) -> Result<Contact, ControlError> {
        self.connection.contact().copied().ok_or(ControlError::NotConnected(kind))
    }

    pub(super) fn contact_mut(&mut self) -> Option<&mut Contact> {
        match &mut self.connection {
            Connection::Connected(contact) => Some(contact),
            Connection::Disconnected | Connection::Ending(_) => None,
        }
    }
}

/// "Yes". From 6.0 on the features of both ends follow; none is offered.
fn accepted(version: Version) -> VersionResponse {
    let version_or_connection_id = match version {
        version if version >= Version::V5_0 => connection::MESSAGE_5,
        version => version.0,
    };
    VersionResponse {
        body: VersionResponseBody {
            supported: 1,
            connection_state: 0,
            padding: 0,
            version_or_connection_id,
        },
        features: (version >= Version::V6_0).then_some(FeatureFlags::empty()),
    }
}
