// SPDX-License-Identifier: MIT OR Apache-2.0

//! When a rule fires.

use std::time::Duration;

use busway_wire::Guid;
use busway_wire::control::MessageType;
use busway_wire::packet::PacketType;
use serde::Deserialize;

use crate::action::Action;

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The guest.
    Guest,
    /// The host.
    Host,
}

/// What a packet is, by the names of scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PacketKind {
    /// An answer.
    Completion,
    /// All data within the packet.
    InBand,
    /// Data in guest pages by PFN.
    GpaDirect,
    /// Data in a buffer that was shared before: frames for a network card.
    TransferPages,
}

impl PacketKind {
    /// The same, as descriptors have it.
    pub const fn on_wire(self) -> PacketType {
        match self {
            Self::Completion => PacketType::COMPLETION,
            Self::InBand => PacketType::DATA_IN_BAND,
            Self::GpaDirect => PacketType::DATA_USING_GPA_DIRECT,
            Self::TransferPages => PacketType::DATA_USING_TRANSFER_PAGES,
        }
    }
}

/// Bytes that a payload must have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prefix {
    /// Bytes from the start of the payload.
    pub at: usize,
    /// What must stand there.
    pub bytes: Vec<u8>,
}

impl Prefix {
    fn is_in(&self, payload: &[u8]) -> bool {
        payload.get(self.at..).is_some_and(|rest| rest.starts_with(&self.bytes))
    }
}

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Packets.
    Packet {
        /// Whose they are.
        from: End,
        /// What they are, if that matters.
        kind: Option<PacketKind>,
        /// What is in them, each of it.
        payload: Vec<Prefix>,
        /// What was in the guest's packet that they answer, each of it.
        request: Vec<Prefix>,
    },
    /// Channel messages of this type.
    Message(MessageType),
    /// Moments at which the guest is, or is not, to be interrupted.
    Interrupt {
        /// Whether it is to be.
        due: bool,
    },
}

impl Subject {
    pub(crate) fn is_packet(&self, sent_by: End, is: PacketType, holds: &[u8]) -> bool {
        let Self::Packet { from, kind, payload, .. } = self else {
            return false;
        };
        *from == sent_by
            && kind.is_none_or(|kind| kind.on_wire() == is)
            && payload.iter().all(|payload| payload.is_in(holds))
    }

    /// Whether only answers to certain requests are meant.
    pub(crate) const fn follows_requests(&self) -> bool {
        matches!(self, Self::Packet { request, .. } if !request.is_empty())
    }

    /// Whether answers to this request are meant.
    pub(crate) fn is_request(&self, holds: &[u8]) -> bool {
        let Self::Packet { request, .. } = self else {
            return false;
        };
        request.iter().all(|request| request.is_in(holds))
    }
}

/// Which of the things that a rule is about make it fire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Often {
    /// The one of this number, from 1.
    Nth(u64),
    /// Each of so many.
    Every(u64),
    /// Each, with this probability.
    Probability(f64),
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name in reports.
    pub name: String,
    /// What its random numbers start from.
    pub seed: u64,
    /// The class of devices that it is about, if not all.
    pub class: Option<Guid>,
    /// The channel that it is about, by the host's number, if not all.
    pub channel: Option<u32>,
    /// What it is about.
    pub subject: Subject,
    /// Which of that.
    pub often: Often,
    /// How often at most, on each channel.
    pub times: u64,
    /// When it begins to look, from the machine's start.
    pub after: Duration,
    /// What it does.
    pub action: Action,
}
