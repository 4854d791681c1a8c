// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machine around a bus, without threads: channels run when the test says so.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use busway_hyperv::synic::{Posted, Synic};
use busway_vmbus::{
    Absence, Channel, ChannelKey, Command, Completion, Delivery, Fault, InterruptTarget,
    Interrupts, MessageTarget, Platform, Progress, Wakeup, When,
};
use busway_wire::control::MessageBuf;
use busway_wire::synic::VMBUS_SINT;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

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
    /// Of the handler's back ends; none if it has none.
    wakeups: Option<Epoll>,
    more: bool,
}

impl Running {
    fn new(channel: Channel, connection_id: u32) -> Self {
        let wakeups = Self::watch(&channel);
        Self { channel, connection_id, wakeups, more: true }
    }

    /// What becomes ready with the channel's back ends.
    fn watch(channel: &Channel) -> Option<Epoll> {
        let wakeups = channel.wakeups();
        let epoll = (!wakeups.is_empty()).then(|| Epoll::new().unwrap());
        if let Some(epoll) = &epoll {
            for Wakeup { token, fd, when } in wakeups {
                let events = match when {
                    When::Readable => EventSet::IN,
                    When::Changed => EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED,
                };
                let event = EpollEvent::new(events, token.into());
                epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), event).unwrap();
            }
        }
        epoll
    }

    /// The tokens of back ends that have something.
    fn ready(&self) -> Vec<u32> {
        let mut events = [EpollEvent::default(); 8];
        let wait = |epoll: &Epoll| epoll.wait(0, &mut events).unwrap();
        let count = self.wakeups.as_ref().map_or(0, wait);
        events[..count].iter().map(|event| event.data() as u32).collect()
    }
}

/// What channels have to say to the bus.
pub(crate) enum Event {
    Completed(Completion),
    Failed(ChannelKey, Fault),
    Subchannels(ChannelKey, u16),
    Ended(ChannelKey, Absence),
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
        self.state.borrow_mut().channels.insert(key, Running::new(channel, connection_id));
        Ok(())
    }

    fn kick(&mut self, key: ChannelKey) {
        if let Some(running) = self.state.borrow_mut().channels.get_mut(&key) {
            running.more = true;
        }
    }

    fn command(&mut self, key: ChannelKey, command: Command) {
        let state = &mut *self.state.borrow_mut();
        let Some(running) = state.channels.get_mut(&key) else {
            return;
        };
        let meddles = matches!(command, Command::Meddle(_));
        let completion = running.channel.command(command);
        if meddles {
            running.wakeups = Running::watch(&running.channel);
            running.more = true;
        }
        if let Some(completion) = completion {
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
        for token in running.ready() {
            worked = true;
            result = result.and(running.channel.ready(token));
        }
        match result {
            Ok(progress) => running.more |= progress == Progress::More,
            Err(fault) => self.events.push_back(Event::Failed(key, fault)),
        }
        if worked {
            self.after_turn(key);
        }
        worked
    }

    /// Takes what a channel has to say after its turn.
    fn after_turn(&mut self, key: ChannelKey) {
        while let Some(running) = self.channels.get_mut(&key) {
            if let Some(count) = running.channel.wanted_subchannels() {
                self.events.push_back(Event::Subchannels(key, count));
            }
            if let Some(absence) = running.channel.wants_end() {
                self.events.push_back(Event::Ended(key, absence));
            }
            match running.channel.poll() {
                Some(completion) => self.finish(completion),
                None => return,
            }
        }
    }

    /// Whether a back end of a channel is at work: it may become ready by itself.
    pub(crate) fn waits_for_backend(&self) -> bool {
        self.channels.values().any(|running| running.wakeups.is_some())
    }
}
