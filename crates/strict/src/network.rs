// SPDX-License-Identifier: MIT OR Apache-2.0

//! Messages of netvsc: NVSP in the packets, RNDIS outside of them.

use busway_vmbus::Place;
use busway_wire::nvsp::{
    Init, Message, MessageType, NdisConfig, NdisVersion, RevokeBuffer, RndisChannel, RndisPacket,
    ShareBuffer, SubchannelRequest, SwitchDataPath,
};
use busway_wire::rndis::{self, DataError, DataHeader, Request};
use zerocopy::FromBytes;

use crate::channel::Packet;
use crate::{At, Finding, Rule, demand};

/// Bytes of a packet's messages that are looked at: more than control messages have.
const LOOK: usize = 4096;

/// Checks an NVSP message.
pub(crate) fn request(packet: &Packet<'_>, found: &mut Vec<Finding>) {
    let have = packet.payload.len();
    let short = |need: usize| {
        packet.finding(
            Rule::NvspLength,
            "payload",
            format!("{have} B"),
            format!("{need} B or more"),
        )
    };
    let Ok(message) = Message::parse(packet.payload) else {
        return found.push(short(4));
    };
    let body = match message.kind {
        MessageType::INIT => size_of::<Init>(),
        MessageType::SEND_NDIS_VERSION => size_of::<NdisVersion>(),
        // The two bytes behind the id are padding.
        MessageType::SEND_RECEIVE_BUFFER | MessageType::SEND_SEND_BUFFER => 6,
        MessageType::REVOKE_RECEIVE_BUFFER | MessageType::REVOKE_SEND_BUFFER => 2,
        MessageType::SEND_RNDIS_PACKET => size_of::<RndisPacket>(),
        MessageType::SEND_NDIS_CONFIG => size_of::<NdisConfig>(),
        MessageType::SWITCH_DATA_PATH => size_of::<SwitchDataPath>(),
        MessageType::SUBCHANNEL => size_of::<SubchannelRequest>(),
        kind => {
            let expected = "a type that guests send";
            return found.push(packet.finding(Rule::NvspType, "msg_type", kind, expected));
        }
    };
    demand(have >= 4 + body, found, || short(4 + body));
    reserved(packet, &message, found);
    if message.kind == MessageType::SEND_RNDIS_PACKET {
        let body: RndisPacket = message.body();
        demand(body.channel.0 <= RndisChannel::CONTROL.0, found, || {
            packet.finding(Rule::NvspChannel, "channel_type", body.channel.0, "0 or 1")
        });
        let none = body.section_index == RndisPacket::NO_SECTION;
        demand(!none || body.section_len == 0, found, || {
            let len = body.section_len;
            packet.finding(Rule::NvspSection, "send_buf_section_size", len, "0")
        });
    }
}

fn reserved(packet: &Packet<'_>, message: &Message, found: &mut Vec<Finding>) {
    let reserved = match message.kind {
        MessageType::SEND_NDIS_CONFIG => message.body::<NdisConfig>().reserved,
        MessageType::SEND_RECEIVE_BUFFER | MessageType::SEND_SEND_BUFFER => {
            message.body::<ShareBuffer>().reserved.into()
        }
        MessageType::REVOKE_RECEIVE_BUFFER | MessageType::REVOKE_SEND_BUFFER => {
            message.body::<RevokeBuffer>().reserved.into()
        }
        _ => 0,
    };
    demand(reserved == 0, found, || {
        packet.finding(Rule::NvspReserved, "reserved", format!("{reserved:#x}"), "0")
    });
}

/// Checks the RNDIS messages of a packet, which have `len` bytes in all.
pub(crate) fn messages(
    place: &Place,
    transaction_id: u64,
    len: usize,
    read: &dyn Fn(&mut [u8]) -> usize,
    found: &mut Vec<Finding>,
) {
    let mut buffer = [0; LOOK];
    let have = read(&mut buffer).min(LOOK);
    let mut bytes = buffer.get(..have).unwrap_or_default();
    let mut left = len;
    // A message has its header at least, so this ends.
    while left != 0 {
        let check = Check { place, transaction_id, found };
        let Some(size) = check.message(bytes, left) else {
            return;
        };
        left -= size;
        match bytes.get(size..) {
            Some(rest) if rest.len() >= rndis::DATA_BODY_LEN || rest.len() == left => bytes = rest,
            _ => return,
        }
    }
}

struct Check<'a> {
    place: &'a Place,
    transaction_id: u64,
    found: &'a mut Vec<Finding>,
}

impl Check<'_> {
    /// Checks the message at the front of `left` bytes, of which `bytes` are here; its length if
    /// another may follow.
    fn message(mut self, bytes: &[u8], left: usize) -> Option<usize> {
        let Ok((header, _)) = rndis::Header::read_from_prefix(bytes) else {
            self.find(Rule::RndisLength, "a message", "length", left, "8 or more");
            return None;
        };
        let rndis::Header { kind, len } = header;
        let size = len as usize;
        let least = match kind {
            rndis::MessageType::PACKET => rndis::DATA_BODY_LEN,
            rndis::MessageType::INITIALIZE => 24,
            rndis::MessageType::HALT | rndis::MessageType::KEEPALIVE => 12,
            rndis::MessageType::QUERY | rndis::MessageType::SET => 28,
            rndis::MessageType::RESET => 12,
            kind => {
                self.find(Rule::RndisType, kind, "ndis_msg_type", kind.0, "1 to 6 or 8");
                return None;
            }
        };
        if size < least || size > left {
            let expected = format!("{least} to {left}");
            self.find(Rule::RndisLength, kind, "msg_len", len, expected);
            return None;
        }
        match kind {
            rndis::MessageType::PACKET => self.frame(bytes, left),
            rndis::MessageType::QUERY | rndis::MessageType::SET => self.value(kind, bytes, size),
            _ => {}
        }
        Some(size)
    }

    fn frame(&mut self, bytes: &[u8], left: usize) {
        if let Err(DataError::Outside { part, offset, len, have }) = DataHeader::parse(bytes, left)
        {
            let field = match part {
                "frame" => "data_offset",
                _ => "per_pkt_info_offset",
            };
            let value = format!("{offset} with {len} B");
            let expected = format!("within {have} B");
            self.find(Rule::RndisOffset, rndis::MessageType::PACKET, field, value, expected);
        }
    }

    fn value(&mut self, kind: rndis::MessageType, bytes: &[u8], size: usize) {
        let body = bytes.get(rndis::Header::LEN..).unwrap_or_default();
        let Ok((request, _)) = Request::read_from_prefix(body) else {
            return;
        };
        let Request { oid, info_len, info_offset, .. } = request;
        let end = u64::from(info_len) + u64::from(info_offset) + rndis::Header::LEN as u64;
        if info_len != 0 && end > size as u64 {
            let value = format!("{info_offset} with {info_len} B");
            let expected = format!("within {size} B");
            self.find(
                Rule::RndisOffset,
                format!("{kind} {oid}"),
                "info_buf_offset",
                value,
                expected,
            );
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts alike, at many calls")]
    fn find(
        &mut self,
        rule: Rule,
        kind: impl std::fmt::Display,
        field: &'static str,
        value: impl ToString,
        expected: impl ToString,
    ) {
        let at = At::on(self.place, Some(self.transaction_id), kind);
        let (value, expected) = (value.to_string(), expected.to_string());
        self.found.push(Finding { rule, at, field, value, expected });
    }
}
