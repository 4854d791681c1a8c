// SPDX-License-Identifier: MIT OR Apache-2.0

//! Integration components: a pipe's header, one of their own, a body.

use std::mem::offset_of;

use busway_wire::ic::{
    HEADER_LEN, Header, MessageType, Negotiate, file_copy, heartbeat, kvp, shutdown, time_sync, vss,
};
use busway_wire::pipe::{PIPE_HEADER_LEN, PipeHeader};

use crate::fuzz::shapes::{Field, Shape, fields};

/// Where bodies begin.
const BODY: usize = PIPE_HEADER_LEN + HEADER_LEN;

pub(super) fn heartbeat() -> Vec<Shape> {
    let body = fields!(BODY, heartbeat::Heartbeat: sequence, reserved);
    component("HEARTBEAT", MessageType::HEARTBEAT, &body)
}

pub(super) fn time_sync() -> Vec<Shape> {
    let body = fields!(
        BODY, time_sync::Sample: host_time, reference_time, flags, leap, stratum,
    );
    component("TIME_SYNC", MessageType::TIME_SYNC, &body)
}

pub(super) fn shutdown() -> Vec<Shape> {
    let body = fields!(BODY, shutdown::Shutdown: reason, timeout, action, message);
    component("SHUTDOWN", MessageType::SHUTDOWN, &body)
}

pub(super) fn kvp() -> Vec<Shape> {
    let header = fields!(BODY, kvp::Header: operation, pool);
    let pair = fields!(
        BODY + offset_of!(kvp::Exchange, pair), kvp::Pair: kind, key_len, value_len, key, value,
    );
    component("KVP", MessageType::KVP, &[&header[..], &pair].concat())
}

pub(super) fn vss() -> Vec<Shape> {
    let body = fields!(BODY, vss::Vss: operation, flags, rest);
    component("VSS", MessageType::VSS, &body)
}

pub(super) fn file_copy() -> Vec<Shape> {
    let header = fields!(BODY, file_copy::Header: operation, services);
    let start = fields!(BODY, file_copy::Start: name, path, flags, size);
    let write = fields!(BODY, file_copy::Write: offset, len);
    component("FILE_COPY", MessageType::FILE_COPY, &[&header[..], &start, &write].concat())
}

/// What all say first, and what one says then.
fn component(name: &'static str, kind: MessageType, body: &[Field]) -> Vec<Shape> {
    let versions = BODY + size_of::<Negotiate>();
    let negotiate = fields!(BODY, Negotiate: frameworks, messages);
    let version = [Field { name: "versions", at: versions, len: 16 }];
    let first = MessageType::NEGOTIATE;
    vec![
        message("NEGOTIATE", first, 1..=1, &[&negotiate, &version]).handshake(),
        message(name, kind, 1..=8, &[body]),
    ]
}

fn message(
    name: &'static str,
    kind: MessageType,
    nth: std::ops::RangeInclusive<u64>,
    body: &[&[Field]],
) -> Shape {
    let pipe = fields!(0, PipeHeader: kind, len);
    let header = fields!(
        PIPE_HEADER_LEN, Header: framework, kind, version, len, status, transaction_id, flags,
    );
    let fields = [&[pipe.as_slice(), &header], body].concat();
    let at = PIPE_HEADER_LEN + offset_of!(Header, kind);
    Shape::new(name, "in-band", nth, &fields).by(at, &kind.0.to_le_bytes())
}
