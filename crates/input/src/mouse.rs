// SPDX-License-Identifier: MIT OR Apache-2.0

//! The mouse: what it is, then where it is.

use std::collections::VecDeque;
use std::io;

use busway_ring::{Outgoing, Packet};
use busway_vmbus::{
    ChannelHandler, Device, Fault, Io, Offer, Opening, Progress, Sent, Step, Wakeup, When,
};
use busway_wire::mouse::{DeviceInfo, Header, HidDescriptor, MessageType, Response, VERSION};
use busway_wire::pipe::PipeHeader;
use busway_wire::{Guid, class};
use zerocopy::{FromBytes, IntoBytes};

use crate::queue::{Queue, Refused};

/// The position at the right and at the bottom.
pub const AXIS_MAX: u16 = 0x7fff;

/// Five buttons, then two axes of 16 bits from 0 to [`AXIS_MAX`], then a wheel of 8 (HID 1.11,
/// appendix E.10, with the axes absolute).
const REPORT_DESCRIPTOR: [u8; 68] = [
    0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00, // a pointer of a mouse
    0x05, 0x09, 0x19, 0x01, 0x29, 0x05, 0x15, 0x00, 0x25, 0x01, // buttons 1 to 5, 0 or 1,
    0x95, 0x05, 0x75, 0x01, 0x81, 0x02, 0x95, 0x01, 0x75, 0x03, 0x81,
    0x03, // 5 bits, 3 bits more
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x16, 0x00, 0x00, 0x26, 0xff, 0x7f, // X and Y
    0x75, 0x10, 0x95, 0x02, 0x81, 0x02, // 16 bits each, absolute
    0x09, 0x38, 0x15, 0x81, 0x25, 0x7f, 0x35, 0x00, 0x45, 0x00, // a wheel, -127 to 127
    0x75, 0x08, 0x95, 0x01, 0x81, 0x06, // 8 bits, relative
    0xc0, 0xc0,
];

/// Where the pointer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pointer {
    /// From the left, 0 to [`AXIS_MAX`].
    pub x: u16,
    /// From the top, 0 to [`AXIS_MAX`].
    pub y: u16,
    /// Buttons that are down: bit 0 the left one, then the right, the middle and two more.
    pub buttons: u8,
    /// Steps of the wheel since the last time, away from the user.
    pub wheel: i8,
}

/// The mouse.
#[derive(Clone)]
pub struct Mouse {
    queue: Queue<Pointer>,
}

impl Mouse {
    /// One that no guest has seen.
    pub fn new() -> io::Result<Self> {
        Ok(Self { queue: Queue::new()? })
    }

    /// It, for the bus.
    pub fn device(&self) -> impl Device + use<> {
        self.clone()
    }

    /// Whether a driver of the guest takes movements.
    pub fn is_ready(&self) -> bool {
        self.queue.is_ready()
    }

    /// Moves the pointer along `points`.
    pub fn point(&self, points: &[Pointer]) -> Result<(), Refused> {
        self.queue.push(points.iter().copied())
    }
}

impl Device for Mouse {
    fn offer(&self) -> Offer {
        let instance = Guid::from_text_order(0x58f75a6d_d949_4320_99e1_a2a2576d581c);
        Offer::new(class::MOUSE, instance)
    }

    fn open(&mut self, _opening: &Opening) -> Result<Box<dyn ChannelHandler>, Fault> {
        Ok(Box::new(MouseChannel { queue: self.queue.clone(), answers: VecDeque::new() }))
    }
}

/// A message in its pipe's packet.
fn packet(kind: MessageType, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let header = Header { kind, len };
    let pipe = PipeHeader::data(len.saturating_add(8));
    [pipe.as_bytes(), header.as_bytes(), body].concat()
}

/// What the guest is told of the device.
fn device_info() -> Vec<u8> {
    let descriptor = HidDescriptor::with_report(REPORT_DESCRIPTOR.len() as u16);
    let body = [DeviceInfo::HYPERV.as_bytes(), descriptor.as_bytes(), &REPORT_DESCRIPTOR].concat();
    packet(MessageType::INITIAL_DEVICE_INFO, &body)
}

/// The host's end of the mouse's channel.
struct MouseChannel {
    queue: Queue<Pointer>,
    /// What the guest has not been told yet.
    answers: VecDeque<Vec<u8>>,
}

impl ChannelHandler for MouseChannel {
    fn on_packet(&mut self, packet_in: Packet<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
        let data = PipeHeader::parse(packet_in.payload).map_err(Fault::protocol)?;
        if let Ok((header, body)) = Header::read_from_prefix(data) {
            match header.kind {
                MessageType::PROTOCOL_REQUEST => {
                    let version = u32::read_from_prefix(body).map_or(0, |(version, _)| version);
                    let approved = u8::from(version == VERSION);
                    let response = Response { version: version.to_le_bytes(), approved };
                    self.answers.clear();
                    let kind = MessageType::PROTOCOL_RESPONSE;
                    self.answers.push_back(packet(kind, response.as_bytes()));
                    if approved == 1 {
                        io.reached(Step::Version { major: 2, minor: 0 });
                        self.answers.push_back(device_info());
                    }
                }
                MessageType::INITIAL_DEVICE_INFO_ACK => {
                    self.queue.set_ready(true);
                    io.reached(Step::Ready);
                }
                _ => {}
            }
        }
        match packet_in.descriptor.wants_completion() {
            true => io.complete(packet_in.descriptor.transaction_id, &[]),
            false => Ok(()),
        }
    }

    fn on_batch(&mut self, io: &mut Io<'_>) -> Result<Progress, Fault> {
        while let Some(answer) = self.answers.front() {
            if io.send(&Outgoing::in_band(0, answer))? == Sent::NoRoom {
                return Ok(Progress::Idle);
            }
            self.answers.pop_front();
        }
        self.queue.drain(|pointer| {
            let Pointer { x, y, buttons, wheel } = *pointer;
            let ([x0, x1], [y0, y1]) =
                (x.min(AXIS_MAX).to_le_bytes(), y.min(AXIS_MAX).to_le_bytes());
            let report = [buttons & 0x1f, x0, x1, y0, y1, wheel.to_le_bytes()[0]];
            let report = packet(MessageType::INPUT_REPORT, &report);
            Ok::<_, Fault>(io.send(&Outgoing::in_band(0, &report))? == Sent::Yes)
        })?;
        Ok(Progress::Idle)
    }

    fn on_ready(&mut self, _token: u32, _io: &mut Io<'_>) -> Result<(), Fault> {
        self.queue.quiet();
        Ok(())
    }

    fn wakeups(&self) -> Vec<Wakeup<'_>> {
        vec![Wakeup { token: 0, fd: self.queue.bell(), when: When::Readable }]
    }
}

impl Drop for MouseChannel {
    fn drop(&mut self) {
        self.queue.set_ready(false);
    }
}
