// SPDX-License-Identifier: MIT OR Apache-2.0

//! The screen, and dynamic memory.

use busway_wire::pipe::{PIPE_HEADER_LEN, PipeHeader};
use busway_wire::{balloon, video};

use crate::fuzz::shapes::{Field, Shape, fields};

pub(super) fn video() -> Vec<Shape> {
    use video::MessageType as Kind;
    let body = PIPE_HEADER_LEN + size_of::<video::Header>();
    let pipe = fields!(0, PipeHeader: kind, len);
    let header = fields!(PIPE_HEADER_LEN, video::Header: kind, len);
    let version = fields!(body, video::VersionResponse: version, accepted, max_outputs);
    let context = fields!(body, video::VramLocation: context);
    let sizes = fields!(body, video::ResolutionResponse: edid, count, preferred, is_standard);
    let first = body + size_of::<video::ResolutionResponse>();
    let size = fields!(first, video::Resolution: width, height);
    let wanted = fields!(
        body, video::FeatureChange: dirt, pointer_position, pointer_shape, situation,
    );
    let shape = |name, kind: Kind, fields: &[&[Field]]| {
        let fields = [&[pipe.as_slice(), &header], fields].concat();
        let shape = Shape::new(name, "in-band", 1..=1, &fields);
        shape.by(PIPE_HEADER_LEN, &kind.0.to_le_bytes()).handshake()
    };
    vec![
        shape("VERSION_RESPONSE", Kind::VERSION_RESPONSE, &[&version]),
        shape("RESOLUTION_RESPONSE", Kind::RESOLUTION_RESPONSE, &[&sizes, &size]),
        shape("VRAM_LOCATION_ACK", Kind::VRAM_LOCATION_ACK, &[&context]),
        shape("SITUATION_UPDATE_ACK", Kind::SITUATION_UPDATE_ACK, &[&context]),
        shape("FEATURE_CHANGE", Kind::FEATURE_CHANGE, &[&wanted]),
    ]
}

pub(super) fn balloon() -> Vec<Shape> {
    use balloon::MessageType as Kind;
    let header = fields!(0, balloon::Header: kind, len, transaction_id);
    let answer = fields!(0, balloon::Answer: accepted);
    let take = fields!(0, balloon::BalloonRequest: pages, reserved);
    let give = fields!(0, balloon::UnballoonRequest: more, range_count);
    let ranges = size_of::<balloon::UnballoonRequest>();
    let ranges = [0, 8].map(|at| Field { name: "range", at: ranges + at, len: 8 });
    let add = fields!(0, balloon::HotAddRequest: range);
    let shape = |name, kind: Kind, nth, fields: &[&[Field]]| {
        let fields = [&[header.as_slice()], fields].concat();
        Shape::new(name, "in-band", nth, &fields).by(0, &kind.0.to_le_bytes())
    };
    vec![
        shape("VERSION_RESPONSE", Kind::VERSION_RESPONSE, 1..=1, &[&answer]).handshake(),
        shape("CAPABILITIES_RESPONSE", Kind::CAPABILITIES_RESPONSE, 1..=1, &[&answer]).handshake(),
        shape("BALLOON_REQUEST", Kind::BALLOON_REQUEST, 1..=6, &[&take]),
        shape("UNBALLOON_REQUEST", Kind::UNBALLOON_REQUEST, 1..=6, &[&give, &ranges]),
        shape("HOT_ADD_REQUEST", Kind::HOT_ADD_REQUEST, 1..=2, &[&add]),
    ]
}
