// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machine around a bus, without threads: channels run when the test says so.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use busway_hyperv::synic::{Posted, Synic};
use busway_vmbus::{
    Channel, ChannelKey, Command, Completion, Delivery, Fault, InterruptTarget, Interrupts,
    MessageTarget, Platform, Progress,
};
use busway_wire::control::MessageBuf;
use busway_wire::synic::VMBUS_SINT;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::poll::{EpollContext, EpollEvents};

/// Counts interrupts and sets the flags that go with them.
#[derive(Debug)]
pub(crate) struct TestInterrupts {
    pub(crate) synic: Arc<Synic>,
    /// Rung with each interrupt, for a guest that sleeps.
    pub(crate) bell: OnceLock<EventFd>,
    pub(crate) raised: AtomicU64,
}

impl Interrupts for TestInterrupts {
    fn raise(&self, target: InterruptTarget) {
        let raised = match target {
            InterruptTarget::Polled => false,
            InterruptTarget::EventFlag { vp, sint, flag } => self.synic.set_flag(vp, sint, flag),
            InterruptTarget::InterruptPage { page, bit } => {
                self.synic.set_page_flag(page, bit);
                self.synic.set_flag(0, VMBUS_SINT, 0)
            }
        };
        if raised {
            self.raised.fetch_add(1, Ordering::Relaxed);
            if let Some(bell) = self.bell.get() {
                bell.write(1).unwrap();
            }
        }
    }
}

/// A channel that the platform runs.
pub(crate) struct Running {
    pub(crate) channel: Channel,
    connection_id: u32,
    more: bool,
    closing: bool,
}

/// What channels have to say to the bus.
pub(crate) enum Event {
    Completed(Completion),
    Failed(ChannelKey, Fault),
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) channels: BTreeMap<ChannelKey, Running>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) host_fault: Option<Fault>,
}

/// The platform that the bus sees.
pub(crate) struct InlinePlatform {
    pub(crate) synic: Arc<Synic>,
    pub(crate) state: Rc<RefCell<State>>,
}

impl Platform for InlinePlatform {
    fn post(&mut self, target: MessageTarget, message: &MessageBuf) -> Delivery {
        match self.synic.post(target.vp, target.sint, message) {
            Posted::Delivered => Delivery::Done,
            Posted::Busy | Posted::NoPage => Delivery::Later,
        }
    }

    fn start(&mut self, channel: Channel, connection_id: u32) -> Result<(), Fault> {
        let key = channel.key();
        let running = Running { channel, connection_id, more: true, closing: false };
        self.state.borrow_mut().channels.insert(key, running);
        Ok(())
    }

    fn command(&mut self, key: ChannelKey, command: Command) {
        let state = &mut *self.state.borrow_mut();
        let Some(running) = state.channels.get_mut(&key) else {
            return;
        };
        running.closing |= matches!(command, Command::Close);
        if let Some(completion) = running.channel.command(command) {
            state.finish(completion);
        }
    }

    fn fail(&mut self, fault: Fault) {
        self.state.borrow_mut().host_fault = Some(fault);
    }
}

impl State {
    fn finish(&mut self, completion: Completion) {
        if let Completion::Closed(key) = completion {
            self.channels.remove(&key);
        }
        self.events.push_back(Event::Completed(completion));
    }

    /// The guest signals a connection.
    pub(crate) fn signal(&mut self, connection_id: u32) {
        for running in self.channels.values_mut() {
            running.more |= running.connection_id == connection_id;
        }
    }

    /// Takes a channel out, for somebody else to run.
    pub(crate) fn take(&mut self, connection_id: u32) -> Option<Channel> {
        let (&key, _) = self.channels.iter().find(|(_, r)| r.connection_id == connection_id)?;
        Some(self.channels.remove(&key)?.channel)
    }

    /// Gives every channel that wants one a turn; false if none did.
    pub(crate) fn run_channels(&mut self) -> bool {
        let keys: Vec<_> = self.channels.keys().copied().collect();
        let mut worked = false;
        for key in keys {
            worked |= self.run_channel(key);
        }
        worked
    }

    fn run_channel(&mut self, key: ChannelKey) -> bool {
        let running = self.channels.get_mut(&key).unwrap();
        let mut worked = std::mem::take(&mut running.more);
        let mut result = if worked { running.channel.run() } else { Ok(Progress::Idle) };
        for token in ready_tokens(&running.channel) {
            worked = true;
            result = result.and(running.channel.ready(token));
        }
        match result {
            Ok(progress) => running.more |= progress == Progress::More,
            Err(fault) => self.events.push_back(Event::Failed(key, fault)),
        }
        let running = self.channels.get_mut(&key).unwrap();
        if running.closing
            && worked
            && let Some(completion) = running.channel.poll_close()
        {
            self.finish(completion);
        }
        worked
    }

    /// Whether a back end of a channel is at work: it may become ready by itself.
    pub(crate) fn waits_for_backend(&self) -> bool {
        self.channels.values().any(|running| !running.channel.wakeups().is_empty())
    }
}

/// The tokens of a channel's back ends that have something.
fn ready_tokens(channel: &Channel) -> Vec<u32> {
    struct Fd(RawFd);
    impl AsRawFd for Fd {
        fn as_raw_fd(&self) -> RawFd {
            self.0
        }
    }
    let wakeups = channel.wakeups();
    if wakeups.is_empty() {
        return Vec::new();
    }
    let context: EpollContext<u32> = EpollContext::new().unwrap();
    for (token, fd) in &wakeups {
        context.add(&Fd(fd.as_raw_fd()), *token).unwrap();
    }
    let events = EpollEvents::new();
    let ready = context.wait_timeout(&events, std::time::Duration::ZERO).unwrap();
    ready.iter_readable().map(|event| event.token()).collect()
}
