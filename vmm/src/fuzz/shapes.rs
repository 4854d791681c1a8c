// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a host says on a channel, by the types of `busway_wire`: where its fields are.

use std::mem::offset_of;

use busway_wire::ic;
use busway_wire::nvsp::{
    self, InitComplete, ReceiveBufferComplete, RndisPacket, RndisPacketComplete,
};
use busway_wire::nvsp::{SendBufferComplete, SendIndirectionTable, SubchannelComplete};
use busway_wire::packet::{TransferPageHeader, TransferRange};
use busway_wire::pipe::{PIPE_HEADER_LEN, PipeHeader};
use busway_wire::storvsc::{self, Operation, Properties, ProtocolVersion, Srb};
use busway_wire::{keyboard, mouse};

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// Bytes from the start of the payload, or of what stands before it.
    pub(super) at: usize,
    /// Bytes of it.
    pub(super) len: usize,
}

/// A kind of message.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    /// Its packets, as scripts name them; any kind if empty.
    pub(super) packet: &'static str,
    /// What its payload begins with, if that is known.
    pub(super) kind: Option<u32>,
    /// Fields of the payload.
    pub(super) fields: Vec<Field>,
    /// Fields between descriptor and payload.
    pub(super) header: Vec<Field>,
    /// Which of its packets are meant, counted from 1 on each channel.
    pub(super) nth: std::ops::RangeInclusive<u64>,
    /// It belongs to a handshake: a driver that minds has nothing more to say.
    pub(super) is_handshake: bool,
}

fn len_of<T, F>(_field: fn(T) -> F) -> usize {
    size_of::<F>()
}

macro_rules! fields {
    ($base:expr, $kind:ty: $($field:ident),+ $(,)?) => {
        [$(Field {
            name: stringify!($field),
            at: $base + offset_of!($kind, $field),
            len: len_of(|value: $kind| value.$field),
        }),+]
    };
}

/// What a device says, as far as it is known; bytes without names for one that is not.
pub(super) fn shapes(device: &str) -> Vec<Shape> {
    match device {
        "storage" => storage(),
        "network" => network(),
        "heartbeat" | "shutdown" | "timesync" | "kvp" | "vss" | "copy" => vec![component()],
        "keyboard" => vec![keyboard()],
        "mouse" => vec![mouse()],
        _ => vec![unknown()],
    }
}

fn shape(name: &'static str, packet: &'static str, nth: std::ops::RangeInclusive<u64>) -> Shape {
    let (fields, header) = (Vec::new(), Vec::new());
    Shape { name, packet, kind: None, fields, header, nth, is_handshake: false }
}

fn storage() -> Vec<Shape> {
    let packet = fields!(0, storvsc::Packet: operation, flags, status);
    let body = offset_of!(storvsc::Packet, body);
    let version = fields!(body, ProtocolVersion: version);
    let properties = fields!(body, Properties: max_channel_count, flags, max_transfer_bytes);
    let srb = fields!(
        body, Srb: srb_status, scsi_status, lun, sense_len, direction, data_transfer_length,
        cdb_or_sense,
    );
    let kind = Some(Operation::COMPLETE_IO.0);
    let handshake = [&packet[..], &version, &properties].concat();
    vec![
        Shape {
            kind,
            fields: handshake,
            is_handshake: true,
            ..shape("handshake's answer", "completion", 1..=5)
        },
        Shape {
            kind,
            fields: [&packet[..], &srb].concat(),
            ..shape("SRB's answer", "completion", 6..=60)
        },
    ]
}

fn network() -> Vec<Shape> {
    use nvsp::MessageType as Kind;
    let body = offset_of!(nvsp::Message, body);
    let say = |name, packet, kind: Kind, fields: &[Field], nth| Shape {
        kind: Some(kind.0),
        fields: [&fields!(0, nvsp::Message: kind), fields].concat(),
        ..shape(name, packet, nth)
    };
    let handshake = |shape| Shape { is_handshake: true, ..shape };
    let init = fields!(body, InitComplete: version, max_mdl_chain_len, status);
    let receive = fields!(
        body, ReceiveBufferComplete: status, section_count, offset, part_len, part_count, end_offset,
    );
    let send = fields!(body, SendBufferComplete: status, section_len);
    let more = fields!(body, SubchannelComplete: status, count);
    let table = fields!(0, SendIndirectionTable: count, offset, entries);
    let done = fields!(body, RndisPacketComplete: status);
    let rndis = fields!(body, RndisPacket: channel, section_index, section_len);
    let pages = fields!(0, TransferPageHeader: page_set_id, sender_owns_set, range_count);
    let range = fields!(size_of::<TransferPageHeader>(), TransferRange: byte_count, byte_offset);
    let frames = say("RNDIS", "transfer-pages", Kind::SEND_RNDIS_PACKET, &rndis, 1..=24);
    vec![
        handshake(say("INIT_COMPLETE", "", Kind::INIT_COMPLETE, &init, 1..=2)),
        handshake(say("receive buffer", "", Kind::SEND_RECEIVE_BUFFER_COMPLETE, &receive, 1..=1)),
        handshake(say("send buffer", "", Kind::SEND_SEND_BUFFER_COMPLETE, &send, 1..=1)),
        handshake(say("subchannels", "", Kind::SUBCHANNEL, &more, 1..=1)),
        handshake(say("indirection table", "", Kind::SEND_INDIRECTION_TABLE, &table, 1..=1)),
        say("RNDIS taken", "completion", Kind::SEND_RNDIS_PACKET_COMPLETE, &done, 1..=24),
        Shape { header: [&pages[..], &range].concat(), ..frames },
    ]
}

fn component() -> Shape {
    let pipe = fields!(0, PipeHeader: kind, len);
    let header = fields!(
        PIPE_HEADER_LEN, ic::Header: framework, kind, version, len, status, transaction_id, flags,
    );
    let body = [Field { name: "body", at: PIPE_HEADER_LEN + ic::HEADER_LEN, len: 8 }];
    Shape { fields: [&pipe[..], &header, &body].concat(), ..shape("message", "in-band", 1..=8) }
}

fn keyboard() -> Shape {
    let answer = fields!(PIPE_HEADER_LEN, keyboard::Response: kind, status);
    let key = fields!(PIPE_HEADER_LEN, keyboard::Event: make_code, flags);
    let pipe = fields!(0, PipeHeader: kind, len);
    Shape { fields: [&pipe[..], &answer, &key].concat(), ..shape("message", "in-band", 1..=3) }
}

fn mouse() -> Shape {
    let at = PIPE_HEADER_LEN + size_of::<mouse::Header>();
    let header = fields!(PIPE_HEADER_LEN, mouse::Header: kind, len);
    let device = fields!(at, mouse::DeviceInfo: size, vendor, product, version);
    let hid = fields!(
        at + size_of::<mouse::DeviceInfo>(),
        mouse::HidDescriptor: len, kind, hid_version, descriptors, report_kind, report_len,
    );
    let pipe = fields!(0, PipeHeader: kind, len);
    let fields = [&pipe[..], &header, &device, &hid].concat();
    Shape { fields, ..shape("message", "in-band", 1..=3) }
}

fn unknown() -> Shape {
    let fields = (0..16).map(|at| Field { name: "bytes", at: at * 4, len: 4 });
    Shape { fields: fields.collect(), ..shape("packet", "", 1..=40) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_drivers_have_them() {
        let field = |shape: &Shape, name| {
            let mut all = shape.fields.iter().chain(&shape.header);
            all.find(|field| field.name == name).map(|field| (field.at, field.len)).unwrap()
        };
        // `struct vstor_packet` and `struct vmscsi_request` of drivers/scsi/storvsc_drv.c.
        let storage = shapes("storage");
        assert_eq!(field(&storage[1], "status"), (8, 4));
        assert_eq!(field(&storage[1], "srb_status"), (14, 1));
        assert_eq!(field(&storage[1], "data_transfer_length"), (24, 4));
        assert_eq!(field(&storage[0], "max_transfer_bytes"), (24, 4));
        // `struct nvsp_message` and `struct vmtransfer_page_packet_header`.
        let network = shapes("network");
        let frames = network.last().unwrap();
        assert_eq!((field(frames, "channel"), field(frames, "byte_offset")), ((4, 4), (12, 4)));
        assert_eq!(frames.kind, Some(107));
    }
}
