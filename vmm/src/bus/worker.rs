// SPDX-License-Identifier: MIT OR Apache-2.0

//! The thread behind an open channel: one event loop, which drives any device's handler.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use busway_vmbus::{Channel, ChannelKey, Command, Completion, Fault, Progress, Wakeup, When};
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::port::{News, Port};
use crate::lock;

/// A channel's thread, as the bus sees it.
#[derive(Debug)]
pub struct Worker {
    inbox: Arc<Inbox>,
}

/// Commands on their way to a channel.
#[derive(Debug)]
struct Inbox {
    commands: Mutex<VecDeque<Command>>,
    bell: EventFd,
    /// The guest's signal.
    kick: EventFd,
}

impl Worker {
    /// Starts a thread for `channel`, which has its first turn at once, and then one whenever
    /// `kick` is signalled. What it has to say goes to `port`; it ends with the channel.
    pub fn start(channel: Channel, kick: EventFd, port: Arc<Port>) -> io::Result<Self> {
        let bell = EventFd::new(EFD_NONBLOCK)?;
        kick.write(1)?;
        let inbox = Arc::new(Inbox { commands: Mutex::default(), bell, kick });
        let thread_inbox = Arc::clone(&inbox);
        let name = format!("channel{}", channel.key());
        thread::Builder::new().name(name).spawn(move || run(channel, thread_inbox, &port))?;
        Ok(Self { inbox })
    }

    /// Gives the channel a turn, as the guest's signal does.
    pub fn kick(&self) {
        let _ = self.inbox.kick.write(1);
    }

    /// Hands a command to the channel.
    pub fn command(&self, command: Command) {
        lock(&self.inbox.commands).push_back(command);
        let _ = self.inbox.bell.write(1);
    }
}

fn run(channel: Channel, inbox: Arc<Inbox>, port: &Arc<Port>) {
    let key = channel.key();
    let _unwinding = FailOnPanic { key, port };
    match serve(channel, inbox, port) {
        // The channel is dropped by now: its rings are unmapped, its back ends are gone.
        Ok(()) => port.send(News::Completed(Completion::Closed(key))),
        Err(error) => port.send(News::Failed(key, Fault::host(error))),
    }
}

/// A worker that panics must not leave the guest waiting for ever.
struct FailOnPanic<'a> {
    key: ChannelKey,
    port: &'a Port,
}

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.port.send(News::Failed(self.key, Fault::host("a channel's thread has panicked")));
        }
    }
}

/// Drives `channel` until it is closed.
fn serve(
    channel: Channel,
    inbox: Arc<Inbox>,
    port: &Arc<Port>,
) -> Result<(), event_manager::Error> {
    let closed = Rc::new(Cell::new(false));
    let mut manager = EventManager::new()?;
    manager.add_subscriber(Loop {
        channel,
        inbox,
        port: Arc::clone(port),
        idle_since: Instant::now(),
        closed: Rc::clone(&closed),
    });
    while !closed.get() {
        manager.run()?;
    }
    Ok(())
}

// What an event is about, as event-manager carries it; a back end's token follows the last.
const KICK: u32 = 0;
const COMMAND: u32 = 1;
const FIRST_TOKEN: u32 = 2;

fn events_of(wakeup: &Wakeup<'_>) -> Events {
    let data = FIRST_TOKEN.saturating_add(wakeup.token);
    let set = match wakeup.when {
        When::Readable => EventSet::IN,
        When::Changed => EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED,
    };
    Events::with_data_raw(wakeup.fd.as_raw_fd(), data, set)
}

struct Loop {
    channel: Channel,
    inbox: Arc<Inbox>,
    port: Arc<Port>,
    idle_since: Instant,
    closed: Rc<Cell<bool>>,
}

impl MutEventSubscriber for Loop {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let mut events = vec![
            Events::with_data(&self.inbox.kick, KICK, EventSet::IN),
            Events::with_data(&self.inbox.bell, COMMAND, EventSet::IN),
        ];
        events.extend(self.channel.wakeups().iter().map(events_of));
        for event in events {
            if let Err(error) = ops.add(event) {
                self.fail(Fault::host(error));
            }
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            KICK => {
                let _ = self.inbox.kick.read();
                self.channel.slept(self.idle_since.elapsed());
                let progress = self.channel.run();
                self.go_on(progress);
            }
            COMMAND => {
                let _ = self.inbox.bell.read();
                self.obey(ops);
            }
            data => {
                let progress = self.channel.ready(data.saturating_sub(FIRST_TOKEN));
                self.go_on(progress);
                while !self.closed.get()
                    && let Some(completion) = self.channel.poll()
                {
                    self.report(Some(completion));
                }
            }
        }
        self.idle_since = Instant::now();
    }
}

impl Loop {
    fn go_on(&mut self, progress: Result<Progress, Fault>) {
        if let Some(count) = self.channel.wanted_subchannels() {
            self.port.send(News::Subchannels(self.channel.key(), count));
        }
        if let Some(absence) = self.channel.wants_end() {
            self.port.send(News::Ended(self.channel.key(), absence));
        }
        match progress {
            Ok(Progress::Idle) => {}
            // Comes back through the loop, so that commands and back ends have their turn.
            Ok(Progress::More) => {
                let _ = self.inbox.kick.write(1);
            }
            Err(fault) => self.fail(fault),
        }
    }

    fn fail(&self, fault: Fault) {
        self.port.send(News::Failed(self.channel.key(), fault));
    }

    fn obey(&mut self, ops: &mut EventOps<'_>) {
        loop {
            let Some(command) = lock(&self.inbox.commands).pop_front() else {
                return;
            };
            let completion = if matches!(command, Command::Meddle(_)) {
                self.change_wakeups(command, ops)
            } else {
                self.channel.command(command)
            };
            self.report(completion);
        }
    }

    /// Obeys a command after which the channel is woken by others.
    fn change_wakeups(&mut self, command: Command, ops: &mut EventOps<'_>) -> Option<Completion> {
        for wakeup in self.channel.wakeups() {
            if let Err(error) = ops.remove(events_of(&wakeup)) {
                self.fail(Fault::host(error));
            }
        }
        let completion = self.channel.command(command);
        for wakeup in self.channel.wakeups() {
            if let Err(error) = ops.add(events_of(&wakeup)) {
                self.fail(Fault::host(error));
            }
        }
        let _ = self.inbox.kick.write(1);
        completion
    }

    fn report(&self, completion: Option<Completion>) {
        match completion {
            None => {}
            // Told when the channel is dropped.
            Some(Completion::Closed(_)) => self.closed.set(true),
            Some(completion) => self.port.send(News::Completed(completion)),
        }
    }
}
