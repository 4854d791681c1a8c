// SPDX-License-Identifier: MIT OR Apache-2.0

//! Network cards: NVSP in packets, RNDIS in what packets refer to.

use std::mem::offset_of;

use busway_wire::nvsp::{
    InitComplete, Message, MessageType, ReceiveBufferComplete, RndisChannel, RndisPacket,
    RndisPacketComplete, SendBufferComplete, SendIndirectionTable, SubchannelComplete,
};
use busway_wire::packet::{TransferPageHeader, TransferRange};
use busway_wire::rndis::{
    self, DATA_BODY_LEN, DataBody, Indicate, InfoHeader, InitializeComplete, QueryComplete,
};

use crate::fuzz::shapes::{Field, Shape, fields};

pub(super) fn shapes() -> Vec<Shape> {
    let body = offset_of!(Message, body);
    let init = fields!(body, InitComplete: version, max_mdl_chain_len, status);
    let receive = fields!(
        body, ReceiveBufferComplete: status, section_count, offset, part_len, part_count, end_offset,
    );
    let send = fields!(body, SendBufferComplete: status, section_len);
    let more = fields!(body, SubchannelComplete: status, count);
    let table = fields!(0, SendIndirectionTable: count, offset, entries);
    let done = fields!(body, RndisPacketComplete: status);
    let answer = |name, kind, fields| nvsp(name, "completion", kind, fields).handshake();
    let answered =
        fields!(rndis::Header::LEN, QueryComplete: request_id, status, info_len, info_offset);
    let start = fields!(
        rndis::Header::LEN, InitializeComplete: request_id, status, major, minor, device_flags, medium,
        max_packets, max_transfer_len, alignment_shift,
    );
    let indicated = fields!(rndis::Header::LEN, Indicate: buffer_len, buffer_offset);
    let value = [Field { name: "value", at: 24, len: 16 }];
    let frame = fields!(
        rndis::Header::LEN, DataBody: data_offset, data_len, oob_offset, oob_len, oob_count,
        info_offset, info_len, vc_handle,
    );
    let note = fields!(DATA_BODY_LEN, InfoHeader: len, kind, offset);
    vec![
        answer("INIT_COMPLETE", MessageType::INIT_COMPLETE, &init),
        answer("RECEIVE_BUFFER", MessageType::SEND_RECEIVE_BUFFER_COMPLETE, &receive),
        answer("SEND_BUFFER", MessageType::SEND_SEND_BUFFER_COMPLETE, &send),
        answer("SUBCHANNEL", MessageType::SUBCHANNEL, &more),
        nvsp("SEND_INDIRECTION_TABLE", "in-band", MessageType::SEND_INDIRECTION_TABLE, &table)
            .handshake(),
        rndis("RNDIS INITIALIZE_COMPLETE", RndisChannel::CONTROL, 1..=1, &[&start]).handshake(),
        rndis("RNDIS answer", RndisChannel::CONTROL, 2..=16, &[&answered, &indicated, &value]),
        rndis("RNDIS frame", RndisChannel::DATA, 1..=60, &[&frame, &note]),
        Shape {
            nth: 1..=60,
            ..nvsp("RNDIS taken", "completion", MessageType::SEND_RNDIS_PACKET_COMPLETE, &done)
        },
    ]
}

/// A message that is said once, with its type.
fn nvsp(name: &'static str, packet: &'static str, kind: MessageType, fields: &[Field]) -> Shape {
    let shape = Shape::new(name, packet, 1..=1, &[&fields!(0, Message: kind), fields]);
    shape.by(0, &kind.0.to_le_bytes())
}

/// Messages in the receive buffer: the packet says where.
fn rndis(
    name: &'static str,
    channel: RndisChannel,
    nth: std::ops::RangeInclusive<u64>,
    data: &[&[Field]],
) -> Shape {
    let body = offset_of!(Message, body);
    let packet = fields!(body, RndisPacket: channel, section_index, section_len);
    let pages = fields!(0, TransferPageHeader: page_set_id, sender_owns_set, range_count);
    let range = fields!(size_of::<TransferPageHeader>(), TransferRange: byte_count, byte_offset);
    let header = fields!(0, rndis::Header: kind, len);
    let kind = [MessageType::SEND_RNDIS_PACKET.0, channel.0].map(u32::to_le_bytes);
    let shape = Shape::new(name, "transfer-pages", nth, &[&fields!(0, Message: kind), &packet]);
    Shape {
        header: [&pages[..], &range].concat(),
        data: [&header[..], &data.concat()].concat(),
        ..shape.by(0, kind.as_flattened())
    }
}
