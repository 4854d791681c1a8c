// SPDX-License-Identifier: MIT OR Apache-2.0

//! Heartbeat: the guest's kernel is asked again and again whether it is alive.

use std::io;
use std::time::{Duration, SystemTime};

use busway_vmbus::Device;
use busway_wire::ic::heartbeat::{Heartbeat as Message, VERSIONS};
use busway_wire::ic::{self, Agreed, MessageType, Status, Version};
use busway_wire::{Guid, class};
use zerocopy::IntoBytes;

use crate::component::{About, Component, Question, Service};
use crate::{Failure, Phase};

const ABOUT: About = About {
    class: class::HEARTBEAT,
    instance: Guid::from_text_order(0xfd149e91_82e0_4a7d_afa6_2a4166cbd7c0),
    kind: MessageType::HEARTBEAT,
    versions: &VERSIONS,
};

/// What is known of a guest's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beats {
    /// Beats that were answered, since the channel was opened.
    pub answered: u64,
    /// Beats that were not, since the last that was.
    pub missed: u64,
    /// When the last answer came.
    pub last: Option<SystemTime>,
}

/// The heartbeat component.
#[derive(Clone)]
pub struct Heartbeat {
    component: Component<Beating>,
}

struct Beating {
    period: Duration,
    beats: Beats,
    sequence: u64,
    due: bool,
}

impl Heartbeat {
    /// How often other hosts ask.
    pub const PERIOD: Duration = Duration::from_secs(2);

    /// One that asks every `period` and that no guest has seen.
    pub fn new(period: Duration) -> io::Result<Self> {
        let beating = Beating { period, beats: Beats::default(), sequence: 0, due: false };
        Ok(Self { component: Component::with(beating)? })
    }

    /// The same, on a host that speaks no newer version than this of framework and messages; the
    /// oldest of each is always spoken.
    #[must_use]
    pub fn with_newest_version(self, newest: Version) -> Self {
        Self { component: self.component.with_newest_version(newest) }
    }

    /// It, for the bus.
    pub fn device(&self) -> impl Device + use<> {
        self.component.clone()
    }

    /// How far it and its guest have come.
    pub fn phase(&self) -> Phase {
        self.component.phase()
    }

    /// What is known of the guest's life.
    pub fn beats(&self) -> Beats {
        self.component.look(|beating| beating.beats)
    }
}

impl Service for Beating {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn opened(&mut self) {
        self.beats = Beats::default();
        self.due = true;
    }

    fn next(&mut self, _agreed: Agreed) -> Option<Question> {
        if !std::mem::take(&mut self.due) {
            return None;
        }
        let message = Message { sequence: self.sequence, reserved: [0; 8] };
        Some(Question { body: message.as_bytes().to_vec(), patience: self.period })
    }

    fn answered(&mut self, status: Status, body: &[u8]) {
        match ic::body::<Message>(body) {
            // The guest counts one up, to show that it has not just sent the packet back.
            Ok(message) if status == Status::OK && message.sequence == self.sequence + 1 => {
                self.sequence = message.sequence + 1;
                self.beats.answered += 1;
                self.beats.missed = 0;
                self.beats.last = Some(SystemTime::now());
            }
            _ => self.beats.missed += 1,
        }
    }

    fn has_worked(&self) -> bool {
        self.beats.answered != 0
    }

    fn failed(&mut self, failure: Failure) {
        match failure {
            Failure::Gone => self.due = false,
            _ => {
                self.beats.missed += 1;
                self.due = true;
            }
        }
    }

    fn tick(&mut self) {
        self.due = true;
    }
}
