// SPDX-License-Identifier: MIT OR Apache-2.0

//! VMBus in this machine: the bus on the main thread, a worker for each open channel.
//!
//! ```text
//!   vCPU threads          main thread                       workers
//!   HvPostMessage ──▶ Port ──▶ VmBus (busway_vmbus::Bus) ──▶ Inbox ──▶ Channel
//!   HvSignalEvent ─────────────────────(eventfd)───────────────────▶ Channel
//!                     Port ◀── completions ◀─────────────────────── Channel
//! ```

mod line;
mod platform;
mod port;
mod worker;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use busway_hyperv::synic::Synic;
use busway_memory::GuestMemory;
use busway_vmbus::{Bus, Connector, Device, Fault, Meddler, ServerConfig, Tap, Witness};
use busway_wire::hypercall::connection;

use crate::capture::Capture;
use crate::engine::Engine;
use platform::{ChannelInterrupts, Machine};

pub use line::BusLine;
pub use port::{News, Port};
pub use worker::Worker;

/// The bus of one life of the machine.
pub struct VmBus {
    bus: Bus,
    port: Arc<Port>,
}

impl VmBus {
    /// A bus without devices, which hears of its guest through `port`. All that passes goes into
    /// `capture`. Fails if the engine cannot connect the id by which old guests signal all channels.
    pub fn new(
        config: ServerConfig,
        memory: GuestMemory,
        engine: &Arc<dyn Engine>,
        synic: &Arc<Synic>,
        port: Arc<Port>,
        capture: Option<&Arc<Capture>>,
    ) -> io::Result<Self> {
        engine.connect(connection::EVENT, port.bell())?;
        let (engine, synic) = (Arc::clone(engine), Arc::clone(synic));
        let capture = capture.cloned();
        let interrupts = ChannelInterrupts {
            engine: Arc::clone(&engine),
            synic: Arc::clone(&synic),
            capture: capture.clone(),
        };
        let machine = Machine { engine, synic, port: Arc::clone(&port), workers: HashMap::new() };
        let mut bus = Bus::new(config, memory, Arc::new(interrupts), Box::new(machine));
        if let Some(capture) = capture {
            bus.tap(capture);
        }
        Ok(Self { bus, port })
    }

    /// Tells `witness` from now on how far the guest comes.
    pub fn watch(&mut self, witness: Arc<dyn Witness>) {
        self.bus.watch(witness);
    }

    /// Lets `tap` see all that passes, instead of the capture.
    pub fn tap(&mut self, tap: Arc<dyn Tap>) {
        self.bus.tap(tap);
    }

    /// Lets `meddler` change what passes.
    pub fn meddle(&mut self, meddler: Arc<dyn Meddler>) {
        self.bus.meddle(Some(meddler));
    }

    /// Puts a device on the bus.
    pub fn add(&mut self, device: Box<dyn Device>) {
        self.bus.add(device);
    }

    /// Lets the guest make connections to the host.
    pub fn set_connector(&mut self, connector: Box<dyn Connector>) {
        self.bus.set_connector(connector);
    }

    /// The letter box, whose bell says when to [`work`](Self::work).
    pub const fn port(&self) -> &Arc<Port> {
        &self.port
    }

    /// Does all that is to be done now. A fault is the host's: the machine must stop.
    pub fn work(&mut self) -> Result<(), Fault> {
        let _ = self.port.bell().read();
        if self.port.take_slot_freed() {
            self.bus.deliver();
        }
        // What the bell has rung for is known by looking.
        self.bus.signalled();
        while let Some(news) = self.port.take() {
            match news {
                News::Message(message) => self.bus.guest_message(message.as_bytes()),
                News::Completed(completion) => self.bus.complete(completion),
                News::Subchannels(key, count) => self.bus.offer_subchannels(key, count),
                News::Ended(key, absence) => self.bus.end(key, absence),
                News::Add(device) => {
                    self.bus.add(device);
                }
                News::RemoveUnopened(instance) => self.bus.remove_unopened(instance),
                News::Remove(instance) => self.bus.remove_instance(instance),
                News::Meddle(meddler) => self.bus.meddle(meddler),
                News::Show(relid, to) => self.bus.show(relid, to),
                News::Failed(key, fault) => self.bus.channel_failed(key, fault),
                News::HostFailed(fault) => return Err(fault),
            }
        }
        self.port.set_undelivered(self.bus.undelivered());
        Ok(())
    }

    /// Has messages sent and devices offered again that were put off, and whose time has come.
    pub fn overdue(&mut self) {
        self.bus.overdue();
        self.port.set_undelivered(self.bus.undelivered());
    }

    /// Closes every channel and waits until nothing uses the guest's memory any more. The vCPUs
    /// have stopped.
    pub fn stop(mut self) -> Result<(), Fault> {
        self.bus.reset();
        while !self.bus.is_quiet() {
            self.port.wait();
            self.work()?;
        }
        Ok(())
    }
}
