// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packets of pipes, and the messages of integration components in them.

use std::collections::HashSet;

use busway_wire::ic::{self, HeaderFlags};
use busway_wire::pipe::{PIPE_HEADER_LEN, PipeHeader, PipeKind};
use busway_wire::{Guid, class};
use zerocopy::FromBytes;

use crate::channel::Packet;
use crate::{Finding, Rule, demand};

/// Whether channels of this class carry messages of an integration component.
pub(crate) fn is_component(class: Guid) -> bool {
    [class::SHUTDOWN, class::TIME_SYNC, class::HEARTBEAT, class::KVP, class::VSS, class::FILE_COPY]
        .contains(&class)
}

/// Checks a pipe's header.
pub(crate) fn packet(packet: &Packet<'_>, found: &mut Vec<Finding>) {
    let have = packet.payload.len();
    let Ok((header, rest)) = PipeHeader::read_from_prefix(packet.payload) else {
        let need = format!("{PIPE_HEADER_LEN} B or more");
        return found.push(packet.finding(Rule::PipeLength, "payload", format!("{have} B"), need));
    };
    demand(header.kind == PipeKind::DATA, found, || {
        packet.finding(Rule::PipeType, "type", header.kind, PipeKind::DATA)
    });
    demand(header.len as usize <= rest.len(), found, || {
        packet.finding(Rule::PipeLength, "size", header.len, format!("at most {}", rest.len()))
    });
}

/// What a component was asked.
#[derive(Debug, Default)]
pub(crate) struct Component {
    /// Ids of requests without answer; at most 256, because an id is a byte.
    asked: HashSet<u8>,
}

impl Component {
    /// A packet of the host's.
    pub(crate) fn host(&mut self, class: Guid, payload: &[u8]) {
        if is_component(class)
            && let Ok((header, _)) = ic::Header::parse(payload)
            && header.flags().contains(HeaderFlags::REQUEST)
        {
            self.asked.insert(header.transaction_id);
        }
    }

    /// A packet of the guest's.
    pub(crate) fn guest(&mut self, packet: &Packet<'_>, found: &mut Vec<Finding>) {
        let Ok((header, _)) = ic::Header::parse(packet.payload) else {
            let have = packet.payload.len();
            let need = PIPE_HEADER_LEN + ic::HEADER_LEN;
            let (have, need) = (format!("{have} B"), format!("{need} B or more"));
            return found.push(packet.finding(Rule::PipeLength, "payload", have, need));
        };
        let flags = header.flags;
        let known = HeaderFlags::TRANSACTION | HeaderFlags::REQUEST | HeaderFlags::RESPONSE;
        let answers = header.flags().contains(HeaderFlags::RESPONSE);
        demand(answers && flags & !known.bits() == 0, found, || {
            packet.finding(Rule::IcFlags, "icflags", format!("{flags:#x}"), "4, and 1 or 2 perhaps")
        });
        demand(header.reserved == [0; 2], found, || {
            packet.finding(
                Rule::IcReserved,
                "reserved",
                format!("{:x?}", header.reserved),
                "[0, 0]",
            )
        });
        let id = header.transaction_id;
        demand(self.asked.remove(&id), found, || {
            let expected = "that of a request without answer";
            packet.finding(Rule::IcTransaction, "ictransaction_id", id, expected)
        });
    }
}
