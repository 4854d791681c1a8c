// SPDX-License-Identifier: MIT OR Apache-2.0

//! NVSP apart from frames: versions, buffers, subchannels.

use std::any::Any;
use std::sync::{Arc, Weak};

use busway_memory::GuestMemory;
use busway_vmbus::{Gpadl, GpadlId, Io};
use busway_wire::nvsp::{
    Capabilities, Init, InitComplete, Message, MessageType, NdisConfig, ReceiveBufferComplete,
    RevokeBuffer, SendBufferComplete, ShareBuffer, Status, SubchannelComplete, SubchannelOperation,
    SubchannelRequest, Version,
};

use crate::buffers::{BufferError, ReceiveBuffer, SEND_SECTION, SendBuffer};
use crate::control::Nature;
use crate::ethernet::{HEADER_LEN, TAG_LEN};
use crate::receive::BEFORE;
use crate::settings::Settings;
use crate::shared::Shared;

/// Pieces that a packet may consist of, as real hosts say.
const MAX_MDL_CHAIN: u32 = 34;

/// What a message leads to.
pub(crate) struct Outcome {
    /// The answer, if the message has one; else an empty completion, where one is asked for.
    pub(crate) answer: Option<Message>,
    /// What there is to be said in the log.
    pub(crate) warning: Option<String>,
}

impl Outcome {
    const fn silent() -> Self {
        Self { answer: None, warning: None }
    }

    const fn of(answer: Message) -> Self {
        Self { answer: Some(answer), warning: None }
    }
}

/// Takes a message of the first channel that is neither frame nor control message.
pub(crate) fn take(
    message: &Message,
    nature: &Nature,
    settings: &Settings,
    shared: &Shared,
    io: &mut Io<'_>,
) -> Outcome {
    match message.kind {
        MessageType::INIT => Outcome::of(init(message.body(), nature, shared)),
        MessageType::SEND_NDIS_CONFIG => {
            let NdisConfig { mtu, capabilities, .. } = message.body();
            // With a length that makes no sense, it is what it would be without.
            let mtu = mtu.checked_sub(HEADER_LEN as u32).and_then(|mtu| u16::try_from(mtu).ok());
            let mtu = mtu.map_or(settings.mtu, |mtu| mtu.clamp(68, nature.mtu.max(1500)));
            shared.change(|settings| {
                settings.mtu = mtu;
                settings.capabilities = Capabilities::from_bits_retain(capabilities);
            });
            Outcome::silent()
        }
        // Nothing follows from the version of NDIS that is not said again.
        MessageType::SEND_NDIS_VERSION | MessageType::SWITCH_DATA_PATH => Outcome::silent(),
        MessageType::SEND_RECEIVE_BUFFER => receive_buffer(message.body(), settings, shared, io),
        MessageType::SEND_SEND_BUFFER => send_buffer(message.body(), settings, shared, io),
        MessageType::REVOKE_RECEIVE_BUFFER => {
            let RevokeBuffer { id, .. } = message.body();
            if settings.receive.as_ref().is_some_and(|buffer| buffer.id == id) {
                shared.change(|settings| settings.receive = None);
            }
            Outcome::silent()
        }
        MessageType::REVOKE_SEND_BUFFER => {
            shared.change(|settings| settings.send = None);
            Outcome::silent()
        }
        MessageType::SUBCHANNEL => subchannels(message.body(), nature, settings, shared, io),
        kind => Outcome { answer: None, warning: Some(format!("a message of type {kind}")) },
    }
}

fn init(Init { min, max }: Init, nature: &Nature, shared: &Shared) -> Message {
    let is_spoken =
        |version: &&Version| **version <= nature.newest_version && (min..=max).contains(*version);
    let known = Version::ALL.iter().rev().find(is_spoken);
    if let Some(&version) = known {
        shared.change(|settings| {
            let ports = std::mem::take(&mut settings.ports);
            let link_up = settings.link_up;
            *settings = Settings { ports, link_up, ..Settings::new(nature.mac) };
            settings.version = Some(version);
        });
    }
    let status = if known.is_some() { Status::SUCCESS } else { Status::PROTOCOL_UNSUPPORTED };
    let version = known.copied().unwrap_or(Version::INVALID);
    let body = InitComplete { version, max_mdl_chain_len: MAX_MDL_CHAIN, status };
    Message::new(MessageType::INIT_COMPLETE, &body)
}

/// A buffer that the guest gives twice, or that it has not shared.
fn shared_list<T>(
    gpadl: u32,
    io: &Io<'_>,
    taken: bool,
    make: impl FnOnce(&GuestMemory, (GpadlId, &Gpadl)) -> Result<T, BufferError>,
) -> Result<Arc<T>, String> {
    let id = GpadlId(gpadl);
    match io.gpadl(id) {
        _ if taken => Err("a second buffer before the first is revoked".to_owned()),
        None => Err(format!("a buffer in the list {gpadl:#x}, which there is not")),
        Some(list) => make(io.memory(), (id, &list))
            .map(Arc::new)
            .map_err(|error| format!("a buffer that is none: {error}")),
    }
}

fn watch<T: Any + Send + Sync>(shared: &Shared, gpadl: GpadlId, buffer: &Arc<T>) {
    let weak: Weak<T> = Arc::downgrade(buffer);
    shared.watch(gpadl, weak);
}

fn receive_buffer(
    ShareBuffer { gpadl, id, .. }: ShareBuffer,
    settings: &Settings,
    shared: &Shared,
    io: &Io<'_>,
) -> Outcome {
    let frame_len = (HEADER_LEN + TAG_LEN) as u32 + u32::from(settings.mtu);
    let made = shared_list(gpadl, io, settings.receive.is_some(), |memory, list| {
        ReceiveBuffer::new(memory, list, id, BEFORE, frame_len)
    });
    let (body, warning) = match made {
        Ok(buffer) => {
            let ReceiveBuffer { part_len, part_count, .. } = *buffer;
            let body = ReceiveBufferComplete {
                status: Status::SUCCESS,
                section_count: 1,
                offset: 0,
                part_len,
                part_count,
                end_offset: part_len * part_count,
            };
            watch(shared, buffer.gpadl, &buffer);
            shared.change(|settings| settings.receive = Some(buffer));
            (body, None)
        }
        Err(warning) => {
            let status = Status::FAIL;
            let body = ReceiveBufferComplete {
                status,
                section_count: 0,
                offset: 0,
                part_len: 0,
                part_count: 0,
                end_offset: 0,
            };
            (body, Some(warning))
        }
    };
    let answer = Message::new(MessageType::SEND_RECEIVE_BUFFER_COMPLETE, &body);
    Outcome { answer: Some(answer), warning }
}

fn send_buffer(
    ShareBuffer { gpadl, .. }: ShareBuffer,
    settings: &Settings,
    shared: &Shared,
    io: &Io<'_>,
) -> Outcome {
    let made = shared_list(gpadl, io, settings.send.is_some(), SendBuffer::new);
    let (status, warning) = match made {
        Ok(buffer) => {
            watch(shared, buffer.gpadl, &buffer);
            shared.change(|settings| settings.send = Some(buffer));
            (Status::SUCCESS, None)
        }
        Err(warning) => (Status::FAIL, Some(warning)),
    };
    let body = SendBufferComplete { status, section_len: SEND_SECTION };
    Outcome { answer: Some(Message::new(MessageType::SEND_SEND_BUFFER_COMPLETE, &body)), warning }
}

fn subchannels(
    SubchannelRequest { operation, count }: SubchannelRequest,
    nature: &Nature,
    settings: &Settings,
    shared: &Shared,
    io: &mut Io<'_>,
) -> Outcome {
    let may = operation == SubchannelOperation::ALLOCATE && settings.version >= Some(Version::V5);
    let granted = u16::try_from(count).unwrap_or(u16::MAX).min(nature.channels - 1);
    let (status, count) = match granted {
        0 => (Status::FAIL, 0),
        granted if may => (Status::SUCCESS, granted),
        _ => (Status::FAIL, 0),
    };
    if count != 0 {
        io.offer_subchannels(count);
        shared.change(|settings| settings.granted = count + 1);
    }
    let body = SubchannelComplete { status, count: count.into() };
    Outcome::of(Message::new(MessageType::SUBCHANNEL, &body))
}
