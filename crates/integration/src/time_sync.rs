// SPDX-License-Identifier: MIT OR Apache-2.0

//! Time synchronisation: the guest is told the host's time, each time beside its own clock's.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use busway_vmbus::Device;
use busway_wire::ic::time_sync::{Flags, OldSample, Sample, V4_0, VERSIONS};
use busway_wire::ic::{Agreed, MessageType, Status, Version};
use busway_wire::{Guid, class};
use zerocopy::IntoBytes;

use crate::component::{About, Component, Question, Service};
use crate::{Failure, Phase};

const ABOUT: About = About {
    class: class::TIME_SYNC,
    instance: Guid::from_text_order(0x2dd1ce17_079e_403c_b352_a1921ee207ee),
    kind: MessageType::TIME_SYNC,
    versions: &VERSIONS,
};

/// Two clocks at one moment, both in units of 100 ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The host's time (UTC), since 1601.
    pub host: u64,
    /// The partition's reference counter: what the guest reads from the TSC page or
    /// `HV_X64_MSR_TIME_REF_COUNT`.
    pub reference: u64,
}

/// The host's clocks.
pub trait Clock: Send + Sync {
    /// Both at this moment.
    fn now(&self) -> Reading;
}

/// The time synchronisation component.
#[derive(Clone)]
pub struct TimeSync {
    component: Component<Telling>,
}

struct Telling {
    clock: Arc<dyn Clock>,
    period: Duration,
    due: bool,
    /// The guest shall set its clock, not only note the sample.
    sync: bool,
    /// What the host's time was ahead of the reference counter when it was last told.
    ahead: Option<u64>,
    samples: u64,
}

impl TimeSync {
    /// How often other hosts tell.
    pub const PERIOD: Duration = Duration::from_secs(5);

    /// One that tells the time of `clock` every `period`, and that no guest has seen.
    pub fn new(clock: Arc<dyn Clock>, period: Duration) -> io::Result<Self> {
        let (due, sync, ahead, samples) = (false, false, None, 0);
        let telling = Telling { clock, period, due, sync, ahead, samples };
        Ok(Self { component: Component::with(telling)? })
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

    /// Samples that the guest has taken since it opened the channel.
    pub fn samples(&self) -> u64 {
        self.component.look(|telling| telling.samples)
    }

    /// Has the guest set its clock at once: the machine goes on after a pause.
    pub fn sync(&self) {
        self.component.change(|telling, _| {
            telling.sync = true;
            telling.due = true;
        });
    }
}

/// A second, in units of 100 ns: no clock is steered so far between two samples.
const LEAP: u64 = 10_000_000;

impl Telling {
    /// Whether the host's time has gone on without the guest's since it was last told, or back: the host has
    /// slept, or its clock was set.
    fn has_leapt(&mut self, reading: Reading) -> bool {
        let ahead = reading.host.wrapping_sub(reading.reference);
        let last = self.ahead.replace(ahead).unwrap_or(ahead);
        ahead.wrapping_sub(last).min(last.wrapping_sub(ahead)) > LEAP
    }

    fn body(&mut self, agreed: Agreed, reading: Reading) -> Vec<u8> {
        let sync = std::mem::take(&mut self.sync) | self.has_leapt(reading);
        let flags = if sync { Flags::SYNC } else { Flags::SAMPLE }.bits();
        let Reading { host: host_time, reference: reference_time } = reading;
        if agreed.message >= V4_0 {
            let (leap, stratum, reserved) = (0, 0, [0; 5]);
            let sample = Sample { host_time, reference_time, flags, leap, stratum, reserved };
            return sample.as_bytes().to_vec();
        }
        let (guest_time, round_trip, reserved) = (0, 0, [0; 7]);
        let sample = OldSample { host_time, guest_time, round_trip, flags, reserved };
        sample.as_bytes().to_vec()
    }
}

impl Service for Telling {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn opened(&mut self) {
        self.sync = true;
        self.due = true;
        self.samples = 0;
    }

    fn next(&mut self, agreed: Agreed) -> Option<Question> {
        if !std::mem::take(&mut self.due) {
            return None;
        }
        let reading = self.clock.now();
        Some(Question { body: self.body(agreed, reading), patience: self.period })
    }

    fn answered(&mut self, _status: Status, _body: &[u8]) {
        self.samples += 1;
    }

    fn failed(&mut self, failure: Failure) {
        // The next sample is as good as the one that was lost.
        self.due = failure != Failure::Gone;
    }

    fn tick(&mut self) {
        self.due = true;
    }
}
