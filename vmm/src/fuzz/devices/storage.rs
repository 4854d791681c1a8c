// SPDX-License-Identifier: MIT OR Apache-2.0

//! Disks: all answers are COMPLETE_IO, and known by what they answer.

use std::mem::offset_of;
use std::ops::RangeInclusive;

use busway_wire::storvsc::{Packet, Properties, ProtocolVersion, Srb};

use crate::fuzz::shapes::{Field, Shape, fields};

pub(super) fn shapes() -> Vec<Shape> {
    let packet = fields!(0, Packet: operation, flags, status);
    let body = offset_of!(Packet, body);
    let version = fields!(body, ProtocolVersion: version, revision);
    let properties = fields!(
        body, Properties: protocol, path, target, max_channel_count, port, flags, max_transfer_bytes,
    );
    let srb = fields!(
        body, Srb: length, srb_status, scsi_status, lun, sense_len, direction, data_transfer_length,
        cdb_or_sense,
    );
    let step = |name, fields: &[Field]| answer(name, 1..=1, &[&packet, fields]).handshake();
    let asked = |name, nth| answer(name, nth, &[&packet, &srb]);
    vec![
        step("BEGIN_INITIALIZATION", &[]),
        step("QUERY_PROTOCOL_VERSION", &version),
        step("QUERY_PROPERTIES", &properties),
        step("CREATE_SUB_CHANNELS", &[]),
        step("END_INITIALIZATION", &[]),
        asked("INQUIRY", 1..=8),
        asked("READ_CAPACITY_10", 1..=2),
        asked("MODE_SENSE_6", 1..=3),
        asked("READ_10", 1..=60),
        asked("EXECUTE_SRB", 1..=60),
    ]
}

fn answer(name: &'static str, nth: RangeInclusive<u64>, fields: &[&[Field]]) -> Shape {
    Shape::new(name, "completion", nth, fields).answer(name)
}
