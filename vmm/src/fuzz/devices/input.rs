// SPDX-License-Identifier: MIT OR Apache-2.0

//! Keyboard and mouse, in the packets of a pipe.

use busway_wire::pipe::{PIPE_HEADER_LEN, PipeHeader};
use busway_wire::{keyboard, mouse};

use crate::fuzz::shapes::{Field, Shape, fields};

pub(super) fn keyboard() -> Vec<Shape> {
    use keyboard::MessageType as Kind;
    let pipe = fields!(0, PipeHeader: kind, len);
    let answer = fields!(PIPE_HEADER_LEN, keyboard::Response: kind, status);
    let key = fields!(PIPE_HEADER_LEN, keyboard::Event: kind, make_code, reserved, flags);
    let shape = |name, kind: Kind, nth, fields: &[Field]| {
        let shape = Shape::new(name, "in-band", nth, &[&pipe, fields]);
        shape.by(PIPE_HEADER_LEN, &kind.0.to_le_bytes())
    };
    vec![
        shape("PROTOCOL_RESPONSE", Kind::PROTOCOL_RESPONSE, 1..=1, &answer).handshake(),
        shape("EVENT", Kind::EVENT, 1..=16, &key),
    ]
}

pub(super) fn mouse() -> Vec<Shape> {
    use mouse::MessageType as Kind;
    let body = PIPE_HEADER_LEN + size_of::<mouse::Header>();
    let hid_at = body + size_of::<mouse::DeviceInfo>();
    let pipe = fields!(0, PipeHeader: kind, len);
    let header = fields!(PIPE_HEADER_LEN, mouse::Header: kind, len);
    let answer = fields!(body, mouse::Response: version, approved);
    let device = fields!(body, mouse::DeviceInfo: size, vendor, product, version);
    let hid = fields!(
        hid_at, mouse::HidDescriptor: len, kind, hid_version, country, descriptors, report_kind,
        report_len,
    );
    let described = hid_at + size_of::<mouse::HidDescriptor>();
    let described = (0..4).map(|item| Field { name: "report", at: described + item * 16, len: 16 });
    let described: Vec<_> = described.collect();
    let report = [Field { name: "report", at: body, len: 7 }];
    let shape = |name, kind: Kind, nth, fields: &[&[Field]]| {
        let fields = [&[pipe.as_slice(), &header], fields].concat();
        let shape = Shape::new(name, "in-band", nth, &fields);
        shape.by(PIPE_HEADER_LEN, &kind.0.to_le_bytes())
    };
    vec![
        shape("PROTOCOL_RESPONSE", Kind::PROTOCOL_RESPONSE, 1..=1, &[&answer]).handshake(),
        shape(
            "INITIAL_DEVICE_INFO",
            Kind::INITIAL_DEVICE_INFO,
            1..=1,
            &[&device, &hid, &described],
        )
        .handshake(),
        shape("INPUT_REPORT", Kind::INPUT_REPORT, 1..=16, &[&report]),
    ]
}
