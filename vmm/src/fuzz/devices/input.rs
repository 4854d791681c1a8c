// SPDX-License-Identifier: MIT OR Apache-2.0

//! The keyboard, whose messages are packets, and the mouse, in the packets of a pipe.

use busway_wire::pipe::{PIPE_HEADER_LEN, PipeHeader};
use busway_wire::{keyboard, mouse};

use crate::fuzz::shapes::{Field, Shape, fields};

pub(super) fn keyboard() -> Vec<Shape> {
    use keyboard::MessageType as Kind;
    let answer = fields!(0, keyboard::Response: kind, status);
    let key = fields!(0, keyboard::Event: kind, make_code, reserved, flags);
    let shape = |name, kind: Kind, nth, fields: &[Field]| {
        Shape::new(name, "in-band", nth, &[fields]).by(0, &kind.0.to_le_bytes())
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

#[cfg(test)]
mod tests {
    use busway_input::{Key, Keyboard};
    use busway_ring::Outgoing;
    use busway_testkit::{Pair, PairConfig};
    use busway_wire::{Version, class};
    use zerocopy::IntoBytes;

    use super::*;
    use crate::fuzz::shapes::Known;

    #[test]
    fn the_keyboards_messages_are_known_by_their_kinds() {
        let keyboard = Keyboard::new().unwrap();
        let mut pair = Pair::new(PairConfig::default());
        pair.add(keyboard.device());
        let offer = *pair.connect(Version::V5_3).offer(class::KEYBOARD);
        let mut channel = pair.open(&offer, 2, 0).unwrap();
        let (kind, value) = (keyboard::MessageType::PROTOCOL_REQUEST, keyboard::VERSION);
        let request = keyboard::Request { kind, value };
        channel.send(&mut pair, &Outgoing::in_band(1, request.as_bytes()));
        let answer = channel.receive(&mut pair).payload;
        keyboard.press(&[Key { code: 30, extended: false, down: false }]).unwrap();
        let event = channel.receive(&mut pair).payload;
        let shapes = super::keyboard();
        let is_known = |shape: &Shape, payload: &[u8]| match &shape.known {
            Known::By(at, bytes) => payload[*at..].starts_with(bytes),
            _ => false,
        };
        let known = [&answer, &event].map(|payload| {
            let shapes = shapes.iter().filter(|shape| is_known(shape, payload));
            shapes.map(|shape| shape.name).collect::<Vec<_>>()
        });
        assert_eq!(known, [["PROTOCOL_RESPONSE"], ["EVENT"]]);
    }
}
