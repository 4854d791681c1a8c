// SPDX-License-Identifier: MIT OR Apache-2.0

//! The integration components of this machine, which outlive its resets.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread;

use busway_integration::{
    Clock, FileCopy, Heartbeat, Kvp, Phase, Reading, Shutdown, TimeSync, Vss,
};
use busway_vmbus::Device;
use busway_wire::ic::Version;
use busway_wire::ic::shutdown::Action;
use log::{info, warn};

use crate::engine::Engine;
use crate::lock;
use crate::spec::{IntegrationSpec, Service};

/// All components, of which the guest is offered some.
#[derive(Clone)]
pub struct Integration {
    spec: IntegrationSpec,
    clock: Arc<MachineClock>,
    /// Power off, reboot, hibernate.
    pub shutdown: Shutdown,
    /// Whether the guest's kernel lives.
    pub heartbeat: Heartbeat,
    /// What time it is.
    pub time: TimeSync,
    /// What the guest says of itself, and is told.
    pub kvp: Kvp,
    /// File systems that stand still.
    pub vss: Vss,
    /// Files into the guest.
    pub file_copy: FileCopy,
}

impl Integration {
    /// Those of `spec`, before any guest. They speak versions up to `newest`.
    pub fn new(spec: &IntegrationSpec, newest: Version) -> io::Result<Self> {
        let clock = Arc::new(MachineClock::default());
        Ok(Self {
            spec: spec.clone(),
            shutdown: Shutdown::new()?.with_newest_version(newest),
            heartbeat: Heartbeat::new(Heartbeat::PERIOD)?.with_newest_version(newest),
            time: TimeSync::new(Arc::clone(&clock) as Arc<dyn Clock>, TimeSync::PERIOD)?
                .with_newest_version(newest),
            kvp: Kvp::new()?.with_newest_version(newest),
            vss: Vss::new()?.with_newest_version(newest),
            file_copy: FileCopy::new()?.with_newest_version(newest),
            clock,
        })
    }

    /// The devices for a machine on `engine`.
    pub fn devices(&self, engine: &Arc<dyn Engine>) -> Vec<Box<dyn Device>> {
        *lock(&self.clock.engine) = Some(Arc::clone(engine));
        let device = |service| -> Box<dyn Device> {
            match service {
                Service::Shutdown => Box::new(self.shutdown.device()),
                Service::Heartbeat => Box::new(self.heartbeat.device()),
                Service::Time => Box::new(self.time.device()),
                Service::Kvp => Box::new(self.kvp.device()),
                Service::Vss => Box::new(self.vss.device()),
                Service::Copy => Box::new(self.file_copy.device()),
            }
        };
        self.spec.services().map(device).collect()
    }

    /// The name of each that the guest is offered, and how far it has come.
    pub fn phases(&self) -> impl Iterator<Item = (&'static str, Phase)> {
        self.spec.services().map(|service| {
            let phase = match service {
                Service::Shutdown => self.shutdown.phase(),
                Service::Heartbeat => self.heartbeat.phase(),
                Service::Time => self.time.phase(),
                Service::Kvp => self.kvp.phase(),
                Service::Vss => self.vss.phase(),
                Service::Copy => self.file_copy.phase(),
            };
            (service.name(), phase)
        })
    }

    /// Asks the guest to switch itself off, without waiting for what it says. False if it cannot be
    /// asked.
    pub fn ask_to_power_off(&self) -> bool {
        let phase = self.shutdown.phase();
        if !matches!(phase, Phase::Agreed(_)) {
            info!("the guest cannot be asked to switch off: {phase}");
            return false;
        }
        let shutdown = self.shutdown.clone();
        let ask = move || match shutdown.ask(Action::POWER_OFF) {
            Ok(()) => info!("the guest switches itself off"),
            Err(error) => warn!("the guest does not switch itself off: {error}"),
        };
        let started = thread::Builder::new().name("shutdown".to_owned()).spawn(ask);
        started.inspect_err(|error| warn!("the guest could not be asked: {error}")).is_ok()
    }
}

/// The clocks of the machine as it is now.
#[derive(Default)]
struct MachineClock {
    engine: Mutex<Option<Arc<dyn Engine>>>,
    last: Mutex<Option<Reading>>,
}

impl Clock for MachineClock {
    fn now(&self) -> Reading {
        let engine = lock(&self.engine).clone();
        let reading = engine.map(|engine| engine.time());
        let mut last = lock(&self.last);
        match reading {
            Some(Ok(reading)) => *last = Some(reading),
            Some(Err(error)) => warn!("the guest's clock cannot be read: {error}"),
            None => {}
        }
        // An old pair of times is as right as a new one.
        last.unwrap_or(Reading { host: 0, reference: 0 })
    }
}
