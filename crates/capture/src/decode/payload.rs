// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packets by the class of their channel. A new device joins by a line in [`CLASSES`].

use busway_wire::ic::{self, kvp, vss};
use busway_wire::packet::PacketType;
use busway_wire::pipe::PipeHeader;
use busway_wire::{Guid, balloon, class, hvsock, keyboard, mouse, nvsp, scsi, storvsc, video};

use super::{Said, Side};

/// A packet of a ring, to be explained.
#[derive(Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) side: Side,
    pub(super) kind: PacketType,
    pub(super) payload: &'a [u8],
    /// The operation of the storvsc request that this completes.
    pub(super) asked: Option<u32>,
}

/// What a payload means, beside its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meaning {
    /// The storvsc operation that it asks for.
    pub(super) operation: u32,
    /// The id of a component's request, or of the answer to one.
    pub(super) component: Option<(u8, bool)>,
}

type Explain = fn(&Packet<'_>, &mut Meaning) -> Said;

/// Who explains which class.
const CLASSES: &[(Guid, Explain)] = &[
    (class::SCSI, storage),
    (class::IDE, storage),
    (class::FIBRE_CHANNEL, storage),
    (class::NETWORK, network),
    (class::SHUTDOWN, component),
    (class::TIME_SYNC, component),
    (class::HEARTBEAT, component),
    (class::KVP, component),
    (class::VSS, component),
    (class::FILE_COPY, component),
    (class::KEYBOARD, keyboard_message),
    (class::MOUSE, mouse_message),
    (class::BALLOON, balloon_message),
    (class::VIDEO, video_message),
];

/// Explains the payload of a packet on a channel of this class.
pub(super) fn explain(class: Guid, packet: &Packet<'_>, meaning: &mut Meaning) -> Said {
    let known = CLASSES.iter().find(|(guid, _)| *guid == class);
    if packet.payload.is_empty() {
        return Said::known("(empty)");
    }
    match known {
        Some((_, explain)) => explain(packet, meaning),
        None if hvsock::port(class).is_some() => stream(packet),
        None => Said::unknown(format!("{} B of a class that has no types", packet.payload.len())),
    }
}

fn storage(packet: &Packet<'_>, meaning: &mut Meaning) -> Said {
    let message = match storvsc::Packet::parse(packet.payload) {
        Ok((message, _)) => message,
        Err(error) => return Said::unknown(error),
    };
    meaning.operation = message.operation.0;
    let named = message.operation.name().is_some();
    if packet.side == Side::Host && packet.kind == PacketType::COMPLETION {
        return match packet.asked {
            Some(asked) => {
                let to = storvsc::Operation(asked);
                let named = named && message.status.name().is_some();
                Said::of(storvsc::Answer { packet: &message, to }, named)
            }
            None => Said::of(message, named),
        };
    }
    let command = message.operation == storvsc::Operation::EXECUTE_SRB;
    let understood = !command || {
        let srb: storvsc::Srb = message.body();
        match srb.cdb().map(scsi::Command::parse) {
            Some(Ok(scsi::Command::Other(opcode))) => opcode.name().is_some(),
            Some(Ok(_)) => true,
            Some(Err(_)) | None => false,
        }
    };
    Said::of(message, named && understood)
}

fn network(packet: &Packet<'_>, _: &mut Meaning) -> Said {
    match nvsp::Message::parse(packet.payload) {
        Ok(message) => Said::of(message, message.kind.name().is_some()),
        Err(error) => Said::unknown(error),
    }
}

fn component(packet: &Packet<'_>, meaning: &mut Meaning) -> Said {
    let (header, body) = match ic::Header::parse(packet.payload) {
        Ok(parsed) => parsed,
        Err(error) => return Said::unknown(error),
    };
    let answer = header.flags().contains(ic::HeaderFlags::RESPONSE);
    meaning.component = Some((header.transaction_id, answer));
    match component_body(&header, body, answer) {
        Some(text) => Said::known(format!("{header}: {text}")),
        None => Said::unknown(header),
    }
}

fn component_body(header: &ic::Header, body: &[u8], answer: bool) -> Option<String> {
    Some(match header.kind {
        ic::MessageType::NEGOTIATE if answer => match ic::Negotiate::choice(body) {
            Ok(agreed) => agreed.to_string(),
            Err(error) => error.to_string(),
        },
        ic::MessageType::NEGOTIATE => versions(body)?,
        ic::MessageType::HEARTBEAT => ic::body::<ic::heartbeat::Heartbeat>(body).ok()?.to_string(),
        ic::MessageType::SHUTDOWN => ic::body::<ic::shutdown::Shutdown>(body).ok()?.to_string(),
        ic::MessageType::TIME_SYNC if header.version >= ic::time_sync::V4_0 => {
            ic::body::<ic::time_sync::Sample>(body).ok()?.to_string()
        }
        ic::MessageType::TIME_SYNC => ic::body::<ic::time_sync::OldSample>(body).ok()?.to_string(),
        ic::MessageType::VSS => {
            let message = ic::body::<vss::Vss>(body).ok()?;
            message.operation.name()?;
            message.to_string()
        }
        ic::MessageType::KVP => pairs(body)?,
        ic::MessageType::FILE_COPY => file_copy(body)?,
        _ => return None,
    })
}

fn versions(body: &[u8]) -> Option<String> {
    let start = ic::body::<ic::Negotiate>(body).ok()?;
    let list = body.get(size_of::<ic::Negotiate>()..)?;
    let versions: Vec<String> = list
        .as_chunks::<4>()
        .0
        .iter()
        .take(usize::from(start.frameworks) + usize::from(start.messages))
        .map(|[a, b, c, d]| {
            let number = |low, high| u16::from_le_bytes([low, high]);
            ic::Version::new(number(*a, *b), number(*c, *d)).to_string()
        })
        .collect();
    let (frameworks, messages) = versions.split_at_checked(start.frameworks.into())?;
    Some(format!("{} (framework {})", messages.join(" "), frameworks.join(" ")))
}

fn pairs(body: &[u8]) -> Option<String> {
    let header = ic::body::<kvp::Header>(body).ok()?;
    header.operation.name()?;
    // A guest answers in the same packet; what it had no room or no value for may be missing.
    let pair = match header.operation {
        kvp::Operation::GET | kvp::Operation::SET => {
            ic::body::<kvp::Exchange>(body).ok().map(|body| body.pair.to_string())
        }
        kvp::Operation::ENUMERATE => ic::body::<kvp::Enumerate>(body)
            .ok()
            .map(|body| format!("{}: {}", body.index, body.pair)),
        kvp::Operation::DELETE => ic::body::<kvp::Delete>(body)
            .ok()
            .map(|body| format!("{:?}", busway_wire::utf16::text(&body.key))),
        _ => return ic::body::<kvp::IpAddresses>(body).ok().map(|body| body.to_string()),
    };
    Some(match pair {
        Some(pair) => format!("{header} {pair}"),
        None => header.to_string(),
    })
}

fn file_copy(body: &[u8]) -> Option<String> {
    let header = ic::body::<ic::file_copy::Header>(body).ok()?;
    header.operation.name()?;
    Some(match header.operation {
        ic::file_copy::Operation::START => ic::body::<ic::file_copy::Start>(body).ok()?.to_string(),
        ic::file_copy::Operation::WRITE => ic::body::<ic::file_copy::Write>(body).ok()?.to_string(),
        _ => header.to_string(),
    })
}

fn keyboard_message(packet: &Packet<'_>, _: &mut Meaning) -> Said {
    let text = keyboard::Text(packet.payload);
    Said::of(text, text.kind().is_some_and(|kind| kind.name().is_some()))
}

fn mouse_message(packet: &Packet<'_>, _: &mut Meaning) -> Said {
    match PipeHeader::parse(packet.payload) {
        Ok(message) => {
            let text = mouse::Text(message);
            Said::of(text, text.kind().is_some_and(|kind| kind.name().is_some()))
        }
        Err(error) => Said::unknown(error),
    }
}

fn balloon_message(packet: &Packet<'_>, _: &mut Meaning) -> Said {
    let text = balloon::Text(packet.payload);
    Said::of(text, text.kind().is_some_and(|kind| kind.name().is_some()))
}

fn video_message(packet: &Packet<'_>, _: &mut Meaning) -> Said {
    match PipeHeader::parse(packet.payload) {
        Ok(message) => {
            let text = video::Text(message);
            Said::of(text, text.kind().is_some_and(|kind| kind.name().is_some()))
        }
        Err(error) => Said::unknown(error),
    }
}

fn stream(packet: &Packet<'_>) -> Said {
    match PipeHeader::parse(packet.payload) {
        Ok([]) => Said::known("end of the stream"),
        Ok(data) => Said::known(format!("{} B of the stream", data.len())),
        Err(error) => Said::unknown(error),
    }
}
