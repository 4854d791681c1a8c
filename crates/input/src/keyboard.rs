// SPDX-License-Identifier: MIT OR Apache-2.0

//! The keyboard: one question of the guest's, then keys.

use std::io;

use busway_ring::{Outgoing, Packet};
use busway_vmbus::{
    ChannelHandler, Device, Fault, Io, Offer, Opening, Progress, Sent, Step, Wakeup, When,
};
use busway_wire::keyboard::{Event, KeyFlags, MessageType, Request, Response, VERSION};
use busway_wire::{Guid, class};
use zerocopy::{FromBytes, IntoBytes};

use crate::queue::{Queue, Refused};

/// A key that goes down or up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its scan code, of set 1, without E0 and without the bit that says "up".
    pub code: u16,
    /// The code follows E0.
    pub extended: bool,
    /// It goes down.
    pub down: bool,
}

/// The keyboard.
#[derive(Clone)]
pub struct Keyboard {
    queue: Queue<Key>,
}

impl Keyboard {
    /// One that no guest has seen.
    pub fn new() -> io::Result<Self> {
        Ok(Self { queue: Queue::new()? })
    }

    /// It, for the bus.
    pub fn device(&self) -> impl Device + use<> {
        self.clone()
    }

    /// Whether a driver of the guest takes keys.
    pub fn is_ready(&self) -> bool {
        self.queue.is_ready()
    }

    /// Types all of `keys`, or none.
    pub fn press(&self, keys: &[Key]) -> Result<(), Refused> {
        self.queue.push(keys.iter().copied())
    }
}

impl Device for Keyboard {
    fn offer(&self) -> Offer {
        let instance = Guid::from_text_order(0xd34b2567_b9b6_42b9_8778_0a4ec0b955bf);
        Offer::new(class::KEYBOARD, instance)
    }

    fn open(&mut self, _opening: &Opening) -> Result<Box<dyn ChannelHandler>, Fault> {
        Ok(Box::new(KeyboardChannel { queue: self.queue.clone(), answer: None }))
    }
}

/// The host's end of the keyboard's channel.
struct KeyboardChannel {
    queue: Queue<Key>,
    /// What the guest has not been told yet.
    answer: Option<Response>,
}

impl ChannelHandler for KeyboardChannel {
    fn on_packet(&mut self, packet: Packet<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
        // Lights have no other word behind them; a message that is too short is dropped, as by a
        // keyboard that does not understand.
        if let Ok((request, _)) = Request::read_from_prefix(packet.payload)
            && request.kind == MessageType::PROTOCOL_REQUEST
        {
            let status = u32::from(request.value == VERSION);
            self.answer = Some(Response { kind: MessageType::PROTOCOL_RESPONSE, status });
        }
        match packet.descriptor.wants_completion() {
            true => io.complete(packet.descriptor.transaction_id, &[]),
            false => Ok(()),
        }
    }

    fn on_batch(&mut self, io: &mut Io<'_>) -> Result<Progress, Fault> {
        if let Some(answer) = &self.answer {
            if io.send(&Outgoing::in_band(0, answer.as_bytes()))? == Sent::NoRoom {
                return Ok(Progress::Idle);
            }
            self.queue.set_ready(answer.status == 1);
            if answer.status == 1 {
                io.reached(Step::Version { major: 1, minor: 0 });
                io.reached(Step::Ready);
            }
            self.answer = None;
        }
        self.queue.drain(|key| {
            let mut flags = KeyFlags::empty();
            flags.set(KeyFlags::E0, key.extended);
            flags.set(KeyFlags::BREAK, !key.down);
            let (kind, flags) = (MessageType::EVENT, flags.bits());
            let event = Event { kind, make_code: key.code, reserved: 0, flags };
            Ok::<_, Fault>(io.send(&Outgoing::in_band(0, event.as_bytes()))? == Sent::Yes)
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

impl Drop for KeyboardChannel {
    fn drop(&mut self) {
        self.queue.set_ready(false);
    }
}
