// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machine, as the bus needs it: message slots, interrupts, signals, workers.

use std::collections::HashMap;
use std::sync::Arc;

use busway_hyperv::synic::{Posted, Synic};
use busway_vmbus::{
    Channel, ChannelKey, Command, Delivery, Fault, InterruptTarget, Interrupts, MessageTarget,
    Platform,
};
use busway_wire::control::MessageBuf;
use busway_wire::synic::VMBUS_SINT;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::port::{News, Port};
use super::worker::Worker;
use crate::capture::Capture;
use crate::engine::Engine;

/// Interrupts of all channels, raised from their workers.
pub(super) struct ChannelInterrupts {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) synic: Arc<Synic>,
    pub(super) capture: Option<Arc<Capture>>,
}

impl Interrupts for ChannelInterrupts {
    fn raise(&self, target: InterruptTarget) {
        let (vp, sint, flag) = match target {
            InterruptTarget::Polled => return,
            InterruptTarget::EventFlag { vp, sint, flag } => (vp, sint, flag),
            InterruptTarget::InterruptPage { page, bit } => {
                self.synic.set_page_flag(page, bit);
                (0, VMBUS_SINT, 0)
            }
        };
        let raised = self.synic.set_flag(vp, sint, flag);
        if raised {
            self.engine.raise(vp, sint);
        }
        if let Some(capture) = &self.capture {
            capture.event_flag(target, (vp, sint, flag), raised);
        }
    }
}

/// What the bus sees of the machine.
pub(super) struct Machine {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) synic: Arc<Synic>,
    pub(super) port: Arc<Port>,
    pub(super) workers: HashMap<ChannelKey, Running>,
}

/// A channel's worker and the connection that the guest signals it by.
pub(super) struct Running {
    worker: Worker,
    connection_id: u32,
}

impl Platform for Machine {
    fn post(&mut self, target: MessageTarget, message: &MessageBuf) -> Delivery {
        match self.synic.post(target.vp, target.sint, message) {
            Posted::Delivered => {
                self.engine.raise(target.vp, target.sint);
                Delivery::Done
            }
            Posted::Busy | Posted::NoPage => Delivery::Later,
        }
    }

    fn start(&mut self, channel: Channel, connection_id: u32) -> Result<(), Fault> {
        let key = channel.key();
        let kick = EventFd::new(EFD_NONBLOCK).map_err(Fault::host)?;
        self.engine.connect(connection_id, &kick).map_err(Fault::host)?;
        let worker = Worker::start(channel, kick, Arc::clone(&self.port)).map_err(Fault::host)?;
        self.workers.insert(key, Running { worker, connection_id });
        Ok(())
    }

    fn kick(&mut self, key: ChannelKey) {
        if let Some(running) = self.workers.get(&key) {
            running.worker.kick();
        }
    }

    fn command(&mut self, key: ChannelKey, command: Command) {
        let closes = matches!(command, Command::Close);
        if let Some(running) = self.workers.get(&key) {
            running.worker.command(command);
        }
        if closes
            && let Some(running) = self.workers.remove(&key)
            && let Err(error) = self.engine.disconnect(running.connection_id)
        {
            log::warn!("connection {:#x} stays: {error}", running.connection_id);
        }
    }

    fn fail(&mut self, fault: Fault) {
        self.port.send(News::HostFailed(fault));
    }
}
