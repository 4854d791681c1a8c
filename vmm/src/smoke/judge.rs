// SPDX-License-Identifier: MIT OR Apache-2.0

//! The judge: what was expected of a guest, and how far it has come with each of it.
//!
//! Whatever a guest repeats is noted once, so a judge does not grow.

use std::collections::BTreeMap;
use std::time::Duration;

use busway_vmbus::{Milestone, Step};
use busway_wire::{Guid, class, hvsock};

use super::expect::{Expected, HYPERVISOR, RAW, SOCKETS, VMBUS};
use super::knowledge::{self, Driver};
use crate::raw;

/// Something that was seen of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It said who it is: what it wrote to `HV_X64_MSR_GUEST_OS_ID`.
    Identified(u64),
    /// It enabled its hypercall page.
    HypercallPage,
    /// It enabled a VP's SynIC.
    Synic,
    /// The machine has sockets between guest and host.
    Sockets,
    /// What bus and devices report.
    Bus(Milestone),
}

/// A step of a guest's, in order for each subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It said who it is.
    Identified,
    /// It enabled its hypercall page.
    HypercallPage,
    /// It enabled a SynIC.
    Synic,
    /// It asked for a connection.
    Contact,
    /// It is connected.
    Connected,
    /// It asked for the offers.
    OffersRequested,
    /// A device was offered.
    Offered,
    /// A driver opened it.
    Opened,
    /// They agreed on a version.
    Version,
    /// Their handshake is over.
    Ready,
    /// The device was of use.
    Worked,
}

impl Stage {
    /// What it is called in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identified => "guest identified itself",
            Self::HypercallPage => "hypercall page enabled",
            Self::Synic => "SynIC enabled",
            Self::Contact => "connection asked for",
            Self::Connected => "connected",
            Self::OffersRequested => "offers requested",
            Self::Offered => "offered",
            Self::Opened => "channel opened",
            Self::Version => "version agreed",
            Self::Ready => "handshake complete",
            Self::Worked => "in use",
        }
    }
}

/// What an expectation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Hyper-V itself.
    Hypervisor,
    /// The bus.
    Vmbus,
    /// A device on it.
    Device {
        /// Which driver is meant.
        class: Guid,
        /// Which device.
        instance: Guid,
    },
    /// A connection by sockets, whichever comes first.
    Sockets,
    /// A raw channel.
    Raw {
        /// Which driver is meant.
        class: Guid,
        /// Which channel.
        instance: Guid,
    },
}

impl Subject {
    /// What a device of this class and instance is to a judge.
    fn of(class: Guid, instance: Guid) -> Self {
        if raw::is_one(instance) {
            Self::Raw { class, instance }
        } else if hvsock::port(class).is_some() {
            Self::Sockets
        } else {
            Self::Device { class, instance }
        }
    }

    /// What is known of its drivers, if it takes one of its own.
    pub fn driver(self) -> Option<Driver> {
        match self {
            Self::Hypervisor | Self::Vmbus => None,
            Self::Device { class, .. } => Some(knowledge::driver(class)),
            Self::Sockets => Some(knowledge::SOCKETS),
            Self::Raw { .. } => Some(knowledge::RAW),
        }
    }

    fn name(self) -> String {
        match self {
            Self::Hypervisor => HYPERVISOR.to_owned(),
            Self::Vmbus => VMBUS.to_owned(),
            Self::Device { class, .. } => {
                class::name(class).map_or_else(|| class.to_string(), str::to_owned)
            }
            Self::Sockets => SOCKETS.to_owned(),
            Self::Raw { .. } => RAW.to_owned(),
        }
    }

    /// The stage at which an expectation is met.
    pub fn needs(self) -> Stage {
        match self {
            Self::Hypervisor => Stage::HypercallPage,
            Self::Vmbus => Stage::OffersRequested,
            device => device.driver().map_or(Stage::Opened, |driver| driver.needs),
        }
    }
}

/// One expectation, and how far the guest has come with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Its name in lists and reports.
    pub name: String,
    /// What it is about.
    pub subject: Subject,
    /// When each stage was reached first, since the start.
    pub reached: BTreeMap<Stage, Duration>,
    /// What was negotiated, or who the guest is.
    pub version: Option<String>,
    /// What went wrong, in the words of the host.
    pub failure: Option<String>,
}

impl Expectation {
    fn new(subject: Subject) -> Self {
        let (name, reached) = (subject.name(), BTreeMap::new());
        Self { name, subject, reached, version: None, failure: None }
    }

    /// When it was met.
    pub fn met(&self) -> Option<Duration> {
        self.reached.get(&self.subject.needs()).copied()
    }

    /// How far the guest has come.
    pub fn last(&self) -> Option<(Stage, Duration)> {
        self.reached.last_key_value().map(|(stage, at)| (*stage, *at))
    }
}

/// A device is expected that nobody offers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--expect {0}: the machine has no such device; give the flag that adds it, or leave it out"
)]
pub struct NotOffered(pub String);

/// What is expected of one guest, and how far it has come.
#[derive(Clone, Debug)]
pub struct Judge {
    expected: Expected,
    begun: bool,
    expectations: Vec<Expectation>,
}

impl Judge {
    /// One that expects nothing before it is told what there is: what is offered comes first, then
    /// [`begin`](Self::begin).
    pub const fn new(expected: Expected) -> Self {
        Self { expected, begun: false, expectations: Vec::new() }
    }

    /// All that is there from the start has been offered: what is expected is certain now.
    pub fn begin(&mut self) -> Result<(), NotOffered> {
        self.begun = true;
        let offered = std::mem::take(&mut self.expectations);
        let is_wanted = |expectation: &Expectation| match &self.expected {
            Expected::Offered => match expectation.subject {
                // Of a class without a name no guest is known to have a driver.
                Subject::Device { class, .. } if class::name(class).is_none() => false,
                subject => subject.driver().is_none_or(|driver| driver.daemon.is_none()),
            },
            Expected::Named(names) => names.contains(&expectation.name),
        };
        let mut expectations = vec![Expectation::new(Subject::Hypervisor)];
        let wants_bus = match &self.expected {
            Expected::Offered => true,
            Expected::Named(names) => names.iter().any(|name| name != HYPERVISOR),
        };
        if wants_bus {
            expectations.push(Expectation::new(Subject::Vmbus));
        }
        expectations.extend(offered.into_iter().filter(is_wanted));
        if let Expected::Named(names) = &self.expected {
            let is_there = |name: &&String| !expectations.iter().any(|e| e.name == **name);
            if let Some(missing) = names.iter().find(is_there) {
                return Err(NotOffered(missing.clone()));
            }
        }
        number_the_equal(&mut expectations);
        self.expectations = expectations;
        Ok(())
    }

    /// What is expected.
    pub fn expectations(&self) -> &[Expectation] {
        &self.expectations
    }

    /// Whether all that is expected has been seen.
    pub fn is_done(&self) -> bool {
        self.begun && self.expectations.iter().all(|expectation| expectation.met().is_some())
    }

    /// Takes what was seen `at` this time since the start. Returns the expectation that is met by
    /// it.
    pub fn saw(&mut self, at: Duration, sight: &Sight) -> Option<&Expectation> {
        match sight {
            Sight::Identified(id) => {
                let name = knowledge::guest_name(*id);
                self.reach(Subject::Hypervisor, Stage::Identified, at, Some(name))
            }
            Sight::HypercallPage => self.reach(Subject::Hypervisor, Stage::HypercallPage, at, None),
            Sight::Synic => self.reach(Subject::Vmbus, Stage::Synic, at, None),
            Sight::Sockets => {
                self.offered(Subject::Sockets);
                None
            }
            Sight::Bus(milestone) => self.heard(at, milestone),
        }
    }

    fn heard(&mut self, at: Duration, milestone: &Milestone) -> Option<&Expectation> {
        match milestone {
            Milestone::Refused(version, reason) => {
                self.fail(Subject::Vmbus, format!("version {version}: {reason}"));
                self.reach(Subject::Vmbus, Stage::Contact, at, None)
            }
            Milestone::Connected(version) => {
                self.reach(Subject::Vmbus, Stage::Contact, at, None);
                if let Some(bus) = self.find(Subject::Vmbus) {
                    bus.failure = None;
                }
                self.reach(Subject::Vmbus, Stage::Connected, at, Some(format!("version {version}")))
            }
            Milestone::OffersRequested => {
                self.reach(Subject::Vmbus, Stage::OffersRequested, at, None)
            }
            Milestone::Device { class, instance, step } => {
                self.stepped(at, Subject::of(*class, *instance), step)
            }
        }
    }

    /// What comes later than the start is somebody's experiment, and not expected.
    fn offered(&mut self, subject: Subject) {
        if !self.begun {
            self.expectations.push(Expectation::new(subject));
        }
    }

    fn stepped(&mut self, at: Duration, subject: Subject, step: &Step) -> Option<&Expectation> {
        let (stage, version) = match step {
            Step::Offered => {
                self.offered(subject);
                (Stage::Offered, None)
            }
            Step::Opened => (Stage::Opened, None),
            Step::Version { major, minor } => {
                (Stage::Version, Some(format!("version {major}.{minor}")))
            }
            Step::Ready => (Stage::Ready, None),
            Step::Worked => (Stage::Worked, None),
            Step::Failed(reason) => {
                self.fail(subject, reason.clone());
                return None;
            }
        };
        self.reach(subject, stage, at, version)
    }

    fn fail(&mut self, subject: Subject, reason: String) {
        if let Some(expectation) = self.find(subject) {
            expectation.failure.get_or_insert(reason);
        }
    }

    fn reach(
        &mut self,
        subject: Subject,
        stage: Stage,
        at: Duration,
        version: Option<String>,
    ) -> Option<&Expectation> {
        let expectation = self.find(subject)?;
        if version.is_some() {
            expectation.version = version;
        }
        let was_met = expectation.met().is_some();
        expectation.reached.entry(stage).or_insert(at);
        (!was_met && expectation.met().is_some()).then_some(&*expectation)
    }

    fn find(&mut self, subject: Subject) -> Option<&mut Expectation> {
        self.expectations.iter_mut().find(|expectation| expectation.subject == subject)
    }
}

/// The second disk controller is `storage 2`.
fn number_the_equal(expectations: &mut [Expectation]) {
    let mut counts = BTreeMap::new();
    for expectation in expectations {
        let count: &mut u32 = counts.entry(expectation.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            expectation.name = format!("{} {count}", expectation.name);
        }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
